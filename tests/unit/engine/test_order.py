"""Start order: pod sets that start once others of their workload are ready."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import bound, codes, node, settle, work, world

from heddle.engine import (
    Bind,
    Evict,
    NodeSpec,
    Plan,
    PodSet,
    QueueSpec,
    Reserve,
    State,
    WorkloadSpec,
    expect,
    explain,
    render,
    schedule,
)


def led(name: str, workers: int = 2, queue: str = "a", gpu: int = 1000, **more: object) -> WorkloadSpec:
    leader = PodSet("leader", ("l",), 1, gpu=1000)
    tasks = tuple(f"w{at}" for at in range(workers))
    return WorkloadSpec(name, queue, (leader, PodSet("workers", tasks, workers, gpu=gpu, after=("leader",))), **more)  # type: ignore[arg-type]


def starts(plan: Plan) -> list[str]:
    return [action.placement.task for action in plan.actions if isinstance(action, Bind)]


def reserved(plan: Plan) -> dict[str, list[str]]:
    return {a.workload: [p.task for p in a.placements] for a in plan.actions if isinstance(a, Reserve)}


def begun(state: State, spec: WorkloadSpec) -> State:
    """A workload whose leader runs, and whose workers wait for it."""
    state.set_workload(spec)
    settle(state, schedule(state, 0))
    return state


def test_the_leader_starts_and_the_places_of_its_workers_are_kept() -> None:
    state = world(node("n0", 3), a=3)
    state.set_workload(led("x/w"))
    plan = schedule(state, 0)
    assert starts(plan) == ["l"]
    assert reserved(plan) == {"x/w": ["w0", "w1"]}
    assert not plan.verdicts["x/w"].admitted
    settle(state, plan)
    state.set_workload(work("x/other", "a"))
    plan = schedule(state, 0)
    assert plan.actions == ()
    (reason,) = plan.verdicts["x/w"].reasons
    assert render(reason) == "its room is reserved; workers starts once leader is ready: 0 of 1 task is"
    assert explain(state, 0, "x/w").reasons == (reason,)
    state.mark_ready("x/w", "l")
    plan = schedule(state, 0)
    assert starts(plan) == ["w0", "w1"]
    assert plan.verdicts["x/w"].admitted


def test_without_room_for_all_the_leader_does_not_start() -> None:
    state = world(node("n0", 2), a=2)
    state.set_workload(led("x/w"))
    plan = schedule(state, 0)
    assert plan.actions == ()
    assert codes(plan, "x/w") == ["Impossible"]


def test_a_chain_starts_link_by_link() -> None:
    state = world(node("n0", 3), a=3)
    sets = (PodSet("a", ("a",), 1, gpu=1000, after=("b",)), PodSet("b", ("b",), 1, gpu=1000, after=("c",)))
    state.set_workload(WorkloadSpec("x/w", "a", (*sets, PodSet("c", ("c",), 1, gpu=1000))))
    order = []
    for _ in range(3):
        plan = schedule(state, 0)
        settle(state, plan)
        order += starts(plan)
        state.mark_ready("x/w", order[-1])
    assert order == ["c", "b", "a"]


def test_elastic_tasks_wait_too_and_nothing_is_kept_for_them() -> None:
    state = world(node("n0", 3), a=3)
    spec = led("x/w")
    begun(state, replace(spec, pod_sets=(spec.pod_sets[0], replace(spec.pod_sets[1], min=0))))
    assert not state.holders
    state.set_workload(work("x/other", "a"))
    assert bound(schedule(state, 0)) == [("x/other", "n0", ("g1",))]
    state.mark_ready("x/w", "l")
    assert "w0" in starts(schedule(state, 0))


def test_who_evicts_takes_the_leader_and_the_kept_places_together() -> None:
    state = begun(world(node("n0", 3), a=3), led("x/w"))
    state.set_workload(work("x/high", "a", 1, 2, priority=1))
    plan = schedule(state, 0)
    assert [action.task for action in plan.actions if isinstance(action, Evict)] == ["l"]
    assert reserved(plan)["x/w"] == []
    settle(state, plan)
    settle(state, schedule(state, 0))
    assert [task.name for task in state.works["x/high"].tasks.values() if task.row >= 0] == ["t0"]
    assert not any(state.works["x/w"].bound)


def test_workers_keep_running_when_their_leader_is_lost_and_it_starts_again() -> None:
    state = begun(world(node("n0", 3), a=3), led("x/w"))
    state.mark_ready("x/w", "l")
    settle(state, schedule(state, 0))
    state.release_task("x/w", "l")
    plan = schedule(state, 0)
    assert starts(plan) == ["l"]
    assert not any(isinstance(action, Evict) for action in plan.actions)


def test_a_worker_that_is_lost_waits_until_the_leader_is_ready_again() -> None:
    state = begun(world(node("n0", 3), a=3), led("x/w"))
    state.mark_ready("x/w", "l")
    settle(state, schedule(state, 0))
    state.mark_ready("x/w", "l", ready=False)
    state.release_task("x/w", "w1")
    plan = schedule(state, 0)
    assert starts(plan) == []
    assert reserved(plan) == {"x/w": ["w1"]}


def test_kept_places_that_are_gone_are_found_anew() -> None:
    state = begun(world(node("n0", 3), node("n1", 0), a=None), led("x/w", gpu=2000))
    assert not state.holders
    state.set_node(node("n1", 4))
    settle(state, schedule(state, 0))
    assert state.holders == {"x/w": None}
    state.remove_node("n1")
    state.set_node(node("n2", 4))
    plan = schedule(state, 0)
    assert reserved(plan) == {"x/w": ["w0", "w1"]}


def test_room_that_is_made_for_all_is_used_in_order() -> None:
    state = world(node("n0", 3), a=3)
    state.set_queue(QueueSpec("b", quota={"gpu": 0}))
    state.set_workload(work("x/b", "b", 3, least=1))
    settle(state, schedule(state, 0))
    state.set_workload(led("x/w"))
    settle(state, schedule(state, 0))
    plan = schedule(state, 0)
    settle(state, plan)
    assert starts(plan) == ["l"]
    state.mark_ready("x/w", "l")
    assert starts(schedule(state, 0)) == ["w0", "w1"]


def test_in_virtual_time_whatever_starts_is_ready() -> None:
    state = world(node("n0", 3), a=3)
    state.set_workload(work("x/first", "a", 3, walltime=100.0))
    settle(state, schedule(state, 0))
    state.set_workload(led("x/w"))
    assert expect(state, 0, "x/w").start == 100.0


def test_groups_beyond_the_minimum_start_in_order_too() -> None:
    state = world(node("n0", 4), a=4)
    sets = []
    for at in range(2):
        sets += [PodSet(f"l{at}", (f"l{at}",), 1, gpu=1000, group=f"r{at}")]
        sets += [PodSet(f"w{at}", (f"w{at}",), 1, gpu=1000, group=f"r{at}", after=(f"l{at}",))]
    state.set_workload(WorkloadSpec("x/s", "a", tuple(sets), min_groups=1))
    plan = schedule(state, 0)
    settle(state, plan)
    assert starts(plan) == ["l0"]
    state.mark_ready("x/s", "l0")
    plan = schedule(state, 0)
    settle(state, plan)
    assert starts(plan) == ["w0", "l1"]
    assert reserved(plan) == {"x/s": ["w1"]}
    state.mark_ready("x/s", "l1")
    assert starts(schedule(state, 0)) == ["w1"]


def test_readiness_is_of_what_runs_and_survives_a_new_spec_and_a_rebuild() -> None:
    state = begun(world(NodeSpec("n0", {}), a=3), led("x/w", gpu=0))
    with pytest.raises(ValueError, match="only running tasks"):
        state.mark_ready("x/w", "l")
    state.set_node(node("n0", 1))
    settle(state, schedule(state, 0))
    state.mark_ready("x/w", "l")
    state.set_workload(replace(state.works["x/w"].spec, priority=3))
    assert len(starts(schedule(state, 0))) == 2
    assert State.rebuild(state.snapshot()).snapshot() == state.snapshot()
    state.release_task("x/w", "l")
    settle(state, schedule(state, 0))
    assert not state.works["x/w"].tasks["l"].ready


@pytest.mark.parametrize(
    ("sets", "word"),
    [
        ((PodSet("a", ("t",), 1, after=("b",)),), "name a pod set of the workload: a"),
        ((PodSet("a", ("t",), 1, after=("a",)),), "wait for itself"),
        ((PodSet("a", ("t",), 1, after=("b",)), PodSet("b", ("u",), 1, after=("a",))), "wait for itself"),
        ((PodSet("a", ("t",), 1, after=("b",), group="x"), PodSet("b", ("u",), 1, group="y")), "same group"),
        ((PodSet("a", ("t",), 1, after=("b",)), PodSet("b", ("u",), 1, group="y")), "same group"),
    ],
)
def test_an_order_in_which_something_never_starts_is_refused(sets: tuple[PodSet, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        WorkloadSpec("x/w", "a", sets)
