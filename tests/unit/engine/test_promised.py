"""Single tasks that wait for promised places are one kind of claim, and still take a place that is free sooner."""

from __future__ import annotations

from heddle.engine import Bind, Device, NodeSpec, Placement, PodSet, QueueSpec, State, WorkloadSpec, schedule

NODES, GPUS = 4, 8


def full() -> State:
    """Four nodes of 8 GPUs, full of the work of queue a; queue b, of equal quota, asks for half of them."""
    state = State()
    for at in range(NODES):
        state.set_node(NodeSpec(f"n{at}", {}, tuple(Device(f"g{d}", d) for d in range(GPUS))))
    for queue in "ab":
        state.set_queue(QueueSpec(queue, quota={"gpu": NODES * GPUS * 500}))
    for at in range(NODES * GPUS):
        single(state, f"a{at:02}", "a", 0.0)
        state.bind(Placement(f"a{at:02}", "main", "t", f"n{at // GPUS}", (f"g{at % GPUS}",)))
    for at in range(NODES * GPUS // 2):
        single(state, f"b{at:02}", "b", 1.0)
    return state


def single(state: State, name: str, queue: str, created: float) -> None:
    state.set_workload(WorkloadSpec(name, queue, (PodSet("main", ("t",), 1, gpu=1000),), created=created))


def promised(state: State) -> None:
    """One round: work of a is evicted, and its places are promised to all who wait."""
    for action in schedule(state, 1.0).actions:
        state.apply(action, 1.0)
    assert sum(work.held for work in state.works.values()) == NODES * GPUS // 2


def test_all_who_wait_for_what_they_were_promised_are_one_kind() -> None:
    state = full()
    promised(state)
    assert len(state.tree.queues["b"].kinds) == 1


def test_a_place_that_is_free_sooner_than_the_promised_one_is_taken_by_the_first_in_line() -> None:
    state = full()
    promised(state)
    state.set_node(NodeSpec("new", {}, (Device("g0", 0),)))
    (bind,) = (action for action in schedule(state, 2.0).actions if isinstance(action, Bind))
    assert (bind.placement.workload, bind.placement.node) == ("b00", "new")


def test_who_lost_a_promise_claims_again_in_the_same_round() -> None:
    state = full()
    promised(state)
    (task,) = state.works["b03"].tasks.values()
    assert task.hold is not None
    lost = state.nodes.specs[task.hold[0]].name
    state.set_node(NodeSpec("new", {}, tuple(Device(f"g{d}", d) for d in range(GPUS))))
    state.remove_node(lost)
    binds = {a.placement.workload: a.placement.node for a in schedule(state, 2.0).actions if isinstance(a, Bind)}
    assert binds["b03"] == "new"
