"""Room kept ahead of time against known ends, and what is foreseen from them."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from engine_invariants import check_state, plan_checked
from worlds import bound, codes, node, settle, work, world

from heddle.engine import Budget, QueueSpec, State, WorkloadSpec, expect, expect_all, render, schedule
from heddle.engine.plan import Bind
from heddle.engine.reasons import moment


def start(state: State, spec: WorkloadSpec, now: float = 0.0) -> None:
    """Submits and starts one workload, which must find room."""
    state.set_workload(spec)
    for action in schedule(state, now).actions:
        state.apply(action, now)
    assert not any(state.works[spec.name].pending), f"{spec.name} does not start"


def test_a_short_job_fills_the_hole_and_a_long_one_waits() -> None:
    state = world(node("n0", 4), node("n1", 4), a=None)
    start(state, work("runs", "a", 1, 4, walltime=600, preemptible=False))
    state.set_workload(work("large", "a", 2, 4, priority=5, walltime=600))
    state.set_workload(work("long", "a", 1, 1, walltime=601, created=1))
    state.set_workload(work("short", "a", 1, 1, walltime=600, created=2))
    state.set_workload(work("endless", "a", 1, 1, created=3))
    plan = plan_checked(state, 0.0)
    assert [name for name, _, _ in bound(plan)] == ["short"]
    assert codes(plan, "long")[0] == codes(plan, "endless")[0] == "KeptForOthers"
    assert "RoomKept" in codes(plan, "large")
    said = " ".join(render(reason) for reason in plan.verdicts["long"].reasons)
    assert said == (
        "it fits, but would delay large, for which room is kept from 600 s on; "
        "with a walltime that ends by then it would start now"
    )


def test_without_walltimes_nothing_is_withheld() -> None:
    state = world(node("n0", 4), node("n1", 4), a=None)
    start(state, work("runs", "a", 1, 4, preemptible=False))
    state.set_workload(work("large", "a", 2, 4, priority=5, walltime=600))
    state.set_workload(work("endless", "a", 1, 1, created=1))
    assert [name for name, _, _ in bound(plan_checked(state, 0.0))] == ["endless"]


def test_room_that_the_large_job_will_not_need_is_used_by_long_ones() -> None:
    state = world(node("n0", 4), node("n1", 4), a=None)
    start(state, work("runs", "a", 1, 4, walltime=600, preemptible=False))
    start(state, work("small", "a", 1, 1, preemptible=False))
    state.set_workload(work("large", "a", 1, 4, priority=5, walltime=600))
    state.set_workload(work("endless", "a", 3, 1, created=1))
    plan = plan_checked(state, 0.0)
    assert {name for name, _, _ in bound(plan)} == {"endless"}
    assert {at for _, at, _ in bound(plan)} == {"n1"}


def test_the_room_kept_is_counted_by_device_for_shares() -> None:
    state = world(node("n0", 2), a=None)
    start(state, work("runs", "a", 1, 1, walltime=100, preemptible=False))
    start(state, work("half", "a", 1, 0.5, walltime=1000, preemptible=False))
    state.set_workload(work("whole", "a", 1, 1, priority=5, walltime=600))
    state.set_workload(work("other", "a", 1, 0.5, created=1))
    state.set_workload(work("third", "a", 1, 0.5, created=2))
    plan = plan_checked(state, 0.0)
    # "whole" gets the device of "runs"; the second half of the other one is nobody's
    assert [name for name, _, _ in bound(plan)] == ["other"]
    assert bound(plan)[0][2] == ("g1",)


def test_a_limit_is_kept_free_for_the_one_who_waits_for_it() -> None:
    state = world(node("n0", 8))
    state.set_queue(QueueSpec("top", limit={"gpu": 5000}))
    state.set_queue(QueueSpec("a", "top", {"gpu": 0}, priority=1))
    state.set_queue(QueueSpec("b", "top", {"gpu": 0}))
    start(state, work("runs", "a", 1, 2, walltime=100))
    start(state, work("stays", "b", 1, 1))
    state.set_workload(work("large", "a", 1, 4, walltime=600))
    state.set_workload(work("long", "b", 1, 1, walltime=200))
    state.set_workload(work("short", "b", 1, 1, walltime=100, created=1))
    plan = plan_checked(state, 0.0)
    assert [name for name, _, _ in bound(plan)] == ["short"]


def test_a_required_rack_is_kept_whole() -> None:
    nodes = [node(f"n{at}", 4, zone="z", rack=f"r{at // 2}") for at in range(4)]
    state = world(*nodes, a=None)
    start(state, work("r0", "a", 1, 4, walltime=100, preemptible=False))
    start(state, work("r1", "a", 2, 4, topology_required="rack", preemptible=False))  # fills the other rack
    state.set_workload(work("gang", "a", 2, 4, topology_required="rack", priority=5))
    state.set_workload(work("endless", "a", 1, 1, created=1))
    plan = plan_checked(state, 0.0)
    assert bound(plan) == []
    assert codes(plan, "endless") == ["KeptForOthers"]


def test_overdue_work_is_awaited_for_a_while_only() -> None:
    state = world(node("n0", 4), node("n1", 4), a=None)
    start(state, work("runs", "a", 1, 4, walltime=100, preemptible=False))
    state.set_workload(work("large", "a", 2, 4, priority=5))
    state.set_workload(work("endless", "a", 1, 1, created=1))
    assert bound(plan_checked(state, 130.0)) == []
    assert [name for name, _, _ in bound(plan_checked(state, 161.0))] == ["endless"]


def test_keeping_room_can_be_turned_off() -> None:
    state = world(node("n0", 4), node("n1", 4), a=None)
    start(state, work("runs", "a", 1, 4, walltime=100, preemptible=False))
    state.set_workload(work("large", "a", 2, 4, priority=5))
    state.set_workload(work("endless", "a", 1, 1, created=1))
    plan = schedule(state, 0.0, Budget(shadows=0))
    assert [name for name, _, _ in bound(plan)] == ["endless"]


def test_an_expected_start_names_what_ends_and_what_it_assumes() -> None:
    state = world(node("n0", 4), a=None)
    start(state, work("runs", "a", 1, 4, walltime=600, preemptible=False))
    state.set_workload(work("next", "a", 1, 4, walltime=60))
    state.set_workload(work("last", "a", 1, 4, created=1))
    found = expect_all(state, 100.0, ["next", "last"])
    assert found["next"].start == 600
    assert render(found["next"].reason) == "expected to start at 600 s, after runs"
    assert found["last"].start == 660
    assert [str(reason.code) for reason in found["last"].assumptions] == [
        "AssumesNoArrivals", "AssumesWalltimes", "AssumesEndless",
    ]  # fmt: skip
    state.set_workload(work("never", "a", 1, 4, created=2))
    never = expect(state, 100.0, "never")
    assert never.start is None
    assert "1 running workload has no walltime" in render(never.reason)


def test_a_walltime_must_be_more_than_nothing() -> None:
    with pytest.raises(ValueError, match=r"workload\.walltime: 0 is not valid; give more than 0 seconds"):
        work("w", "a", walltime=0)


def crowd(draw: random.Random) -> State:
    """A crowded world in which every walltime is known."""
    state = world(*(node(f"n{at}", draw.choice([2, 4]), rack=f"r{at // 2}", zone="z") for at in range(4)))
    for name in ("a", "b"):
        state.set_queue(QueueSpec(name, quota={"gpu": draw.choice([0, 4000, 8000])}))
    for at in range(draw.randint(8, 16)):
        gang = draw.choice([1, 1, 2, 3])
        state.set_workload(
            work(
                f"w{at:02}", draw.choice("ab"), gang, draw.choice([0.5, 1, 2]),
                priority=draw.randint(0, 2), created=float(at), walltime=draw.choice([50, 100, 100, 300]),
                preemptible=draw.random() < 0.8, topology_required=draw.choice([None, None, "rack"]),
            )
        )  # fmt: skip
    return state


@pytest.mark.parametrize("seed", range(30))
def test_with_exact_walltimes_the_expected_start_is_the_start(seed: int) -> None:
    state = crowd(random.Random(seed))
    least = (0.0, 35.0)[seed // 20]  # the second half with minimum runtimes: their ends are moments too
    for queue in [found.spec for found in state.tree.queues.values()]:
        state.set_queue(replace(queue, preempt_min_runtime=least, reclaim_min_runtime=2 * least))
    for action in schedule(state, 0.0).actions:
        state.apply(action, 0.0)
    for at in range(3 if least else 0):  # who may preempt what has only just started
        state.set_workload(work(f"x{at}", "ab"[at % 2], 1, 2, priority=3, created=99.0 + at, walltime=100))
    waiting = sorted(name for name, w in state.works.items() if not any(w.bound))
    foreseen = expect_all(state, 0.0, waiting)
    starts: dict[str, float] = {}
    now = 0.0
    for _ in range(400):  # an independent walk: real releases, one moment after the other
        for _ in range(16):
            plan = plan_checked(state, now)
            settle(state, plan, now=now)
            if not plan.actions:
                break
        check_state(state)
        for name in waiting:
            if name in state.works and any(state.works[name].bound):
                starts.setdefault(name, now)
        running = [
            (min(t.since for t in w.tasks.values() if t.row >= 0) + w.spec.walltime, name)
            for name, w in state.works.items()
            if any(w.bound) and w.spec.walltime is not None
        ]
        if not running:
            break
        began = {task.since for work in state.works.values() for task in work.tasks.values() if task.row >= 0}
        safe = [since + length for since in began for length in (least, 2 * least) if since + length > now]
        now = min([end for end, _ in running] + safe)
        for end, name in running:
            if end == now:
                state.remove_workload(name)
    assert {name: found.start for name, found in foreseen.items() if found.start is not None} == starts


@pytest.mark.parametrize("seed", range(20))
def test_the_one_for_whom_room_is_kept_is_not_delayed_by_those_who_come_later(seed: int) -> None:
    draw = random.Random(1000 + seed)
    state = world(*(node(f"n{at}", 4, rack="r", zone="z") for at in range(3)), a=None)
    for at in range(4):
        start_if_room(
            state,
            work(f"runs{at}", "a", 1, draw.choice([1, 2, 3]), walltime=draw.choice([100, 200, 300]), preemptible=False),
        )
    state.set_workload(work("large", "a", 3, 4, priority=9, preemptible=False))
    if bound(schedule(state, 0.0)):
        pytest.skip("this seed leaves room for the large job at once")
    promised = expect(state, 0.0, "large").start
    assert promised is not None
    now, made = 0.0, 0
    while now < promised:
        for _ in range(draw.randint(0, 3)):
            made += 1
            wall = draw.choice([None, 50, 150, 400])
            state.set_workload(work(f"later{made}", "a", 1, draw.choice([0.5, 1, 2]), created=float(made),
                                    preemptible=False, walltime=wall))  # fmt: skip
        settle(state, plan_checked(state, now), now=now)
        now = min(now + 25, promised)
        for end, name in list(state.lines.ends):
            if end <= now:
                state.remove_workload(name)
    plan = plan_checked(state, now)
    assert "large" in {a.placement.workload for a in plan.actions if isinstance(a, Bind)}


def start_if_room(state: State, spec: WorkloadSpec) -> None:
    state.set_workload(spec)
    if not bound(schedule(state, 0.0)):
        state.remove_workload(spec.name)
        return
    settle(state, schedule(state, 0.0))


@pytest.mark.parametrize(
    "at", [1_000_000_000, 1_582_934_400, 1_583_020_799, 1_709_164_800, 4_107_542_399, 1_767_225_599]
)
def test_moments_are_written_as_the_calendar_has_them(at: int) -> None:
    assert moment(at) == datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def test_moments_of_a_clock_that_starts_at_nought_are_seconds() -> None:
    assert moment(90.5) == "90.5 s"
