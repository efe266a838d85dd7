"""Work that is not resizable starts with as many tasks as find room, and stays as it started."""

from __future__ import annotations

from dataclasses import replace

from worlds import bound, node, rounds, runs, settle, victims, work, world

from heddle.engine import QueueSpec, WorkloadSpec, schedule


def settled(spec: WorkloadSpec, **fields: object) -> WorkloadSpec:
    pods = (replace(pods, resizable=False, **fields) for pods in spec.pod_sets)  # type: ignore[arg-type]
    return replace(spec, pod_sets=tuple(pods))


def test_it_starts_with_what_there_is_and_does_not_grow_later() -> None:
    state = world(node("n0", 4), a=8)
    state.set_workload(settled(work("x/w", "a", 8, least=2)))
    rounds(state)
    assert runs(state) == 4
    state.set_node(node("n1", 4))
    assert not schedule(state, 0).actions


def test_it_waits_for_its_minimum_and_then_takes_all_there_is_at_that_moment() -> None:
    state = world(node("n0", 4), a=8)
    state.set_workload(work("x/other", "a", 3))
    settle(state, schedule(state, 0))
    state.set_workload(settled(work("x/w", "a", 8, least=2)))
    assert not schedule(state, 0).actions
    state.remove_workload("x/other")
    rounds(state)
    assert runs(state) == 4


def test_who_takes_from_it_takes_it_whole() -> None:
    state = world(node("n0", 4), a=4)
    state.set_workload(settled(work("x/w", "a", 4, least=2)))
    rounds(state)
    state.set_workload(work("x/high", "a", priority=1))
    plan = schedule(state, 0)
    assert victims(plan) == ["x/w"] * 4
    settle(state, plan)
    rounds(state)
    assert (runs(state), runs(state, "x/high")) == (3, 1), "it starts again with what is left"


def test_a_lost_member_is_replaced_where_the_caller_made_what_started_its_minimum() -> None:
    state = world(node("n0", 4), a=4)
    state.set_workload(settled(work("x/w", "a", 8, least=2)))
    rounds(state)
    state.release_task("x/w", "t0")
    assert not bound(schedule(state, 0))
    state.set_workload(settled(work("x/w", "a", 8, least=2), min=4))
    assert len(bound(schedule(state, 0))) == 1
    rounds(state)
    assert runs(state) == 4


def test_it_takes_the_room_that_others_left_for_its_minimum_and_more_when_it_starts() -> None:
    state = world(node("n0", 4), a=0, b=2)
    state.set_workload(work("x/other", "a", 4, least=1))
    settle(state, schedule(state, 0))
    state.set_workload(settled(work("x/w", "b", 4, least=1)))
    rounds(state)
    assert runs(state) == 3, "its queue's share"
    state.remove_workload("x/other")
    rounds(state)
    assert runs(state) == 3


def test_within_a_limit_it_starts_smaller() -> None:
    state = world(node("n0", 8))
    state.set_queue(QueueSpec("a", quota={"gpu": 8000}, limit={"gpu": 3000}))
    state.set_workload(settled(work("x/w", "a", 8, least=1), step=2))
    rounds(state)
    assert runs(state) == 3
