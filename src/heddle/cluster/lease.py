"""Leadership kept by a thread of its own, so that a long plan never costs the Lease.

The thread has an event loop and a connection of its own. It says when this process leads and when it no longer does;
between two renewals `leads` answers from the clock alone: past the renewal deadline nothing is written any more,
whatever else the process is busy with.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

from heddle.control.leader import LeaderElection
from heddle.store.port import Store

_log = logging.getLogger(__name__)

DURATION, DEADLINE, RETRY = 5.0, 4.0, 0.5
"""Seconds: of the Lease, without a renewal until its holder stops, and between tries."""


class LeaseKeeper:
    """Stands for the Lease, and keeps it."""

    def __init__(self, open_store: Callable[[], Store], name: str, identity: str, *, namespace: str) -> None:
        """Stand for `namespace/name` under `identity`; `open_store` makes the thread's own connection."""
        self._open, self._name, self._identity, self._namespace = open_store, name, identity, namespace
        self._until = float("-inf")
        self._gained: asyncio.Event = asyncio.Event()
        self._lost: asyncio.Event = asyncio.Event()
        self._main = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._work: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def leads(self) -> bool:
        """Whether this process may write now."""
        return time.monotonic() < self._until

    def start(self) -> None:
        """Begin to stand for the Lease."""
        self._thread.start()

    async def gained(self) -> None:
        """Wait until this process leads."""
        await self._gained.wait()

    async def lost(self) -> None:
        """Wait until it does so no longer."""
        await self._lost.wait()

    def stop(self) -> None:
        """Give the Lease up, so that the next candidate need not wait."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join(5)

    def _cancel(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._stand())
        finally:
            self._until = float("-inf")
            with contextlib.suppress(RuntimeError):
                self._main.call_soon_threadsafe(self._lost.set)
            self._loop.close()

    async def _stand(self) -> None:
        store = self._open()
        election = LeaderElection(
            store, self._name, self._identity, namespace=self._namespace,
            duration=DURATION, renew_deadline=DEADLINE, retry=RETRY, renewed=self._renewed,
        )  # fmt: skip
        try:
            self._work = asyncio.create_task(election.run(self._hold))
            with contextlib.suppress(asyncio.CancelledError):
                await self._work
        except Exception:
            _log.exception("the Lease %s is not kept", self._name)
        finally:
            self._until = float("-inf")
            await store.close()

    async def _hold(self) -> None:
        self._main.call_soon_threadsafe(self._gained.set)
        await asyncio.Event().wait()

    def _renewed(self, asked: float) -> None:
        """The Lease is ours as of a moment at which we asked for it."""
        self._until = asked + DEADLINE
