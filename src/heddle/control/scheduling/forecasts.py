"""When those who wait are expected to start, worked out beside the scheduling and told as it changes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from heddle.engine import Budget, State, expect_all

_log = logging.getLogger(__name__)

_PAUSE = 2.0
"""Seconds between two forecasts at least: people read these."""
_SHARE = 10
"""And so many times as long as the last one took: a forecast takes processor time from scheduling."""
_MOVED, _PART = 30.0, 0.05
"""A start that moves by fewer seconds, or by less of the time that is left, is no news."""


class Forecasts:
    """The expected starts of waiting workloads, from runs of the engine through virtual time.

    Only where the end of something that runs is known there is anything to foresee; without walltimes nothing is
    worked out.
    """

    def __init__(
        self, copy: Callable[[], Awaitable[State]], tell: Callable[[Iterable[str]], None], budget: Budget
    ) -> None:
        """Foresee.

        Args:
            copy: gives a copy of the engine's state as it is.
            tell: is told the workloads of which the expected start changed.
            budget: as in `heddle.engine.schedule`.
        """
        self._copy, self._tell, self._budget = copy, tell, budget
        self._starts: dict[str, float] = {}
        self._news = asyncio.Event()

    def start_of(self, workload: str) -> float | None:
        """When a workload is expected to start, in seconds of the clock; None = nobody can say."""
        return self._starts.get(workload)

    def note(self, state: State) -> None:
        """The world has changed: foresee anew when it is time to."""
        if state.lines.ends and state.waiting():
            self._news.set()
        elif self._starts:
            self._news.clear()
            self._say({})

    async def run(self) -> None:
        """Foresee until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            begun = time.monotonic()
            try:
                state = await self._copy()
                found = await asyncio.to_thread(self._foresee, state, time.time())
            except Exception:
                _log.exception("expected starts are not worked out")
                found = dict[str, float]()
            self._say(found)
            await asyncio.sleep(max(_PAUSE, _SHARE * (time.monotonic() - begun)))
            if any(start < time.time() for start in self._starts.values()):
                self._news.set()  # somebody runs for longer than was said

    def _foresee(self, state: State, now: float) -> dict[str, float]:
        expected = expect_all(state, now, state.waiting(), self._budget)
        return {key: one.start for key, one in expected.items() if one.start is not None}

    def _say(self, found: dict[str, float]) -> None:
        now, known = time.time(), self._starts
        for key, start in found.items():
            before = known.get(key)
            if before is not None and abs(start - before) < max(_MOVED, _PART * abs(before - now)):
                found[key] = before
        self._starts = found
        self._tell([key for key in {**known, **found} if known.get(key) != found.get(key)])
