"""What the next round would undo: nobody is evicted for a gain that does not last.

Claims are decided one after the other, each right by itself; but devices and gangs do not divide as shares do,
so that one gain may be taken by the next claim, or taken back by those who left for it, and work would be
stopped for nothing. Here the round that follows the plan is played inside the transaction, with the evicted
gone, and those who lose again what others left for are named, as are those for whom still more would leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from heddle.engine.cycle import Cycle
from heddle.engine.work import Hold, Task, TaskState, Work

Stage = Callable[[Cycle], None]


def undone(cycle: Cycle, stages: Iterable[Stage]) -> set[str]:
    """Workloads for which others leave in this cycle, and which would have fewer places after the next, or none at all.

    Another place that is only promised in the stead of one that others left for is none: it was taken by a third.
    """
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
    held = {name: _promises(state.works[name]) for name in gainers}
    had = {name: sum(state.works[name].bound) + len(promises) for name, promises in held.items()}
    point = state.checkpoint()
    for task in leaving:
        state.move(task, TaskState.PENDING)
    state.touched = {}
    stood = {work: state.lines.line_up(work) for work in {task.work: None for task in leaving}}
    try:
        following = Cycle(state, cycle.now, cycle.budget)
        for stage in stages:
            stage(following)
        again = {
            reason.beneficiary for task, reason in following.evict_reason.items() if task.state is TaskState.RELEASING
        }
        kept = {name: _kept(state.works[name], promises) for name, promises in held.items()}
        return {name for name in gainers if name in again or kept[name] < had[name] or not kept[name]}
    finally:
        state.rollback(point)
        state.touched = before
        for work, was in stood.items():
            state.lines.step_back(work, was)


def _promises(work: Work) -> dict[Task, Hold]:
    return {task: task.hold for task in work.tasks.values() if task.hold}


def _kept(work: Work, promises: dict[Task, Hold]) -> int:
    """How many tasks run, or still have the place that was promised to them; whoever only waits for others of the
    workload may have any."""
    if work.after is not None:
        return sum(work.bound) + work.held
    return sum(work.bound) + sum(task.hold == hold for task, hold in promises.items())
