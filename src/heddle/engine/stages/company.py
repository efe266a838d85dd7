"""Nobody starts beside somebody who does not, after all."""

from __future__ import annotations

from itertools import chain

from heddle.engine.cycle import Cycle
from heddle.engine.work import Task, TaskState


def step_back_without_company(cycle: Cycle) -> None:
    """Takes back what was started near others who lost their place later in the cycle, or for the sake of evenness
    with them."""
    state = cycle.state
    again = True
    while again:
        again = False
        started = [task for task in cycle.bind_reason if task.work.social and _starts(cycle, task)]
        lost = _lost(cycle) if started else set()
        for task in started:
            if _starts(cycle, task) and not state.crowds.accompanied(task, lost):
                again = True
                for other in task.work.tasks.values():  # they were placed together
                    if _starts(cycle, other):
                        state.move(other, TaskState.PENDING)


def _starts(cycle: Cycle, task: Task) -> bool:
    return task.state is TaskState.BOUND and cycle.placed_now(task)


def _lost(cycle: Cycle) -> set[str]:
    """Crowds some of whom were placed in this cycle and displaced again, or made to leave."""
    found: set[str] = set()
    for task in chain(cycle.bind_reason, cycle.evict_reason):
        wish = task.work.spec.pod_sets[task.part].neighbours
        if wish is not None and task.state is not TaskState.BOUND:
            found.update(wish.crowds)
    return found
