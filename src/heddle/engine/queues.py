"""The queue tree: usage, caps, fair shares, and who may take from whom.

Usage has four counters per queue and resource: ``running``, ``releasing`` (evicted, still there),
``reserved`` (promised), and ``fixed`` (running or reserved work that is not preemptible). They are plain
Python lists, since the tree is walked one queue at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heddle.engine.fairshare import UNBOUNDED, divide
from heddle.engine.model import QueueSpec

Amounts = list[int]


class Queue:
    """A queue and its counters; ``path`` runs from it up to the top."""

    __slots__ = (
        "active", "children", "fixed", "limit", "name", "parent", "path", "priority", "quota", "releasing",
        "request", "reserved", "running", "share", "spec", "waiting", "weight", "works",
    )  # fmt: skip

    def __init__(self, spec: QueueSpec, width: int) -> None:
        self.name = spec.name
        self.running: Amounts = [0] * width
        self.releasing: Amounts = [0] * width
        self.reserved: Amounts = [0] * width
        self.fixed: Amounts = [0] * width
        self.request: Amounts = [0] * width  # all tasks of its own workloads, running or not
        self.share: Amounts = [0] * width
        self.waiting: list[tuple[int, float, str]] = []  # keys of own workloads with pending tasks, sorted
        self.works: dict[str, Any] = {}  # own workloads by name (state.Work)
        self.children: list[Queue] = []
        self.parent: Queue | None = None
        self.path: tuple[Queue, ...] = (self,)
        self.active = True
        self.spec = spec
        self.priority = spec.priority
        self.quota: Amounts = []  # this and the next two are filled in by QueueTree.settle
        self.limit: Amounts = []
        self.weight: list[float] = []

    def used(self, column: int) -> int:
        """What counts as the queue's own: running and promised."""
        return self.running[column] + self.reserved[column]


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap that stops a demand: whose, in which resource, and the figures."""

    queue: Queue
    column: int
    cap: int
    used: int
    wanted: int


class QueueTree:
    """All queues. Specs may come in any order; :meth:`settle` works the tree out again when they changed."""

    def __init__(self, resources: list[str]) -> None:
        self.resources = resources
        self.queues: dict[str, Queue] = {}
        self.tops: list[Queue] = []
        self.stale = True

    def widen(self) -> None:
        """Adds counters for resources that were appended to the shared list."""
        for queue in self.queues.values():
            extra = len(self.resources) - len(queue.running)
            for name in ("running", "releasing", "reserved", "fixed", "request", "share"):
                getattr(queue, name).extend([0] * extra)
        self.stale = True

    def settle(self) -> None:
        """Links parents, finds missing ones and cycles, sums counters upwards. Only after specs changed."""
        if not self.stale:
            return
        self.stale = False
        self.tops = []
        for queue in self.queues.values():
            queue.children = []
            spec = queue.spec
            queue.priority = spec.priority
            queue.quota = [_bound(spec.quota.get(name)) for name in self.resources]
            queue.limit = [_bound(spec.limit.get(name)) for name in self.resources]
            queue.weight = [spec.weight_of(name) for name in self.resources]
        for name in sorted(self.queues):
            queue = self.queues[name]
            path, seen, at = [queue], {name}, queue
            queue.active = True
            while at.spec.parent is not None:
                above = self.queues.get(at.spec.parent)
                if above is None or above.name in seen:
                    queue.active = False
                    break
                seen.add(above.name)
                path.append(above)
                at = above
            queue.path = tuple(path) if queue.active else (queue,)
            queue.parent = path[1] if queue.active and len(path) > 1 else None
            if queue.parent:
                queue.parent.children.append(queue)
            elif queue.active:
                self.tops.append(queue)

    # -- caps --------------------------------------------------------------------------------------

    def stopped_by(self, queue: Queue, demand: Sequence[int], *, fixed: bool, land: bool) -> Cap | None:
        """The first cap, from the queue upwards, that a further demand would break; None = admitted."""
        for at in queue.path:
            for column, wanted in enumerate(demand):
                if not wanted:
                    continue
                used = at.running[column]
                used += at.reserved[column] if land else max(at.reserved[column], at.releasing[column])
                if used + wanted > at.limit[column]:
                    return Cap(at, column, at.limit[column], used, wanted)
                if fixed and at.fixed[column] + wanted > at.quota[column]:
                    return Cap(at, column, at.quota[column], at.fixed[column], wanted)
        return None

    # -- fair share --------------------------------------------------------------------------------

    def divide(self, total: Sequence[int]) -> None:
        """Writes every queue's fair share, level by level from the top."""
        wants: dict[str, Amounts] = {}
        self._wants(self.tops, wants)
        self._divide(self.tops, list(total), wants)

    def _wants(self, level: list[Queue], wants: dict[str, Amounts]) -> Amounts:
        total = [0] * len(self.resources)
        for queue in level:
            want = self._wants(queue.children, wants) if queue.children else list(queue.request)
            want = [min(a, b) for a, b in zip(want, queue.limit, strict=True)]
            wants[queue.name] = want
            total = [a + b for a, b in zip(total, want, strict=True)]
        return total

    def _divide(self, level: list[Queue], total: Amounts, wants: dict[str, Amounts]) -> None:
        if not level:
            return
        for column in range(len(self.resources)):
            shares = divide(
                total[column],
                np.array([wants[q.name][column] for q in level], np.int64),
                np.array([q.quota[column] for q in level], np.int64),
                np.array([q.limit[column] for q in level], np.int64),
                np.array([q.weight[column] for q in level]),
                np.array([q.priority for q in level], np.int64),
            )
            for queue, share in zip(level, shares.tolist(), strict=True):
                queue.share[column] = share
        for queue in level:
            self._divide(queue.children, queue.share, wants)

    @staticmethod
    def within(queue: Queue, demand: Sequence[int], bound: str, top: Queue | None = None) -> bool:
        """Whether a queue, and all above it up to ``top``, end within ``bound`` ("share" or "quota")."""
        for at in queue.path:
            bounds: Amounts = getattr(at, bound)
            for column, wanted in enumerate(demand):
                if wanted and at.running[column] + at.reserved[column] + wanted > bounds[column]:
                    return False
            if at is top:
                break
        return True

    @staticmethod
    def sides(gainer: Queue, loser: Queue) -> tuple[Queue, Queue] | None:
        """The two queues just below the common ancestor; None when one contains the other."""
        ours, theirs = gainer.path[::-1], loser.path[::-1]
        for mine, other in zip(ours, theirs, strict=False):
            if mine is not other:
                return mine, other
        return None


def _bound(value: int | None) -> int:
    return UNBOUNDED if value is None else value


def standing(queue: Queue, total: Sequence[int]) -> tuple[int, int, float, float]:
    """Where a queue stands: below quota first, then by saturation of its share (dominant resource as in DRF).

    Ghodsi et al., Dominant Resource Fairness, NSDI 2011, with the fair share in the place of an equal split.
    """
    owed = spent = part = 0.0
    for used, held, quota, share, whole in zip(
        queue.running, queue.reserved, queue.quota, queue.share, total, strict=True
    ):
        taken = used + held
        if not taken:
            continue
        ratio = taken / quota if quota else 1e9
        if ratio > owed:
            owed = ratio
        ratio = taken / share if share else 1e9
        if ratio > spent:
            spent = ratio
        ratio = taken / whole if whole else 0.0
        if ratio > part:
            part = ratio
    if owed < 1:
        return (0, 0, owed, part)
    return (1, -queue.priority, spent, part)
