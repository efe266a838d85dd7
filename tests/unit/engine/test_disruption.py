"""Disruption budgets: of some tasks so many keep running, whoever has a claim to their room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import bound, codes, node, settle, work, world

from heddle.engine import Evict, Placement, Plan, PodSet, QueueSpec, ReasonCode, State, WorkloadSpec, render, schedule


def victims(plan: Plan) -> list[str]:
    return [action.workload for action in plan.actions if isinstance(action, Evict)]


def counted(spec: WorkloadSpec, *budgets: str) -> WorkloadSpec:
    return replace(spec, pod_sets=tuple(replace(pods, budgets=budgets) for pods in spec.pod_sets))


def servers(number: int, least: int, queue: str = "a") -> State:
    """A full node of single servers of one budget, of which so many must run."""
    state = world(node("n0", number), a=number, b=0)
    for at in range(number):
        state.set_workload(counted(work(f"x/s{at}", queue), "serve"))
    state.set_disruption_budgets({"serve": least})
    settle(state, schedule(state, 0))
    return state


def test_no_more_are_preempted_in_one_cycle_than_the_budget_allows() -> None:
    state = servers(4, 3)
    for at in range(3):
        state.set_workload(work(f"x/high{at}", "a", priority=1))
    plan = schedule(state, 100)
    assert len(victims(plan)) == 1
    (said,) = [r for r in plan.verdicts["x/high1"].reasons if r.code is ReasonCode.DISRUPTION_BUDGET]
    assert (said.budget, said.cap, said.used, said.tasks) == ("serve", 3, 3, 1)
    assert "disruption budget serve keeps 3 tasks running" in render(said)


def test_what_an_earlier_cycle_told_to_leave_counts_as_gone() -> None:
    state = servers(4, 3)
    state.set_workload(work("x/high", "a", priority=1))
    settle(state, schedule(state, 100), release=False)
    state.set_workload(work("x/higher", "a", priority=2, gpus=2))
    assert not victims(schedule(state, 100))


def test_a_gang_that_must_leave_whole_stays_where_the_budget_keeps_one_of_it() -> None:
    state = world(node("n0", 4), a=4)
    state.set_workload(counted(work("x/gang", "a", 4, least=2), "gang"))
    state.set_disruption_budgets({"gang": 1})
    settle(state, schedule(state, 0))
    state.set_workload(work("x/high", "a", 4, priority=1))
    plan = schedule(state, 100)
    assert not victims(plan)
    assert "DisruptionBudget" in codes(plan, "x/high")
    state.set_workload(work("x/high", "a", 2, priority=1))
    assert victims(schedule(state, 100)) == ["x/gang"] * 2, "its elastic part may leave"


def test_reclaim_takes_somebody_else_where_a_budget_protects_the_cheapest() -> None:
    state = world(node("n0", 2), a=0, b=1)
    state.set_workload(counted(work("x/kept", "a", priority=0), "kept"))
    state.set_workload(work("x/other", "a", priority=1))
    state.set_disruption_budgets({"kept": 1})
    settle(state, schedule(state, 0))
    state.set_workload(work("x/owed", "b"))
    assert victims(schedule(state, 100)) == ["x/other"]


def test_moves_keep_the_budget_too() -> None:
    state = world(node("n0", 2), node("n1", 2), a=4)
    for name, at in (("x/one", "n0"), ("x/two", "n1")):
        state.set_workload(counted(work(name, "a"), "moved"))
        state.bind(Placement(name, "main", "t0", at, ("g0",)))
    state.set_workload(work("x/whole", "a", gpus=2))
    assert len(victims(schedule(state, 100))) == 1
    state.set_disruption_budgets({"moved": 2})
    assert not victims(schedule(state, 100))


def test_what_was_only_just_placed_neither_counts_as_running_nor_is_protected() -> None:
    state = servers(2, 1)
    state.set_node(node("n1", 1))
    state.set_workload(counted(work("x/new", "a"), "serve"))
    state.set_workload(work("x/high0", "a", priority=1))
    state.set_workload(work("x/high1", "a", priority=1))
    plan = schedule(state, 100)
    assert len(victims(plan)) == 1, "the one that would start in this cycle does not run yet"
    assert [place[0] for place in bound(plan)] == ["x/high0"]


def test_draining_a_queue_is_an_order_and_asks_no_budget() -> None:
    state = servers(2, 2)
    state.set_queue(QueueSpec("a", stop_policy="HoldAndDrain"))
    assert len(victims(schedule(state, 0))) == 2


def test_an_unknown_budget_binds_nobody_and_bad_ones_are_refused_by_name() -> None:
    state = servers(2, 2)
    state.set_disruption_budgets({"another": 2})
    state.set_workload(work("x/high", "a", priority=1))
    assert len(victims(schedule(state, 0))) == 1
    with pytest.raises(ValueError, match=r"disruption_budgets\[x\].*whole number"):
        state.set_disruption_budgets({"x": -1})
    with pytest.raises(ValueError, match=r"disruption_budgets: ''"):
        state.set_disruption_budgets({"": 1})
    with pytest.raises(ValueError, match=r"pod_set\.budgets.*name each disruption budget once"):
        PodSet("main", ("t0",), 1, budgets=("x", "x"))


def test_a_rebuilt_state_knows_the_budgets() -> None:
    state = servers(2, 2)
    state.set_workload(work("x/high", "a", priority=1))
    again = State.rebuild(state.snapshot())
    assert again.snapshot() == state.snapshot()
    assert schedule(again, 0) == schedule(state, 0)


def test_of_a_group_below_its_minimum_that_a_budget_keeps_nothing_leaves() -> None:
    state = world(node("n0"), a=4)
    sets = (
        PodSet("some", ("s0",), 0, gpu=1000, group="x"),
        PodSet("both", ("b0", "b1"), 2, gpu=1000, group="x", budgets=("serve",)),
        PodSet("rest", ("r0",), 1, gpu=2000, group="y"),
    )
    state.set_workload(WorkloadSpec("x/w", "a", sets, min_groups=1))
    state.set_disruption_budgets({"serve": 1})
    for pods, task, devices in (("some", "s0", ("g0",)), ("both", "b0", ("g1",)), ("rest", "r0", ("g2", "g3"))):
        state.bind(Placement("x/w", pods, task, "n0", devices))
    state.set_workload(work("x/high", "a", priority=1))
    assert not victims(schedule(state, 0)), "what is left of the group would be of even less use"
    state.set_disruption_budgets({})
    plan = schedule(state, 0)
    assert [action.task for action in plan.actions if isinstance(action, Evict)] == ["s0", "b0"]
