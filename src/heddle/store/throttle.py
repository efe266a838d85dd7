"""How many requests are under way at once: more while the server keeps up, fewer when it says that it does not.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain 1989): each answer adds a little while others
wait for their turn, each refusal (429) or lost connection halves. What the server asks for in Retry-After is kept. No
rule looks at how long answers take: an eviction takes ten times as long as a binding on the same idle server.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

_LEAST, _FIRST, _MOST = 2, 32, 64
_CALM = 1.0
"""Seconds between two halvings: what was under way when the server refused is refused together."""


class Throttle:
    """A gate that so many requests pass at once, in the order in which they come."""

    def __init__(self, *, least: int = _LEAST, first: int = _FIRST, most: int = _MOST) -> None:
        """Begin with `first` requests at once; never go below `least` or above `most`."""
        self._least, self._most = least, most
        self._limit = float(first)
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._halved = float("-inf")

    @property
    def limit(self) -> int:
        """Requests that may be under way at once now."""
        return int(self._limit)

    @contextlib.asynccontextmanager
    async def pass_through(self) -> AsyncIterator[None]:
        """Wait for a place; it is given up at the end of the block."""
        if self._under_way >= self.limit or self._waiting:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn  # whoever wakes us has counted us in
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                raise
        else:
            self._under_way += 1
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._under_way -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._under_way < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)

    def answered(self) -> None:
        """The server has answered: there may be room for more."""
        if self._waiting:  # else what we send is not what limits us
            self._limit = min(self._most, self._limit + 1 / self._limit)

    def refused(self) -> None:
        """The server cannot keep up."""
        now = time.monotonic()
        if now - self._halved >= _CALM:
            self._halved = now
            self._limit = max(self._least, self._limit / 2)
