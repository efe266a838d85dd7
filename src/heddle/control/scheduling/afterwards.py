"""Writes that may wait until those that work depends on are out: conditions, Events, what people read."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator

from heddle.api.errors import ApiError

_log = logging.getLogger(__name__)

Write = Callable[[], Awaitable[None]]

_WAITS = 2.0
"""Seconds after which a write no longer waits for urgent ones; those are then let through one at a time."""
_AT_ONCE = 8


class Afterwards:
    """Writes in the background: of each object only the newest, a few at a time, behind all that is urgent."""

    def __init__(self) -> None:
        self._due: dict[Hashable, tuple[float, Write]] = {}
        self._busy: set[Hashable] = set()
        self._news = asyncio.Event()
        self._urgent = 0

    def put(self, key: Hashable, write: Write) -> None:
        """Write this soon; what was due for the same object and is not written yet is forgotten."""
        since = self._due[key][0] if key in self._due else time.monotonic()
        self._due[key] = (since, write)
        self._news.set()

    def drop(self, key: Hashable) -> None:
        """What was due for this object is of no use any more."""
        self._due.pop(key, None)

    @contextlib.contextmanager
    def urgent(self) -> Iterator[None]:
        """While this is open only what has waited long is written."""
        self._urgent += 1
        try:
            yield
        finally:
            self._urgent -= 1
            if not self._urgent and self._due:
                self._news.set()

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._work())

    async def flushed(self) -> None:
        """Wait until nothing is due."""
        while self._due or self._busy:  # noqa: ASYNC110 - only tests and the last moments of a process wait for it
            await asyncio.sleep(0.01)

    async def _work(self) -> None:
        while True:
            found = self._next()
            if found is None:
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WAITS / 4 if self._due else None):
                        await self._news.wait()
                continue
            key, write = found
            self._busy.add(key)
            try:
                await write()
            except ApiError as error:
                _log.warning("what is to be read of %s is not written: %s", key, error)
            except Exception:
                _log.exception("what is to be read of %s is not written", key)
            finally:
                self._busy.discard(key)

    def _next(self) -> tuple[Hashable, Write] | None:
        for key, (since, write) in self._due.items():
            if self._urgent and (self._busy or time.monotonic() - since < _WAITS):
                return None  # the oldest comes first: no other has waited longer
            if key not in self._busy:
                del self._due[key]
                return key, write
        return None
