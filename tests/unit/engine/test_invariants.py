"""Properties of the engine over random clusters, queues, arrivals, failures and edits."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from engine_invariants import carry_out, check_state, plan_checked
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from worlds import FUZZ, POLICIES, SEATS, in_groups, in_order, random_policy, with_policy

from heddle.engine import (
    NODE,
    Apart,
    Device,
    Even,
    Evict,
    LabelMatch,
    Liked,
    Mig,
    Near,
    Neighbours,
    NodePreference,
    NodeSpec,
    PastUsage,
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
from heddle.engine.forward import get_ready

NOW = 12.0
"""Seconds: work is created before and after, so that ages differ."""
LEAVES = ("a1", "a2", "b1", "c")
TREE = (("a", None), ("a1", "a"), ("a2", "a"), ("b", None), ("b1", "b"), ("c", None))
AMOUNTS = [None, 0, 1000, 2000, 3000, 4000, 8000]
amount = st.sampled_from(AMOUNTS)


def policies() -> st.SearchStrategy[dict[str, object]]:
    """Optional fields of a queue, each mostly absent."""
    fields = {name: st.sampled_from((None, None, *values)) for name, values in POLICIES.items()}
    return st.fixed_dictionaries({}, optional=fields)


def node(at: int, gpus: int, cpu: int, rack: int) -> NodeSpec:
    devices = tuple(
        Device(f"g{index}", index, *CARDS[at], index // 4, index // 2, MIG.get((at, index))) for index in range(gpus)
    )
    labels = {"zone": f"z{rack // 2}", "rack": f"r{rack}", "kind": "ab"[cpu // 1000 % 2], "age": str(cpu // 1000)}
    labels["name"] = f"n{at}"
    counted = {f"gpu:{CARDS[at][0]}": 1000 * gpus} if CARDS[at][0] else {}
    return NodeSpec(f"n{at}", {"cpu": cpu, **counted}, devices, labels, taints=TAINTS.get(gpus, ()))


CARDS = (("A", 40_960), ("B", 81_920), ("", 0), ("B", 40_960), ("A", 81_920))
"""Model and MiB of the GPUs of each node; "" and 0 = nobody knows."""
MIG = {
    (1, 0): Mig("A100-40GB"),
    (1, 2): Mig("A100-40GB", (("3g.20gb", 0), ("2g.10gb", 4), ("1g.5gb", 6))),
    (3, 1): Mig("A100-40GB"),
}
"""GPUs in MIG mode, by node and index."""
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
CROWDS: tuple[Neighbours, ...] = (
    Neighbours(("x",)),
    Neighbours(("x", "y")),
    Neighbours(("y",)),
    Neighbours((), Near(("zone",), "x")),
    Neighbours(("x",), Near(("rack",), "x")),
    Neighbours(("y",), Near(("zone", "kind"), "y")),
    Neighbours(("x",), apart=(Apart("name", "x"),)),
    Neighbours((), apart=(Apart("rack", "y"),)),
    Neighbours(("u",), apart=(Apart("", "u"),)),
    Neighbours(("y",), Near(("rack",), "x"), apart=(Apart("name", "y"), Apart("zone", "z"))),
    Neighbours(("z",), apart=(Apart("zone", "x"),)),
    Neighbours(("x",), even=(Even("name", "x", 1),)),
    Neighbours(("y",), even=(Even("rack", "y", 1), Even("zone", "x", 2, 2, admitted=False, tolerated=True))),
    Neighbours(("z",), Near(("zone",), "z"), even=(Even("name", "z", 1, 3),)),
    Neighbours(("y",), liked=(Liked("zone", "x", 5), Liked("name", "y", -2))),
    Neighbours(("x",), apart=(Apart("rack", "z"),), evened=(Even("zone", "x", 1), Even("name", "x", 1))),
)
"""What tasks of random worlds demand of others; none of this is looked at in worlds without."""
GPUS: tuple[dict[str, Any], ...] = (
    {"gpu": 0, "gpu_memory": 16_000},
    {"gpu": 0, "gpu_memory": 40_960},
    {"gpu": 0, "gpu_memory": 70_000},
    {"gpu": 1000, "gpu_models": ("A",)},
    {"gpu": 1000, "gpu_models": ("B", "A")},
    {"gpu": 2000, "gpu_models": ("A", "B")},
    {"gpu": 1000, "gpu_models": ("A", "B"), "gpu_speeds": {"B": 0.5}},
    {"gpu": 0, "gpu_memory": 20_000, "gpu_models": ("A", "B")},
    {"gpu": 0, "mig": "1g.5gb"},
    {"gpu": 0, "mig": "2g.10gb"},
    {"gpu": 0, "mig": "3g.20gb"},
    {"gpu": 0, "mig": "7g.40gb", "gpu_models": ("B", "A")},
    {"gpu": 0, "mig": "1g.5gb+me"},
)
"""Other ways to ask for GPUs than by number."""
BUDGETS: tuple[dict[str, int], ...] = ({}, {"some": 1}, {"some": 3, "more": 0}, {"more": 2}, {"some": 2, "more": 9})
"""Disruption budgets, for pod sets of random worlds that name them."""


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
        self.state.set_counters({SEATS: 3})

    @rule(budgets=st.dictionaries(st.sampled_from(["some", "more"]), st.integers(0, 4)))
    def protect(self, budgets: dict[str, int]) -> None:
        self.state.set_disruption_budgets(budgets)

    @rule(seats=st.integers(0, 5))
    def buy(self, seats: int) -> None:
        self.state.set_counters({SEATS: seats})

    @rule(
        name=st.sampled_from(("a", *LEAVES)),
        quota=amount,
        limit=amount,
        weight=st.sampled_from([0, 1, 2]),
        priority=st.integers(0, 1),
        policy=policies(),
    )
    def edit_queue(self, name: str, quota: int | None, limit: int | None, weight: int, priority: int,
                   policy: dict[str, object]) -> None:  # fmt: skip
        spec = QueueSpec(
            name, self.state.tree.queues[name].spec.parent, {"gpu": quota}, {"gpu": limit}, weight, priority
        )
        self.state.set_queue(with_policy(spec, policy))

    @rule(
        queue=st.sampled_from(LEAVES),
        sizes=st.lists(
            st.tuples(st.integers(1, 4), st.integers(0, 3), st.sampled_from([0, 300, 500, 1000, 1000, 2000, 4000])),
            min_size=1,
            max_size=3,
        ),
        order=st.sampled_from([0, 0, 0, 1, 2]),
        broken=st.sampled_from([None, None, 0.0, 10.0]),
        grace=st.sampled_from([None, None, 0.0, 5.0]),
        groups=st.sampled_from([None, None, (0, "xyz"), (1, "xyz"), (1, "xxy"), (2, "xyz"), (1, " xy")]),
        cpu=st.sampled_from([0, 500, 1000]),
        priority=st.integers(0, 2),
        preemptible=st.sampled_from([True, True, True, False]),
        gentle=st.sampled_from([False, False, False, True]),
        required=st.sampled_from([None, None, None, "rack", "zone"]),
        preferred=st.sampled_from([None, None, "rack"]),
        strategy=st.sampled_from(["pack", "pack", "spread", "fragmentation"]),
        walltime=st.sampled_from([None, None, 50.0, 100.0]),
        user=st.sampled_from(["", "ann", "bob"]),
        wish=st.sampled_from((WISHES[0],) * 2 * len(WISHES) + WISHES),
        gpus=st.sampled_from(({},) * 6 + GPUS),
        separate=st.sampled_from([False, False, False, True]),
        seats=st.sampled_from([0, 0, 0, 1, 2]),
        budgets=st.sampled_from([(), (), ("some",), ("some", "more")]),
        step=st.sampled_from([1, 1, 1, 2, 3]),
        neighbours=st.sampled_from((None,) * len(CROWDS) + CROWDS),
    )
    def submit(
        self,
        queue,
        sizes,
        cpu,
        priority,
        preemptible,
        gentle,
        required,
        preferred,
        strategy,
        walltime,
        user,
        wish,
        gpus,
        separate,
        seats,
        groups,
        order,
        broken,
        grace,
        budgets,
        step,
        neighbours,
    ) -> None:  # type: ignore[no-untyped-def]
        pod_sets = tuple(
            PodSet(
                f"p{at}",
                tuple(f"p{at}t{n}" for n in range(count)),
                min(least, count),
                {"cpu": cpu, SEATS: seats},
                **{"gpu": gpu, **gpus},
                budgets=budgets,
                step=step,
                neighbours=neighbours,
                **wish,
            )
            for at, (count, least, gpu) in enumerate(sizes)
        )
        spec = WorkloadSpec(
            f"x/w{self.made}",
            queue,
            pod_sets,
            priority,
            preemptible,
            float(self.made),
            required,
            preferred,
            strategy,
            walltime=walltime,
            user=user,
            broken_since=broken,
            gang_grace=grace,
            separate_gpus=separate,
            gentle=gentle,
        )
        self.state.set_workload(in_order(in_groups(spec, groups), order))
        self.made += 1

    @rule(data=st.data())
    def get_ready(self, data: st.DataObject) -> None:
        runs = sorted(
            (w.name, t.name) for w in self.state.works.values() for t in w.tasks.values() if t.state is TaskState.BOUND
        )
        if runs:
            self.state.mark_ready(
                *data.draw(st.sampled_from(runs)), ready=data.draw(st.sampled_from([True, True, False]))
            )

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
            self.state.set_node(replace(spec, taints=(), schedulable=not cordon))

    @rule(name=st.sampled_from(("a", *LEAVES)), at=st.floats(0, NOW), gpus=st.floats(0, 8000))
    def remember(self, name: str, at: float, gpus: float) -> None:
        self.state.set_past_usage(name, PastUsage(at, {"gpu": gpus}))

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


FOUND = (105_988, 303_936, 414_414, 920_002, 9_786_022, 9_803_355, 11_356_014)
"""Seeds at which `make fuzz` found a fault: one group of a torn gang left and the other stayed, to no use; places in
line changed by what was only tried; a third took the place that others had left for, and its owner was promised
another; a gang was promised room beside those who had to leave for it, whose company it sought; all were heard again
since somebody had come only on trial, which is not tried where it is known to be in vain; of a group of which too
few ran those left that no budget kept."""


@pytest.mark.parametrize("seed", [*range(FUZZ), *FOUND])
def test_crowded_random_worlds_keep_every_invariant(seed: int) -> None:
    crowded_world(seed)


OUTGROWN = 5_101_769
"""A queue within its own lost work: what had just put it beyond that was displaced in the same cycle."""


@pytest.mark.parametrize("seed", [*range(FUZZ // 2), OUTGROWN])
def test_worlds_in_which_time_passes_keep_every_invariant(seed: int) -> None:
    passing_world(seed)


def passing_world(seed: int) -> None:
    """The clock moves on: work ends by its walltime, nodes fail and come back, queues are edited, and what was told to
    leave takes its time, while reservations and moves are in flight."""
    draw = random.Random(seed)
    state = State()
    state.set_topology(["zone", "rack"])
    sizes = [(draw.choice([2, 4, 4, 8]), draw.choice([4000, 8000])) for _ in range(draw.randint(2, 5))]
    for at, (gpus, cpu) in enumerate(sizes):
        state.set_node(node(at, gpus, cpu, at))
    for name, parent in TREE:
        state.set_queue(random_queue(draw, name, parent, policies=bool(seed % 2)))
    now = 0.0
    for made in range(25):
        now += draw.choice([0.0, 1.0, 7.5, 40.0])
        state.note_usage(now)
        for work in list(state.works.values()):
            over = work.end is not None and work.end[0] <= now and draw.random() < 0.8  # some outstay their walltime
            if over or draw.random() < 0.05:
                state.remove_workload(work.name)
        if len(state.works) < 9:
            spec = random_workload(draw, made, social=seed % 3 == 1)
            strategy = ("pack", "spread", "fragmentation")[seed % 3]
            state.set_workload(replace(spec, created=now, strategy=strategy, movable=draw.random() < 0.8))
        change_nodes(draw, state, sizes, lambda at, gpus, cpu: node(at, gpus, cpu, at))
        if draw.random() < 0.2:
            state.set_disruption_budgets(draw.choice(BUDGETS))
        if draw.random() < 0.15:
            name, parent = draw.choice(TREE)
            state.set_queue(random_queue(draw, name, parent, policies=bool(seed % 2)))
        for name in [*state.lines.broken]:
            if state.works[name].spec.broken_since is None:
                state.set_workload(replace(state.works[name].spec, broken_since=now))
        plan = plan_checked(state, now)
        carry_out(state, plan, now, release=False)
        check_state(state)
        for work in list(state.works.values()):
            for task in list(work.tasks.values()):
                if task.state is TaskState.RELEASING and draw.random() < 0.4:
                    state.release_task(work.name, task.name)
            if work.spec.broken_since is not None and work.name not in state.lines.broken:
                state.set_workload(replace(work.spec, broken_since=None))


def change_nodes(
    draw: random.Random, state: State, sizes: list[tuple[int, int]], make: Callable[[int, int, int], NodeSpec]
) -> None:
    """Now and then a node fails, is cordoned, loses devices, or comes back as it is made (number, GPUs, CPU)."""
    if draw.random() < 0.6:
        return
    at = draw.randrange(len(sizes))
    spec = make(at, *sizes[at])
    what = draw.random()
    if spec.name not in state.nodes.row or what < 0.4:
        state.set_node(spec)
    elif what < 0.6:
        state.remove_node(spec.name)
    elif what < 0.8:
        state.set_node(replace(spec, schedulable=False))
    else:
        state.set_node(make(at, len(spec.devices) // 2, sizes[at][1]))


def random_queue(draw: random.Random, name: str, parent: str | None, *, policies: bool) -> QueueSpec:
    limit = draw.choice([None, None, None, draw.choice(AMOUNTS)])
    limits = {"gpu": limit, "gpu:A": draw.choice([None, None, 2000])}
    quota, weight, priority = draw.choice(AMOUNTS), draw.choice([0, 1, 2]), draw.choice([0, 0, 1])
    spec = QueueSpec(name, parent, {"gpu": quota}, limits, weight, priority)
    return with_policy(spec, random_policy(draw)) if policies else spec


def crowded_world(seed: int) -> None:
    """Denser than what Hypothesis draws: most cycles here evict and reserve. Every other world has queues with
    policies of their own."""
    draw = random.Random(seed)
    state = State()
    state.set_topology(["zone", "rack"])
    for at in range(draw.randint(1, 5)):
        state.set_node(node(at, draw.choice([0, 2, 4, 4, 8]), draw.choice([4000, 8000]), at))
    for name, parent in TREE:
        quota, weight, priority = draw.choice(AMOUNTS), draw.choice([0, 1, 2]), draw.choice([0, 0, 1])
        limit = draw.choice([None, None, None, draw.choice(AMOUNTS)])
        owed = {"gpu": quota, "gpu:A": draw.choice([None, None, None, 1000])}
        spec = QueueSpec(name, parent, owed, {"gpu": limit, "gpu:A": draw.choice([None, None, 2000])}, weight, priority)
        state.set_queue(with_policy(spec, random_policy(draw)) if seed % 2 else spec)
    made = 0
    for _ in range(10):
        state.set_counters({SEATS: draw.choice([1, 2, 4, 4])})
        state.set_disruption_budgets(draw.choice(BUDGETS))
        for _ in range(draw.randint(1, 5)):
            state.set_workload(random_workload(draw, made, social=seed % 3 == 1))
            made += 1
        for name in LEAVES:
            state.set_past_usage(name, PastUsage(draw.random() * NOW, {"gpu": draw.random() * 4000}))
        for name in list(state.works):
            if draw.random() < 0.15:
                state.remove_workload(name)
        for work in state.works.values():
            for task in work.tasks.values():
                if task.state is TaskState.BOUND and draw.random() < 0.5:
                    state.mark_ready(work.name, task.name)
        if draw.random() < 0.2:
            at = draw.randint(0, 4)  # lost, or back again
            if f"n{at}" in state.nodes.row:
                state.remove_node(f"n{at}")
            else:
                state.set_node(node(at, 4, 8000, at))
        if draw.random() < 0.3:
            one_slow_cycle(state)
            for work in list(state.works.values()):
                for task in list(work.tasks.values()):
                    if task.state is TaskState.RELEASING and draw.random() < 0.6:
                        state.release_task(work.name, task.name)
        else:
            settle_and_check(state)


def random_workload(draw: random.Random, number: int, *, social: bool = False) -> WorkloadSpec:
    pod_sets = []
    groups = draw.choice([None, None, None, (0, "xyz"), (1, "xyz"), (1, "xxy"), (2, "xyz"), (1, " xy")])
    for part in range(draw.choice([1, 1, 1, 2]) if groups is None else 3):
        count = draw.randint(1, 4)
        names = tuple(f"p{part}t{at}" for at in range(count))
        gpu = draw.choice([0, 300, 500, 1000, 1000, 2000, 4000])
        wish = draw.choice(WISHES) if draw.random() < 0.35 else {}
        request = {"cpu": draw.choice([0, 500, 1000]), SEATS: draw.choice([0, 0, 0, 0, 1])}
        asked = {"gpu": gpu, **(draw.choice(GPUS) if draw.random() < 0.2 else {})}
        step, resizable = draw.choice([1, 1, 1, 1, 2, 3]), draw.random() < 0.9
        budgets = draw.choice([(), (), (), (), ("some",), ("more",), ("some", "more")])
        wish = wish | {"budgets": budgets, "step": step, "resizable": resizable}
        if social and draw.random() < 0.7:
            wish |= {"neighbours": draw.choice(CROWDS)}
        pod_sets.append(PodSet(f"p{part}", names, draw.randint(0, count), request, **asked, **wish))
    spec = WorkloadSpec(
        f"x/w{number}",
        draw.choice(LEAVES),
        tuple(pod_sets),
        draw.randint(0, 2),
        draw.random() < 0.75,
        float(number),
        draw.choice([None, None, None, None, "rack", "zone"]),
        draw.choice([None, None, None, None, "rack"]),
        draw.choice(["pack", "pack", "spread", "fragmentation"]),
        walltime=draw.choice([None, None, 50.0, 100.0]),
        user=draw.choice(["", "ann", "bob"]),
        separate_gpus=draw.random() < 0.15,
        broken_since=draw.choice([None, None, 0.0, 10.0]),
        gang_grace=draw.choice([None, None, 0.0, 5.0]),
        checkpointed=draw.choice([None, None, 3.0, 20.0]),
    )
    return in_order(in_groups(spec, groups), draw.choice([0, 0, 0, 1, 2]))


def one_slow_cycle(state: State) -> None:
    """One cycle whose evictions take time: those with a promise evict nobody else meanwhile."""
    plan = plan_checked(state, NOW)
    carry_out(state, plan, NOW, release=False)
    check_state(state)
    held = set(state.holders)
    again = plan_checked(state, NOW)
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
        get_ready(state)
        plan = plan_checked(state, NOW)
        carry_out(state, plan, NOW, release=True)
        evicts = [action for action in plan.actions if isinstance(action, Evict)]
        if not evicts:  # else nothing else may happen before those who gained start
            get_ready(state)
            if not schedule(state, NOW).actions:
                break
        following = plan_checked(state, NOW)
        carry_out(state, following, NOW, release=True)
        for action in evicts:
            if action.reason.beneficiary:
                gainer = state.works[action.reason.beneficiary]
                assert gainer.whole() or (gainer.after is not None and gainer.promised_whole()), (
                    f"{gainer.name} does not run, yet {action.workload} was evicted for it"
                )
                assert any(gainer.bound), f"{gainer.name} does not run, yet {action.workload} was evicted for it"
    get_ready(state)
    assert not schedule(state, NOW).actions, "the world does not come to rest"
    check_state(state)
