"""The keyed queue between watches and reconciles.

A key that is added while it waits is there once; one that is added while it is worked on is worked on again
afterwards, never twice at the same time. A failed key comes back after a delay that doubles.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 0.05, 30.0


class WorkQueue:
    """Keys to reconcile, and the workers that do."""

    def __init__(self, name: str, reconcile: Callable[[str], Awaitable[float | None]], workers: int = 4) -> None:
        """Make a queue.

        Args:
            name: for log lines.
            reconcile: brings the object of a key towards its wish; may return seconds after which to look again.
            workers: how many keys are worked on at once.
        """
        self._name, self._reconcile, self._workers = name, reconcile, workers
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def add(self, key: str) -> None:
        """Reconcile this key soon."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_later(self, key: str, seconds: float) -> None:
        """Reconcile this key after a while, or earlier when something adds it."""
        if old := self._timers.pop(key, None):
            old.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._due, key)

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._working.add(key)
            try:
                later = await self._reconcile(key)
                self._failures.pop(key, None)
                if later is not None:
                    self.add_later(key, later)
            except Exception as error:
                count = self._failures[key] = self._failures.get(key, 0) + 1
                delay = min(LAST_DELAY, FIRST_DELAY * 2 ** min(count, 20))
                level = logging.DEBUG if count < 4 else logging.WARNING
                _log.log(level, "%s %s: %s; again in %.1f s", self._name, key, error, delay, exc_info=count > 3)
                self.add_later(key, delay)
            finally:
                self._working.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
