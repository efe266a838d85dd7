"""Properties of the engine over random clusters, queues, arrivals, failures and edits."""

from __future__ import annotations

import os

from engine_invariants import carry_out, check_state, plan_checked
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from heddle.engine import Device, Evict, NodeSpec, PodSet, QueueSpec, State, TaskState, WorkloadSpec

LEAVES = ("a1", "a2", "b1", "c")
amount = st.sampled_from([None, 0, 1000, 2000, 3000, 4000, 8000])


def node(at: int, gpus: int, cpu: int, rack: int) -> NodeSpec:
    devices = tuple(Device(f"g{index}", index, link=index // 2, numa=index // 4) for index in range(gpus))
    return NodeSpec(f"n{at}", {"cpu": cpu}, devices, {"zone": f"z{rack // 2}", "rack": f"r{rack}"})


class EngineWorld(RuleBasedStateMachine):
    """The world changes at random; after each cycle every invariant must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.made = 0

    @initialize(
        nodes=st.lists(
            st.tuples(st.integers(0, 4), st.integers(2, 9), st.integers(0, 3)), min_size=1, max_size=4
        )
    )
    def begin(self, nodes: list[tuple[int, int, int]]) -> None:
        self.state.set_topology(["zone", "rack"])
        for at, (gpus, cpu, rack) in enumerate(nodes):
            self.state.set_node(node(at, gpus, cpu * 1000, rack))
        for name, parent in (("a", None), ("a1", "a"), ("a2", "a"), ("b", None), ("b1", "b"), ("c", None)):
            self.state.set_queue(QueueSpec(name, parent, {"gpu": 2000}))

    @rule(
        name=st.sampled_from(("a", *LEAVES)),
        quota=amount,
        limit=amount,
        weight=st.sampled_from([0, 1, 2]),
        priority=st.integers(0, 1),
    )
    def edit_queue(self, name: str, quota: int | None, limit: int | None, weight: int, priority: int) -> None:
        parent = self.state.tree.queues[name].spec.parent
        self.state.set_queue(QueueSpec(name, parent, {"gpu": quota}, {"gpu": limit}, weight, priority))

    @rule(
        queue=st.sampled_from(LEAVES),
        sizes=st.lists(
            st.tuples(
                st.integers(1, 4), st.integers(0, 3), st.sampled_from([0, 300, 500, 1000, 1000, 2000, 4000])
            ),
            min_size=1,
            max_size=2,
        ),
        cpu=st.sampled_from([0, 500, 1000]),
        priority=st.integers(0, 2),
        preemptible=st.sampled_from([True, True, True, False]),
        required=st.sampled_from([None, None, None, "rack", "zone"]),
        preferred=st.sampled_from([None, None, "rack"]),
        strategy=st.sampled_from(["pack", "pack", "spread"]),
    )
    def submit(self, queue, sizes, cpu, priority, preemptible, required, preferred, strategy) -> None:  # type: ignore[no-untyped-def]
        pod_sets = tuple(
            PodSet(f"p{at}", tuple(f"p{at}t{n}" for n in range(count)), min(least, count), {"cpu": cpu}, gpu)
            for at, (count, least, gpu) in enumerate(sizes)
        )
        self.state.set_workload(
            WorkloadSpec(
                f"x/w{self.made}", queue, pod_sets, priority, preemptible, float(self.made), required, preferred, strategy
            )
        )  # fmt: skip
        self.made += 1

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.state.works:
            self.state.remove_workload(data.draw(st.sampled_from(sorted(self.state.works))))

    @rule(data=st.data(), gpus=st.integers(0, 4), cordon=st.booleans())
    def lose_or_change_node(self, data: st.DataObject, gpus: int, cordon: bool) -> None:
        at = data.draw(st.integers(0, 3))
        if f"n{at}" in self.state.nodes.row and data.draw(st.booleans()):
            self.state.remove_node(f"n{at}")
        else:
            spec = node(at, gpus, 9000, at)
            self.state.set_node(
                NodeSpec(spec.name, spec.resources, spec.devices, spec.labels, schedulable=not cordon)
            )

    @rule()
    def cycle(self) -> None:
        """One cycle whose evictions take time."""
        plan = plan_checked(self.state, 0.0)
        carry_out(self.state, plan, 0.0, release=False)
        check_state(self.state)
        held = set(self.state.holders)
        again = plan_checked(self.state, 0.0)
        gone = {a.reason.beneficiary for a in again.actions if isinstance(a, Evict)}
        assert not gone & held, "a workload with a promise caused further evictions"

    @rule(data=st.data())
    def one_leaves(self, data: st.DataObject) -> None:
        leaving = sorted(
            (w.name, t.name)
            for w in self.state.works.values()
            for t in w.tasks.values()
            if t.state is TaskState.RELEASING
        )
        if leaving:
            self.state.release_task(*data.draw(st.sampled_from(leaving)))

    @rule()
    def settle(self) -> None:
        """Two rounds reach a fixed point: everyone evicted for someone made that one run."""
        for work in list(self.state.works.values()):
            for task in list(work.tasks.values()):
                if task.state is TaskState.RELEASING:
                    self.state.release_task(work.name, task.name)
        first = plan_checked(self.state, 0.0)
        carry_out(self.state, first, 0.0, release=True)
        second = plan_checked(self.state, 0.0)
        carry_out(self.state, second, 0.0, release=True)
        for action in first.actions:
            if isinstance(action, Evict):
                work = self.state.works[action.reason.beneficiary]
                assert work.whole() and any(work.bound), (
                    f"{work.name} does not run, yet {action.workload} was evicted"
                )
        third = plan_checked(self.state, 0.0)
        assert not third.actions, f"no fixed point: {third.actions}"
        check_state(self.state)


TestEngineWorld = EngineWorld.TestCase
TestEngineWorld.settings = settings(
    max_examples=int(os.environ.get("HEDDLE_FUZZ", "60")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
