"""Queues that are being drained: what runs there and may be evicted leaves, for nobody's gain."""

from __future__ import annotations

from heddle.engine.cycle import Cycle
from heddle.engine.reasons import ReasonCode
from heddle.engine.work import TaskState


def drain_stopped_queues(cycle: Cycle) -> None:
    """Evicts preemptible work below queues that say HoldAndDrain, before anybody else is asked to leave."""
    state = cycle.state
    for queue in state.tree.halted:
        drained = next((at for at in queue.path if at.spec.stop_policy == "HoldAndDrain"), None)
        if drained is None:
            continue
        reason = cycle.reason(ReasonCode.QUEUE_DRAINED, drained.name)
        for work in sorted(queue.works.values(), key=lambda work: work.name):
            if not work.spec.preemptible:
                continue
            for task in work.tasks.values():
                if task.state is TaskState.BOUND:
                    cycle.evict(task, reason)
