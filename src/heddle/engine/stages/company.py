"""Nobody starts beside somebody who does not, after all."""

from __future__ import annotations

from heddle.engine.cycle import Cycle
from heddle.engine.state import Task, TaskState


def step_back_without_company(cycle: Cycle) -> None:
    """Takes back what was started near others who lost their place later in the cycle."""
    state = cycle.state
    again = True
    while again:
        again = False
        started = [task for task in cycle.bind_reason if task.work.social and _starts(cycle, task)]
        for task in started:
            if _starts(cycle, task) and not state.crowds.accompanied(task):
                again = True
                for other in task.work.tasks.values():  # they were placed together
                    if _starts(cycle, other):
                        state.move(other, TaskState.PENDING)


def _starts(cycle: Cycle, task: Task) -> bool:
    return task.state is TaskState.BOUND and cycle.placed_now(task)
