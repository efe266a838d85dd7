"""Who owed nothing, as it turned out: what is there only for a moment makes nobody's running work leave.

Claims are decided one after the other, each by how things stand then; and what was just placed counts. It may have put
its queue above what is the queue's own, so that running work of that queue left, before it was displaced in turn in the
same cycle. Whoever gained so waits. If then the newcomer stays, it counts in the next cycle like all that runs.
"""

from __future__ import annotations

from heddle.engine.cycle import Cycle
from heddle.engine.queues import Queue, QueueTree
from heddle.engine.reasons import ReasonCode
from heddle.engine.work import TaskState


def gained_unowed(cycle: Cycle) -> set[str]:
    """Workloads for which others are reclaimed whose side is not above what is its own: neither by what had a place
    before the cycle nor with what the plan starts and promises."""
    touched = cycle.state.touched or {}
    claims: dict[tuple[Queue, str], None] = {}  # who lost, and for whom
    for task, reason in cycle.evict_reason.items():
        leaves = task.state is TaskState.RELEASING and touched[task][0] is TaskState.BOUND
        if leaves and reason.code is ReasonCode.RECLAIMED and task.work.queue is not None:
            claims[task.work.queue, reason.beneficiary] = None
    if not claims:
        return set()
    left = _left(cycle)
    found: set[str] = set()
    for loser, name in claims:
        gainer = cycle.state.works[name].queue
        sides = QueueTree.sides(gainer, loser) if gainer is not None else None
        if sides is not None and not _above(sides[1], left[sides[1]]):
            found.add(name)
    return found


def _above(queue: Queue, more: dict[int, int]) -> bool:
    """Whether a queue would be above what is its own with so much more, per resource."""
    for column in range(len(queue.share)):
        if queue.used(column) + more.get(column, 0) > min(queue.share[column], queue.quota[column]):
            return True
    return False


def _left(cycle: Cycle) -> dict[Queue, dict[int, int]]:
    """What each queue had places for before the cycle and has no longer, per resource."""
    found: dict[Queue, dict[int, int]] = {}
    for task, (was, row, _devices, hold) in (cycle.state.touched or {}).items():
        if task.state is TaskState.BOUND or task.hold is not None or task.work.queue is None:
            continue
        if was is not TaskState.BOUND:
            if hold is None:
                continue
            row = hold[0]
        cls = task.cls.at(row)
        for at in task.work.queue.path:
            amounts = found.setdefault(at, {})
            for column in cls.charged:
                amounts[column] = amounts.get(column, 0) + cls.needs[column]
    return found
