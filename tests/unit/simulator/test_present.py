"""A simulation that goes on from a live heddle's world, worked out by hand and beside one that was never cut in two."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from heddle.engine import (
    Ageing,
    Device,
    NodeSpec,
    Placement,
    PodSet,
    QueueSpec,
    Snapshot,
    State,
    TaskFact,
    WorkloadSpec,
)
from heddle.simulator import clusters, present, sources
from heddle.simulator.jobs import Job
from heddle.simulator.outlook import Figures, outlook
from heddle.simulator.policies import policy
from heddle.simulator.snapshot import Recorded, dump, load
from heddle.simulator.world import World

NODES = tuple(NodeSpec(f"n{at}", {}, tuple(Device(f"g{d}", d) for d in range(4))) for at in range(2))
QUEUES = (QueueSpec("q", quota={"gpu": None}),)


def work(name: str, gpus: int = 4, tasks: int = 1, **more: object) -> WorkloadSpec:
    pods = PodSet("main", tuple(f"{name}-{at}" for at in range(tasks)), tasks, gpu=gpus * 1000)
    return WorkloadSpec(name, "q", (pods,), **more)  # type: ignore[arg-type]


def on(name: str, node: str, since: float, *, at: int = 0, gpus: int = 4, releasing: bool = False) -> TaskFact:
    place = Placement(name, "main", f"{name}-{at}", node, tuple(f"g{d}" for d in range(gpus)))
    return TaskFact(place, since, releasing)


def world(*works: WorkloadSpec, tasks: tuple[TaskFact, ...] = (), **more: object) -> Recorded:
    return Recorded(Snapshot((), NODES, QUEUES, works, tasks, {}, **more), 1000.0)  # type: ignore[arg-type]


def rows(recorded: Recorded, *jobs: Job, assumed: float | None = None, nodes: int = 0) -> dict[str, Figures]:
    now = present.of(load(dump(recorded)), assumed)
    there = clusters.of_snapshot("here", now.snapshot)
    found = outlook(there.grown(nodes) if nodes else there, now, jobs)
    return {row["name"]: row for row in found["jobs"]}


def starts(found: dict[str, Figures]) -> dict[str, float | None]:
    return {name: row["start"] for name, row in found.items()}


BUSY = world(
    work("a", walltime=300.0, created=1.0),
    work("b", created=2.0),
    work("c", created=3.0, walltime=50.0),
    work("d", tasks=2, created=4.0),
    tasks=(on("a", "n0", 900), on("b", "n1", 950)),
)


def test_what_runs_goes_on_and_what_waits_starts_at_known_ends() -> None:
    found = rows(BUSY)
    assert starts(found) == {"a": -100, "b": -50, "c": 200, "d": None}
    assert [found[name]["end"] for name in "abcd"] == [200, None, 250, None]
    assert [found[name]["state"] for name in "abcd"] == ["running", "running", "waiting", "waiting"]


def test_work_without_a_walltime_ends_when_it_is_taken_to() -> None:
    found = rows(BUSY, assumed=400)
    assert starts(found) == {"a": -100, "b": -50, "c": 200, "d": 400}
    assert [found[name]["end"] for name in "abcd"] == [200, 400, 250, 800]


def test_more_nodes_and_jobs_on_top() -> None:
    assert starts(rows(BUSY, nodes=1))["c"] == 0
    found = rows(BUSY, Job("new", 1010.0, 20.0, gpu=4000, queue="q", walltime=20.0), nodes=1)
    assert (starts(found)["new"], found["new"]["state"], found["new"]["end"]) == (50, "new", 70)
    with pytest.raises(ValueError, match="give each its own"):
        rows(BUSY, Job("a", 1010.0, 20.0, queue="q"))


def test_who_should_have_ended_ends_at_once_and_who_was_leaving_has_left() -> None:
    late = world(work("a", walltime=10.0), work("b", created=5), tasks=(on("a", "n0", 900), on("b", "n1", 950)))
    assert rows(late)["a"]["end"] == 0
    leaving = world(work("a"), work("b"), work("c"), tasks=(on("a", "n0", 900), on("b", "n1", 950, releasing=True)))
    found = starts(rows(leaving))
    assert found["a"] == -100
    assert {found["b"], found["c"]} == {0, None}


def test_a_gang_that_lost_a_member_waits_for_another_for_its_grace() -> None:
    gang = work("gang", tasks=2, broken_since=990.0, gang_grace=30.0)
    torn = world(gang, work("a"), work("b", created=9), tasks=(on("gang", "n0", 800), on("a", "n1", 900)))
    found = rows(torn)
    assert starts(found)["b"] == 20, "its node is free when the grace is over"
    assert found["gang"]["outcome"] == "waiting"


def test_several_pod_sets_work_once_each_has_its_minimum() -> None:
    sets = (PodSet("lead", ("l",), 1, gpu=1000), PodSet("main", ("x", "y", "z"), 1, gpu=2000, after=("lead",)))
    spec = WorkloadSpec("w", "q", sets, walltime=10.0)
    found = rows(world(spec))
    assert found["w"]["gpus"] == 7
    assert (starts(found)["w"], found["w"]["end"]) == (0, 10)


def test_what_is_kept_for_somebody_stays_kept() -> None:
    kept = {"c": (Placement("c", "main", "c-0", "n1", ("g0", "g1", "g2", "g3")),)}
    works = (work("a"), work("b", created=1.0), work("c", created=2.0))
    recorded = Recorded(Snapshot((), NODES, QUEUES, works, (on("a", "n0", 900),), kept), 1000.0)
    assert starts(rows(recorded)) == {"a": -100, "b": None, "c": 0}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("queues", ["a", "a|b"])
def test_a_course_that_is_cut_in_two_is_the_same(seed: int, queues: str) -> None:
    there = clusters.parse("4x8xH100")
    made = sources.read(
        f"synthetic:jobs=120,load=1.3,gpus=1|2|4|8|16,duration=1h,queues={queues},seed={seed}", capacity=32
    )
    jobs = [replace(job, walltime=job.duration) for job in made.jobs]
    half = QueueSpec("a", quota={"gpu": 16_000}, usage_half_life=3600.0, ageing=Ageing(3600.0, 5))
    whole = World(there.nodes, jobs, policy("heddle"), queues=(half,))
    whole.run()
    cut = jobs[70].submit + 1
    first = World(there.nodes, jobs, policy("heddle"), queues=(half,))
    first.run(until=cut)
    now = present.of(Recorded(first.state.snapshot(), cut))
    assert any(record.outcome == "waiting" for record in first.records.values())
    later = World(
        there.nodes,
        [job for job in jobs if job.submit > cut],
        policy("heddle"),
        queues=now.snapshot.queues,
        present=now,
    )
    later.run()
    assert {name: (r.since, r.end) for name, r in later.records.items()} == {
        name: (whole.records[name].since, whole.records[name].end) for name in later.records
    }


def test_the_state_that_goes_on_is_the_one_that_was_written() -> None:
    now = present.of(BUSY)
    taken = World(NODES, (), policy("heddle"), queues=QUEUES, present=now)
    assert taken.state.snapshot() == State.rebuild(BUSY.snapshot).snapshot()
    assert taken.now == 1000
    assert math.isinf(taken.records["b"].left())
