"""Minimum runtime: who has just started keeps its minimum for as long as its queue says."""

from __future__ import annotations

import pytest
from worlds import bound, codes, node, settle, work, world

from heddle.engine import Evict, Forward, Plan, QueueSpec, ReasonCode, State, expect, render, schedule


def victims(plan: Plan) -> list[str]:
    return [action.workload for action in plan.actions if isinstance(action, Evict)]


def one_runs(gpus: int = 2, **fields: object) -> State:
    """A node full of work of low priority that started at 100, in a queue with these fields."""
    state = world(node("n0", gpus))
    state.set_queue(QueueSpec("a", quota={"gpu": 1000 * gpus}, **fields))  # type: ignore[arg-type]
    state.set_workload(work("x/low", "a", 1, gpus))
    settle(state, schedule(state, 100), now=100)
    return state


def test_work_is_not_preempted_before_its_minimum_runtime_and_is_at_that_moment() -> None:
    state = one_runs(preempt_min_runtime=60)
    state.set_workload(work("x/high", "a", priority=1))
    plan = schedule(state, 159)
    assert not plan.actions
    assert plan.again_at == 160
    (said,) = [r for r in plan.verdicts["x/high"].reasons if r.code is ReasonCode.WITHIN_MIN_RUNTIME]
    assert (said.at, said.holders) == (160, (("x/low", 2000),))
    assert "x/low" in render(said)
    assert "160 s" in render(said)
    plan = schedule(state, 160)
    assert victims(plan) == ["x/low"]
    assert plan.again_at is None


def test_preemption_and_reclaim_have_times_of_their_own() -> None:
    state = world(node("n0", 2))
    state.set_queue(QueueSpec("a", quota={"gpu": 0}, reclaim_min_runtime=60))
    state.set_queue(QueueSpec("b", quota={"gpu": 2000}))
    state.set_workload(work("x/low", "a", 1, 2))
    settle(state, schedule(state, 100), now=100)
    state.set_workload(work("x/owed", "b"))
    assert schedule(state, 110).again_at == 160
    assert "WithinMinRuntime" in codes(schedule(state, 110), "x/owed")
    state.set_workload(work("x/high", "a", priority=1))
    assert victims(schedule(state, 110)) == ["x/low"], "nothing protects it against its own queue"
    state.remove_workload("x/high")
    assert victims(schedule(state, 160)) == ["x/low"]


@pytest.mark.parametrize(("top", "own", "until"), [(60, None, 160), (60, 10, 110), (60, 0, 100), (None, 30, 130)])
def test_the_nearest_queue_that_says_so_counts(top: int | None, own: int | None, until: int) -> None:
    state = world(node("n0", 2))
    state.set_queue(QueueSpec("top", preempt_min_runtime=top))
    state.set_queue(QueueSpec("a", "top", {"gpu": 2000}, preempt_min_runtime=own))
    state.set_workload(work("x/low", "a", 1, 2))
    settle(state, schedule(state, 100), now=100)
    state.set_workload(work("x/high", "a", priority=1))
    assert bool(victims(schedule(state, until - 1))) == (until == 100)
    assert victims(schedule(state, until)) == ["x/low"]


def test_what_runs_beyond_the_minimum_is_taken_at_any_time() -> None:
    state = world(node("n0", 4))
    state.set_queue(QueueSpec("a", quota={"gpu": 4000}, preempt_min_runtime=60))
    state.set_workload(work("x/low", "a", 4, least=2))
    settle(state, schedule(state, 100), now=100)
    state.set_workload(work("x/high", "a", 2, priority=1))
    plan = schedule(state, 100)
    assert victims(plan) == ["x/low"] * 2
    settle(state, plan, now=100)
    settle(state, schedule(state, 100), now=100)
    state.set_workload(work("x/higher", "a", 1, priority=1))
    assert not victims(schedule(state, 100)), "what is left is its minimum"


def test_a_replaced_member_begins_no_new_time() -> None:
    state = world(node("n0", 1), node("n1", 1))
    state.set_queue(QueueSpec("a", quota={"gpu": 2000}, preempt_min_runtime=60))
    state.set_workload(work("x/low", "a", 2))
    settle(state, schedule(state, 100), now=100)
    state.release_task("x/low", "t0")
    settle(state, schedule(state, 150), now=150)
    state.set_workload(work("x/high", "a", 1, priority=1))
    assert not victims(schedule(state, 159))
    assert victims(schedule(state, 160)) == ["x/low"] * 2


def test_another_victim_that_ran_long_enough_is_taken_instead() -> None:
    state = world(node("n0", 2))
    state.set_queue(QueueSpec("a", quota={"gpu": 2000}, preempt_min_runtime=60))
    state.set_workload(work("x/old", "a", priority=1))
    settle(state, schedule(state, 0), now=0)
    state.set_workload(work("x/new", "a"))
    settle(state, schedule(state, 100), now=100)
    state.set_workload(work("x/high", "a", priority=2))
    assert victims(schedule(state, 110)) == ["x/old"], "though its priority is higher than the other's"


def test_what_was_only_just_placed_is_displaced_freely() -> None:
    state = world(node("n0", 2))
    state.set_queue(QueueSpec("a", quota={"gpu": 2000}, preempt_min_runtime=60))
    state.set_workload(work("x/low", "a", 1, 1, preemptible=False))
    state.set_workload(work("x/high", "a", 1, 2, priority=1))
    assert [place[0] for place in bound(schedule(state, 100))] == ["x/high"]


def test_the_expected_start_is_the_end_of_the_minimum_runtime() -> None:
    state = one_runs(preempt_min_runtime=60)
    state.set_workload(work("x/high", "a", priority=1))
    said = expect(state, 110, "x/high")
    assert said.start == 160
    assert ReasonCode.ASSUMES_STARTS_OVER in [r.code for r in said.assumptions]
    steps = {step.at: step.started for step in Forward(State.rebuild(state.snapshot()), 110).steps()}
    assert steps == {110: [], 160: ["x/high"]}


def test_bad_times_are_refused_by_name() -> None:
    for field in ("preempt_min_runtime", "reclaim_min_runtime"):
        with pytest.raises(ValueError, match=rf"queue\.{field}.*give 0 seconds or more"):
            QueueSpec("a", **{field: -1})
