"""Strict lines stay strict: who passed a head that lost its place later in the cycle steps back."""

from __future__ import annotations

from heddle.engine.cycle import Cycle
from heddle.engine.reasons import ReasonCode
from heddle.engine.work import TaskState


def step_back_behind_the_head(cycle: Cycle) -> None:
    """Takes back what was started behind the head of a strict line, unless others left for it or it was promised."""
    state = cycle.state
    before = state.touched or {}
    for queue in state.tree.strict:
        head = cycle.head(queue)
        if head is None:
            continue
        first = state.lines.key_of(head)
        for key in list(queue.waiting):
            if key <= first or key[2] in cycle.gainers:
                continue
            for task in state.works[key[2]].tasks.values():
                placed = task.state is TaskState.BOUND and cycle.placed_now(task)
                if placed and cycle.bind_reason[task].code is not ReasonCode.PROMISE_KEPT:
                    state.move(task, TaskState.PENDING)
                if task.work.after is not None and task.hold and (task not in before or before[task][3] != task.hold):
                    state.unhold(task)  # it waits for what steps back
