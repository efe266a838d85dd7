"""Room kept ahead of time for a claim that cannot start yet: EASY backfill.

The first claim in line that finds no room gets a *shadow*: the earliest moment at which known ends of
running work leave room for it, and its places then. Later claims may use that room meanwhile only if they
end by that moment, or fit beside those places; so the large job is not starved by small ones, and nothing
that could be used in the meantime stands empty. Only known ends count: without walltimes there is no
shadow, and nothing is withheld.

Lifka, The ANL/IBM SP scheduling system, JSSPP 1995; Mu'alem and Feitelson, Utilization, predictability,
workloads, and user runtime estimates in scheduling the IBM SP2 with backfilling, TPDS 12(6), 2001. Places are
searched by the engine's own placement under the queues' caps, so shadows hold for shares of GPUs, topology
and limits alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from heddle.engine.fairshare import UNBOUNDED
from heddle.engine.nodes import Ints
from heddle.engine.placement import Need, Placer
from heddle.engine.queues import Queue
from heddle.engine.speeds import slowness
from heddle.engine.state import State
from heddle.engine.work import TaskState, Work

Ends = Sequence[tuple[float, str]]
"""When running workloads end, sorted."""


@dataclass(slots=True)
class Shadow:
    """What one claim will need, and what is left beside it.

    Attributes:
        work: the claim's workload.
        at: when its room is there, in seconds on the caller's clock.
        spare: rows that it will use -> amounts and thousandths of each device that are left at ``at``.
        headroom: queues above it that have a limit -> what may still be used below them at ``at``, per resource.
        fixed: the same of those with a quota, for work that is not preemptible.
        after: names of the workloads that end at ``at``.
        counters: what others may still use at ``at`` of what no node has, by resource column.
        drains: nobody knows when its room is there; ``at`` is the present, so that nothing new starts in it.
    """

    work: Work
    at: float
    spare: dict[int, tuple[Ints, Ints]]
    headroom: dict[Queue, list[int]]
    fixed: dict[Queue, list[int]]
    after: tuple[str, ...]
    counters: dict[int, int]
    drains: bool = False

    def admits(self, queue: Queue, demand: Sequence[int], *, fixed: bool) -> bool:
        """Whether work that outlasts ``at`` leaves the queues above the claim enough for it."""
        if not (self.counters or self.headroom or (fixed and self.fixed)):
            return True
        if any(demand[column] > left for column, left in self.counters.items() if demand[column]):
            return False
        for at in queue.path:
            for bounds in (self.headroom, self.fixed) if fixed else (self.headroom,):
                left = bounds.get(at)
                if left is not None and any(n and n > left[c] for c, n in enumerate(demand)):
                    return False
        return True

    def charge(self, queue: Queue, demand: Sequence[int], *, fixed: bool) -> None:
        """Work that outlasts ``at`` has started in this queue."""
        for column in self.counters:
            self.counters[column] -= demand[column]
        for at in queue.path:
            for bounds in (self.headroom, self.fixed) if fixed else (self.headroom,):
                left = bounds.get(at)
                if left is not None:
                    for column, amount in enumerate(demand):
                        left[column] -= amount


def known_ends(state: State, started: Iterable[Work], now: float, overdue: float) -> list[tuple[float, str]]:
    """When running workloads end, sorted; those of unknown walltime, or overdue for long, are left out.

    Args:
        state: the world.
        started: workloads that this cycle started.
        now: seconds.
        overdue: seconds for which one that should have ended is still expected to end at any moment.
    """
    ends = [(max(end, now), name) for end, name in state.lines.ends if end >= now - overdue]
    fresh = {
        work.name: work.spec.walltime * slowness(work)
        for work in started
        if work.end is None and work.spec.walltime is not None
    }
    if fresh:
        ends += [(now + walltime, name) for name, walltime in fresh.items()]
        ends.sort()
    return ends


def find_shadow(
    placer: Placer, work: Work, queue: Queue, need: Need, demand: Sequence[int], ends: Ends, *, within: bool
) -> Shadow | None:
    """The earliest known moment at which a claim has room, and its places then; None = no known end helps.

    ``within``: and at which it will keep its queue, and all above it, within share.

    Room only grows as work ends, so the moment is found by doubling steps and then halving. The state is
    left as it was.
    """
    search = _Search(placer, work, queue, need, demand, ends, within=within)
    point = search.state.checkpoint()
    try:
        return search.run()
    finally:
        search.state.rollback(point)


class _Search:
    def __init__(
        self,
        placer: Placer,
        work: Work,
        queue: Queue,
        need: Need,
        demand: Sequence[int],
        ends: Ends,
        *,
        within: bool,
    ) -> None:
        self.placer, self.state = placer, placer.state
        self.work, self.queue, self.need, self.demand = work, queue, need, demand
        self.fixed = not work.spec.preemptible
        self.ends = ends
        self.within = within

    def run(self) -> Shadow | None:
        if not self._could_ever():
            return None
        ends, state = self.ends, self.state
        moments = [at for at in range(1, len(ends) + 1) if at == len(ends) or ends[at][0] != ends[at - 1][0]]
        low, high, step = -1, self._first(moments), 1
        gone = 0  # of `ends`, in the present what-if
        while high < len(moments):
            point = state.checkpoint()
            self._end(gone, moments[high])
            if self._fits():
                state.rollback(point)
                break
            low, gone = high, moments[high]
            high, step = high + step, step * 2
            if low < len(moments) - 1:
                high = min(high, len(moments) - 1)
        else:
            return None
        while low + 1 < high:
            middle = (low + high) // 2
            point = state.checkpoint()
            self._end(gone, moments[middle])
            if self._fits():
                state.rollback(point)
                high = middle
            else:
                low, gone = middle, moments[middle]
        self._end(gone, moments[high])
        self.placer.place(self.work, self.need, land=True)
        at = ends[moments[high] - 1][0]
        return self._shadow(at, tuple(name for end, name in ends[: moments[high]] if end == at))

    def _could_ever(self) -> bool:
        """Whether every queue above would take the claim if nothing else ran there."""
        for column, wanted in enumerate(self.demand):
            for at in self.queue.path if wanted else ():
                if wanted > at.most[column] or (self.fixed and wanted > at.quota[column]):
                    return False
                if self.within and wanted > at.share[column]:
                    return False
        return True

    def _first(self, moments: Sequence[int]) -> int:
        """The first moment worth a try: before it too few GPUs are free even in sum."""
        least = sum(self.work.parts[part].least[0] * count for part, count in self.need)
        missing = least - int(np.maximum(self.state.nodes.land[:, 0], 0).sum())
        gone = 0
        for moment, count in enumerate(moments):
            for _, name in self.ends[gone:count]:
                work = self.state.works[name]
                missing -= sum(bound * cls.gpu for bound, cls in zip(work.bound, work.parts, strict=True))
            gone = count
            if missing <= 0:
                return moment
        return len(moments)

    def _end(self, low: int, high: int) -> None:
        for _, name in self.ends[low:high]:
            for task in self.state.works[name].tasks.values():
                if task.state is TaskState.BOUND:
                    self.state.move(task, TaskState.PENDING)
                if task.hold and task.work.after is not None:
                    self.state.unhold(task)

    def _fits(self) -> bool:
        tree = self.state.tree
        if tree.stopped_by(self.queue, self.demand, fixed=self.fixed, user=self.work.spec.user, land=True):
            return False
        if self.within and not tree.within(self.queue, self.demand, "share"):
            return False
        point = self.state.checkpoint()
        placed = self.placer.place(self.work, self.need, land=True)
        self.state.rollback(point)
        return placed is not None

    def _shadow(self, at: float, after: tuple[str, ...]) -> Shadow:
        nodes = self.state.nodes
        rows = {task.hold[0] for task in self.work.tasks.values() if task.hold}
        spare = {row: (nodes.land[row].copy(), nodes.dev_land[row].copy()) for row in rows}
        headroom = {
            queue: [cap - queue.used(column) for column, cap in enumerate(queue.limit)]
            for queue in self.queue.path
            if min(queue.limit) < UNBOUNDED
        }
        fixed = {
            queue: [quota - queue.fixed[column] for column, quota in enumerate(queue.quota)]
            for queue in self.queue.path
            if min(queue.quota) < UNBOUNDED
        }
        counters = self.state.tree.counters
        counted = {column: counters.free(column, land=True) for column in counters.cap if self.demand[column]}
        return Shadow(self.work, at, spare, headroom, fixed, after, counted)
