"""Telling people: the status of Workloads and Queues, conditions and Events, of what a cycle saw or decided.

Of thousands who wait only those are told at once for whom something changed; of the others numbers moved, and a few are
told of them at a time, in turn.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from heddle.api.clock import to_text
from heddle.api.meta import Condition, find_condition, set_condition
from heddle.api.workload import Workload, WorkloadReason, WorkloadStatus
from heddle.control.scheduling.costs import Costs
from heddle.control.scheduling.obstacles import Obstacles
from heddle.control.scheduling.queues import QueueReporter
from heddle.control.scheduling.world import World
from heddle.control.scheduling.writes import Writes
from heddle.engine import Plan, Verdict, render

_REFRESH_EVERY = 1.0  # seconds between refreshes of waiting workloads of which only numbers changed
_REFRESH_AT_ONCE = 200
_IN_ONE_GO = 50  # workloads of which the status is worked out before others have their turn


class Reports:
    """Keeps what people read true."""

    def __init__(
        self,
        world: World,
        writes: Writes,
        costs: Costs,
        obstacles: Obstacles,
        queues: QueueReporter,
        start_of: Callable[[str], float | None],
    ) -> None:
        """Tell of the workloads of a world.

        Args:
            world: it.
            writes: how it is told.
            costs: what the starts of workloads cost others.
            obstacles: why they wait beside what the engine says.
            queues: tells of queues.
            start_of: when a workload is expected to start, in seconds since the epoch; None = it is not known.
        """
        self._world, self._writes, self._costs, self._obstacles = world, writes, costs, obstacles
        self._queues, self._start_of = queues, start_of
        self.broken: set[str] = set()
        """Gangs of which too little runs: time alone may change what becomes of them."""
        self._told: dict[str, tuple[str, ...]] = {}
        self._stale: dict[str, None] = {}  # in the order in which they went stale
        self._refreshed = float("-inf")

    def asked(self, waiting: Collection[str], touched: set[str], fresh: set[str]) -> set[str] | None:
        """Of whom a plan should say why they wait; None = of all."""
        return None if len(waiting) <= _REFRESH_AT_ONCE else touched | self.broken | fresh

    def unasked(self, names: Iterable[str]) -> None:
        """What these wait for may have changed, and it was not asked."""
        self._stale.update(dict.fromkeys(names))

    def foreseen(self, keys: Iterable[str]) -> None:
        """Other starts are expected: those who wait are told, a few at a time."""
        self.unasked(keys)
        if self._stale:
            self._world.wake_in(0.0)

    def due(self, now: float) -> set[str]:
        """Waiting workloads that are told again in this cycle: a few at a time, in turn."""
        if now - self._refreshed < _REFRESH_EVERY or not self._stale:
            return set()
        self._refreshed = now
        return set(itertools.islice(self._stale, _REFRESH_AT_ONCE))

    async def report(
        self, plan: Plan, touched: set[str], fresh: set[str], now: float, under_way: Collection[str] = ()
    ) -> None:
        """What this cycle saw of its workloads, but for those of which something is `under_way`; of the others nothing
        is new."""
        keys = touched | self.broken
        for key, verdict in plan.verdicts.items():
            if key in keys or self._told.get(key) != tuple(str(r.code) for r in verdict.reasons):
                keys.add(key)
            else:  # it waits for the same reason; the numbers in it can wait for their refresh
                self._stale.setdefault(key)
        keys = {key for key in keys | fresh if key not in under_way}
        writes = []
        for at, key in enumerate(sorted(keys)):
            if not at % _IN_ONE_GO:  # what is being written comes first
                await asyncio.sleep(0)
            workload = self._world.works.get(key)
            if workload is None:
                self._told.pop(key, None)
                self._costs.forget(key)
                self.broken.discard(key)
                self._stale.pop(key, None)
            elif write := self._report_workload(key, workload, plan.verdicts.get(key), now, refresh=key in fresh):
                writes.append(write)
        await asyncio.gather(*writes)
        if self._stale:
            self._world.wake_in(_REFRESH_EVERY)
        await self._report_queues(now)

    async def _report_queues(self, now: float) -> None:
        if due := self._queues.due_in(now):
            self._world.wake_in(due)
        else:
            await self._queues.report(self._world.mirror.state, self._world.queues, self._world.works.values(), now)

    def _report_workload(
        self, key: str, workload: Workload, verdict: Verdict | None, now: float, *, refresh: bool
    ) -> Any:
        """The write that makes a workload's status true, or None when it is (or may wait for its `refresh`)."""
        self._stale.pop(key, None)
        if workload.status.phase == "Finished":
            self.broken.discard(key)
            return None
        status = self._status(key, workload, verdict, now)
        (self.broken.add if status.broken_since else self.broken.discard)(key)
        if status == workload.status:
            return None
        if (status.broken_since, status.admitted_counts) != (
            workload.status.broken_since,
            workload.status.admitted_counts,
        ):  # the grace runs, and members are replaced, by what the engine is told
            self._world.dirty["Workload"].add(key)
            self._world.wake.set()
        if not refresh and _same_news(workload.status, status):
            self._stale[key] = None
            return None
        news = tuple(r.code for r in status.reasons)
        changed = self._told.get(key) != news
        self._told[key] = news
        workload.status = status
        return self._write_status(workload, announce=changed and bool(status.reasons))

    async def _write_status(self, workload: Workload, *, announce: bool) -> None:
        key = workload.key
        waiting = [p for p in self._world.works.pods(key) if not (p.spec.node_name or p.finished)]
        await self._writes.status(workload, waiting)
        if announce:
            reason = workload.status.reasons[0]
            text = "; ".join(r.message for r in workload.status.reasons)
            await self._writes.event(workload, reason.code, text, warning=True)

    def _status(self, key: str, workload: Workload, verdict: Verdict | None, now: float) -> WorkloadStatus:
        bound = self._world.mirror.bound(key)
        minimum = sum(p.minimum for p in workload.spec.pod_sets)
        finished = sum(p.finished for p in self._world.works.pods(key))
        enough = bound + finished >= minimum or workload.spec.min_groups is not None
        running = enough and self._world.mirror.whole(key) and bound + finished > 0
        old = workload.status
        if refused := self._world.refusal(workload):
            reasons = [WorkloadReason(code="NotPermitted", message=refused)]
        elif problem := self._world.mirror.problems.get(key):
            reasons = [WorkloadReason(code="Refused", message=problem)]
        elif awaited := self._obstacles.awaited(key) if not running else "":
            reasons = [WorkloadReason(code="VolumesPending", message=awaited)]
        elif running or verdict is None:
            reasons = []
        else:
            space = workload.metadata.namespace
            reasons = [
                *self._obstacles.not_offered(workload),
                *(
                    WorkloadReason(code=str(r.code), message=self._writes.told(render(r), space))
                    for r in verdict.reasons
                ),
                *self._obstacles.unattachable(self._world.works.pods(key)),
            ]
        was_admitted = (c := find_condition(old.conditions, "Admitted")) is not None and c.status == "True"
        if running and not (workload.spec.min_groups is not None and self._world.mirror.torn(key)):
            broken = None
        elif bound and (running or was_admitted):
            broken = old.broken_since or to_text(now)
        else:
            broken = old.broken_since if bound else None
        admitted = Condition(
            type="Admitted",
            status="True" if running else "False",
            reason="Admitted" if running else (reasons[0].code if reasons else "Pending"),
            message="" if running else "; ".join(r.message for r in reasons),
            last_transition_time=to_text(now),
            observed_generation=workload.metadata.generation,
        )
        cost, evictions = self._costs.of(key, old)
        return msgspec.structs.replace(
            old,
            cost=cost,
            evictions=evictions,
            observed_generation=workload.metadata.generation,
            phase="Running" if running else "Pending",
            conditions=set_condition(old.conditions, admitted),
            reasons=reasons,
            position=None if running or verdict is None or verdict.position is None else verdict.position + 1,
            expected_start_time=None if running or verdict is None else self._expected(key),
            bound=bound + finished,
            broken_since=broken,
            walltime_seconds=None if (limit := self._world.mirror.walltime(key)) is None else round(limit),
            admitted_counts=self._admitted_counts(key, workload, running=running) if bound + finished else {},
        )

    def _expected(self, key: str) -> str | None:
        start = self._start_of(key)
        return None if start is None else to_text(start)

    def _admitted_counts(self, key: str, workload: Workload, *, running: bool) -> dict[str, int]:
        """How many pods each pod set that is not resizable started with, once it did."""
        known = workload.status.admitted_counts
        fixed = [p.name for p in workload.spec.pod_sets if not p.resizable]
        if not fixed or not running:
            return known
        runs = self._world.mirror.counts(key)
        return {name: count for name in fixed if (count := known.get(name) or runs.get(name, 0))}


def _same_news(old: WorkloadStatus, new: WorkloadStatus) -> bool:
    """Whether only numbers moved, such as the place in the line: with each start, those of all who wait."""
    return (
        old.phase == new.phase
        and old.bound == new.bound
        and old.broken_since == new.broken_since
        and old.admitted_counts == new.admitted_counts
        and old.walltime_seconds == new.walltime_seconds
        and old.observed_generation == new.observed_generation
        and [r.code for r in old.reasons] == [r.code for r in new.reasons]
    )
