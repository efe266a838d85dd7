"""The changes that `explain` names, carried out on a copy of the world, and one step less of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product

from heddle.engine import Evict, PodSet, QueueSpec, Reason, State, WorkloadSpec, schedule
from heddle.engine.forward import get_ready

Change = Callable[[State], None]
"""Applies a change to a state."""


def starts(before: State, name: str, change: Change, now: float, rounds: int = 3) -> bool:
    """Whether a workload runs with its minimum within a few cycles of a change; whoever is evicted leaves at once."""
    state = State.rebuild(before.snapshot())
    change(state)
    for _ in range(rounds):
        plan = schedule(state, now)
        for action in plan.actions:
            state.apply(action, now)
        for action in plan.actions:
            if isinstance(action, Evict):
                state.release_task(action.workload, action.task)
        get_ready(state)
        work = state.works[name]
        if work.whole() and any(work.bound):
            return True
    return False


def comes(before: State, name: str, change: Change, now: float) -> bool:
    """Whether the cycle that follows a change starts a workload with its minimum, or has room made for it."""
    state = State.rebuild(before.snapshot())
    change(state)
    for action in schedule(state, now).actions:
        state.apply(action, now)
    work = state.works[name]
    return work.promised_whole() and (any(work.bound) or work.held > 0)


def edited(name: str, edit: Callable[[WorkloadSpec], WorkloadSpec]) -> Change:
    return lambda state: void(state.set_workload(edit(state.works[name].spec)))


def void(_: object) -> None:
    return None


def one_pod_set(name: str, edit: Callable[[PodSet], PodSet], pod_set: str) -> Change:
    """Edits the pod set of a name; "" = there is but one."""

    def change(spec: WorkloadSpec) -> WorkloadSpec:
        assert pod_set or len(spec.pod_sets) == 1
        sets = (edit(pods) if pods.name == pod_set or not pod_set else pods for pods in spec.pod_sets)
        return replace(spec, pod_sets=tuple(sets))

    return edited(name, change)


def members(name: str, count: int, pod_set: str) -> Change:
    return one_pod_set(
        name, lambda pods: replace(pods, min=count, tasks=pods.tasks[: len(pods.tasks) - pods.min + count]), pod_set
    )


def gpus(name: str, milli: int, pod_set: str) -> Change:
    return one_pod_set(name, lambda pods: replace(pods, gpu=milli), pod_set)


def level(name: str, label: str | None) -> Change:
    return edited(name, lambda spec: replace(spec, topology_required=label))


def queue(name: str, edit: Callable[[QueueSpec], QueueSpec]) -> Change:
    return lambda state: state.set_queue(edit(state.tree.queues[name].spec))


def amount(where: str, field: str, resource: str, value: int) -> Change:
    return queue(where, lambda spec: replace(spec, **{field: {**getattr(spec, field), resource: value}}))


FIELDS = {
    "RaiseLimit": "limit",
    "RaiseQuota": "quota",
    "RaiseBorrowingLimit": "borrowing_limit",
    "RaiseLendingLimit": "lending_limit",
    "RaiseUserLimit": "user_limit",
}


def changes(state: State, name: str, said: Reason) -> tuple[list[Change], list[Change]]:
    """The change that a reason names (several, where its words allow them), and smaller ones of the same kind."""
    code = str(said.code)
    spec = state.works[name].spec
    if code == "FewerMembers":
        size = next((p.slices.size for p in spec.pod_sets if p.slices and said.pod_set in ("", p.name)), 1)
        more, part = said.fits + size, said.pod_set
        return [members(name, said.fits, part)], [members(name, more, part)] if more < said.needed else []
    if code == "FewerGpus":
        more, part = said.free + 1000, said.pod_set
        return [gpus(name, said.free, part)], [gpus(name, more, part)] if more < said.wanted else []
    if code == "RelaxTopology":
        labels = state.topology.labels
        inner = labels.index(said.level) if said.level in labels else 0
        outer = labels.index(said.queue) + 1 if said.queue else 0
        return [level(name, said.queue or None)], [level(name, label) for label in labels[outer:inner]]
    if code in FIELDS:
        field = FIELDS[code]
        less = [amount(said.queue, field, said.resource, said.wanted - 1)] if said.wanted - 1 > said.cap else []
        return [amount(said.queue, field, said.resource, said.wanted)], less
    if code == "OthersLeave":
        return others(state, said)
    if code == "AnyNode":
        return [one_for_all(name, node_selector={}, node_affinity=())], []
    if code == "AnyArrangement":
        apart = one_for_all(name, spread=None, slices=None, exclusive=False)
        together = edited(name, lambda spec: replace(spec, separate_gpus=False))
        return [lambda state: void((apart(state), together(state)))], []
    if code == "NodesBack":
        names = [node for node, _ in said.holders]
        return [back(names)], [back(names[:-1])] if len(names) > 1 else []
    if code == "ResumeQueue":
        return [queue(said.queue, lambda spec: replace(spec, stop_policy="None"))], []
    if code == "AllowPreemption":
        return [edited(name, lambda spec: replace(spec, preemptible=True))], []
    if code == "RelaxOrdering":
        return [queue(said.queue, lambda spec: replace(spec, ordering="BestEffort"))], []
    if code == "FewerGroups":
        more = [edited(name, lambda spec: replace(spec, min_groups=said.fits + 1))]
        return [edited(name, lambda spec: replace(spec, min_groups=said.fits))], more[: said.needed - said.fits - 1]
    if code == "RaiseCounter":
        there = dict(state.snapshot().counters)
        less = [counted(there, said.resource, said.wanted - 1)] if said.wanted - 1 > said.cap else []
        return [counted(there, said.resource, said.wanted)], less
    raise AssertionError(f"{code} is a change that this test does not know")


def back(names: list[str]) -> Change:
    def change(state: State) -> None:
        for name in names:
            spec = state.nodes.specs[state.nodes.row[name]]
            assert spec is not None
            state.set_node(replace(spec, schedulable=True))

    return change


def counted(there: dict[str, int], resource: str, count: int) -> Change:
    return lambda state: state.set_counters({**there, resource: count})


def one_for_all(name: str, **fields: object) -> Change:
    def change(spec: WorkloadSpec) -> WorkloadSpec:
        return replace(spec, pod_sets=tuple(replace(pods, **fields) for pods in spec.pod_sets))  # type: ignore[arg-type]

    return edited(name, change)


def others(state: State, said: Reason) -> tuple[list[Change], list[Change]]:
    """Every choice of tasks that the words allow: whole workloads, or so much of the elastic part; one less."""
    choices: dict[str, list[tuple[str, ...]]] = {}
    for name, held in said.holders:
        runs = {task.name: task.cls.gpu for task in state.works[name].tasks.values() if task.row >= 0}
        sets = (some for n in range(1, len(runs) + 1) for some in combinations(runs, n))
        choices[name] = [some for some in sets if sum(runs[task] for task in some) == held]
    names = list(choices)
    told = [pick for pick in product(*choices.values()) if sum(len(some) for some in pick) == said.tasks]
    fewer = list(combinations(range(len(names)), len(names) - 1)) if len(names) > 1 else []
    return (
        [gone(dict(zip(names, pick, strict=True))) for pick in told],
        [gone({names[at]: pick[at] for at in some}) for pick in told[:1] if len(told) == 1 for some in fewer],
    )


def gone(tasks: dict[str, tuple[str, ...]]) -> Change:
    def change(state: State) -> None:
        for name, some in tasks.items():
            spec, runs = state.works[name].spec, sum(state.works[name].bound)
            sets = (replace(p, tasks=tuple(t for t in p.tasks if t not in some)) for p in spec.pod_sets)
            if len(some) == runs:
                state.remove_workload(name)
            else:
                state.set_workload(replace(spec, pod_sets=tuple(sets)))

    return change
