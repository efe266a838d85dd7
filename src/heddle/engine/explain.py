"""Why not now, and the smallest change that would help: found by real what-ifs, never guessed from text.

A what-if inside the coming cycle says what may help. It is given as an answer only after a whole cycle on a copy
with that very change starts the workload (somebody else might take the room), and with one step less does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from heddle.engine.choices import first_choice
from heddle.engine.cycle import Cycle
from heddle.engine.fairshare import UNBOUNDED
from heddle.engine.model import GPU, WHOLE, PodSet, WorkloadSpec
from heddle.engine.placement import Need
from heddle.engine.plan import Budget
from heddle.engine.queues import Cap, CapKind, Queue, QueueTree
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.rules import yields
from heddle.engine.scheduler import carried_through
from heddle.engine.state import State
from heddle.engine.trials import Leaving, Trials, with_gpus, without_rules
from heddle.engine.verdicts import Verdicts
from heddle.engine.victims import RoomSearch
from heddle.engine.work import Task, TaskState, Work


@dataclass(frozen=True, slots=True)
class Explanation:
    """What :func:`explain` found.

    Attributes:
        workload: its name.
        admitted: it runs, or the coming cycle starts it.
        reasons: why not now (empty when admitted).
        changes: one reason per kind of change that alone would start it, each the smallest of its kind.
    """

    workload: str
    admitted: bool
    reasons: tuple[Reason, ...]
    changes: tuple[Reason, ...]


def explain(state: State, now: float, workload: str, budget: Budget | None = None) -> Explanation:
    """Explains one workload; the state is left as it was.

    Raises:
        ValueError: the workload is not known.
    """
    state.settle()
    if workload not in state.works:
        raise ValueError(f"workload: {workload!r} is not known; set it first")
    leaving: Leaving = {}
    admitted, reasons, likely = _likely(state, now, workload, budget, leaving)
    if not likely:
        return Explanation(workload, admitted, reasons, ())
    trials = Trials(state, now, workload, budget, leaving)
    proven = [trials.proven(change) for change in likely]
    return Explanation(workload, admitted, reasons, tuple(change for change in proven if change is not None))


def _likely(
    state: State, now: float, workload: str, budget: Budget | None, leaving: Leaving
) -> tuple[bool, tuple[Reason, ...], tuple[Reason, ...]]:
    """Whether it is admitted, why not, and changes that the end of the coming cycle suggests; ``leaving`` is
    filled with the tasks that would have to leave."""
    with carried_through(state, now, budget) as cycle:
        work = state.works[workload]
        if any(work.bound) and work.whole():
            return True, (), ()
        verdicts = Verdicts(cycle)
        reasons = verdicts.why(work)
        need = cycle.minimum(work) or cycle.growth(work)
        queue = work.queue
        if queue is not None and queue.stopped and need is not None:
            resumed = _resumed_queue(_WhatIf(cycle, work, queue, need))
            return False, reasons, (resumed,) if resumed else ()
        if queue is None or not queue.starts or need is None or work.held:
            return False, reasons, ()
        if cycle.behind(queue, work):
            free = first_choice(work, need, lambda: _WhatIf(cycle, work, queue, need).starts(need))
            relaxed = Reason(ReasonCode.RELAX_ORDERING, queue=queue.name)
            return False, reasons, (relaxed,) if free else ()
        found: list[Reason | None] = [None] * len(_KINDS)

        def look() -> bool:
            ask = _WhatIf(cycle, work, queue, need)
            for at, kind in enumerate(_KINDS):
                found[at] = found[at] or kind(ask)
            for name, tasks in ask.leaving.items():
                leaving.setdefault(name, tasks)
            return False

        first_choice(work, need, look)
        return False, reasons, tuple(change for change in found if change is not None)


class _WhatIf:
    """One workload after the cycle, and the question whether a changed need would start now."""

    def __init__(self, cycle: Cycle, work: Work, queue: Queue, need: Need) -> None:
        self.cycle = cycle
        self.state = cycle.state
        self.work = work
        self.queue = queue
        self.need = need
        self.demand = cycle.demand(work, need)
        self.fixed = not work.spec.preemptible
        self.user = work.spec.user
        self.leaving: Leaving = {}

    def starts(self, need: Need, work: Work | None = None, *, ignore_caps: bool = False) -> bool:
        """Whether this need would get its places beside everything else, within every cap."""
        if work is not None and work is not self.work:
            return first_choice(work, need, lambda: self._starts(need, work, ignore_caps=ignore_caps))
        return self._starts(need, self.work, ignore_caps=ignore_caps)

    def _starts(self, need: Need, asked: Work, *, ignore_caps: bool) -> bool:
        demand = self.cycle.demand(asked, need)
        if not ignore_caps and self.state.tree.stopped_by(
            self.queue, demand, fixed=self.fixed, user=self.user, land=False
        ):
            return False
        point = self.state.checkpoint()
        placed = self.cycle.placer.place(asked, need) is not None
        self.state.rollback(point)
        return placed

    def variant(self, change: Callable[[PodSet], PodSet], **fields: object) -> Work:
        """A stand-in for the workload with another spec, not known to the state; its tasks all pend."""
        spec = self.work.spec
        pod_sets = tuple(change(pod_set) for pod_set in spec.pod_sets)
        other: WorkloadSpec = replace(spec, pod_sets=pod_sets, **fields)  # type: ignore[arg-type]
        return self.state.stand_in(other)


def _fewer_members(ask: _WhatIf) -> Reason | None:
    """The largest number of members below the minimum that would start now."""
    if len(ask.need) != 1 or any(ask.work.bound) or ask.cycle.minimum(ask.work) is None:
        return None
    part, count = ask.need[0]
    slices = ask.work.spec.pod_sets[part].slices
    size = slices.size if slices else 1
    low, high = 0, (count - 1) // size  # fewer members never fit worse
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if ask.starts(((part, middle * size),)) else (low, middle - 1)
    if low < 1 or not ask.starts(((part, low * size),)):
        return None
    return Reason(
        ReasonCode.FEWER_MEMBERS, queue=ask.queue.name, fits=low * size, needed=count, pod_set=_named(ask.work, part)
    )


def _named(work: Work, part: int) -> str:
    """The name of a pod set where there are several."""
    return work.spec.pod_sets[part].name if len(work.spec.pod_sets) > 1 else ""


def _fewer_groups(ask: _WhatIf) -> Reason | None:
    """The largest number of groups below the minimum that would start now."""
    spec = ask.work.spec
    asked = spec.min_groups or len({pod_set.group for pod_set in spec.pod_sets if pod_set.group})
    if any(ask.work.bound):
        return None
    for fewer in range(asked - 1, 0, -1):
        other = ask.variant(lambda pod_set: pod_set, min_groups=fewer)
        need = ask.cycle.minimum(other)
        if need is not None and ask.starts(need, other):
            return Reason(ReasonCode.FEWER_GROUPS, queue=ask.queue.name, fits=fewer, needed=asked)
    return None


def _fewer_gpus(ask: _WhatIf) -> Reason | None:
    """The largest number of GPUs a task, below what it asks for, with which all members would start now."""
    if len(ask.need) != 1 or any(ask.work.bound):
        return None
    part, count = ask.need[0]
    asked = ask.work.spec.pod_sets[part].gpu
    if asked <= WHOLE:
        return None
    for gpu in range(asked - WHOLE, 0, -WHOLE):
        fewer = with_gpus(ask.work.spec, part, gpu)
        if ask.starts(((part, count),), ask.state.stand_in(fewer)):
            return Reason(
                ReasonCode.FEWER_GPUS,
                queue=ask.queue.name,
                resource=GPU,
                wanted=asked,
                free=gpu,
                needed=count,
                pod_set=_named(ask.work, part),
            )
    return None


def _relaxed_topology(ask: _WhatIf) -> Reason | None:
    """The innermost level outside the required one that would do; else none at all."""
    level = ask.work.spec.topology_required
    labels = ask.state.topology.labels
    if level is None or any(ask.work.bound):
        return None
    outer = labels[: labels.index(level)] if level in labels else ()
    for wider in (*reversed(outer), None):
        if ask.starts(ask.need, ask.variant(lambda pod_set: pod_set, topology_required=wider)):
            return Reason(ReasonCode.RELAX_TOPOLOGY, level=level, queue=wider or "")
    return None


def _any_node(ask: _WhatIf) -> Reason | None:
    """Whether node selector and affinity alone stand in the way."""
    sets = ask.work.spec.pod_sets
    if any(ask.work.bound) or not any(s.node_selector or s.node_affinity for s in sets):
        return None
    free = ask.variant(lambda pod_set: replace(pod_set, node_selector={}, node_affinity=()))
    return Reason(ReasonCode.ANY_NODE, queue=ask.queue.name) if ask.starts(ask.need, free) else None


def _any_arrangement(ask: _WhatIf) -> Reason | None:
    """Whether spread, slices, separate GPUs and nodes of its own alone stand in the way."""
    if any(ask.work.bound) or not (ask.work.arranged or any(s.exclusive for s in ask.work.spec.pod_sets)):
        return None
    free = ask.variant(lambda pod_set: replace(pod_set, spread=None, slices=None, exclusive=False), separate_gpus=False)
    return Reason(ReasonCode.ANY_ARRANGEMENT, queue=ask.queue.name) if ask.starts(ask.need, free) else None


def _any_neighbours(ask: _WhatIf) -> Reason | None:
    """Whether its rules about neighbours alone stand in the way."""
    if any(ask.work.bound) or not any(s.neighbours and s.neighbours.ruled for s in ask.work.spec.pod_sets):
        return None
    free = ask.variant(without_rules)
    return Reason(ReasonCode.ANY_NEIGHBOURS, queue=ask.queue.name) if ask.starts(ask.need, free) else None


def _raised_caps(ask: _WhatIf) -> Reason | None:
    """The one number of a queue that stands in the way, and how high it would have to be."""
    caps: list[tuple[Cap, Queue, int]] = []
    tree = ask.state.tree
    saved: list[tuple[list[int] | dict[int, int], int, int]] = []
    try:
        while cap := tree.stopped_by(ask.queue, ask.demand, fixed=ask.fixed, user=ask.user, land=False):
            found = _lifted(tree, ask.queue, cap)
            if found is None or len(caps) > 1:
                return None
            whose, amounts, value = found
            caps.append((cap, whose, amounts[cap.column] - value))
            saved.append((amounts, cap.column, amounts[cap.column]))
            amounts[cap.column] = value
            tree.move_on()
    finally:
        for amounts, column, value in reversed(saved):
            amounts[column] = value
        tree.move_on()
    if len(caps) != 1:
        return None
    cap, whose, less = caps[0]
    if cap.kind is not CapKind.QUOTA and not ask.starts(ask.need, ignore_caps=True):
        return None  # more of a quota may also make others leave
    resource = ask.state.resources[cap.column]
    before, after = cap.cap, cap.used + cap.wanted
    if cap.kind is CapKind.BORROWING:
        before, after = before - whose.quota[cap.column], after - whose.quota[cap.column]
    elif cap.kind is CapKind.LENDING:
        before = whose.spec.lending_limit.get(resource) or 0
        after = before + less
    name = "" if cap.kind is CapKind.COUNTER else whose.name
    return Reason(_RAISES[cap.kind], queue=name, resource=resource, cap=before, wanted=after)


def _preemptible(ask: _WhatIf) -> Reason | None:
    """Whether only that nobody may stop it stands in the way: such work keeps within the quota of its queue."""
    if not ask.fixed or any(ask.work.bound):
        return None
    stopped_by = ask.state.tree.stopped_by
    bound = stopped_by(ask.queue, ask.demand, fixed=True, user=ask.user, land=False)
    if bound is None or stopped_by(ask.queue, ask.demand, fixed=False, user=ask.user, land=False):
        return None
    return Reason(ReasonCode.ALLOW_PREEMPTION, queue=bound.queue.name)


def _lifted(tree: QueueTree, asker: Queue, cap: Cap) -> tuple[Queue, list[int] | dict[int, int], int] | None:
    """Whose number would lift a cap, in which list it is, and its value then; None = no one number would."""
    if cap.kind is CapKind.USER and cap.queue.submitters:
        return cap.queue, cap.queue.submitters.limit, UNBOUNDED
    if cap.kind is CapKind.COUNTER:
        return cap.queue, tree.counters.cap, UNBOUNDED
    if cap.kind is not CapKind.LENDING:
        lists = {CapKind.LIMIT: cap.queue.limit, CapKind.QUOTA: cap.queue.quota, CapKind.BORROWING: cap.queue.ceiling}
        return cap.queue, lists[cap.kind], UNBOUNDED
    missing = cap.used + cap.wanted - cap.cap
    for queue, idle in tree.lending.keepers(cap.column, asker):
        if idle >= missing:
            return queue, queue.keep, queue.keep[cap.column] - missing
    return None


_RAISES = {
    CapKind.LIMIT: ReasonCode.RAISE_LIMIT,
    CapKind.QUOTA: ReasonCode.RAISE_QUOTA,
    CapKind.BORROWING: ReasonCode.RAISE_BORROWING_LIMIT,
    CapKind.LENDING: ReasonCode.RAISE_LENDING_LIMIT,
    CapKind.USER: ReasonCode.RAISE_USER_LIMIT,
    CapKind.COUNTER: ReasonCode.RAISE_COUNTER,
}


def _resumed_queue(ask: _WhatIf) -> Reason | None:
    """Whether it would start at once were the one stop above it lifted."""
    stops = [at for at in ask.queue.path if at.spec.stop_policy != "None"]
    passed_over = ask.cycle.behind(ask.queue, ask.work)
    if ask.queue.children or len(stops) != 1 or passed_over or not ask.starts(ask.need):
        return None
    return Reason(ReasonCode.RESUME_QUEUE, queue=stops[0].name)


def _others_leave(ask: _WhatIf) -> Reason | None:
    """Whose work would have to go, were everyone asked to: a small set, not always the smallest."""
    point = ask.state.checkpoint()
    search = RoomSearch(ask.cycle, ask.work, ask.queue, ask.need, _AnyoneYields(ask.cycle, ask.work))
    found = search.run()
    gone: dict[str, int] = {}
    tasks = 0
    if found:
        for victim in {victim: None for victim, _, _ in search.gone}:
            leaving = [
                task
                for task in victim.tasks.values()
                if task.state is TaskState.RELEASING and (ask.cycle.evict_reason.get(task) == search.rule.reason())
            ]
            if leaving:
                gone[victim.name] = sum(task.cls.gpu for task in leaving)
                ask.leaving[victim.name] = frozenset(task.name for task in leaving)
                tasks += len(leaving)
    ask.state.rollback(point)
    if not gone:
        return None
    holders = tuple(sorted(gone.items(), key=lambda item: (-item[1], item[0])))
    return Reason(ReasonCode.OTHERS_LEAVE, queue=ask.queue.name, resource=GPU, holders=holders, tasks=tasks)


class _AnyoneYields:
    """The rule of a what-if: all running work may be asked to go, lowest priority and newest first."""

    heed = False

    def __init__(self, cycle: Cycle, work: Work) -> None:
        self.cycle = cycle
        self.work = work

    def key(self) -> tuple[object, ...]:
        """Anyone yields to everybody."""
        return ("anyone", self.work.name)

    def possible(self) -> bool:
        """Always."""
        return True

    def candidates(self) -> list[Work]:
        """Everything that runs."""
        return [work for work in self.cycle.state.works.values() if self.allows(work)]

    def rows(self) -> Iterator[Iterable[int]]:
        """Wherever anybody is, or has a place promised."""
        for there in (self.cycle.state.on_row, self.cycle.state.holds_on_row):
            yield (row for row, tasks in there.items() if tasks)

    def allows(self, victim: Work) -> bool:
        """Anyone but the asker."""
        return victim is not self.work and yields(self.cycle, victim)

    def might(self, victim: Work) -> bool:
        """The same: nobody has to go first."""
        return self.allows(victim)

    def spares(self, victim: Work) -> bool:
        """Nobody: they were asked."""
        return False

    def kept_until(self, victim: Work) -> float:
        """At no time."""
        return self.cycle.now

    def holds(self, victims: list[Work]) -> bool:
        """Always: they were asked."""
        return True

    def owed(self, victim: Work, tasks: Sequence[Task]) -> bool:
        """Always, likewise."""
        return True

    def rank(self, victim: Work) -> tuple[int, ...]:
        """Preemptible first, then lowest priority."""
        return (int(not victim.spec.preemptible), victim.spec.priority)

    def reason(self) -> Reason:
        """Marks tasks that leave in this what-if."""
        return Reason(ReasonCode.OTHERS_LEAVE, beneficiary=self.work.name)


def _nodes_back(ask: _WhatIf) -> Reason | None:
    """Nodes that take nothing at the moment and would admit it, those with most GPUs free first."""
    nodes = ask.state.nodes
    demands = [ask.work.parts[part].key.where for part, _ in ask.need]
    found = [
        (name, max(0, int(nodes.land[row, 0])))
        for name, row in nodes.row.items()
        if (spec := nodes.specs[row]) is not None and not spec.schedulable and any(w.matches(spec) for w in demands)
    ]
    found.sort(key=lambda item: (-item[1], item[0]))
    return Reason(ReasonCode.NODES_BACK, queue=ask.queue.name, holders=tuple(found)) if found else None


_KINDS: tuple[Callable[[_WhatIf], Reason | None], ...] = (
    _fewer_members,
    _fewer_groups,
    _fewer_gpus,
    _relaxed_topology,
    _raised_caps,
    _preemptible,
    _others_leave,
    _any_node,
    _any_arrangement,
    _any_neighbours,
    _nodes_back,
)
