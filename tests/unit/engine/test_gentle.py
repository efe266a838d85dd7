"""Who says that nobody is to stop for him waits for room that is free."""

from __future__ import annotations

from dataclasses import replace

from worlds import bound, node, settle, work, world

from heddle.engine import Evict, State, render, schedule


def full_world() -> State:
    state = world(node("n0", 2), a=99)
    state.set_workload(work("x/low", "a", 2))
    settle(state, schedule(state, 0))
    return state


def test_nobody_is_evicted_for_the_gentle_and_they_are_told_why() -> None:
    state = full_world()
    gentle = replace(work("x/high", "a", 1), priority=9, gentle=True)
    state.set_workload(gentle)
    plan = schedule(state, 0)
    assert not plan.actions
    told = plan.verdicts["x/high"].reasons
    assert [reason.code for reason in told] == ["NoRoom", "TakesFromNobody"]
    assert render(told[1]) == "it says itself that nobody is to be evicted or moved for it"
    state.set_workload(replace(gentle, gentle=False))
    assert any(isinstance(action, Evict) for action in schedule(state, 0).actions)


def test_the_gentle_take_what_others_leave() -> None:
    state = full_world()
    state.set_workload(replace(work("x/high", "a", 1), priority=9, gentle=True))
    state.remove_workload("x/low")
    assert [place[0] for place in bound(schedule(state, 0))] == ["x/high"]


def test_others_of_the_same_kind_are_heard_though_the_gentle_found_nothing() -> None:
    state = full_world()
    state.set_workload(replace(work("x/a", "a", 1), priority=9, gentle=True))
    state.set_workload(replace(work("x/b", "a", 1), priority=9))
    gainers = [action.reason.beneficiary for action in schedule(state, 0).actions if isinstance(action, Evict)]
    assert set(gainers) == {"x/b"}
