"""Properties of the engine over random clusters, queues, arrivals, failures and edits."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from engine_invariants import carry_out, check_state, plan_checked
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from heddle.engine import (
    NODE,
    Device,
    Evict,
    LabelMatch,
    NodePreference,
    NodeSpec,
    PodSet,
    QueueSpec,
    Slices,
    Spread,
    State,
    Taint,
    TaskState,
    Toleration,
    WorkloadSpec,
    schedule,
)

FUZZ = int(os.environ.get("HEDDLE_FUZZ", "40"))
"""How many random worlds: HEDDLE_FUZZ=5000 looks harder."""

LEAVES = ("a1", "a2", "b1", "c")
TREE = (("a", None), ("a1", "a"), ("a2", "a"), ("b", None), ("b1", "b"), ("c", None))
AMOUNTS = [None, 0, 1000, 2000, 3000, 4000, 8000]
amount = st.sampled_from(AMOUNTS)


def node(at: int, gpus: int, cpu: int, rack: int) -> NodeSpec:
    devices = tuple(Device(f"g{index}", index, link=index // 2, numa=index // 4) for index in range(gpus))
    labels = {"zone": f"z{rack // 2}", "rack": f"r{rack}", "kind": "ab"[cpu // 1000 % 2], "age": str(cpu // 1000)}
    return NodeSpec(f"n{at}", {"cpu": cpu}, devices, labels, taints=TAINTS[gpus])


TAINTS = {0: (), 1: (Taint("t", "x", "PreferNoSchedule"),), 2: (), 3: (Taint("t"),), 4: (), 8: ()}
WISHES: tuple[dict[str, Any], ...] = (
    {},
    {"node_affinity": ((LabelMatch("kind", "In", ("a",)),), (LabelMatch("age", "Gt", ("6",)),))},
    {"node_affinity": ((LabelMatch("kind", "NotIn", ("a",)), LabelMatch("age", "Lt", ("9",))),)},
    {"node_preferences": (NodePreference(2, (LabelMatch("kind", "Exists"),)),), "tolerations": (Toleration("t", "x"),)},
    {"node_preferences": (NodePreference(2, (LabelMatch("kind", "In", ("b",)),)),), "tolerations": (Toleration(""),)},
    {"spread": Spread(NODE, most=1)},
    {"spread": Spread("rack", most=2, skew=1)},
    {"slices": Slices("rack", 2)},
    {"slices": Slices(NODE, 2, balanced=True)},
    {"slices": Slices("zone", balanced=True)},
    {"exclusive": True},
    {"exclusive": True, "spread": Spread("rack", most=1)},
)
"""Where the tasks of a pod set may go, drawn with most weight on the first."""


class EngineWorld(RuleBasedStateMachine):
    """The world changes at random; after each cycle every invariant must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.made = 0

    @initialize(
        nodes=st.lists(st.tuples(st.integers(0, 4), st.integers(2, 9), st.integers(0, 3)), min_size=1, max_size=4)
    )
    def begin(self, nodes: list[tuple[int, int, int]]) -> None:
        self.state.set_topology(["zone", "rack"])
        for at, (gpus, cpu, rack) in enumerate(nodes):
            self.state.set_node(node(at, gpus, cpu * 1000, rack))
        for name, parent in TREE:
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
            st.tuples(st.integers(1, 4), st.integers(0, 3), st.sampled_from([0, 300, 500, 1000, 1000, 2000, 4000])),
            min_size=1,
            max_size=2,
        ),
        cpu=st.sampled_from([0, 500, 1000]),
        priority=st.integers(0, 2),
        preemptible=st.sampled_from([True, True, True, False]),
        required=st.sampled_from([None, None, None, "rack", "zone"]),
        preferred=st.sampled_from([None, None, "rack"]),
        strategy=st.sampled_from(["pack", "pack", "spread", "fragmentation"]),
        wish=st.sampled_from((WISHES[0],) * 2 * len(WISHES) + WISHES),
    )
    def submit(self, queue, sizes, cpu, priority, preemptible, required, preferred, strategy, wish) -> None:  # type: ignore[no-untyped-def]
        pod_sets = tuple(
            PodSet(f"p{at}", tuple(f"p{at}t{n}" for n in range(count)), min(least, count), {"cpu": cpu}, gpu, **wish)
            for at, (count, least, gpu) in enumerate(sizes)
        )
        self.state.set_workload(
            WorkloadSpec(
                f"x/w{self.made}",
                queue,
                pod_sets,
                priority,
                preemptible,
                float(self.made),
                required,
                preferred,
                strategy,
            )
        )
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
            self.state.set_node(NodeSpec(spec.name, spec.resources, spec.devices, spec.labels, schedulable=not cordon))

    @rule()
    def cycle(self) -> None:
        one_slow_cycle(self.state)

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
        settle_and_check(self.state)


