"""Walltimes are stated for GPUs of speed 1: elsewhere work runs as much longer or shorter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine_invariants import check_state, plan_checked
from worlds import bound, settle, world

from heddle.engine import Device, NodeSpec, PodSet, State, TaskState, WorkloadSpec, expect, render, schedule

FAST, SLOW = "H100", "A100"


def of_model(name: str, count: int, model: str) -> NodeSpec:
    return NodeSpec(name, {"cpu": 64_000}, tuple(Device(f"g{at}", at, model) for at in range(count)))


def paced(name: str, tasks: int, slow: float = 0.5, *models: str, **fields: object) -> WorkloadSpec:
    names, models = tuple(f"t{at}" for at in range(tasks)), models or (FAST, SLOW)
    speeds = {SLOW: slow} if SLOW in models else {FAST: 1.0}
    pods = PodSet("main", names, tasks, gpu=1000, gpu_models=models, gpu_speeds=speeds)
    return WorkloadSpec(name, "a", (pods,), **fields)  # type: ignore[arg-type]


def fixed(name: str, tasks: int, walltime: float, model: str) -> WorkloadSpec:
    names = tuple(f"t{at}" for at in range(tasks))
    pods = PodSet("main", names, tasks, gpu=1000, gpu_models=(model,))
    return WorkloadSpec(name, "a", (pods,), walltime=walltime, preemptible=False, priority=9)


def start(state: State, spec: WorkloadSpec) -> None:
    state.set_workload(spec)
    settle(state, schedule(state, 0))
    assert state.works[spec.name].whole()


def test_work_ends_by_the_speed_of_the_model_that_it_got() -> None:
    state = world(of_model("n0", 1, FAST), of_model("n1", 1, SLOW), a=9)
    start(state, paced("x/first", 1, walltime=600.0))
    start(state, paced("x/second", 1, walltime=600.0))
    assert state.lines.ends == [(600.0, "x/first"), (1200.0, "x/second")]
    check_state(state)
    assert State.rebuild(state.snapshot()).lines.ends == state.lines.ends
    state.set_workload(replace(state.works["x/second"].spec, walltime=60.0))
    assert state.lines.ends == [(120.0, "x/second"), (600.0, "x/first")]


def test_a_free_slower_model_is_not_left_idle_for_a_faster_one_that_is_soon_free() -> None:
    state = world(of_model("n0", 1, FAST), of_model("n1", 1, SLOW), a=9)
    start(state, fixed("x/soon", 1, 1.0, FAST))
    state.set_workload(paced("x/w", 1, 0.01, walltime=1000.0))
    assert [at for _, at, _ in bound(plan_checked(state, 0))] == ["n1"]


def test_short_work_fills_the_hole_that_a_slower_model_leaves_for_longer() -> None:
    state = world(of_model("n0", 2, SLOW), a=9)
    start(state, paced("x/runs", 1, 0.5, SLOW, walltime=600.0, preemptible=False))
    state.set_workload(fixed("x/large", 2, 600.0, SLOW))
    state.set_workload(paced("x/fits", 1, 0.5, SLOW, walltime=600.0, created=1.0))
    state.set_workload(paced("x/longer", 1, 0.5, SLOW, walltime=601.0, created=0.5))
    plan = plan_checked(state, 0)
    assert [name for name, _, _ in bound(plan)] == ["x/fits"]


@pytest.mark.parametrize(("slow", "room"), [(0.5, "100 s"), (0.05, "1000 s")])
def test_room_is_kept_on_the_model_with_which_the_work_ends_first(slow: float, room: str) -> None:
    state = world(of_model("n0", 1, FAST), of_model("n1", 1, SLOW), a=9)
    start(state, fixed("x/fast", 1, 1000.0, FAST))
    start(state, fixed("x/slow", 1, 100.0, SLOW))
    state.set_workload(paced("x/w", 1, slow, walltime=200.0))
    told = [render(reason) for reason in plan_checked(state, 0).verdicts["x/w"].reasons if reason.code == "RoomKept"]
    assert len(told) == 1
    assert room in told[0]


def test_the_expected_start_rests_on_speeds_and_says_so() -> None:
    state = world(of_model("n0", 1, SLOW), a=9)
    start(state, paced("x/runs", 1, 0.25, SLOW, walltime=100.0, preemptible=False))
    state.set_workload(fixed("x/next", 1, 10.0, SLOW))
    found = expect(state, 0, "x/next")
    assert found.start == 400.0
    assert "AssumesSpeeds" in [str(reason.code) for reason in found.assumptions]


def test_work_of_several_pod_sets_waits_for_its_slowest() -> None:
    state = world(of_model("n0", 1, FAST), of_model("n1", 1, SLOW), a=9)
    models, speeds = (FAST, SLOW), {SLOW: 0.5}
    sets = tuple(PodSet(name, (name,), 1, gpu=1000, gpu_models=models, gpu_speeds=speeds) for name in "bc")
    start(state, WorkloadSpec("x/w", "a", sets, walltime=100.0))
    assert state.lines.ends == [(200.0, "x/w")]


@pytest.mark.parametrize("speeds", [{"T4": 1.0}, {SLOW: 0.0}, {SLOW: -1.0}, {SLOW: float("nan")}])
def test_a_speed_that_is_none_is_refused_by_name(speeds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"gpu_speeds\["):
        PodSet("main", ("t",), 1, gpu=1000, gpu_models=(SLOW,), gpu_speeds=speeds)


def test_who_still_leaves_another_model_is_of_no_account_for_where_the_rest_joins() -> None:
    state = world(of_model("fast", 2, FAST), of_model("slow", 2, SLOW), a=8)
    [pods] = paced("x/w", 4, walltime=100.0).pod_sets
    state.set_workload(WorkloadSpec("x/w", "a", (replace(pods, min=1),), walltime=100.0))
    settle(state, schedule(state, 0))
    state.mark_releasing("x/w", "t0")
    state.release_task("x/w", "t1")
    state.set_node(replace(of_model("fast", 2, FAST), schedulable=False))
    settle(state, schedule(state, 1), now=1.0)
    state.set_node(of_model("fast", 2, FAST))
    settle(state, schedule(state, 2), now=2.0)
    assert {place[1] for place in bound(schedule(state, 3))} == set()
    places = {name: task.row for name, task in state.works["x/w"].tasks.items() if task.state is TaskState.BOUND}
    assert places == {"t1": 1, "t2": 1}
    assert state.lines.ends == [(201.0, "x/w")]
