"""Virtual time, worked out by hand on clusters of a few GPUs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from heddle.engine import Ageing, Device, NodeSpec, QueueSpec
from heddle.simulator import clusters, sources
from heddle.simulator.events import NodeComes, NodeFails, QueueChanges, failures
from heddle.simulator.jobs import Job
from heddle.simulator.measures import figures, jain, spread
from heddle.simulator.policies import POLICIES, policy
from heddle.simulator.world import World


def nodes(count: int, gpus: int = 4) -> list[NodeSpec]:
    return [NodeSpec(f"n{at}", {"cpu": 64_000}, tuple(Device(f"g{d}", d) for d in range(gpus))) for at in range(count)]


def job(name: str, submit: float, duration: float, gpus: int = 1, **more: object) -> Job:
    return Job(name, submit, duration, gpu=gpus * 1000, **more)  # type: ignore[arg-type]


def run(jobs: list[Job], name: str = "best-effort", count: int = 1, **more: object) -> World:
    world = World(nodes(count), jobs, policy(name), **more)  # type: ignore[arg-type]
    world.run()
    return world


def starts(world: World) -> dict[str, float | None]:
    return {name: record.first for name, record in world.records.items()}


def test_jobs_start_when_others_end() -> None:
    world = run([job("a", 0, 100, 4), job("b", 10, 50, 2), job("c", 20, 50, 2), job("d", 30, 5, 4)])
    assert starts(world) == {"a": 0, "b": 100, "c": 100, "d": 150}
    assert {name: record.end for name, record in world.records.items()} == {"a": 100, "b": 150, "c": 150, "d": 155}
    found = figures(world)
    assert found["utilisation"] == round((400 + 100 + 100 + 20) / (155 * 4), 6)
    assert found["makespan"] == 155
    assert found["wait"]["mean"] == (0 + 90 + 80 + 120) / 4


def test_who_may_pass_is_what_makes_the_policies_differ() -> None:
    # b needs all 4; c and d fit beside a. c ends before a does, d does not
    jobs = [job("a", 0, 100, 2), job("b", 1, 10, 4), job("c", 2, 50, 1), job("d", 3, 500, 1)]
    assert starts(run(jobs, "fifo")) == {"a": 0, "b": 100, "c": 110, "d": 110}
    assert starts(run(jobs, "best-effort")) == {"a": 0, "b": 503, "c": 2, "d": 3}
    assert starts(run(jobs, "easy")) == {"a": 0, "b": 100, "c": 2, "d": 110}
    assert starts(run([job("a", 0, 100, 4), job("l", 1, 90, 4), job("s", 2, 10, 4)], "sjf")) == {
        "a": 0,
        "l": 110,
        "s": 100,
    }


def test_the_shortest_takes_the_place_of_who_has_more_left() -> None:
    world = run([job("long", 0, 100, 4, checkpoint=10), job("short", 35, 20, 4)], "srtf")
    assert starts(world) == {"long": 0, "short": 35}
    record = world.records["long"]
    assert (record.evictions, record.end) == (1, 35 + 20 + 70)  # 5 of the 35 seconds were not saved
    assert record.lost == 5 * 4
    # who has less left than the newcomer stays
    assert starts(run([job("long", 0, 100, 4), job("short", 85, 20, 4)], "srtf")) == {"long": 0, "short": 100}


def test_least_attained_service_goes_first() -> None:
    # after 3,250 GPU-seconds the first falls a level; who arrives then takes its place
    world = run([job("old", 0, 5000, 4, checkpoint=1), job("new", 900, 100, 4)], "tiresias")
    assert starts(world) == {"old": 0, "new": 900}
    assert starts(run([job("old", 0, 5000, 4), job("new", 700, 100, 4)], "tiresias"))["new"] == 3250 / 4


def test_a_level_that_is_due_comes_though_sums_are_not_exact() -> None:
    there = clusters.parse("6x8xH100")
    work = "synthetic:jobs=200,load=1.2,gpus=1|2|4|8,duration=1h,queues=a|b,seed=4"
    trace = sources.read(work, node_gpus=8, capacity=there.gpus)
    world = World(there.nodes, trace.jobs, policy("tiresias"))
    world.run()
    assert {record.outcome for record in world.records.values()} == {"done"}


def test_a_restart_costs_what_was_not_saved_and_its_own_time() -> None:
    events = [NodeFails(25, "n0"), NodeComes(60, name="n0")]
    world = run([job("a", 0, 100, 4, checkpoint=10, restart=7)], events=events)
    assert world.records["a"].end == 60 + 80 + 7
    assert figures(world)["gpu_hours"]["lost"] == round(5 * 4 / 3600, 6)
    assert figures(world)["gpu_hours"]["there"] == round((147 - 35) * 4 / 3600, 6)


def test_an_elastic_job_runs_slower_with_fewer_tasks() -> None:
    tasks = Job("e", 0, 100, tasks=4, least=1)
    world = run([job("a", 0, 50, 2), tasks])
    assert starts(world) == {"a": 0, "e": 0}
    assert world.records["e"].end == 50 + 75  # half speed for 50 s
    slower = run([job("a", 0, 50, 2), replace(tasks, speedup=2.0)])
    assert slower.records["e"].end == pytest.approx(50 + 100 - 50 / 4)


def test_a_job_runs_by_the_speed_of_the_gpus_that_it_gets() -> None:
    machines = [NodeSpec(name, {}, (Device("g0", 0, model),)) for name, model in (("n0", "H100"), ("n1", "A100"))]
    speeds = (("H100", 2.0), ("A100", 0.5))
    jobs = [
        job(name, at, 100, speeds=speeds, walltime=limit) for at, (name, limit) in enumerate([("a", 200), ("b", 50)])
    ]
    world = World(machines, jobs, policy("best-effort"))
    world.run()
    told = {name: (record.first, record.end, record.outcome) for name, record in world.records.items()}
    assert told == {"a": (0, 50, "done"), "b": (1, 101, "timed out")}  # the faster one first; b is cut off at 50 / 0.5
    assert World(machines, [job("c", 0, 100, speeds=(("A100", 0.5),))], policy("easy")).run()


def test_a_walltime_ends_a_job_and_a_user_gives_up() -> None:
    world = run([job("a", 0, 100, 4, walltime=60), job("b", 1, 10, 4, cancel=30), job("c", 2, 10, 4)])
    assert {n: (r.outcome, r.end) for n, r in world.records.items()} == {
        "a": ("timed out", 60),
        "b": ("cancelled", 30),
        "c": ("done", 70),
    }


def test_a_queue_changes_at_its_time() -> None:
    jobs = [job("a", 0, 100, 1, queue="q"), job("b", 0, 100, 1, queue="q")]
    queues = [QueueSpec("q", limit={"gpu": 1000})]
    assert starts(run(jobs, queues=queues)) == {"a": 0, "b": 100}
    assert starts(run(jobs, queues=queues, events=[QueueChanges(40, QueueSpec("q"))])) == {"a": 0, "b": 40}


def test_with_an_interval_all_that_happens_in_it_is_heard_together() -> None:
    world = run([job("a", 1, 10), job("b", 2, 10), job("c", 11, 1)], interval=5.0)
    assert starts(world) == {"a": 5, "b": 5, "c": 15}
    assert world.cycles < 6


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_serves_everybody_and_gives_the_same_twice(name: str) -> None:
    jobs = [
        job(f"j{at:03}", at * 7 % 90, 20 + at * 13 % 300, 1 + at % 4, queue=f"q{at % 3}", walltime=400, checkpoint=30)
        for at in range(60)
    ]
    first, second = (run(jobs, name, count=2) for _ in range(2))
    assert {record.outcome for record in first.records.values()} == {"done"}
    used = math.fsum(record.used for record in first.records.values())
    assert used == pytest.approx(first.course.used)
    assert used == pytest.approx(math.fsum(first.course.by_queue.values()))
    work = math.fsum(record.job.duration * record.job.gpus + record.lost for record in first.records.values())
    assert used == pytest.approx(work)
    assert json.dumps(figures(first)) == json.dumps(figures(second))


def test_failures_come_from_their_seed() -> None:
    drawn = failures(nodes(3), 1e5, mean_between=1e4, mean_repair=1e3, seed=1)
    assert drawn == failures(nodes(3), 1e5, mean_between=1e4, mean_repair=1e3, seed=1)
    assert drawn != failures(nodes(3), 1e5, mean_between=1e4, mean_repair=1e3, seed=2)
    world = run([job(f"j{at}", at * 500, 2000, 4, checkpoint=100) for at in range(40)], count=3, events=drawn)
    assert {record.outcome for record in world.records.values()} == {"done"}
    assert sum(record.evictions for record in world.records.values()) > 0


def test_figures() -> None:
    assert spread([]) is None
    assert spread(range(1, 101)) == {"mean": 50.5, "p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert jain([1, 1, 1]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([0, 0]) is None


def test_each_gang_that_is_short_of_a_member_has_a_grace_of_its_own() -> None:
    large = [replace(node, name=f"large-{node.name}") for node in nodes(2, 8)]
    gangs = [job("a", 0, 5000, 4, tasks=2), job("b", 1, 5000, 8, tasks=2)]
    failing = [NodeFails(100, "n1"), NodeFails(130, "large-n1")]
    world = World([*nodes(2), *large], gangs, policy("heddle-pack"), events=failing)
    alone: dict[str, float] = {}

    def watch(world: World) -> bool:
        for name in "ab":
            if world.now >= 100 and not any(world.state.works[name].bound):
                alone.setdefault(name, world.now)
        return world.now < 1000

    world.run(watch, until=1000)
    assert alone == {"a": 160, "b": 190}


def test_age_counts_between_events_as_it_does_live() -> None:
    # the line is strict: big is first until small, with a higher priority, is as old as age counts for big
    queue = QueueSpec("default", quota={"gpu": None}, ordering="StrictFIFO", ageing=Ageing(10.0, 5))
    jobs = [job("a", 0, 1000, 2), job("big", 1, 50, 4), job("small", 100, 50, 2, priority=3)]
    world = World(nodes(1), jobs, policy("heddle"), queues=(queue,))
    world.run()
    small = starts(world)["small"]
    assert small is not None
    assert 120 <= small < 141
    assert starts(world)["big"] == 1000