TestEngineWorld = EngineWorld.TestCase
TestEngineWorld.settings = settings(
    max_examples=FUZZ, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("seed", range(FUZZ // 2))
def test_crowded_random_worlds_keep_every_invariant(seed: int) -> None:
    """Denser than what Hypothesis draws: most cycles here evict and reserve."""
    draw = random.Random(seed)
    state = State()
    state.set_topology(["zone", "rack"])
    for at in range(draw.randint(1, 5)):
        state.set_node(node(at, draw.choice([0, 2, 4, 4, 8]), draw.choice([4000, 8000]), at))
    for name, parent in TREE:
        quota, weight, priority = draw.choice(AMOUNTS), draw.choice([0, 1, 2]), draw.choice([0, 0, 1])
        limit = draw.choice([None, None, None, draw.choice(AMOUNTS)])
        state.set_queue(QueueSpec(name, parent, {"gpu": quota}, {"gpu": limit}, weight, priority))
    made = 0
    for _ in range(10):
        for _ in range(draw.randint(1, 5)):
            state.set_workload(random_workload(draw, made))
            made += 1
        for name in list(state.works):
            if draw.random() < 0.15:
                state.remove_workload(name)
        if draw.random() < 0.3:
            one_slow_cycle(state)
            for work in list(state.works.values()):
                for task in list(work.tasks.values()):
                    if task.state is TaskState.RELEASING and draw.random() < 0.6:
                        state.release_task(work.name, task.name)
        else:
            settle_and_check(state)


def random_workload(draw: random.Random, number: int) -> WorkloadSpec:
    pod_sets = []
    for part in range(draw.choice([1, 1, 1, 2])):
        count = draw.randint(1, 4)
        names = tuple(f"p{part}t{at}" for at in range(count))
        gpu = draw.choice([0, 300, 500, 1000, 1000, 2000, 4000])
        wish = draw.choice(WISHES) if draw.random() < 0.35 else {}
        cpu = draw.choice([0, 500, 1000])
        pod_sets.append(PodSet(f"p{part}", names, draw.randint(0, count), {"cpu": cpu}, gpu, **wish))
    return WorkloadSpec(
        f"x/w{number}",
        draw.choice(LEAVES),
        tuple(pod_sets),
        draw.randint(0, 2),
        draw.random() < 0.75,
        float(number),
        draw.choice([None, None, None, None, "rack", "zone"]),
        draw.choice([None, None, None, None, "rack"]),
        draw.choice(["pack", "pack", "spread", "fragmentation"]),
    )


def one_slow_cycle(state: State) -> None:
    """One cycle whose evictions take time: those with a promise evict nobody else meanwhile."""
    plan = plan_checked(state, 0.0)
    carry_out(state, plan, 0.0, release=False)
    check_state(state)
    held = set(state.holders)
    again = plan_checked(state, 0.0)
    gainers = {action.reason.beneficiary for action in again.actions if isinstance(action, Evict)}
    assert not gainers & held, "a workload with a promise caused further evictions"


def settle_and_check(state: State) -> None:
    """Everyone for whom somebody left runs one round later, and the world comes to rest.

    It rests after two rounds, unless the second evicted too: an evicted workload may itself be owed room
    that others hold. Each such link of a chain takes a round of its own.
    """
    for work in list(state.works.values()):
        for task in list(work.tasks.values()):
            if task.state is TaskState.RELEASING:
                state.release_task(work.name, task.name)
    for _ in range(8):
        plan = plan_checked(state, 0.0)
        carry_out(state, plan, 0.0, release=True)
        evicts = [action for action in plan.actions if isinstance(action, Evict)]
        if not evicts and not schedule(state, 0.0).actions:
            break
        following = plan_checked(state, 0.0)
        carry_out(state, following, 0.0, release=True)
        for action in evicts:
            if action.reason.beneficiary:
                gainer = state.works[action.reason.beneficiary]
                assert gainer.whole(), f"{gainer.name} does not run, yet {action.workload} was evicted for it"
                assert any(gainer.bound), f"{gainer.name} does not run, yet {action.workload} was evicted for it"
    assert not schedule(state, 0.0).actions, "the world does not come to rest"
    check_state(state)
