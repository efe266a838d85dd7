"""Work that is lost when tasks stop: GPUs times the time since they last could resume from.

What a workload saved (:attr:`WorkloadSpec.checkpointed`, or by itself each :attr:`WorkloadSpec.saves_every` seconds) it
does not do again; without that all since the start of a task is lost. It ranks who is asked to leave or to move, and
never protects anybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from heddle.engine.work import Task

_EACH = 60.0


def reckoned_at(now: float) -> float:
    """The moment as of which losses are compared: the last whole minute.

    Who would lose less changes as time passes. So that it is not found out anew all the time, it changes once a minute.
    """
    return math.floor(now / _EACH) * _EACH


def lost_work(tasks: Iterable[Task], now: float, least: float = 0.0) -> float:
    """What tasks that run, or did until now, would do again if they stopped now, in thousandths of a GPU times seconds.

    Each task counts for ``least`` seconds at least. An eviction needs none: of tasks that lose nothing the newer goes.
    A move has to place them again, so that of such tasks the smaller should go: a floor lets their sizes count.

    A task without GPUs counts as a thousandth of one, so that the longer run of two such is the dearer. Work saved, or
    begun, later than ``now`` is no loss: clocks of machines differ.
    """
    lost = 0.0
    for task in tasks:
        saved, every = task.work.spec.checkpointed, task.work.spec.saves_every
        since = task.since if saved is None else max(task.since, saved)
        if every is not None and now > task.since:
            since = max(since, now - (now - task.since) % every)
        lost += max(task.cls.gpu, 1) * max(now - since, least)
    return lost
