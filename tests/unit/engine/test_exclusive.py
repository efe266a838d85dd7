"""Exclusive pod sets: a task has a node to itself."""

from __future__ import annotations

from dataclasses import replace

from worlds import bound, codes, node, settle, work, world

from heddle.engine import PodSet, State, WorkloadSpec, explain, fair_shares, render, schedule


def sole(name: str, tasks: int = 1, gpu: int = 1000, queue: str = "a") -> WorkloadSpec:
    names = tuple(f"t{at}" for at in range(tasks))
    return WorkloadSpec(name, queue, (PodSet("main", names, tasks, {}, gpu, exclusive=True),))


def test_nobody_is_there_and_nobody_joins() -> None:
    state = world(node("n0"), node("n1"), node("n2"), a=99)
    state.set_workload(work("x/a", "a", 1, 0.5))
    settle(state, schedule(state, 0))
    state.set_workload(sole("x/b", 2))
    plan = schedule(state, 0)
    assert {place[1] for place in bound(plan)} == {"n1", "n2"}
    settle(state, plan)
    state.set_workload(work("x/c", "a", 4, 1, preemptible=False))
    state.set_workload(work("x/d", "a", 1, 0, cpu=1000))
    plan = schedule(state, 0)
    assert [place[:2] for place in bound(plan)] == [("x/d", "n0")]
    reason = plan.verdicts["x/c"].reasons[0]
    assert (str(reason.code), reason.fits, reason.free) == ("NoRoom", 3, 3500)
    state.release_task("x/b", "t0")
    state.remove_workload("x/b")
    assert len(bound(schedule(state, 0))) == 5


def test_the_verdict_says_that_no_node_is_empty() -> None:
    state = world(node("n0"), node("n1"), a=99)
    state.set_workload(work("x/a", "a", 1, 0, cpu=1000, preemptible=False))
    settle(state, schedule(state, 0))
    state.set_workload(sole("x/b", 2))
    plan = schedule(state, 0)
    assert codes(plan, "x/b")[0] == "NoEmptyNode"
    assert "1 of 2 find one" in render(plan.verdicts["x/b"].reasons[0])
    assert "AnyArrangement" in {str(change.code) for change in explain(state, 0, "x/b").changes}
    state.set_workload(sole("x/b", 3))
    assert codes(schedule(state, 0), "x/b") == ["Impossible"]


def test_work_that_runs_already_is_told_apart_once_the_first_exclusive_comes() -> None:
    state = world(node("n0"), a=99)
    state.set_workload(work("x/a", "a", 1, 1))
    settle(state, schedule(state, 0))
    state.set_workload(sole("x/b"))
    assert not bound(schedule(state, 0))
    state.release_task("x/a", "t0")
    state.remove_workload("x/a")
    assert bound(schedule(state, 0))
    rebuilt = State.rebuild(state.snapshot())
    assert schedule(rebuilt, 0) == schedule(state, 0)


def test_an_exclusive_workload_that_is_gone_leaves_no_trace() -> None:
    """Tenants are counted from the first exclusive class on; how many there are must not rank nodes."""
    state = world(node("n0", rack="r0", zone="z"), node("n1", rack="r1", zone="z"), a=99)
    state.set_workload(sole("x/b"))
    state.remove_workload("x/b")
    state.set_workload(work("x/a", "a", 2, 0, cpu=1000, selector={"rack": "r1"}))
    settle(state, schedule(state, 0))
    state.set_workload(work("x/c", "a", 1, 0, topology_preferred="rack"))
    plan = schedule(state, 0)
    assert plan == schedule(State.rebuild(state.snapshot()), 0)
    assert bound(plan)[0][1] == "n0"


def test_room_is_made_by_emptying_one_node() -> None:
    state = world(node("n0", 2), node("n1", 2), a=0, b=2)
    for name in ("x/a", "x/b", "x/c"):
        state.set_workload(work(name, "a", 1, 1))
    settle(state, schedule(state, 0))
    state.set_workload(sole("x/d", queue="b"))
    plan = schedule(state, 0)
    settle(state, plan, release=False)
    assert sum(state.works[name].leaving[0] for name in ("x/a", "x/b", "x/c")) == 1
    state.release_task("x/c", "t0")
    settle(state, schedule(state, 0))
    assert [state.nodes.names[task.row] for task in state.works["x/d"].tasks.values()] == ["n1"]


def test_queues_are_charged_for_what_is_asked_not_for_the_node() -> None:
    state = world(node("n0"), a=99)
    state.set_workload(sole("x/b"))
    settle(state, schedule(state, 0))
    assert state.queue_usage() == {"a": {"gpu": 1000, "cpu": 0, "memory": 0}}
    assert set(fair_shares(state)["a"]) == {"gpu", "cpu", "memory"}
    state.set_workload(replace(sole("x/c"), queue="a"))
    assert codes(schedule(state, 0), "x/c")[0] == "NoEmptyNode"
