"""Leader election by a Lease, so that one of several controller processes acts at a time.

As in client-go (tools/leaderelection): a candidate takes the Lease when nobody holds it, when it holds it already, or
when it has watched it unchanged for the holder's own lease duration. Clocks of different machines are never compared:
only the candidate's own clock, from when it saw the last renewal; on the word of an answer that was long on its way
nothing is taken. The holder stops acting when it has not been able to renew for `renew_deadline` seconds, which is less
than the lease duration, so that two never act at once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from heddle.api.clock import to_text
from heddle.api.core import Lease, LeaseSpec
from heddle.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from heddle.api.meta import ObjectMeta
from heddle.api.registry import LEASES
from heddle.store.client import Client
from heddle.store.port import Store

_log = logging.getLogger(__name__)


class LeaderElection:
    """A candidate for one Lease."""

    def __init__(
        self,
        store: Store,
        name: str,
        identity: str,
        *,
        namespace: str = "heddle-system",
        duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry: float = 2.0,
        renewed: Callable[[float], None] = lambda asked: None,
    ) -> None:
        """Stand for the Lease `namespace/name`.

        Args:
            store: where the Lease is.
            name: of the Lease.
            identity: of this candidate; one that comes back under its own identity need not wait.
            namespace: of the Lease.
            duration: seconds after which others may take it.
            renew_deadline: seconds without a renewal after which the holder stops; less than `duration`.
            retry: seconds between tries.
            renewed: told at each success of the moment (monotonic) at which it was asked for.
        """
        if not retry < renew_deadline < duration:
            raise ValueError("leader election: give retry < renew_deadline < duration")
        self._client = Client(store)
        self._name, self._namespace, self._identity = name, namespace, identity
        self._duration, self._deadline, self._retry = duration, renew_deadline, retry
        self._renewed = renewed
        self._seen: tuple[str, float] = ("", 0.0)

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, then run `lead` while holding it; returns when `lead` does, or the Lease is lost.

        The Lease is given up on the way out, so that the next candidate need not wait.
        """
        while not await self._try():  # noqa: ASYNC110 - what is waited for is in the store
            await asyncio.sleep(self._retry)
        _log.info("%s leads %s", self._identity, self._name)
        work: asyncio.Task[Any] = asyncio.ensure_future(lead())
        renewing = asyncio.create_task(self._renew())
        try:
            await asyncio.wait({work, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, renewing):
                task.cancel()
            results = await asyncio.gather(work, renewing, return_exceptions=True)
            with contextlib.suppress(ApiError):
                await self._release()
        if isinstance(results[0], Exception):
            raise results[0]

    async def _renew(self) -> None:
        """Renew until that has failed for the deadline."""
        renewed = time.monotonic()
        while time.monotonic() - renewed < self._deadline:
            await asyncio.sleep(self._retry)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deadline - (time.monotonic() - renewed)):
                    if await self._try():
                        renewed = time.monotonic()
                    elif self._seen[0]:
                        _log.warning("%s lost %s", self._identity, self._name)
                        return
        _log.warning("%s could not renew %s for %.0f s", self._identity, self._name, self._deadline)

    async def _try(self) -> bool:
        """Take or renew the Lease; False where another holds it, or the store did not answer."""
        asked = time.monotonic()
        try:
            taken = await self._take()
            if taken:
                self._renewed(asked)
            return taken
        except (Conflict, AlreadyExists):
            return False
        except ApiError as error:
            _log.warning("lease %s: %s", self._name, error)
            self._seen = ("", self._seen[1])
            return False

    async def _take(self) -> bool:
        now, asked = to_text(time.time(), micro=True), time.monotonic()
        try:
            lease: Lease = await self._client.get(LEASES, self._name, self._namespace)
        except NotFound:
            spec = LeaseSpec(
                holder_identity=self._identity,
                lease_duration_seconds=max(1, round(self._duration)),
                acquire_time=now,
                renew_time=now,
                lease_transitions=0,
            )
            await self._client.create(
                LEASES, Lease(metadata=ObjectMeta(name=self._name, namespace=self._namespace), spec=spec)
            )
            return True
        holder = lease.spec.holder_identity or ""
        if holder not in ("", self._identity):
            version = lease.metadata.resource_version
            if self._seen[0] != version:
                self._seen = (version, time.monotonic())
                return False
            if time.monotonic() - self._seen[1] < (lease.spec.lease_duration_seconds or self._duration):
                return False
            if time.monotonic() - asked > self._retry:  # what held this answer up may hold up the holder's last writes
                return False
        change: dict[str, Any] = {"holderIdentity": self._identity, "renewTime": now}
        if holder != self._identity:
            change |= {"acquireTime": now, "leaseTransitions": (lease.spec.lease_transitions or 0) + 1}
            change["leaseDurationSeconds"] = max(1, round(self._duration))
        patch = {"metadata": {"resourceVersion": lease.metadata.resource_version}, "spec": change}
        await self._client.patch(LEASES, self._name, patch, namespace=self._namespace)
        return True

    async def _release(self) -> None:
        lease: Lease = await self._client.get(LEASES, self._name, self._namespace)
        if lease.spec.holder_identity == self._identity:
            patch = {
                "metadata": {"resourceVersion": lease.metadata.resource_version},
                "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
            }
            await self._client.patch(LEASES, self._name, patch, namespace=self._namespace)
