"""The scheduler's loop: watch -> deltas -> schedule() -> binds, evictions, reasons.

One cycle runs at a time. Changes that come in meanwhile are collected and applied before the next; planning runs in a
thread, off the event loop, and nothing touches the engine's state while it does. What a plan says is assumed in the
state until the watch confirms it, and written (binds of all pods together) while the next plan is made; where a write
is refused it is taken back between two plans. Of a workload people are told once all that was planned is written.
Everything that must outlive the process (reservations, broken-since) is in Workload.status, so that after kill -9 the
next process rebuilds the same state from the objects.
"""

import asyncio
import contextlib
import logging
import time

from heddle.api.core import SCHEDULER_NAME
from heddle.control.grouping.groups import Groups
from heddle.control.scheduling.budgets import Budgets
from heddle.control.scheduling.claims import ClaimBinder
from heddle.control.scheduling.commits import Commits
from heddle.control.scheduling.costs import Costs
from heddle.control.scheduling.forecasts import Forecasts
from heddle.control.scheduling.inquiries import Inquiries
from heddle.control.scheduling.metrics import Metrics
from heddle.control.scheduling.obstacles import Obstacles
from heddle.control.scheduling.queues import QueueReporter
from heddle.control.scheduling.reports import Reports
from heddle.control.scheduling.world import World
from heddle.control.scheduling.writes import Writes
from heddle.engine import Budget, Plan, ReasonCode, schedule
from heddle.store.client import Client
from heddle.store.informer import Informers

_log = logging.getLogger(__name__)

_OVERDUE = 30.0  # seconds between cycles while room is kept ahead of time
_AFTER_FAULT = 1.0  # seconds
_STANDBY_EVERY = 0.2  # seconds between looks of a process that does not lead
_GASP, _BREATH = 0.02, 0.5  # seconds between cycles while something is being written, at least and at most
_EVERY = 1.0  # seconds between cycles while something waits on time alone (grace of a broken gang)


class SchedulingController:
    """Places the pods of Workloads."""

    def __init__(
        self,
        informers: Informers,
        *,
        budget: Budget | None = None,
        writes: Writes | None = None,
        groups: Groups | None = None,
        budgets: Budgets | None = None,
        claims: ClaimBinder | None = None,
        scheduler: str = SCHEDULER_NAME,
        picks: bool = True,
    ) -> None:
        """Schedule the Workloads of a store.

        Args:
            informers: of the store.
            budget: how much is tried; also carries the policy that is not part of an object.
            writes: how decisions reach the objects.
            groups: makes workloads of pods that have none; absent: such pods only hold what they hold.
            budgets: disruption budgets that evictions keep; absent: there are none.
            claims: has claims to volumes bound before their pods are; absent: such pods are no business of ours.
            scheduler: the name by which pods ask for this scheduler.
            picks: nodes list their GPUs one by one, and heddle says which MIG instance a pod gets; False: kubelets do.
        """
        client = Client(informers.store)
        self._writes = writes or Writes(client)
        self._budget, self._claims = budget or Budget(), claims
        self._untold: set[str] = set()
        self._ready = asyncio.Event()
        self._lock = asyncio.Lock()
        self.metrics = Metrics()
        self.world = World(
            informers, groups=groups, budgets=budgets, claims=claims, scheduler=scheduler, picks=picks,
            gone=self._writes.gone,
        )  # fmt: skip
        costs, obstacles = Costs(), Obstacles(self.world)
        self.inquiries = Inquiries(self.world, costs, obstacles, self._budget, self._lock)
        self._commits = Commits(self.world, self._writes, costs, self.metrics)
        queues = QueueReporter(self._writes)
        self._reports = Reports(
            self.world, self._writes, costs, obstacles, queues, lambda key: self._forecasts.start_of(key)
        )
        self._forecasts = Forecasts(self.inquiries.copied, self._reports.foreseen, self._budget)

    async def ready(self) -> None:
        """Wait until `run` has made the state of all objects."""
        await self._ready.wait()

    async def run(self, leading: asyncio.Event | None = None) -> None:
        """Schedule until cancelled; the informers are run by their owner.

        Until `leading` is set, where it is given, the state is kept true and nothing is planned: a standby that can
        begin at once.
        """
        await self.world.synced()
        self._untold |= self.world.apply_deltas()
        self._ready.set()
        while leading is not None and not leading.is_set():
            self.world.wake.clear()
            self._untold |= self.world.apply_deltas()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STANDBY_EVERY):
                    await leading.wait()
        foreseeing = asyncio.create_task(self._forecasts.run())
        try:
            await self._schedule()
        finally:
            foreseeing.cancel()
            self._commits.stop()

    async def _schedule(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                await self._cycle()
            except Exception:
                _log.exception("a scheduling cycle failed; the state is made anew from the objects")
                await asyncio.sleep(_AFTER_FAULT)
                await self._commits.idle()
                self.world.begin_anew()
                continue
            await self._breathe(time.monotonic() - begun)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY if self._reports.broken else None):
                    await self.world.wake.wait()

    async def _breathe(self, spent: float) -> None:
        """While much is being written its effects come back a few at a time: they are heard together."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_BREATH, max(_GASP, 2 * spent))):
                await self._commits.idle()

    async def _cycle(self) -> None:
        """One round."""
        async with self._lock:
            self.world.wake.clear()
            touched = self._commits.settle() | self._untold | self.world.apply_deltas()
            now = time.time()
            state = self.world.mirror.state
            waiting = state.waiting()
            fresh = self._reports.due(now)
            asked = self._reports.asked(waiting, touched, fresh)
            begun = time.monotonic()
            plan = await asyncio.to_thread(schedule, state, now, self._budget, asked)
            if self._claims is not None:
                plan = self._claims.hold(plan, self.world.works.pod, self.world.mirror.promised)
            planned = time.monotonic()
            self.metrics.planned(plan, planned - begun)
            self._commits.carry_out(plan, now)
            if plan.actions:
                _log.info(
                    "%d workloads changed; planned %d actions in %.3f s",
                    len(touched), len(plan.actions), planned - begun,
                )  # fmt: skip
            self._untold = {key for key in touched if self._commits.under_way[key]}
            if asked is not None and (plan.actions or touched):  # what the others wait for may have changed too
                self._reports.unasked(name for name in waiting if name not in plan.verdicts)
            await self._reports.report(plan, touched, fresh, now, self._commits.under_way)
            self._forecasts.note(state)
            self._come_again(plan, now)

    def _come_again(self, plan: Plan, now: float) -> None:
        """Have a cycle when time alone may change the next plan."""
        if (ages := self.world.mirror.state.ages_in(now)) is not None:
            self.world.wake_in(ages)
        if plan.again_at is not None:
            self.world.wake_in(plan.again_at - now)
        if any(r.code is ReasonCode.ROOM_KEPT for v in plan.verdicts.values() for r in v.reasons):
            self.world.wake_in(_OVERDUE)  # room is kept against an end that may not come
