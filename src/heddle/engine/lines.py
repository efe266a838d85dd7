"""Who waits in which line, and who runs in part, may be moved, or ends when: lists derived from workloads.

Each is kept true by :meth:`Lines.update`, one workload at a time, so that no cycle has to look at everybody. Knows the
queues that work waits in; is not aware of nodes or of what anybody uses.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import NamedTuple

from heddle.engine.asks import Asks
from heddle.engine.kinds import Kind, ask_of, kind_of
from heddle.engine.queues import Queue, QueueTree
from heddle.engine.speeds import slowness
from heddle.engine.work import Task, TaskState, Work


class InLine(NamedTuple):
    """Where a workload stands in its queue: its place in line and its kind, and whether it runs in part and waits."""

    key: tuple[int, float, str] | None
    kind: Kind | None
    grows: bool


class Lines:
    """The line of each queue, and what is known of workloads beside it; all of it is written here alone."""

    def __init__(self, tree: QueueTree, works: Mapping[str, Work]) -> None:
        self._tree = tree
        self._works = works
        self.orphans: dict[str, None] = {}  # who waits, and has no queue
        self.broken: dict[str, None] = {}  # what runs, and cannot work (Work.torn)
        self.movable: dict[str, None] = {}  # what runs, at least in part, and may be moved
        self.ends: list[tuple[float, str]] = []  # when running workloads of known walltime end, sorted
        self.asks = Asks(len(tree.resources))  # what waits, by kind
        self._later: dict[Work, None] | None = None  # while much is told at once: what is put into lists at the end
        self._ticks: list[int] | None = None  # up to which ages are counted, by `QueueTree.ages`
        self._queues: list[Queue] | None = None  # as of `queues`; None = to be made

    # -- reading -----------------------------------------------------------------------------------

    def queues(self) -> list[Queue]:
        """The queues from which work may be placed and in which some waits (do not write to it)."""
        if self._queues is None:
            self._queues = [queue for queue in self._tree.queues.values() if queue.waiting and queue.starts]
        return self._queues

    def names(self) -> list[str]:
        """Names of all who wait, queue by queue, first in line first."""
        lines = (queue.waiting for _, queue in sorted(self._tree.queues.items()))
        return [*sorted(self.orphans), *(key[2] for line in lines for key in line)]

    def key_of(self, work: Work) -> tuple[int, float, str]:
        """Where a workload stands in its queue's line: lower goes first. Age counts where the queue says so.

        Among equals those that run in part go first: what they still hold serves nobody until they are whole.
        """
        spec, queue = work.spec, work.queue
        points = 0
        if queue is not None and queue.spec.ageing is not None:
            points = queue.spec.ageing.points(spec.created, queue.tick)
        created = -math.inf if work.name in self.broken else spec.created
        return (-spec.priority - points, created, work.name)

    def ages_in(self, now: float) -> float | None:
        """Seconds until age may next change an order in which something waits; None = it does not."""
        waits = (q.spec.ageing for q in self._tree.ageing if q.waiting)
        return min((a.seconds * (a.tick(now) + 1) - now for a in waits if a is not None), default=None)

    # -- keeping them true -------------------------------------------------------------------------

    def update(self, work: Work, joined: Task | None = None) -> None:
        """Makes all lists true for one workload; with `joined`, all that happened is that this task started."""
        if self._later is not None:
            self._later[work] = None
            return
        if work.spec.walltime is not None:
            self._time(work, work.spec.walltime * slowness(work), joined)
        queue = work.queue
        waits = any(work.pending)
        if waits and queue is None:
            self.orphans[work.name] = None
        else:
            self.orphans.pop(work.name, None)
        if work.spec.movable and work.spec.preemptible and any(work.bound):
            self.movable[work.name] = None
        else:
            self.movable.pop(work.name, None)
        if work.torn():
            self.broken[work.name] = None
        else:
            self.broken.pop(work.name, None)
        self._stand(work, self.key_of(work) if waits and queue else None)

    def forget(self, work: Work) -> None:
        """A workload is gone: it stands nowhere."""
        self._stand(work, None)
        for names in (self.orphans, self.broken, self.movable):
            names.pop(work.name, None)
        if work.end is not None:
            del self.ends[bisect_left(self.ends, work.end)]
            work.end = None

    def clear(self) -> None:
        """The queues are others now: nobody stands in line until :meth:`update` says so."""
        self._queues = self._ticks = None
        self.orphans = {}
        self.asks = Asks(len(self._tree.resources))
        for queue in self._tree.queues.values():
            queue.waiting, queue.growing, queue.kinds = [], {}, {}
        for work in self._works.values():
            work.key = work.kind = None

    def defer(self) -> None:
        """Much is about to be told: :meth:`update` only notes whom it is about, until :meth:`catch_up`."""
        self._later = {}

    def catch_up(self) -> None:
        """Makes all lists true for those who were noted."""
        told, self._later = self._later or {}, None
        for work in told:
            self.update(work)

    def age(self, now: float) -> int:
        """Counts ages up to now (seconds). A line is sorted again only when ages in it gained a point; returns how many
        were."""
        ticks = [ageing.tick(now) for ageing in self._tree.ages]
        if ticks == self._ticks:
            return 0
        self._ticks, aged = ticks, 0
        for queue in self._tree.ageing:
            ageing = queue.spec.ageing
            if ageing is None or queue.tick == ageing.tick(now):
                continue
            queue.tick = ageing.tick(now)
            aged += 1
            works = [self._works[key[2]] for key in queue.waiting]
            for kind in queue.kinds:
                self.asks.remove(queue.name, kind)
            queue.kinds = {}
            for work in works:
                work.key, work.kind = self.key_of(work), kind_of(work)
                if work.kind not in queue.kinds:
                    queue.kinds[work.kind] = []
                    self._ask(queue, work, work.kind)
                queue.kinds[work.kind].append(work.key)
            for alike in queue.kinds.values():
                alike.sort()
            queue.waiting = sorted(work.key for work in works if work.key)
        return aged

    def line_up(self, work: Work) -> InLine:
        """Puts a workload that a what-if made wait in its queue's line, as what it is now; returns where it was."""
        grows = work.queue is not None and work.name in work.queue.growing
        was = InLine(work.key, work.kind, grows)
        self._stand(work, self.key_of(work))
        return was

    def step_back(self, work: Work, was: InLine) -> None:
        """Takes :meth:`line_up` back."""
        self._stand(work, was.key, was.kind)
        if work.queue is not None and was.grows:  # it may still be out of its places, until the trial is over
            work.queue.growing[work.name] = work

    def _stand(self, work: Work, key: tuple[int, float, str] | None, kind: Kind | None = None) -> None:
        """Gives a workload its place (None = none) in its queue's line, and among its kind."""
        queue = work.queue
        if queue is None:
            return
        if key is not None and any(work.bound):
            queue.growing[work.name] = work
        else:
            queue.growing.pop(work.name, None)
        if key is not None and kind is None:
            kind = kind_of(work)
        if key == work.key and kind == work.kind:
            return
        if work.key is not None and work.kind is not None:
            del queue.waiting[bisect_left(queue.waiting, work.key)]
            if not queue.waiting:
                self._queues = None
            alike = queue.kinds[work.kind]
            del alike[bisect_left(alike, work.key)]
            if not alike:
                del queue.kinds[work.kind]
                self.asks.remove(queue.name, work.kind)
        work.key, work.kind = key, kind
        if key is not None and kind is not None:
            if not queue.waiting:
                self._queues = None
            insort(queue.waiting, key)
            if kind not in queue.kinds:
                queue.kinds[kind] = []
                self._ask(queue, work, kind)
            insort(queue.kinds[kind], key)

    def _ask(self, queue: Queue, work: Work, kind: Kind) -> None:
        self.asks.add(queue.name, queue.number, kind, ask_of(work, len(self._tree.resources)))

    def _time(self, work: Work, walltime: float, joined: Task | None) -> None:
        if joined is not None:
            work.started = min(work.started, joined.since)
        else:
            running = (task.since for task in work.tasks.values() if task.state is TaskState.BOUND)
            work.started = min(running, default=math.inf)
        end = (work.started + walltime, work.name) if work.started < math.inf else None
        if end != work.end:
            if work.end is not None:
                del self.ends[bisect_left(self.ends, work.end)]
            if end is not None:
                insort(self.ends, end)
            work.end = end
