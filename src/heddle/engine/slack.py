"""What each queue has left of its share, quota and caps, as arrays: one comparison says which claims may fit under it.

Queues say when they changed (:attr:`QueueTree.changed`), so that it costs what changed. Knows queues by number; is not
aware of who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from heddle.engine.fairshare import UNBOUNDED
from heddle.engine.nodes import Ints

if TYPE_CHECKING:
    from heddle.engine.queues import Queue

_PLENTY = 2**61
"""More than anybody asks for, or has."""


class Slack:
    """What the queues of a tree have left, by their number."""

    def __init__(self, queues: Sequence[Queue], width: int) -> None:
        """For the queues of a tree that is settled, in the order of their numbers."""
        self._queues = queues
        size = len(queues)
        self._share, self._quota, self._most, self._running, self._reserved, self._releasing = (
            np.zeros((size, width), np.int64) for _ in range(6)
        )
        self._lowest: Ints = np.full(size, _PLENTY, np.int64)
        self._above: Ints = np.array([(q.parent or q).number for q in queues], np.int64)
        self._levels = max((len(queue.path) for queue in queues), default=1)
        for at, queue in enumerate(queues):
            self._quota[at], self._most[at] = queue.quota, queue.most
        self._capped = bool((self._most < UNBOUNDED).any())

    def update(self, changed: set[Queue]) -> None:
        """Takes up what changed, and empties the set."""
        for queue in changed:
            at = queue.number
            self._share[at] = queue.share
            self._running[at], self._reserved[at], self._releasing[at] = queue.running, queue.reserved, queue.releasing
            self._lowest[at] = queue.live.lowest(_PLENTY)
        changed.clear()

    def to_start(self, *, within: bool) -> Ints | None:
        """What may at most start below each queue before it, or one above it, reaches a cap, or ``within`` its share;
        None = as much as one likes.

        Promises are left out: a claim that starts elsewhere gives its own back.
        """
        if not (within or self._capped):
            return None
        left = self._share - self._running if within else self._most - self._running - self._releasing
        if within and self._capped:
            left = np.minimum(left, self._most - self._running - self._releasing)
        for _ in range(self._levels - 1):
            left = np.minimum(left, left[self._above])
        found: Ints = np.maximum(left, 0)
        return found

    def own(self) -> tuple[Ints, Ints]:
        """What each queue has left of its share, and of its quota, whatever those above have."""
        used = self._running + self._reserved
        return np.maximum(self._share - used, 0), np.maximum(self._quota - used, 0)

    def lowest(self) -> Ints:
        """The lowest priority of what has a place in each queue."""
        return self._lowest
