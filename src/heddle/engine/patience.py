"""Claims that waited for long without a known end in sight: nothing new starts where they will run.

Work without a walltime ends some day, but nobody knows when: a gang that needs whole nodes may wait for ever while
small work starts wherever something ends. A queue may say how long that goes on (:attr:`QueueSpec.drain_after`). Then
places are chosen as if what runs without a walltime ended too, youngest first, since what has run for long most often
runs on for long (running times are heavy-tailed: Harchol-Balter and Downey, TOCS 15(3), 1997). What began after the
claim's patience ended comes last, so that the choice stays what it was while others come and go.
"""

from __future__ import annotations

import math

from heddle.engine.queues import Queue
from heddle.engine.state import State
from heddle.engine.work import TaskState, Work

UNKNOWN = 1e15
"""Later than any known end, in seconds."""


def due(work: Work, queue: Queue) -> float:
    """When a claim's patience ends, in seconds; infinite where its queue names no time."""
    return work.spec.created + queue.drain_after


def unknown_ends(state: State, before: float) -> list[tuple[float, str]]:
    """Work without a walltime, as if each ended after all known ends: that which began by this moment, youngest first,
    and then what began later, oldest first."""
    begun = []
    for queue in state.tree.queues.values():
        for work in queue.live.values():
            if work.spec.walltime is None and any(work.bound):
                since = max(task.since for task in work.tasks.values() if task.state is TaskState.BOUND)
                begun.append((since > before, since if since > before else -since, work.name))
    return [(UNKNOWN + rank, name) for rank, (_, _, name) in enumerate(sorted(begun))]


def outlook(state: State, now: float) -> tuple[bool, float]:
    """Whether a waiting claim has lost patience, and when the next one will; infinite = none."""
    lost, following = False, math.inf
    for queue in state.tree.patient:
        for _, _, name in queue.waiting:
            at = due(state.works[name], queue)
            lost = lost or at <= now
            if at > now:
                following = min(following, at)
    return lost, following
