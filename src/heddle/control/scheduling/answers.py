"""What people ask the scheduler: why does it wait, when will it start, and what if.

Every answer is worked out on a copy of the engine's state by the engine itself, off the scheduler's own loop.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from heddle.api.clock import to_text
from heddle.api.workload import WorkloadReason
from heddle.engine import Bind, Budget, Evict, Forward, Reason, ReasonCode, State, WorkloadSpec, expect, explain, render

_NEVER = {
    ReasonCode.IMPOSSIBLE,
    ReasonCode.IMPOSSIBLE_SPREAD,
    ReasonCode.IMPOSSIBLE_SLICES,
    ReasonCode.NO_NODE_MATCHES,
    ReasonCode.NO_GPU_MATCHES,
    ReasonCode.TOPOLOGY_UNKNOWN,
    ReasonCode.QUEUE_NOT_FOUND,
    ReasonCode.QUEUE_INACTIVE,
    ReasonCode.QUEUE_HAS_CHILDREN,
    ReasonCode.QUEUE_STOPPED,
}
"""No end of other work helps; there is nothing to foresee."""
_CAPS = {ReasonCode.OVER_LIMIT, ReasonCode.OVER_QUOTA, ReasonCode.OVER_USER_LIMIT, ReasonCode.OVER_COUNTER}
"""Nor where it asks for more than one of these allows at all, whoever has how much of it."""


@dataclass(slots=True)
class Answer:
    """Why a workload waits, what would help, and when it is expected to start."""

    workload: str
    admitted: bool
    reasons: list[WorkloadReason] = field(default_factory=list)
    changes: list[WorkloadReason] = field(default_factory=list)
    expected: WorkloadReason | None = None
    start: str | None = None
    assumptions: list[WorkloadReason] = field(default_factory=list)
    cost: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Preview:
    """What would come of an object that is not there yet.

    Attributes:
        kind: of the object.
        name: of the object.
        answer: for a job: whether it would start at once, and if not why and when.
        nodes: for a job: pods by node.
        started: other workloads that would start because of it.
        stopped: workloads that would lose pods because of it, and why.
    """

    kind: str
    name: str
    answer: Answer | None = None
    nodes: dict[str, int] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    stopped: list[WorkloadReason] = field(default_factory=list)


def told(reasons: tuple[Reason, ...]) -> list[WorkloadReason]:
    """Reasons for people."""
    return [WorkloadReason(code=str(reason.code), message=render(reason)) for reason in reasons]


def answer(state: State, key: str, now: float, budget: Budget) -> Answer:
    """Why a workload waits, what would help, and when it is expected to start."""
    found = explain(state, now, key, budget)
    if found.admitted:
        return Answer(key, True)
    if any(r.code in _NEVER or (r.code in _CAPS and r.wanted > r.cap) for r in found.reasons):
        return Answer(key, False, told(found.reasons), told(found.changes))
    foreseen = expect(state, now, key, budget)
    return Answer(
        key,
        False,
        told(found.reasons),
        told(found.changes),
        told((foreseen.reason,))[0],
        None if foreseen.start is None else to_text(foreseen.start),
        told(foreseen.assumptions),
    )


def preview_job(state: State, spec: WorkloadSpec, now: float, budget: Budget) -> Preview:
    """What would come of a workload if it were submitted now."""
    changed, gone = _after(state, now, budget, lambda world: world.set_workload(spec))
    before, _ = _after(state, now, budget, lambda world: None)
    work = changed.works[spec.name]
    nodes = Counter(changed.nodes.names[task.row] for task in work.tasks.values() if task.row >= 0)
    if work.whole() and any(work.bound):
        found = Answer(spec.name, True)
    else:
        state.set_workload(spec)
        found = answer(state, spec.name, now, budget)
    started, stopped = _difference(before, changed, gone, spec.name)
    return Preview("TrainingJob", spec.name, found, dict(sorted(nodes.items())), started, stopped)


def preview_change(
    state: State, kind: str, name: str, change: Callable[[State], object], now: float, budget: Budget
) -> Preview:
    """What would come of a change to the world, such as another quota."""
    changed, gone = _after(state, now, budget, change)
    before, _ = _after(state, now, budget, lambda world: None)
    started, stopped = _difference(before, changed, gone, "")
    return Preview(kind, name, started=started, stopped=stopped)


def _after(
    state: State, now: float, budget: Budget, change: Callable[[State], object]
) -> tuple[State, dict[str, WorkloadReason]]:
    """A copy of the world with a change, once it came to rest, and why workloads lost pods on the way."""
    copy = state.copy()
    change(copy)
    gone: dict[str, WorkloadReason] = {}
    for action in Forward(copy, now, budget).settle():
        if isinstance(action, Evict):
            gone.setdefault(action.workload, told((action.reason,))[0])
        elif isinstance(action, Bind):
            work = copy.works[action.placement.workload]
            if not any(work.pending):
                gone.pop(work.name, None)  # it was moved, and runs again
    return copy, gone


def _difference(
    before: State, after: State, gone: dict[str, WorkloadReason], itself: str
) -> tuple[list[str], list[WorkloadReason]]:
    """Workloads with more pods in the second world, and those with fewer and why."""
    started, stopped = [], []
    for name, work in sorted(after.works.items()):
        was = before.works.get(name)
        if was is None or name == itself:
            continue
        if sum(work.bound) > sum(was.bound):
            started.append(name)
        elif sum(work.bound) < sum(was.bound):
            why = gone.get(name) or WorkloadReason(code="NotStarted", message="it would not start now")
            lost = sum(was.bound) - sum(work.bound)
            pods = "1 pod" if lost == 1 else f"{lost} pods"
            stopped.append(WorkloadReason(code=why.code, message=f"{name} ({pods}): {why.message}"))
    return started, stopped
