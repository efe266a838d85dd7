"""Proof of a change: whole cycles on a copy of the world, with the change and with one step less of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from heddle.engine.model import MODEL, WHOLE, Neighbours, PodSet, QueueSpec, WorkloadSpec
from heddle.engine.plan import Budget
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.scheduler import carried_through
from heddle.engine.state import State

_CYCLES = 64
"""So many cycles are run for one explanation at most; what is not proven by then is not said."""

_PRUNED = 12
"""Longer lists of those who would have to leave are not tried for one less."""

FIELDS = {
    ReasonCode.RAISE_LIMIT: "limit",
    ReasonCode.RAISE_QUOTA: "quota",
    ReasonCode.RAISE_BORROWING_LIMIT: "borrowing_limit",
    ReasonCode.RAISE_LENDING_LIMIT: "lending_limit",
    ReasonCode.RAISE_USER_LIMIT: "user_limit",
}
"""The field of a queue that a change raises."""


Leaving = dict[str, frozenset[str]]
"""Tasks by workload."""


class Trials:
    """A copy of the world in which one workload waits, and the question whether a change starts it."""

    def __init__(self, state: State, now: float, workload: str, budget: Budget | None, leaving: Leaving) -> None:
        self.state = state
        self.twin = state.copy()
        self.now = now
        self.name = workload
        self.budget = budget
        self.leaving = leaving
        self.spec = state.works[workload].spec
        self.cycles = _CYCLES

    def proven(self, change: Reason) -> Reason | None:
        """The change, or the smaller or larger one of its kind that it takes; None = none was found."""
        match change.code:
            case ReasonCode.FEWER_MEMBERS:
                return self._fewer_members(change)
            case ReasonCode.FEWER_GPUS:
                part, asked = _part_of(self.spec, change), change.wanted // WHOLE
                fewer = self.smallest(
                    lambda less: self.reworked(with_gpus(self.spec, part, (asked - less) * WHOLE)),
                    asked - change.free // WHOLE,
                    asked - 1,
                )
                return replace(change, free=(asked - fewer) * WHOLE) if fewer else None
            case ReasonCode.RELAX_TOPOLOGY:
                return self._wider(change)
            case ReasonCode.ANY_NODE:
                return change if self.reworked(_all_sets(self.spec, node_selector={}, node_affinity=())) else None
            case ReasonCode.ANY_ARRANGEMENT:
                free = _all_sets(self.spec, spread=None, slices=None, exclusive=False)
                free = replace(free, separate_gpus=False)
                return change if self.reworked(free) else None
            case ReasonCode.ANY_NEIGHBOURS:
                sets = tuple(map(without_rules, self.spec.pod_sets))
                return change if self.reworked(replace(self.spec, pod_sets=sets)) else None
            case ReasonCode.OTHERS_LEAVE:
                return self._others_leave(change)
            case ReasonCode.FEWER_GROUPS:
                fewer = self.smallest(
                    lambda less: self.reworked(replace(self.spec, min_groups=change.needed - less)),
                    change.needed - change.fits,
                    change.needed - 1,
                )
                return replace(change, fits=change.needed - fewer) if fewer else None
            case ReasonCode.RAISE_COUNTER:
                return self._more_counted(change)
            case ReasonCode.NODES_BACK:
                return self._nodes_back(change)
            case ReasonCode.ALLOW_PREEMPTION:
                return change if self.reworked(replace(self.spec, preemptible=True)) else None
            case ReasonCode.RESUME_QUEUE:
                return change if self.requeued(change.queue, stop_policy="None") else None
            case ReasonCode.RELAX_ORDERING:
                return change if self.requeued(change.queue, ordering="BestEffort") else None
            case _:
                return self._raised(change)

    # -- questions -------------------------------------------------------------------------------------

    def starts(self, state: State) -> bool:
        """Whether the coming cycle starts the workload, or has room made for it."""
        if not self.cycles:
            return False
        self.cycles -= 1
        with carried_through(state, self.now, self.budget) as cycle:
            work = cycle.state.works[self.name]
            return work.promised_whole() and (any(work.bound) or work.held > 0)

    def reworked(self, spec: WorkloadSpec) -> bool:
        """Whether it starts with another spec."""
        self.twin.set_workload(spec)
        found = self.starts(self.twin)
        self.twin.set_workload(self.spec)
        return found

    def requeued(self, queue: str, **fields: object) -> bool:
        """Whether it starts with other numbers of a queue."""
        before = self.twin.tree.queues[queue].spec
        try:
            self.twin.set_queue(replace(before, **fields))  # type: ignore[arg-type]
        except ValueError:
            return False  # a lending limit above the quota
        found = self.starts(self.twin)
        self.twin.set_queue(before)
        return found

    def without(self, names: Sequence[str]) -> bool:
        """Whether it starts once those who would have to leave are gone: a workload, or the elastic part of it."""
        twin = self.twin
        works = [self.state.works[name] for name in names]
        for work in works:
            gone = self.leaving[work.name]
            if all(name in gone for name, task in work.tasks.items() if task.row >= 0):
                twin.remove_workload(work.name)
            else:
                sets = (
                    replace(pods, tasks=tuple([task for task in pods.tasks if task not in gone]))
                    for pods in work.spec.pod_sets
                )
                twin.set_workload(replace(work.spec, pod_sets=tuple(sets)))
        found = self.starts(twin)
        for work in works:
            twin.set_workload(work.spec)
            twin.resume(self.state.facts_of(work))
            if work.held:
                twin.set_reservation(work.name, self.state.promised_to(work))
        return found

    @staticmethod
    def smallest(helps: Callable[[int], bool], guess: int, most: int) -> int | None:
        """A number from 1 on that helps while one less does not; None = none was found."""
        low = 0
        if guess <= most and helps(guess):
            if guess == 1 or not helps(guess - 1):
                return guess
            high = guess - 1
        elif guess < most and helps(most):
            low, high = guess, most
        else:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if helps(middle) else (middle, high)
        return high

    # -- kinds of change -------------------------------------------------------------------------------

    def _fewer_members(self, change: Reason) -> Reason | None:
        part = _part_of(self.spec, change)
        pods = self.spec.pod_sets[part]
        size = pods.slices.size if pods.slices else 1

        def with_fewer(steps: int) -> WorkloadSpec:
            less = replace(pods, min=pods.min - steps * size, tasks=pods.tasks[: len(pods.tasks) - steps * size])
            return replace(self.spec, pod_sets=(*self.spec.pod_sets[:part], less, *self.spec.pod_sets[part + 1 :]))

        steps = self.smallest(
            lambda steps: self.reworked(with_fewer(steps)), (pods.min - change.fits) // size, (pods.min - 1) // size
        )
        return replace(change, fits=pods.min - steps * size) if steps else None

    def _wider(self, change: Reason) -> Reason | None:
        """The innermost level outside the required one with which it starts; last, none at all."""
        labels = self.state.topology.labels
        outer = labels[: labels.index(change.level)] if change.level in labels else ()
        for wider in (*reversed(outer), None):
            if self.reworked(replace(self.spec, topology_required=wider)):
                return replace(change, queue=wider or "")
        return None

    def _raised(self, change: Reason) -> Reason | None:
        field = FIELDS[change.code]
        spec: QueueSpec = self.twin.tree.queues[change.queue].spec
        amounts = getattr(spec, field)
        column = self.twin.column[change.resource]
        below = [q for q in self.twin.tree.queues.values() if any(at.name == change.queue for at in q.path)]
        asked = sum(queue.request[column] for queue in below)  # more than that is never used
        by = self.smallest(
            lambda more: self.requeued(change.queue, **{field: {**amounts, change.resource: change.cap + more}}),
            change.wanted - change.cap,
            max(change.wanted, asked) - change.cap,
        )
        return replace(change, wanted=change.cap + by) if by else None

    def _more_counted(self, change: Reason) -> Reason | None:
        """The least number of what no node has with which it starts."""
        counters = self.state.counters()

        def with_more(more: int) -> bool:
            self.twin.set_counters({**counters, change.resource: change.cap + more})
            found = self.starts(self.twin)
            self.twin.set_counters(counters)
            return found

        by = change.wanted - change.cap
        more = self.smallest(with_more, by, by)
        return replace(change, wanted=change.cap + more) if more else None

    def _nodes_back(self, change: Reason) -> Reason | None:
        """The fewest of the nodes, in their order, with which it starts."""
        specs = [spec for name, _ in change.holders if (spec := self.twin.nodes.specs[self.twin.nodes.row[name]])]

        def with_first(count: int) -> bool:
            for spec in specs[:count]:
                self.twin.set_node(replace(spec, schedulable=True))
            found = self.starts(self.twin)
            for spec in specs[:count]:
                self.twin.set_node(spec)
            return found

        count = self.smallest(with_first, 1, len(specs))
        return replace(change, holders=change.holders[:count]) if count else None

    def _others_leave(self, change: Reason) -> Reason | None:
        """Whoever is named in vain is taken off the list."""
        names = [name for name, _ in change.holders]
        if any(self.leaving[name] - set(self.twin.works[name].tasks) for name in names) or not self.without(names):
            return None
        tried: list[str] = []
        while len(names) <= _PRUNED and tried != names:  # with one less, another may be there in vain too
            tried = names
            for name in tried:
                rest = [each for each in names if each != name]
                if rest and self.without(rest):
                    names = rest
        holders = tuple(item for item in change.holders if item[0] in names)
        return replace(change, holders=holders, tasks=sum(len(self.leaving[name]) for name in names))


def _part_of(spec: WorkloadSpec, change: Reason) -> int:
    """The pod set that a change is about: it is named where there are several."""
    return next((part for part, pods in enumerate(spec.pod_sets) if pods.name == change.pod_set), 0)


def without_rules(pods: PodSet) -> PodSet:
    """A pod set that minds no neighbours; others may still mind it."""
    wish = pods.neighbours
    return pods if wish is None else replace(pods, neighbours=Neighbours(wish.crowds))


def with_gpus(spec: WorkloadSpec, part: int, gpu: int) -> WorkloadSpec:
    """A spec of which the tasks of one pod set ask for so many milli-devices, those counted by model included."""
    pods = spec.pod_sets[part]
    request = {name: gpu if name.startswith(MODEL) else value for name, value in pods.request.items()}
    return replace(
        spec, pod_sets=(*spec.pod_sets[:part], replace(pods, gpu=gpu, request=request), *spec.pod_sets[part + 1 :])
    )


def _all_sets(spec: WorkloadSpec, **fields: object) -> WorkloadSpec:
    return replace(spec, pod_sets=tuple(replace(pods, **fields) for pods in spec.pod_sets))  # type: ignore[arg-type]
