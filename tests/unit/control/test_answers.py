"""What people are told: why a job waits, and when it will start where an end of other work can matter."""

import pytest

from heddle.control.scheduling.answers import answer
from heddle.engine import Budget, Device, NodeSpec, Placement, PodSet, QueueSpec, State, WorkloadSpec


def world() -> State:
    state = State()
    state.set_node(NodeSpec("n", {}, tuple(Device(f"g{at}", at, "H100") for at in range(8))))
    state.set_queue(QueueSpec("open", quota={"gpu": 8000}))
    state.set_queue(QueueSpec("stopped", quota={"gpu": 8000}, stop_policy="Hold"))
    state.set_queue(QueueSpec("inner", quota={"gpu": 8000}))
    state.set_queue(QueueSpec("leaf", parent="inner"))
    return state


@pytest.mark.parametrize(
    ("queue", "model", "code"),
    [
        ("none", "", "QueueNotFound"),
        ("stopped", "", "QueueStopped"),
        ("inner", "", "QueueHasChildren"),
        ("open", "B200", "NoGpuMatches"),
    ],
)
def test_nothing_is_said_of_when_where_no_end_of_other_work_helps(queue: str, model: str, code: str) -> None:
    state = world()
    pods = PodSet("main", ("task",), 1, gpu=1000, gpu_models=(model,) if model else ())
    state.set_workload(WorkloadSpec("waits", queue, (pods,)))
    found = answer(state, "waits", 0.0, Budget())
    assert [reason.code for reason in found.reasons] == [code]
    assert found.expected is None


def test_of_what_waits_for_the_end_of_others_it_is_said() -> None:
    state = world()
    pods = PodSet("main", ("task",), 1, gpu=8000)
    state.set_workload(WorkloadSpec("runs", "open", (pods,), walltime=60, created=0))
    state.bind(Placement("runs", "main", "task", "n", tuple(f"g{at}" for at in range(8))), 0.0)
    state.set_workload(WorkloadSpec("waits", "open", (pods,), created=1))
    found = answer(state, "waits", 0.0, Budget())
    assert found.expected is not None
    assert (found.expected.code, found.start) == ("ExpectedStart", "1970-01-01T00:01:00Z")


def test_nothing_is_said_of_when_of_more_than_the_queue_allows_at_all() -> None:
    state = world()
    state.set_queue(QueueSpec("narrow", quota={"gpu": 2000}))
    for name, gpus in (("first", 2), ("fits", 1), ("more", 3)):
        pods = PodSet("main", ("task",), 1, gpu=1000 * gpus)
        state.set_workload(WorkloadSpec(name, "narrow", (pods,), preemptible=False))
    state.bind(Placement("first", "main", "task", "n", ("g0", "g1")), 0.0)
    fits, more = (answer(state, name, 0.0, Budget()) for name in ("fits", "more"))
    assert [reason.code for reason in (*fits.reasons, *more.reasons)] == ["OverQuota", "OverQuota"]
    assert fits.expected is not None
    assert more.expected is None
