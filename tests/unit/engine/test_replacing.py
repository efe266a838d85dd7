"""What becomes of a gang that lost members: the rest stays, replacements come first and near, and a grace ends it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import bound, codes, node, settle, work, world

from heddle.engine import Evict, QueueSpec, State, WorkloadSpec, schedule


def lost_one(spec: WorkloadSpec, *more: str) -> State:
    """A gang of two on two nodes, of which the second is lost; ``more`` names nodes that remain beside the first."""
    state = world(node("n0", 1), node("n1", 1), a=None)
    state.set_workload(spec)
    settle(state, schedule(state, 0))
    for name in more:
        state.set_node(node(name, 1))
    assert state.remove_node("n1") == ((spec.name, "t1"),)
    return state


def evicted(state: State, now: float) -> list[tuple[str, str]]:
    return [(a.workload, a.task) for a in schedule(state, now).actions if isinstance(a, Evict)]


def test_the_rest_keeps_its_places_until_the_grace_has_passed() -> None:
    state = lost_one(work("x/gang", "a", 2))
    state.set_workload(replace(state.works["x/gang"].spec, broken_since=100.0))
    assert evicted(state, 100) == []
    assert evicted(state, 159) == []
    assert evicted(state, 160) == [("x/gang", "t0")]


def test_a_workload_may_say_how_long_the_rest_of_it_waits() -> None:
    state = lost_one(work("x/gang", "a", 2, gang_grace=0.0))
    state.set_workload(replace(state.works["x/gang"].spec, broken_since=100.0))
    assert evicted(state, 100) == [("x/gang", "t0")]
    state.set_workload(replace(state.works["x/gang"].spec, gang_grace=300.0))
    assert evicted(state, 399) == []
    assert evicted(state, 400) == [("x/gang", "t0")]


def test_a_replacement_goes_before_older_work_that_has_not_started() -> None:
    state = lost_one(work("x/gang", "a", 2, created=9.0))
    state.set_workload(work("x/older", "a", created=1.0))
    state.set_node(node("n2", 1))
    plan = schedule(state, 0)
    assert bound(plan) == [("x/gang", "n2", ("g0",))]
    assert plan.verdicts["x/older"].position == 0


def test_priority_goes_before_replacements() -> None:
    state = lost_one(work("x/gang", "a", 2, created=1.0))
    state.set_workload(work("x/urgent", "a", priority=1, created=9.0))
    state.set_node(node("n2", 1))
    assert bound(schedule(state, 0)) == [("x/urgent", "n2", ("g0",))]


def test_the_share_of_other_queues_goes_before_replacements() -> None:
    state = lost_one(work("x/gang", "a", 2, created=1.0))
    state.set_queue(QueueSpec("a", quota={"gpu": 0}))
    state.set_queue(QueueSpec("b", quota={"gpu": 1000}))
    state.set_workload(work("x/owed", "b", created=9.0))
    state.set_node(node("n2", 1))
    assert bound(schedule(state, 0)) == [("x/owed", "n2", ("g0",))]


def test_a_replacement_is_the_head_of_a_strict_line() -> None:
    state = lost_one(work("x/gang", "a", 2, 1, created=9.0))
    state.set_queue(QueueSpec("a", ordering="StrictFIFO"))
    state.set_workload(work("x/older", "a", gpus=0, created=1.0))
    (reason,) = schedule(state, 0).verdicts["x/older"].reasons
    assert (str(reason.code), reason.head) == ("BehindHead", "x/gang")


def test_whole_again_it_has_no_precedence_left() -> None:
    state = lost_one(work("x/gang", "a", 3, least=2, created=9.0), "n2")
    settle(state, schedule(state, 0))
    state.set_workload(work("x/older", "a", 1, created=1.0))
    state.set_node(node("n3", 1))
    assert bound(schedule(state, 0)) == [("x/older", "n3", ("g0",))]


def near(preferred: str | None, required: str | None = None) -> State:
    """A gang of two in one rack, of which one member's node is lost, and that rack has no room left."""
    state = world(
        node("a0", 1, zone="z0", rack="r0"),
        node("a1", 1, zone="z0", rack="r0"),
        node("b0", 4, zone="z0", rack="r1"),
        node("c0", 1, zone="z1", rack="r2"),
        a=None,
    )
    state.set_workload(work("x/gang", "a", 2, topology_preferred=preferred, topology_required=required))
    settle(state, schedule(state, 0))
    assert {task.row for task in state.works["x/gang"].tasks.values()} == {state.nodes.row[n] for n in ("a0", "a1")}
    state.remove_node("a1")
    return state


def test_a_replacement_goes_to_the_nearest_domain_of_the_rest() -> None:
    state = near("rack")
    assert bound(schedule(state, 0)) == [("x/gang", "b0", ("g0",))]  # the same zone, though z1 would be a better fit
    state.set_node(node("a2", 4, zone="z0", rack="r0"))
    assert bound(schedule(state, 0)) == [("x/gang", "a2", ("g0",))]
    state.remove_node("a2")
    state.remove_node("b0")
    assert bound(schedule(state, 0)) == [("x/gang", "c0", ("g0",))]


def test_a_required_domain_is_not_left_for_a_replacement() -> None:
    state = near(None, "rack")
    assert bound(schedule(state, 0)) == []
    assert codes(schedule(state, 0), "x/gang")[0] == "NoDomain"
    state.set_workload(replace(state.works["x/gang"].spec, broken_since=0.0))
    settle(state, schedule(state, 60))
    assert [name for name, _, _ in bound(schedule(state, 60))] == ["x/gang"] * 2
    assert {at for _, at, _ in bound(schedule(state, 60))} == {"b0"}


@pytest.mark.parametrize("grace", [-1.0, float("inf"), "60"])
def test_a_grace_is_seconds(grace: float) -> None:
    with pytest.raises(ValueError, match="gang_grace"):
        work("x/gang", "a", gang_grace=grace)
