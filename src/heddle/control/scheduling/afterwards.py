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
_STORM = 64
"""Urgent writes, made together, from which on history waits for calm."""
_CALM = 3.0
"""Seconds after a storm until history is written: the next one mostly follows the last by less."""
_PATIENCE = 4.0
"""Seconds after which history is written one at a time, storm or not."""


class Afterwards:
    """Writes in the background: of each object only the newest, a few at a time, behind all that is urgent."""

    def __init__(self) -> None:
        self._due: dict[Hashable, tuple[float, Write]] = {}
        self._later: dict[Hashable, tuple[asyncio.TimerHandle, Write]] = {}
        self._history: dict[Hashable, tuple[float, Write]] = {}
        self._busy: set[Hashable] = set()
        self._news = asyncio.Event()
        self._urgent = 0
        self._calm_at = float("-inf")

    def put(self, key: Hashable, write: Write, *, wait: float = 0.0) -> None:
        """Write this soon; what was due for the same object and is not written yet is forgotten.

        Args:
            key: names the object, and what of it.
            write: writes it.
            wait: seconds that pass first, since it will likely be dropped by then; counted from when something was put
                for the object that is not written yet.
        """
        if wait and key not in self._due:
            timer, _ = self._later.get(key) or (asyncio.get_running_loop().call_later(wait, self._ripe, key), write)
            self._later[key] = (timer, write)
            return
        if key in self._later:
            self._later.pop(key)[0].cancel()
        self._enter(self._due, key, write)

    def note(self, key: Hashable, write: Write) -> None:
        """Write what happened, for the record: in a storm of urgent writes it waits for a while."""
        self._enter(self._history, key, write)

    def _enter(self, due: dict[Hashable, tuple[float, Write]], key: Hashable, write: Write) -> None:
        since = due[key][0] if key in due else time.monotonic()
        due[key] = (since, write)
        self._news.set()

    def _ripe(self, key: Hashable) -> None:
        self.put(key, self._later.pop(key)[1])

    def drop(self, key: Hashable) -> None:
        """What was due for this object is of no use any more."""
        self._due.pop(key, None)
        if key in self._later:
            self._later.pop(key)[0].cancel()

    @contextlib.contextmanager
    def urgent(self, many: int = 1) -> Iterator[None]:
        """While this is open, for so many writes, only what has waited long is written."""
        self._urgent += 1
        try:
            yield
        finally:
            self._urgent -= 1
            if many >= _STORM:
                self._calm_at = time.monotonic() + _CALM
            if not self._urgent and (self._due or self._history):
                self._news.set()

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._work())

    async def flushed(self) -> None:
        """Wait until nothing is due."""
        while self._due or self._later or self._history or self._busy:  # noqa: ASYNC110 - only tests and the last moments of a process wait for it
            await asyncio.sleep(0.01)

    async def _work(self) -> None:
        while True:
            found = self._next()
            if found is None:
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WAITS / 4 if self._due or self._history else None):
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
        now = time.monotonic()
        return self._first(self._due, now, _WAITS, crowded=self._urgent > 0) or self._first(
            self._history, now, _PATIENCE, crowded=self._urgent > 0 or now < self._calm_at
        )

    def _first(
        self, due: dict[Hashable, tuple[float, Write]], now: float, longest: float, *, crowded: bool
    ) -> tuple[Hashable, Write] | None:
        """The first that may be written now; while it is crowded those that have waited longest, one at a time."""
        for key, (since, write) in due.items():
            if crowded and (self._busy or now - since < longest):
                return None  # the oldest comes first: no other has waited longer
            if key not in self._busy:
                del due[key]
                return key, write
        return None
