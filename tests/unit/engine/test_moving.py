"""Consolidation: running work is moved together, and all that is moved lands again."""

from __future__ import annotations

from dataclasses import replace

from engine_invariants import carry_out, plan_checked
from worlds import bound, codes, node, settle, work, world

from heddle.engine import Budget, Evict, Placement, PodSet, QueueSpec, ReasonCode, Reserve, State, render, schedule
from heddle.engine.plan import Plan


def evictions(plan: Plan) -> list[Evict]:
    return [action for action in plan.actions if isinstance(action, Evict)]


def two_halves() -> State:
    """Two nodes of four GPUs, half of each used by preemptible work, the second later."""
    state = world(node("n0", 4), node("n1", 4), a=8)
    for at in range(2):
        state.set_workload(work(f"w{at}", "a", 1, 2, created=float(at)))
        state.bind(Placement(f"w{at}", "main", "t0", f"n{at}", ("g0", "g1")), 5.0 * at)
    return state


def test_the_newer_of_two_moves_and_its_new_place_is_kept_for_it() -> None:
    state = two_halves()
    state.set_workload(work("large", "a", 1, 4, created=2))
    plan = plan_checked(state, 10.0)
    [moved] = evictions(plan)
    assert (moved.workload, moved.reason.code, moved.reason.beneficiary) == ("w1", ReasonCode.MOVED, "large")
    assert render(moved.reason) == "moved to another place, which is kept for it, so that large of queue a fits"
    kept = {a.workload: [p.node for p in a.placements] for a in plan.actions if isinstance(a, Reserve)}
    assert kept == {"w1": ["n0"], "large": ["n1"]}
    carry_out(state, plan, 10.0, release=False)
    assert not schedule(state, 11.0).actions, "while work moves nothing else happens"
    state.release_task("w1", "t0")
    done = plan_checked(state, 12.0)
    assert sorted((name, at) for name, at, _ in bound(done)) == [("large", "n1"), ("w1", "n0")]


def test_moving_has_its_own_budget() -> None:
    state = two_halves()
    state.set_workload(work("large", "a", 1, 4, created=2))
    plan = schedule(state, 10.0, Budget(moves=0))
    assert plan.actions == ()
    assert "NoRoom" in codes(plan, "large")


def test_work_that_is_not_preemptible_is_not_moved() -> None:
    state = two_halves()
    for name in ("w0", "w1"):
        spec = state.works[name].spec
        state.set_workload(work(name, "a", 1, 2, preemptible=False, created=spec.created))
    state.set_workload(work("large", "a", 1, 4, created=2))
    assert plan_checked(state, 10.0).actions == ()


def test_nobody_moves_for_a_claim_that_a_cap_stops() -> None:
    state = two_halves()
    state.set_queue(QueueSpec("a", limit={"gpu": 7000}))
    state.set_workload(work("large", "a", 1, 4, created=2))
    assert plan_checked(state, 10.0).actions == ()


def test_room_is_gathered_for_a_gang_on_several_nodes() -> None:
    state = world(*(node(f"n{at}", 4) for at in range(4)), a=16)
    for at in range(4):
        state.set_workload(work(f"w{at}", "a", 1, 2, created=float(at)))
        state.bind(Placement(f"w{at}", "main", "t0", f"n{at}", ("g0", "g1")))
    state.set_workload(work("gang", "a", 2, 4, created=9))
    plan = plan_checked(state, 10.0)
    assert len(evictions(plan)) == 2
    assert {a.reason.code for a in evictions(plan)} == {ReasonCode.MOVED}
    settle(state, plan)
    settle(state, plan_checked(state, 11.0))
    assert all(not any(w.pending) for w in state.works.values())


def test_a_gang_below_its_minimum_is_not_moved() -> None:
    """What is promised to a broken gang is dropped, as it could not start: it would land nowhere."""
    state = two_halves()
    whole = work("w1", "a", 1, 2, created=1.0)
    lacks = PodSet("lost", ("t1",), 1, {}, 8000)
    state.set_workload(replace(whole, pod_sets=(*whole.pod_sets, lacks)))
    state.set_workload(work("w0", "a", 1, 2, created=0.0, movable=False))
    state.set_workload(work("large", "a", 1, 4, created=2.0))
    assert not evictions(schedule(state, 10.0))
    state.set_workload(whole)
    assert len(evictions(schedule(state, 10.0))) == 1
