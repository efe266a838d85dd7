"""Gangs below their minimum cannot work: after a grace what is left of them makes room."""

from __future__ import annotations

from heddle.engine.cycle import Cycle
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.work import TaskState


def evict_gangs_broken_beyond_grace(cycle: Cycle) -> None:
    """Evicts the rest of gangs that no stage before could make whole, once ``broken_since`` is old enough."""
    state = cycle.state
    for name in sorted(state.lines.broken):
        work = state.works[name]
        since, grace = work.spec.broken_since, work.spec.gang_grace
        grace = cycle.budget.gang_grace if grace is None else grace
        if since is None or cycle.now - since < grace or not work.torn() or work.held:
            continue
        floor = work.floor()
        parts = list(range(len(floor)))
        if work.groups is not None and work.whole():  # only groups are broken
            floor = work.groups.mins
            parts = [part for group in work.groups.torn(work.bound) for part in work.groups.parts[group]]
        fits, needed = sum(work.bound[part] for part in parts), sum(floor[part] for part in parts)
        reason = Reason(ReasonCode.GANG_BROKEN, queue=work.spec.queue, fits=fits, needed=needed)
        for task in work.tasks.values():
            if task.state is TaskState.BOUND and task.part in parts:
                cycle.evict(task, reason)
