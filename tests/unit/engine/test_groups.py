"""Groups of pod sets: at least so many must run, each all or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import bound, codes, node, settle, work, world

from heddle.engine import (
    Bind,
    Evict,
    Placement,
    Plan,
    PodSet,
    QueueSpec,
    State,
    TaskState,
    WorkloadSpec,
    explain,
    render,
    schedule,
)


def replicas(name: str, least: int, *sizes: int, router: bool = False, **more: object) -> WorkloadSpec:
    """A group for each size, made of a leader of one GPU and workers of two."""
    sets = [PodSet("router", ("router",), 1, {"cpu": 1000})] if router else []
    for at, size in enumerate(sizes):
        sets.append(PodSet(f"l{at}", (f"l{at}",), 1, gpu=1000, group=f"r{at}"))
        workers = tuple(f"w{at}-{n}" for n in range(size - 1))
        sets.append(PodSet(f"w{at}", workers, size - 1, gpu=2000, group=f"r{at}"))
    return WorkloadSpec(name, "a", tuple(sets), min_groups=least, **more)  # type: ignore[arg-type]


def runs(state: State, name: str) -> list[str]:
    return sorted(task.name for task in state.works[name].tasks.values() if task.state is TaskState.BOUND)


def evicted(plan: Plan) -> list[str]:
    return sorted(action.task for action in plan.actions if isinstance(action, Evict))


def test_enough_groups_start_and_others_only_whole() -> None:
    state = world(node("n0", 8), a=8)  # a group needs three GPUs: there is room for two
    state.set_workload(replicas("x/s", 1, 2, 2, 2))
    plan = schedule(state, 0)
    settle(state, plan)
    assert runs(state, "x/s") == ["l0", "l1", "w0-0", "w1-0"]
    assert plan.verdicts["x/s"].admitted
    assert "GroupGrown" in codes(plan, "x/s")
    state.set_node(node("n1", 3))
    settle(state, schedule(state, 0))
    assert len(runs(state, "x/s")) == 6


def test_without_room_for_enough_groups_nothing_starts_and_fewer_are_named() -> None:
    state = world(node("n0", 8), a=8)
    state.set_workload(replicas("x/s", 3, 2, 2, 2))
    assert not bound(schedule(state, 0))
    changes = {str(change.code): change for change in explain(state, 0, "x/s").changes}
    assert (changes["FewerGroups"].fits, changes["FewerGroups"].needed) == (2, 3)
    assert render(changes["FewerGroups"]) == "2 groups instead of 3 would start now"


def test_alike_groups_that_need_more_than_there_is_are_impossible_and_fewer_are_named() -> None:
    state = world(node("n0", 8), a=8)
    sets = tuple(PodSet(f"r{at}", (f"{at}-0", f"{at}-1"), 2, gpu=2000, group=f"r{at}") for at in range(3))
    state.set_workload(WorkloadSpec("x/s", "a", sets))
    found = explain(state, 0, "x/s")
    assert render(found.reasons[0]).startswith("impossible on this cluster even when empty")
    assert (found.reasons[0].fits, found.reasons[0].needed) == (4, 6)
    assert [(str(change.code), change.fits, change.needed) for change in found.changes] == [("FewerGroups", 2, 3)]


def test_what_is_in_no_group_is_always_needed() -> None:
    state = world(node("n0", 8, cpu=0), a=8)
    state.set_workload(replicas("x/s", 1, 2, 2, router=True))
    assert not bound(schedule(state, 0))
    state.set_node(node("n1", 0))
    assert len(bound(schedule(state, 0))) == 5


def test_groups_of_which_pods_are_missing_are_passed_over() -> None:
    state = world(node("n0", 8), a=8)
    spec = replicas("x/s", 1, 2, 2)
    late = replace(spec.pod_sets[1], tasks=())
    state.set_workload(replace(spec, pod_sets=(spec.pod_sets[0], late, *spec.pod_sets[2:])))
    assert [task.placement.task for task in schedule(state, 0).actions if isinstance(task, Bind)] == ["w1-0", "l1"]
    state.set_workload(replace(state.works["x/s"].spec, min_groups=2))
    (reason,) = schedule(state, 0).verdicts["x/s"].reasons
    assert (str(reason.code), reason.fits, reason.needed) == ("MembersMissing", 3, 4)


def test_the_last_group_beyond_the_minimum_leaves_whole_before_the_workload_is_broken() -> None:
    state = world(node("n0", 9), a=9)
    state.set_workload(replicas("x/s", 1, 2, 2, 2))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/high", "a", 1, 1, priority=1))
    plan = schedule(state, 0)
    assert evicted(plan) == ["l2", "w2-0"]
    settle(state, plan)
    settle(state, schedule(state, 0))
    state.set_workload(work("x/higher", "a", 1, 6, priority=2))
    plan = schedule(state, 0)
    assert evicted(plan) == ["l0", "l1", "w0-0", "w1-0"]


@pytest.mark.parametrize(
    ("sizes", "gone"),
    [((3, 2), ["l1", "w1-0"]), ((2, 3), ["l0", "w0-0"]), ((2, 2), ["l0", "w0-0"])],
    ids=["the-last-is-smaller", "the-first-is-smaller", "alike"],
)
def test_the_node_where_least_has_to_leave_decides_which_group_goes(sizes: tuple[int, int], gone: list[str]) -> None:
    gpus = [2 * size - 1 for size in sizes]
    state = world(*(node(f"n{at}", count) for at, count in enumerate(gpus)), a=sum(gpus))
    state.set_workload(replicas("x/s", 1, *sizes))
    for task in list(state.works["x/s"].tasks.values()):  # each group fills a node
        name, home = task.work.spec.pod_sets[task.part].name, f"n{task.name[1]}"
        devices = state.places.unused_devices(home)[: 1 if task.name.startswith("l") else 2]
        state.bind(Placement("x/s", name, task.name, home, devices))
    state.set_workload(work("x/high", "a", priority=1))
    assert evicted(schedule(state, 0)) == gone


def test_where_a_limit_and_no_node_decides_the_last_group_goes() -> None:
    state = world(node("n0", 3), node("n1", 3), a=6)
    state.set_workload(replicas("x/s", 1, 2, 2))
    settle(state, schedule(state, 0))
    state.set_queue(QueueSpec("a", quota={"gpu": 6000}, limit={"gpu": 6000}))
    state.set_node(node("n2", 1))
    state.set_workload(work("x/high", "a", priority=1))  # it has room, and is over the limit
    assert evicted(schedule(state, 0)) == ["l1", "w1-0"]


def test_a_single_elastic_task_leaves_before_a_group() -> None:
    state = world(node("n0", 4), a=4)
    sets = (PodSet("a", ("a0", "a1"), 1, gpu=1000, group="a"), PodSet("b", ("b0", "b1"), 2, gpu=1000, group="b"))
    state.set_workload(WorkloadSpec("x/s", "a", sets, min_groups=1))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/high", "a", priority=1))
    assert evicted(schedule(state, 0)) == ["a1"]


def test_a_group_that_lost_a_member_is_completed_before_another_grows() -> None:
    state = world(node("n0", 6), node("n1", 3), a=9)
    state.set_workload(replicas("x/s", 1, 2, 2, 2))
    settle(state, schedule(state, 0))
    gone = next(task for task in state.works["x/s"].tasks.values() if task.name == "l1")
    state.release_task("x/s", gone.name)
    state.set_workload(replicas("x/s", 1, 2, 2, 2, 2))
    assert [a.placement.task for a in schedule(state, 0).actions if isinstance(a, Bind)] == ["l1"]


def test_after_the_grace_only_the_torn_group_is_evicted() -> None:
    state = world(node("n0", 6), a=6)
    state.set_workload(replicas("x/s", 1, 2, 2))
    settle(state, schedule(state, 0))
    state.release_task("x/s", "l1")
    broken = replace(replicas("x/s", 1, 2, 2, broken_since=0.0))
    gone = replace(broken.pod_sets[2], tasks=())  # and its pod is not made anew
    state.set_workload(replace(broken, pod_sets=(*broken.pod_sets[:2], gone, broken.pod_sets[3])))
    assert not evicted(schedule(state, 59))
    plan = schedule(state, 61)
    assert evicted(plan) == ["w1-0"]
    (action,) = [action for action in plan.actions if isinstance(action, Evict)]
    assert render(action.reason) == "evicted: 1 of at least 2 members were left, and the grace has passed"


def test_groups_beyond_the_minimum_are_reclaimed_by_who_is_owed() -> None:
    state = world(node("n0", 6), a=3, b=3)
    state.set_workload(replicas("x/s", 1, 2, 2))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/owed", "b", 1, 3))
    plan = schedule(state, 0)
    assert evicted(plan) == ["l1", "w1-0"]
    settle(state, plan)
    settle(state, schedule(state, 0))
    assert runs(state, "x/owed") == ["t0"]
    assert runs(state, "x/s") == ["l0", "w0-0"]


def test_a_promise_for_a_group_is_kept_whole_or_dropped() -> None:
    state = world(node("n0", 6), a=6)
    state.set_queue(QueueSpec("b", quota={"gpu": 0}))
    state.set_workload(work("x/b", "b", 3, 1))
    state.set_workload(work("x/c", "b", 3, 1))
    settle(state, schedule(state, 0))
    state.set_workload(replicas("x/s", 1, 2, 2))
    settle(state, schedule(state, 0), release=False)
    settle(state, schedule(state, 0), release=False)
    assert not runs(state, "x/s")
    for name in ("x/b", "x/c"):
        for at in range(3):
            state.release_task(name, f"t{at}")
    settle(state, schedule(state, 0))
    assert len(runs(state, "x/s")) == 4


@pytest.mark.parametrize(("least", "word"), [(3, "at most the 2 groups"), (-1, "whole number")])
def test_more_groups_than_there_are_cannot_be_needed(least: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        replicas("x/s", least, 2, 2)


def test_the_only_group_starts_though_none_is_needed() -> None:
    state = world(node("n0", 4), a=4)
    pods = PodSet("p", ("t0", "t1"), 2, gpu=1000, group="g")
    state.set_workload(WorkloadSpec("x/w", "a", (pods,), min_groups=0))
    settle(state, schedule(state, 0))
    assert runs(state, "x/w") == ["t0", "t1"]
