"""What the next round would undo: nobody is evicted for a gain that does not last.

Claims are decided one after the other, each right by itself; but devices and gangs do not divide as shares do,
so that one gain may be taken by the next claim, or taken back by those who left for it, and work would be
stopped for nothing. Here the round that follows the plan is played inside the transaction, with the evicted
gone, and those who lose again what others left for are named, as are those for whom still more would leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from heddle.engine.cycle import Cycle
from heddle.engine.state import TaskState, Work

Stage = Callable[[Cycle], None]


def undone(cycle: Cycle, stages: Iterable[Stage]) -> set[str]:
    """Workloads for which others leave in this cycle, and which would have fewer places after the next."""
    state = cycle.state
    before = state.touched or {}
    leaving = [
        task
        for task, reason in cycle.evict_reason.items()
        if reason.beneficiary and task.state is TaskState.RELEASING and before[task][0] is TaskState.BOUND
    ]
    if not leaving:
        return set()
    gainers = {cycle.evict_reason[task].beneficiary for task in leaving}
    had = {name: _places(state.works[name]) for name in gainers}
    point = state.checkpoint()
    for task in leaving:
        state.move(task, TaskState.PENDING)
    state.touched = {}
    stood = {work: state.line_up(work) for work in {task.work: None for task in leaving}}
    try:
        following = Cycle(state, cycle.now, cycle.budget)
        for stage in stages:
            stage(following)
        again = {
            reason.beneficiary for task, reason in following.evict_reason.items() if task.state is TaskState.RELEASING
        }
        return {name for name in gainers if name in again or _places(state.works[name]) < had[name]}
    finally:
        state.rollback(point)
        state.touched = before
        for work, was in stood.items():
            state.step_back(work, was)


def _places(work: Work) -> int:
    return sum(work.bound) + work.held
