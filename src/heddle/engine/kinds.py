"""Kinds of claims: waiting workloads of a queue for which the same answer holds.

A backlog of thousands asks for a few dozen different things. Two workloads of a queue that ask for the same, under
the same caps and with the same rank of priority, find room or do not find it alike; so a cycle tries the first of
each kind, and leaves the rest alone once it fails. What has a place already, or waits for more than that, is a kind
of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from heddle.engine.steps import to_grow

if TYPE_CHECKING:
    from heddle.engine.work import Work

Kind = tuple[object, ...]


class Wish(IntEnum):
    """What a claim may get beside what runs."""

    START = 1
    """Its start."""
    GROW = 2
    """More than its minimum."""
    BOTH = 3
    """Either: it is a kind of its own."""


class Ask(NamedTuple):
    """What those of one kind ask for.

    Attributes:
        least: amounts of nodes for all that must start together, per resource: at least so much.
        alone: it is one task, which one node must have room for.
        priority: their priority, without what age adds.
        timed: they wait for their start, and it is known how long they would run.
        what: what they may get beside what runs.
    """

    least: Sequence[int]
    alone: bool
    priority: int
    timed: bool
    what: Wish


SHORT = "short"
"""Too few tasks exist for the minimum, or for a step beyond it."""
START = "start"
"""The minimum waits."""
GROW = "grow"
"""The minimum runs, and tasks beyond it wait."""
PROMISED = "promised"
"""One task, which is all there is, waits for the place that it was promised, or for one that is free before."""


def kind_of(work: Work) -> Kind:
    """The kind of a waiting workload; its name alone where no other is like it."""
    spec, queue = work.spec, work.queue
    if len(spec.pod_sets) != 1 or work.arranged or spec.awaited:
        return (work.name,)
    if queue is None or (work.groups is not None and not work.groups.least):  # its only group is beyond the minimum
        return (work.name,)
    pod_set, bound = spec.pod_sets[0], work.bound[0]
    missing = pod_set.min - bound
    if work.held:
        if work.social or not missing == work.pending[0] == 1:
            return (work.name,)  # what it may get depends on where it has promises
        what = PROMISED
    elif missing > 0:
        if bound:
            return (work.name,)
        if missing > work.pending[0]:
            return (SHORT,)
        what = START
    else:
        if bound and (spec.topology_required is not None or spec.walltime is not None or work.chooses):
            return (work.name,)
        if bound and not pod_set.resizable:
            return (SHORT,)  # it grows no more
        what, missing = GROW, to_grow(pod_set, bound)
        if missing < pod_set.step:
            return (work.name,)  # it lacks a part of a step, and then a whole one
        if missing > work.pending[0]:
            return (SHORT,)
    user = spec.user if any(at.submitters is not None for at in queue.path) else ""
    speeds = tuple(sorted(pod_set.gpu_speeds.items())) if work.paced else ()
    wish = (spec.topology_required, spec.topology_preferred, pod_set.neighbours, spec.gentle, speeds)
    age = 0 if queue.spec.ageing is None else queue.spec.ageing.points(spec.created, queue.tick)
    return (what, work.bases[0], missing, spec.preemptible, spec.priority, spec.walltime, wish, user, age)


def apart_from_time(kind: Kind) -> tuple[Kind, float] | None:
    """What those of a kind ask for, whatever their walltime, and that walltime (infinite = not known); None = nobody is
    like them, or they do not wait for their start.

    Of claims that ask for the same the longer finds no room where a shorter found none: all that is kept from the one
    is kept from the other too.
    """
    if len(kind) == 1 or kind[0] != START:
        return None
    walltime = kind[5]
    return (*kind[:5], *kind[6:]), walltime if isinstance(walltime, float | int) else math.inf


def apart_from_priority(kind: Kind) -> tuple[Kind, int] | None:
    """What those of a kind ask for, whatever their priority, and that priority; None = nobody is like them, or they do
    not wait for their start.

    Of claims that ask for the same in one queue, whoever yields to the lower priority yields to the higher one too.
    """
    if len(kind) == 1 or kind[0] != START:
        return None
    priority = kind[4]
    return ((*kind[:4], *kind[5:]), priority) if isinstance(priority, int) else None


def ask_of(work: Work, width: int) -> Ask:
    """What those of the workload's kind ask nodes for at least, per resource: nothing where that is not known."""
    amounts = [0] * width
    kind, priority = work.kind, work.spec.priority
    timed = work.spec.walltime is not None and (kind is None or len(kind) == 1 or kind[0] in (START, PROMISED))
    if kind is None or len(kind) == 1:
        return Ask(amounts, alone=False, priority=priority, timed=timed, what=Wish.BOTH)
    cls = work.bases[0]
    count = 1 if kind[0] == GROW else work.spec.pod_sets[0].min - work.bound[0]
    for column in cls.used:
        amounts[column] = cls.needs[column] * count
    if not cls.fixed:
        amounts[0] = 0  # it depends on the hardware, also on such as comes later
    what = Wish.GROW if kind[0] == GROW else Wish.START
    return Ask(amounts, count == 1 and not work.social, priority, timed, what)
