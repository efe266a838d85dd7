"""heddle's controllers in a cluster as one process of several: one leads, the others stand by with the same state.

A standby follows the cluster and plans nothing, so that it can bind a moment after it gains the Lease. A process that
loses the Lease forgets all and stands by anew; what it had under way is refused by its own connection.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import prometheus_client as prometheus

from heddle import collector
from heddle.api.pod import Pod
from heddle.api.registry import NAMESPACES, PODS
from heddle.api.trainingjob import TrainingJob
from heddle.cluster.catchup import caught_up
from heddle.cluster.lease import LeaseKeeper
from heddle.cluster.owners import Owners
from heddle.cluster.questions import Questions
from heddle.cluster.reviews import Reviews
from heddle.cluster.web import Web
from heddle.control.grouping.groups import Groups
from heddle.control.grouping.kinds import OwnerKind
from heddle.control.scheduling.afterwards import Afterwards
from heddle.control.scheduling.budgets import PODDISRUPTIONBUDGETS, Budgets
from heddle.control.scheduling.claims import ClaimBinder
from heddle.control.scheduling.controller import SchedulingController
from heddle.control.scheduling.writes import ClusterWrites
from heddle.control.training.controller import TrainingController
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.kubernetes import KubernetesStore

_log = logging.getLogger(__name__)

LEASE = "heddle-controller"
RENDEZVOUS_PORT = 29400
"""Where the first process of a training job listens, as torchrun does by default."""


class LeadershipLost(Exception):
    """Another process leads now, or the Lease could not be renewed."""


def meet_at_first(job: TrainingJob, first: Pod) -> tuple[str, int]:
    """Processes find the first of them at its pod's address; "" until it has one.

    Not by its name: an address needs no DNS, is never remembered wrongly, and lasts as long as the world, since pods
    are made anew with it.
    """
    return first.status.pod_ip, RENDEZVOUS_PORT


class ClusterHeddle:
    """The controllers of a cluster."""

    def __init__(
        self,
        open_store: Callable[[], KubernetesStore],
        kinds: Sequence[OwnerKind],
        *,
        identity: str,
        namespace: str,
        scheduler: str,
        listen: tuple[str, int],
        answers: tuple[str, int],
    ) -> None:
        """Work in the cluster that `open_store` connects to.

        Args:
            open_store: makes a connection; called inside the event loop that uses it.
            kinds: kinds whose pods belong together.
            identity: of this process among those that stand for the Lease.
            namespace: of the Lease.
            scheduler: name by which pods ask for heddle.
            listen: address of /healthz, /readyz and /metrics.
            answers: address of /heddle/v1/explain, /preview and /snapshot.
        """
        self._open, self._kinds, self._identity = open_store, kinds, identity
        self._namespace, self._scheduler, self._listen = namespace, scheduler, listen
        self._answers = answers
        self._problem = "starting"

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            LeadershipLost: the Lease is lost; run again to stand by.
        """
        self._problem = "starting"
        store = self._open()
        reviewing = self._open()
        lease = LeaseKeeper(self._open, LEASE, self._identity, namespace=self._namespace)
        store.may_write = lease.leads
        try:
            await self._run(store, lease, Reviews(reviewing))
        finally:
            lease.stop()
            collector.release()
            await reviewing.close()
            await store.close()

    async def _run(self, store: KubernetesStore, lease: LeaseKeeper, reviews: Reviews) -> None:
        informers = Informers(store)
        owners = Owners(store, informers, self._kinds)
        claims = ClaimBinder(informers)
        spaces = informers.of(NAMESPACES)
        groups = Groups(self._scheduler, self._kinds, owners.get, claims.volumes, spaces.objects)
        after = Afterwards()
        budgets = Budgets(informers.of(PODDISRUPTIONBUDGETS))
        writes = ClusterWrites(Client(store), after, spaces.objects, budgets.of)
        scheduling = SchedulingController(
            informers,
            writes=writes,
            groups=groups,
            budgets=budgets,
            claims=claims,
            scheduler=self._scheduler,
            picks=False,
        )
        owners.on_change(scheduling.world.owner_changed)
        spaces.on_change(lambda type_, old, new: scheduling.world.space_changed((new or old).metadata.name))
        training = TrainingController(informers, meet_at_first, restarts_in_place=False)
        leader = prometheus.Gauge("heddle_leader", "1 in the process that leads.", registry=scheduling.metrics.registry)
        leader.set_function(lambda: float(lease.leads()))
        web = Web(self._listen, lambda: self._problem, scheduling.metrics.registry, prometheus.REGISTRY)
        _log.info("health and metrics at port %d", web.port)
        questions = Questions(self._answers, scheduling.inquiries, reviews, lambda: self._problem)
        _log.info("answers at port %d", questions.port)
        leading = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(web.run())
            group.create_task(questions.run())
            with collector.paused():
                group.create_task(informers.run())
                await owners.find()
                group.create_task(owners.run())
                group.create_task(after.run())
                group.create_task(scheduling.run(leading))
                await scheduling.world.synced()
                await claims.synced()
                await spaces.synced()
                self._problem = ""
                lease.start()
                _log.info("standing by as %s", self._identity)
                await scheduling.ready()
            collector.keep()
            await lease.gained()
            _log.info("leading as %s", self._identity)

            async def lead() -> None:
                await caught_up(store, informers.of(PODS), self._scheduler)
                leading.set()
                await training.run()

            group.create_task(lead())
            await lease.lost()
            raise LeadershipLost(f"{self._identity} leads no longer")


async def until_stopped(heddle: ClusterHeddle, stop: asyncio.Event) -> None:
    """Run until told to stop; one that loses the Lease stands by anew."""
    while not stop.is_set():
        try:
            await _until_lost(heddle, stop)
        except LeadershipLost as error:
            _log.warning("%s", error)


async def _until_lost(heddle: ClusterHeddle, stop: asyncio.Event) -> None:
    work: asyncio.Task[Any] = asyncio.ensure_future(heddle.run())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        return
    error = work.exception()
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if error is not None:
        raise error
