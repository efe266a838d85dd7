"""Draining for a claim that waited for long: without known ends it starves, with a patience that ends it does not."""

from __future__ import annotations

import random

from worlds import node, runs, settle, victims, work, world

from heddle.engine import QueueSpec, ReasonCode, State, render, schedule


def start_of_gang(drain_after: float | None, seed: int) -> int | None:
    """When a gang of two whole nodes of four starts that comes at 10 beside single-GPU work without walltimes, of
    which there is always some waiting and none runs for more than 30; None = not within 500."""
    draw = random.Random(seed)
    state = world(*(node(f"n{at}") for at in range(4)))
    state.set_queue(QueueSpec("q", quota={"gpu": 16000}, drain_after=drain_after))
    ends: dict[str, float] = {}
    made = 0
    for now in range(500):
        for name in [name for name, end in ends.items() if end <= now]:
            state.remove_workload(name)
            del ends[name]
        while len(waiting(state, ends)) < 5:
            state.set_workload(work(f"x/s{made:05}", "q", created=now, preemptible=False, priority=1))
            made += 1
        if now == 10:
            state.set_workload(work("x/gang", "q", 2, 4, created=10, preemptible=False, priority=1))
        plan = schedule(state, now)
        assert not victims(plan)
        settle(state, plan, now=now)
        if now >= 10 and runs(state, "x/gang"):
            return now
        for name in state.works:
            if name != "x/gang" and name not in ends and runs(state, name):
                ends[name] = now + draw.uniform(2, 30)
    return None


def waiting(state: State, running: dict[str, float]) -> list[str]:
    return [name for name in state.works if name != "x/gang" and name not in running]


def test_a_gang_starves_without_and_starts_soon_after_its_patience_ends() -> None:
    for seed in range(3):
        assert start_of_gang(None, seed) is None
        for patience in (0, 50):
            started = start_of_gang(patience, seed)
            assert started is not None
            assert started <= 10 + patience + 35  # what ran then, and what was before it in line, has ended


def test_what_drains_says_so_and_so_does_who_must_keep_off() -> None:
    state = world(node("n0", host="n0"), node("n1", host="n1"), node("n2", host="n2"))
    state.set_queue(QueueSpec("q", quota={"gpu": 12000}, drain_after=60))
    for at in range(3):
        state.set_workload(work(f"x/r{at}", "q", selector={"host": f"n{at}"}, preemptible=False))
        settle(state, schedule(state, 100 + at), now=100 + at)
    state.set_workload(work("x/gang", "q", 2, 4, created=110, preemptible=False))
    plan = schedule(state, 169)
    assert plan.again_at == 170
    assert ReasonCode.DRAINING not in {r.code for r in plan.verdicts["x/gang"].reasons}

    plan = schedule(state, 170)
    assert not plan.actions, "nobody is made to leave"
    (said,) = [r for r in plan.verdicts["x/gang"].reasons if r.code is ReasonCode.DRAINING]
    assert [name for name, _ in said.holders] == ["n1", "n2"], "where the youngest run"
    assert "n1, n2" in render(said)

    for at in range(5):
        state.set_workload(work(f"x/new{at}", "q", created=171 + at, preemptible=False))
    state.set_workload(work("x/short", "q", created=180, walltime=5.0, preemptible=False))
    plan = schedule(state, 180)
    settle(state, plan, now=180)
    assert [runs(state, f"x/new{at}") for at in range(5)] == [1, 1, 1, 0, 0], "n0 has three free, the others none"
    (kept,) = plan.verdicts["x/new3"].reasons
    assert (kept.code, kept.beneficiary) == (ReasonCode.KEPT_FOR_OTHERS, "x/gang")
    assert not runs(state, "x/short"), "nobody knows that its five seconds are free"

    state.remove_workload("x/r1")
    state.remove_workload("x/r2")
    settle(state, schedule(state, 200), now=200)
    assert runs(state, "x/gang") == 2


def test_who_is_above_its_share_drains_nothing() -> None:
    state = world(node("n0"), node("n1"))
    state.set_queue(QueueSpec("lent", quota={"gpu": 0}, weight=0, drain_after=0))
    state.set_queue(QueueSpec("q", quota={"gpu": 8000}))
    for at in range(2):
        state.set_workload(work(f"x/r{at}", "q", 1, 3, preemptible=False))
    settle(state, schedule(state, 100), now=100)
    state.set_workload(work("x/gang", "lent", 2, 4, created=50))
    state.set_workload(work("x/small", "q", created=101))
    settle(state, schedule(state, 200), now=200)
    assert runs(state, "x/small") == 1


def test_the_queue_above_says_it_for_those_that_say_nothing() -> None:
    state = world(node("n0"))
    state.set_queue(QueueSpec("top", quota={"gpu": 4000}, drain_after=30))
    state.set_queue(QueueSpec("q", "top", quota={"gpu": 4000}))
    state.set_workload(work("x/r", "q", preemptible=False))
    settle(state, schedule(state, 0), now=0)
    state.set_workload(work("x/gang", "q", 1, 4, created=0, preemptible=False))
    state.set_workload(work("x/small", "q", created=1, preemptible=False))
    assert schedule(state, 29).actions, "before its patience ends nothing is kept"
    plan = schedule(state, 30)
    assert not plan.actions
    assert ReasonCode.DRAINING in {r.code for r in plan.verdicts["x/gang"].reasons}
