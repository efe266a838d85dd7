"""What queues keep back: the part of a quota that its queue does not lend, idle or not.

A queue counts as using at least what it keeps, for everybody but itself, at every level above it and in the
cluster. Knows the tree and its counters; is not aware of workloads. The rule is that of Kueue's lending limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heddle.engine.queues import Queue, QueueTree


class Lending:
    """What is kept back at this moment. Sums are worked out again only after something moved."""

    def __init__(self, tree: QueueTree, free: Callable[[int, bool], int]) -> None:
        self.tree = tree
        self.free = free  # of a resource: what is free now, or (True) once all who leave have left
        self.columns: list[int] = []  # resources of which some queue keeps something back
        self._sums: dict[tuple[str | None, int, bool], int] = {}
        self._at = -1

    def settle(self) -> None:
        """Finds who keeps anything, after the tree changed."""
        columns: set[int] = set()
        self._at = -1
        for queue in self.tree.queues.values():
            queue.keeps = False
        for queue in self.tree.queues.values():
            if queue.active and any(queue.keep):
                columns.update(c for c, amount in enumerate(queue.keep) if amount)
                for at in queue.path:
                    at.keeps = True
        self.columns = [column for column in self.tree.columns if column in columns]

    def shortage(
        self, queue: Queue, demand: Sequence[int], *, land: bool, included: bool
    ) -> tuple[Queue | None, int, int, int, int] | None:
        """Where a demand would use what others keep back: (queue, or None = the cluster; column, cap, used, more).
        Of the cluster the cap is the room that borrowers may still use.

        With ``included`` the demand is in the counters already.
        """
        if self._at != self.tree.moved:
            self._sums, self._at = {}, self.tree.moved
        # what starts now must leave enough also once those who leave have left: then more is kept back
        for ledger in (True,) if land else (False, True):
            for column in self.columns:
                if demand[column] and (found := self._short(queue, column, demand[column], ledger, included)):
                    return found
        return None

    def _short(
        self, queue: Queue, column: int, wanted: int, land: bool, included: bool
    ) -> tuple[Queue | None, int, int, int, int] | None:
        before = after = now = 0  # kept at and below the last queue of the path: without the demand, with it, counted
        for at in queue.path:
            used = at.taken(column, land=land) - wanted * included
            others = self._below(at.name, at.children, column, land) - now
            old, new = used + before + others, used + wanted + after + others
            if at is not queue and new > max(old, at.most[column]):
                return at, column, at.most[column], old, new - old
            before, after = (
                max(before + others, at.keep[column] - used),
                max(after + others, at.keep[column] - used - wanted),
            )
            now = self._kept(at, column, land)
        others = self._below("", self.tree.tops, column, land) - now
        room = self._room(column, land) + wanted * included - before - others
        more = wanted + after - before
        if more > max(0, room):
            return None, column, max(0, room), 0, more
        return None

    def _room(self, column: int, land: bool) -> int:
        key = (None, column, land)
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = self.free(column, land)
        return found

    def _below(self, name: str, children: Sequence[Queue], column: int, land: bool) -> int:
        key = (name, column, land)
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = sum(self._kept(child, column, land) for child in children if child.keeps)
        return found

    def _kept(self, queue: Queue, column: int, land: bool) -> int:
        """Idle amounts that the queue and those below keep back."""
        if not queue.keeps:
            return 0
        below = self._below(queue.name, queue.children, column, land)
        return max(below, queue.keep[column] - queue.taken(column, land=land))

    def keepers(self, column: int, asker: Queue) -> list[tuple[Queue, int]]:
        """Queues that keep idle amounts back from the asker, with the amounts, largest first."""
        found = []
        for queue in self.tree.queues.values():
            idle = queue.keep[column] - queue.taken(column, land=False) if queue.keeps else 0
            if idle > 0 and queue not in asker.path:
                found.append((queue, idle))
        return sorted(found, key=lambda item: (-item[1], item[0].name))
