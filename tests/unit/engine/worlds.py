"""Small worlds for tests, in few words."""

from __future__ import annotations

import os
import random
from dataclasses import replace

from heddle.engine import Ageing, Bind, Device, Evict, NodeSpec, Plan, PodSet, QueueSpec, State, WorkloadSpec, schedule

FUZZ = int(os.environ.get("HEDDLE_FUZZ", "40"))
"""How many random worlds of a kind a test looks at: HEDDLE_FUZZ=5000 looks harder."""

POLICIES: dict[str, tuple[object, ...]] = {
    "borrowing_limit": (0, 1000, 3000),
    "lending_limit": (0, 1000, 2000),
    "stop_policy": ("None", "Hold", "HoldAndDrain"),
    "ordering": ("BestEffort", "StrictFIFO", "StrictFIFO"),
    "ageing": (Ageing(2, 3), Ageing(1, 1)),
    "usage_half_life": (1.0, 10.0),
    "preempt_min_runtime": (0.0, 5.0, 30.0),
    "reclaim_min_runtime": (0.0, 5.0, 30.0),
    "drain_after": (0.0, 5.0),
    "user_limit": ({"gpu": 1000}, {"gpu": 3000, "cpu": 4000}),
}
"""Optional fields of a queue and values worth trying; an amount means GPUs."""


SEATS = "counter:seats"
"""A counter that some work of random worlds asks for."""


def random_policy(draw: random.Random) -> dict[str, object]:
    return {name: draw.choice(values) for name, values in POLICIES.items() if draw.random() < 0.25}


def with_policy(spec: QueueSpec, policy: dict[str, object]) -> QueueSpec:
    """The queue with those optional fields that make sense with its quota."""
    fields: dict[str, object] = {}
    quota = spec.quota.get("gpu")
    for name, value in policy.items():
        if value is None:
            continue
        if name in ("borrowing_limit", "lending_limit"):
            if quota is not None and isinstance(value, int):
                fields[name] = {"gpu": min(value, quota) if name == "lending_limit" else value}
        else:
            fields[name] = value
    return replace(spec, **fields)  # type: ignore[arg-type]


def node(name: str, gpus: int = 4, *, cpu: int = 64, **labels: str) -> NodeSpec:
    return NodeSpec(name, {"cpu": cpu * 1000}, tuple(Device(f"g{at}", at) for at in range(gpus)), labels)


def world(*nodes: NodeSpec, **quotas: int | None) -> State:
    """Nodes, and a queue per keyword with a quota of that many GPUs."""
    state = State()
    state.set_topology(["zone", "rack"])
    for spec in nodes or (node("n0"),):
        state.set_node(spec)
    for name, gpus in quotas.items():
        state.set_queue(QueueSpec(name, quota={"gpu": None if gpus is None else gpus * 1000}))
    return state


def work(name: str, queue: str, tasks: int = 1, gpus: float = 1, **more: object) -> WorkloadSpec:
    least = more.pop("least", tasks)
    selector = more.pop("selector", {})
    cpu = more.pop("cpu", 0)
    pods = PodSet("main", tuple(f"t{at}" for at in range(tasks)), least, {"cpu": cpu}, int(gpus * 1000), selector)  # type: ignore[arg-type]
    return WorkloadSpec(name, queue, (pods,), **more)  # type: ignore[arg-type]


def in_groups(spec: WorkloadSpec, groups: tuple[int, str] | None) -> WorkloadSpec:
    """The workload with its pod sets in groups, a letter each (a blank: in none), of which so many are needed."""
    if groups is None:
        return spec
    least, names = groups
    pod_sets = tuple(replace(p, group=name.strip()) for p, name in zip(spec.pod_sets, names, strict=False))
    return replace(spec, pod_sets=pod_sets, min_groups=min(least, len({p.group for p in pod_sets if p.group})))


def in_order(spec: WorkloadSpec, order: int) -> WorkloadSpec:
    """The workload with pod sets that start one after the other (1), or all after the first (2), where groups allow."""
    sets = list(spec.pod_sets)
    for at in range(1, len(sets)):
        before = sets[at - 1 if order == 1 else 0]
        if order and before.group in ("", sets[at].group):
            sets[at] = replace(sets[at], after=(before.name,))
    return replace(spec, pod_sets=tuple(sets))


def settle(state: State, plan: Plan, *, release: bool = True, now: float = 0.0) -> None:
    for action in plan.actions:
        state.apply(action, now)
    for action in plan.actions if release else ():
        if isinstance(action, Evict):
            state.release_task(action.workload, action.task)


def runs(state: State, name: str = "x/w") -> int:
    return sum(state.works[name].bound)


def victims(plan: Plan) -> list[str]:
    return [action.workload for action in plan.actions if isinstance(action, Evict)]


def rounds(state: State, number: int = 3) -> None:
    for _ in range(number):
        settle(state, schedule(state, 0))


def bound(plan: Plan) -> list[tuple[str, str, tuple[str, ...]]]:
    places = [action.placement for action in plan.actions if isinstance(action, Bind)]
    return [(place.workload, place.node, place.devices) for place in places]


def codes(plan: Plan, name: str) -> list[str]:
    return [str(reason.code) for reason in plan.verdicts[name].reasons]
