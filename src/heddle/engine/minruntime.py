"""Minimum runtime: where its queue says so, work that started a short while ago keeps its minimum.

What it runs beyond the minimum may be taken at any time. The clock starts with the earliest of its running tasks, so
that replacing a lost member begins no new time, and neither does growing.
"""

from __future__ import annotations

import math

from heddle.engine.cycle import Cycle
from heddle.engine.work import Work


def keeps_until(cycle: Cycle, work: Work, seconds: float) -> float:
    """Until when a workload keeps its minimum, if it does so for so long from its start; -inf = nothing of it ran."""
    return seconds + min((t.since for t in work.tasks.values() if cycle.state.ran_before(t)), default=-math.inf)


def has_more(work: Work) -> bool:
    """Whether anything of a workload may leave without its minimum: elastic tasks, groups, promises beyond it."""
    if not work.whole():
        return False
    if work.held or (work.groups is not None and work.groups.spare(work.bound)):
        return True
    return any(map(work.may_lose, range(len(work.bound))))
