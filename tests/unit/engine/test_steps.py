"""Elastic steps: what is beyond the minimum joins and leaves so many tasks at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import bound, codes, node, rounds, runs, settle, victims, work, world

from heddle.engine import (
    Bind,
    Placement,
    PodSet,
    QueueSpec,
    ReasonCode,
    Reserve,
    WorkloadSpec,
    render,
    schedule,
)
from heddle.engine.steps import to_grow, to_shrink


def stepped(spec: WorkloadSpec, step: int) -> WorkloadSpec:
    return replace(spec, pod_sets=tuple(replace(pods, step=step) for pods in spec.pod_sets))


@pytest.mark.parametrize(("gpus", "ran"), [(2, 2), (4, 2), (5, 5), (7, 5), (8, 8), (16, 8)])
def test_a_gang_grows_by_whole_steps_and_what_makes_none_never_starts(gpus: int, ran: int) -> None:
    state = world(node("n0", gpus), a=gpus)
    state.set_workload(stepped(work("x/w", "a", 10, least=2), 3))
    rounds(state)
    assert runs(state) == ran


def test_a_step_is_told_as_one() -> None:
    state = world(node("n0", 8), a=8)
    state.set_workload(stepped(work("x/w", "a", 5, least=2), 3))
    grown = {a.reason for a in schedule(state, 0).actions if isinstance(a, Bind) and a.reason.code is ReasonCode.GROWN}
    assert [render(reason) for reason in grown] == ["grown by 3 tasks beyond its minimum in queue a"]


def test_a_step_leaves_whole_and_the_newest_first() -> None:
    state = world(node("n0", 4), node("n1", 4), a=8)
    state.set_workload(stepped(work("x/w", "a", 8, least=2), 3))
    rounds(state)
    state.set_workload(work("x/high", "a", priority=1))
    assert victims(schedule(state, 0)) == ["x/w"] * 3
    rounds(state)
    assert (runs(state), runs(state, "x/high")) == (5, 1)
    state.set_workload(work("x/high", "a", 4, priority=1))
    rounds(state)
    assert (runs(state), runs(state, "x/high")) == (2, 4)


def test_a_step_that_is_being_moved_lacks_nothing() -> None:
    """One of its tasks is gone and waits, the other still leaves: a third would make a step with neither."""
    state = world(node("n0", 3), node("n1", 3), a=8)
    state.set_workload(stepped(work("x/w", "a", 3, least=0), 2))
    rounds(state)
    for name in ("t0", "t1"):
        state.mark_releasing("x/w", name)
    state.set_reservation("x/w", [Placement("x/w", "main", f"t{at}", "n1", (f"g{at}",)) for at in range(2)])
    state.release_task("x/w", "t1")
    assert not bound(schedule(state, 0))
    state.release_task("x/w", "t0")
    rounds(state)
    assert runs(state) == 2


def test_a_step_that_lost_a_task_is_completed_before_another_starts_or_leaves_first() -> None:
    state = world(node("n0", 8), a=8)
    state.set_workload(stepped(work("x/w", "a", 5, least=2), 3))
    rounds(state)
    state.release_task("x/w", "t3")
    assert len(bound(schedule(state, 0))) == 1
    state.set_workload(work("x/full", "a", 4, preemptible=False, priority=1))
    rounds(state)
    assert runs(state, "x/full") == 4
    assert runs(state) == 4, "nobody asks for the room"
    state.set_workload(work("x/high", "a", priority=1))
    assert victims(schedule(state, 0)) == ["x/w"] * 2, "what is left of the step leaves, and no more"


def test_another_takes_its_turn_where_too_few_are_left_for_a_step() -> None:
    state = world(node("n0", 8), a=8)
    state.set_workload(stepped(work("x/one", "a", 4, least=1, created=0), 2))
    state.set_workload(stepped(work("x/two", "a", 5, least=1, created=1), 2))
    rounds(state)
    assert (runs(state, "x/one"), runs(state, "x/two")) == (3, 5)


def test_a_step_for_which_others_leave_is_promised_and_starts_whole() -> None:
    state = world(node("n0", 4), a=0, b=4)
    state.set_workload(work("x/other", "a", 3, least=1))
    settle(state, schedule(state, 0))
    state.set_workload(stepped(work("x/w", "b", 3, least=1), 2))
    plan = schedule(state, 0)
    settle(state, plan, release=False)
    assert runs(state) == 1
    assert victims(plan) == ["x/other"] * 2
    assert sum(len(a.placements) for a in plan.actions if isinstance(a, Reserve)) == 2
    leaving = [t.name for t in state.works["x/other"].tasks.values() if t.row >= 0 and t.state.name == "RELEASING"]
    state.release_task("x/other", leaving[0])
    assert not bound(schedule(state, 0)), "half a step does not start"
    state.release_task("x/other", leaving[1])
    settle(state, schedule(state, 0))
    assert runs(state) == 3


def test_a_budget_that_keeps_one_task_of_a_step_keeps_the_step() -> None:
    state = world(node("n0", 4), a=4)
    spec = stepped(work("x/w", "a", 4, least=2), 2)
    state.set_workload(replace(spec, pod_sets=(replace(spec.pod_sets[0], budgets=("b",)),)))
    rounds(state)
    state.set_disruption_budgets({"b": 3})
    state.set_workload(work("x/high", "a", priority=1))
    plan = schedule(state, 0)
    assert not victims(plan)
    assert "DisruptionBudget" in codes(plan, "x/high")


def test_counts_join_and_leave_by_what_a_step_lacks() -> None:
    pods = PodSet("p", (), 2, step=3)
    assert [to_grow(pods, n) for n in (0, 2, 3, 4, 5, 6)] == [3, 3, 2, 1, 3, 2]
    assert [to_shrink(pods, n) for n in (3, 4, 5, 6, 8)] == [1, 2, 3, 1, 3]


def test_steps_stay_within_limits() -> None:
    state = world(node("n0", 8))
    state.set_queue(QueueSpec("a", quota={"gpu": 8000}, limit={"gpu": 6000}))
    state.set_workload(stepped(work("x/w", "a", 8, least=2), 3))
    rounds(state)
    assert runs(state) == 5


def test_a_bad_step_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"pod_set\.step: 0 .*from 1 on"):
        PodSet("p", (), 1, step=0)
