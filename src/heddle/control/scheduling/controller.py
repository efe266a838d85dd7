"""The scheduler's loop: watch -> deltas -> schedule() -> binds, evictions, reasons.

One cycle runs at a time. Changes that come in meanwhile are collected and applied before the next; planning runs in a
thread, off the event loop, and nothing touches the engine's state while it does. What a plan says is written at once
(binds of all pods together) and assumed in the state until the watch confirms it, or undone where the write failed.
Everything that must outlive the process (reservations, broken-since) is in Workload.status, so that after kill -9 the
next process rebuilds the same state from the objects.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from heddle import collector
from heddle.api.clock import to_text
from heddle.api.core import SCHEDULER_NAME, Node
from heddle.api.errors import ApiError, BadRequest, NotFound
from heddle.api.license import License
from heddle.api.meta import Condition, Kind, find_condition, set_condition
from heddle.api.mig import MIG_PREFIX
from heddle.api.pod import Pod
from heddle.api.policy import PodDisruptionBudget
from heddle.api.queue import Queue
from heddle.api.registry import LICENSES, NAMESPACES, NODES, PODS, QUEUES, TOPOLOGIES, WORKLOADS
from heddle.api.topology import Topology
from heddle.api.workload import (
    GROUPS_ANNOTATION,
    USER_ANNOTATION,
    ReservedPlace,
    Workload,
    WorkloadReason,
    WorkloadStatus,
)
from heddle.control.access import refusal
from heddle.control.grouping.groups import Groups
from heddle.control.grouping.neighbours import Neighbourhood
from heddle.control.scheduling import adapter, answers, instances
from heddle.control.scheduling.answers import Answer, Preview
from heddle.control.scheduling.budgets import Budgets
from heddle.control.scheduling.claims import ClaimBinder
from heddle.control.scheduling.costs import Costs, told
from heddle.control.scheduling.forecasts import Forecasts
from heddle.control.scheduling.metrics import Metrics
from heddle.control.scheduling.mirror import Mirror
from heddle.control.scheduling.queues import QueueReporter
from heddle.control.scheduling.works import Works, matters
from heddle.control.scheduling.writes import Writes
from heddle.engine import (
    Bind,
    Budget,
    Evict,
    Placement,
    Plan,
    ReasonCode,
    Reserve,
    Snapshot,
    State,
    Verdict,
    render,
    schedule,
)
from heddle.engine.lostwork import lost_work
from heddle.store.client import Client
from heddle.store.informer import Informer, Informers

_log = logging.getLogger(__name__)

_OVERDUE = 30.0  # seconds between cycles while room is kept ahead of time
_REFRESH_EVERY = 1.0  # seconds between refreshes of waiting workloads of which only numbers changed
_REFRESH_AT_ONCE = 200
_AFTER_FAULT = 1.0  # seconds
_STANDBY_EVERY = 0.2  # seconds between looks of a process that does not lead
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
        self._client = Client(informers.store)
        self._writes = writes or Writes(self._client)
        self._budget = budget or Budget()
        self._pod_budgets, self._claims, self._scheduler, self._picks = budgets, claims, scheduler, picks
        self._mirror = self._fresh_mirror()
        self._untold: set[str] = set()
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._lock = asyncio.Lock()
        self._dirty: dict[str, set[str]] = defaultdict(set)
        self._told: dict[str, tuple[str, ...]] = {}
        self._broken: set[str] = set()
        self._queues = QueueReporter(self._client)
        self._stale: dict[str, None] = {}  # in the order in which they went stale
        self._refreshed = float("-inf")
        self._later: asyncio.TimerHandle | None = None
        self._informers: dict[str, Informer[Any]] = {
            r.kind: informers.of(r) for r in (NODES, QUEUES, TOPOLOGIES, LICENSES, WORKLOADS, PODS)
        }
        neighbours = None
        if groups is None:
            spaces = informers.of(NAMESPACES)
            spaces.on_change(lambda type_, old, new: self.space_changed((new or old).metadata.name))
            neighbours = Neighbourhood(scheduler, spaces.objects)
        objects, queues = self._informers["Workload"].objects, self._informers["Queue"].objects
        self._works = Works(objects, queues, groups, neighbours)
        for kind, informer in self._informers.items():
            informer.on_change(self._handler(kind))
        if budgets is not None:
            self._informers["PodDisruptionBudget"] = budgets.informer
            budgets.informer.on_change(self._budget_changed)
        if claims is not None:
            claims.on_news(self.claim_changed, self.node_changed)
        self.metrics = Metrics()
        self._costs = Costs()
        self._forecasts = Forecasts(self._copied, self._foreseen, self._budget)

    def _fresh_mirror(self) -> Mirror:
        budgets_of = self._pod_budgets.of if self._pod_budgets else lambda pod: ()
        return Mirror(
            budgets_of,
            self._scheduler,
            lambda pod: self._works.company_of(pod),
            lambda pod: self._works.reach_of(pod),
            picks=self._picks,
            volumes=self._claims.volumes if self._claims else None,
        )

    def _budget_changed(self, type_: str, old: PodDisruptionBudget | None, new: PodDisruptionBudget | None) -> None:
        budget = new or old
        assert budget is not None
        if old is None or new is None or old.spec != new.spec:  # other pods count
            space = f"{budget.metadata.namespace}/"
            self._dirty["Workload"].update(key for key in self._works.every_name() if key.startswith(space))
        elif old.status == new.status:
            return
        if self._pod_budgets is not None:
            self._pod_budgets.changed(budget.key)
        self._budgets_due()

    def _budgets_due(self) -> None:
        self._dirty["PodDisruptionBudget"].add("")
        self._wake.set()

    def _handler(self, kind: str) -> Any:
        def changed(type_: str, old: Kind | None, new: Kind | None) -> None:
            obj = new or old
            assert obj is not None
            if old is not None and new is not None and _echo(old, new):
                return
            if isinstance(obj, Pod):
                touched = self._works.remove_pod(obj) if type_ == "DELETED" else self._works.set_pod(obj)
                if type_ == "DELETED":
                    self._writes.gone(obj)
                if isinstance(old, Pod) and isinstance(new, Pod) and self._seen_through(old, new):
                    return
                self._dirty["Workload"] |= touched
            else:
                self._dirty[kind].add(obj.key)
                if kind == "Queue":  # who may submit may have changed
                    self._dirty["Workload"].update(self._works.names())
            self._wake.set()

        return changed

    def _seen_through(self, old: Pod, new: Pod) -> bool:
        """Whether a pod's change is nothing that placing depends on, or only our own bind that comes back."""
        before, after = matters(old), matters(new)
        if before == after:
            return True
        key = self._works.key(new)
        return (
            before[1:] == after[1:]
            and not before[0]
            and self._mirror.is_bound(key, new.metadata.name, new.spec.node_name)
        )

    def owner_changed(self, kind: str, namespace: str, name: str) -> None:
        """An object that says how many pods belong together came, changed or went."""
        if touched := self._works.owner_changed(kind, namespace, name):
            self._dirty["Workload"] |= touched
            self._wake.set()

    def claim_changed(self, claim: str) -> None:
        """A claim to a volume (`namespace/name`), or what it can be bound to, came, changed or went."""
        if touched := self._works.claim_changed(claim):
            self._dirty["Workload"] |= touched
            self._wake.set()

    def node_changed(self, name: str) -> None:
        """A node can attach more volumes than before, or fewer."""
        self._dirty["Node"].add(name)
        self._wake.set()

    def space_changed(self, namespace: str) -> None:
        """A namespace came, went, or has other labels."""
        if touched := self._works.space_changed(namespace):
            self._dirty["Workload"] |= touched
            self._wake.set()

    async def synced(self) -> None:
        """Wait until all objects are known."""
        for informer in self._informers.values():
            await informer.synced()

    async def ready(self) -> None:
        """Wait until `run` has made the state of all objects."""
        await self._ready.wait()

    async def run(self, leading: asyncio.Event | None = None) -> None:
        """Schedule until cancelled; the informers are run by their owner.

        Until `leading` is set, where it is given, the state is kept true and nothing is planned: a standby that can
        begin at once.
        """
        await self.synced()
        self._untold |= self._apply_deltas()
        self._ready.set()
        while leading is not None and not leading.is_set():
            self._wake.clear()
            self._untold |= self._apply_deltas()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STANDBY_EVERY):
                    await leading.wait()
        foreseeing = asyncio.create_task(self._forecasts.run())
        try:
            await self._schedule()
        finally:
            foreseeing.cancel()

    async def _schedule(self) -> None:
        while True:
            try:
                waits = await self._cycle()
            except Exception:
                _log.exception("a scheduling cycle failed; the state is made anew from the objects")
                await asyncio.sleep(_AFTER_FAULT)
                self._begin_anew()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY if waits else None):
                    await self._wake.wait()

    def _begin_anew(self) -> None:
        """Forgets the engine's state: everything that it must know is in the objects."""
        self._mirror = self._fresh_mirror()
        for kind, informer in self._informers.items():
            if kind != "Pod":
                self._dirty[kind].update(informer.objects)
        self._dirty["Workload"].update(self._works.every_name())
        self._wake.set()

    async def _cycle(self) -> bool:
        """One round; returns whether time alone may change the next plan."""
        async with self._lock:
            self._wake.clear()
            touched = self._apply_deltas() | self._untold
            self._untold = set()
            now = time.time()
            waiting = self._mirror.state.waiting()
            fresh = self._due(now)
            asked = None if len(waiting) <= _REFRESH_AT_ONCE else touched | self._broken | fresh
            begun = time.monotonic()
            plan = await asyncio.to_thread(schedule, self._mirror.state, now, self._budget, asked)
            if self._claims is not None:
                plan = self._claims.hold(plan, self._works.pod, self._mirror.promised)
            self.metrics.planned(plan, time.monotonic() - begun)
            planned = time.monotonic()
            with (
                self._writes.urgent(len(plan.actions)),
                collector.paused(),
            ):  # those of a gang are bound within moments of each other
                await self._commit(plan, now)
            if plan.actions:
                _log.info(
                    "%d workloads changed; planned %d actions in %.3f s, carried out in %.3f s",
                    len(touched), len(plan.actions), planned - begun, time.monotonic() - planned,
                )  # fmt: skip
            if asked is not None and (plan.actions or touched):  # what the others wait for may have changed too
                self._stale.update(dict.fromkeys(name for name in waiting if name not in plan.verdicts))
            await self._report(plan, touched, fresh, now)
            await self._report_queues(now)
            self._forecasts.note(self._mirror.state)
            if (ages := self._mirror.state.ages_in(now)) is not None:
                self._wake_in(ages)
            if plan.again_at is not None:
                self._wake_in(plan.again_at - now)
            if any(r.code is ReasonCode.ROOM_KEPT for v in plan.verdicts.values() for r in v.reasons):
                self._wake_in(_OVERDUE)  # room is kept against an end that may not come
            return bool(self._broken)

    def _apply_deltas(self) -> set[str]:
        """Bring the mirror up to date; returns the workloads that something changed about."""
        self._mirror.state.note_usage(time.time())
        dirty, self._dirty = self._dirty, defaultdict(set)
        models = self._mirror.models
        for name in dirty["Queue"]:
            queue: Queue | None = self._informers["Queue"].objects.get(name)
            self._mirror.queue(name, queue)
        if self._mirror.models != models:
            dirty["Node"].update(self._informers["Node"].objects)
            dirty["Workload"].update(self._works.names())
        for name in dirty["Node"]:
            node: Node | None = self._informers["Node"].objects.get(name)
            dirty["Workload"] |= self._mirror.node(name, node)
        if dirty["Topology"]:
            topologies: Mapping[str, Topology] = self._informers["Topology"].objects
            self._mirror.topology(topologies)
        if dirty["License"]:
            licenses: Mapping[str, License] = self._informers["License"].objects
            self._mirror.licenses(licenses)
        if dirty["PodDisruptionBudget"] and self._pod_budgets is not None:
            self._mirror.state.set_disruption_budgets(self._pod_budgets.least(time.monotonic()))
        for key in dirty["Workload"]:
            self._works.refresh(key)
        for key in self._works.gathered() - dirty["Workload"]:
            self._works.refresh(key)
            dirty["Workload"].add(key)
        for key in sorted(dirty["Workload"]):
            workload, fault = self._works.get(key), self._works.fault(key)
            admitted = workload is not None and not fault and not self._refusal(workload)
            try:
                self._mirror.workload(
                    key, workload, self._works.pods(key), admitted=admitted, sets=self._works.sets(key)
                )
                self._mirror.problems.pop(key, None)
                if fault:
                    self._mirror.problems[key] = fault
            except ValueError as error:
                self._mirror.problems[key] = str(error)
                _log.warning("workload %s: %s", key, error)
        return dirty["Workload"]

    def _refusal(self, workload: Workload) -> str:
        queue: Queue | None = self._informers["Queue"].objects.get(workload.spec.queue)
        if queue is None:
            return ""
        annotations = workload.metadata.annotations
        return refusal(
            queue,
            user=annotations.get(USER_ANNOTATION, ""),
            groups=tuple(filter(None, annotations.get(GROUPS_ANNOTATION, "").split(","))),
            priority=workload.spec.priority,
            preemptible=workload.spec.preemptible,
        )

    async def _copied(self) -> State:
        async with self._lock:
            return await asyncio.to_thread(self._copy)

    def _foreseen(self, keys: Iterable[str]) -> None:
        """Other starts are expected: those who wait are told, a few at a time."""
        self._stale.update(dict.fromkeys(keys))
        if self._stale:
            self._wake_in(0.0)

    # acting on a plan

    async def _commit(self, plan: Plan, now: float) -> None:
        """Promises first, so that a crash in between never evicts for a promise that nobody remembers."""
        reserves = [a for a in plan.actions if isinstance(a, Reserve)]
        evicts = [a for a in plan.actions if isinstance(a, Evict)]
        binds = [a for a in plan.actions if isinstance(a, Bind)]
        await asyncio.gather(*(self._reserve(action) for action in reserves))
        if self._claims is not None:
            await self._claims.write()
        await asyncio.gather(*(self._evict(action, now) for action in evicts))
        for action in reserves:  # a task that is moved must be leaving first
            self._mirror.state.set_reservation(action.workload, action.placements)
        await asyncio.gather(*(self._bind(action, now) for action in binds))
        await asyncio.gather(*(self._use_up(key) for key in dict.fromkeys(a.placement.workload for a in binds)))

    async def _use_up(self, key: str) -> None:
        """Forget promises that were kept, so that a pod made anew does not inherit its predecessor's."""
        workload = self._works.get(key)
        reserved = workload.status.reservation if workload else []
        left = [place for place in reserved if not self._mirror.has_place(key, place.pod)]
        if len(left) < len(reserved):
            await self._write_reservation(key, left)

    async def _reserve(self, action: Reserve) -> None:
        places = [
            ReservedPlace(pod_set=p.pod_set, pod=p.task, node=p.node, devices=list(self._ids(p)))
            for p in action.placements
        ]
        await self._write_reservation(action.workload, places)

    async def _write_reservation(self, key: str, places: list[ReservedPlace]) -> None:
        if workload := self._works.get(key):
            await self._writes.promise(workload, places)

    async def _evict(self, action: Evict, now: float) -> None:
        message = render(action.reason)
        pod = self._works.pod(action.workload, action.task)
        if pod is None:
            return
        condition = Condition(
            type="DisruptionTarget",
            status="True",
            reason=str(action.reason.code),
            message=message,
            last_transition_time=to_text(now),
        )
        if refused := await self._writes.evict(pod, condition):
            _log.info("eviction of %s: %s", pod.key, refused)
            self.metrics.refused_evictions.inc()
            if self._pod_budgets is not None:
                begun = time.monotonic()
                pause = self._pod_budgets.refused(pod, begun) - begun
                self._budgets_due()  # others may do meanwhile
                asyncio.get_running_loop().call_later(pause + 0.01, self._budgets_due)
            await self._writes.event(pod, "EvictionRefused", refused, warning=True)
            return
        self._charge(action, now)
        self._mirror.assume_leaving(action.workload, action.task)
        await self._writes.event(pod, str(action.reason.code), message, warning=True)
        if workload := self._works.get(action.workload):
            await self._writes.event(workload, str(action.reason.code), f"{action.task}: {message}", warning=True)

    def _charge(self, action: Evict, now: float) -> None:
        """What a pod that stops loses is put down to whoever gains by it."""
        task = self._mirror.task(action.workload, action.task)
        gainer = self._works.get(action.reason.beneficiary)
        loser = self._works.get(action.workload)
        if task is None or action.reason.beneficiary == action.workload:
            return
        name = action.workload
        if gainer is not None:
            name = self._writes.told(name, gainer.metadata.namespace)
        self._costs.charge(gainer, loser, name, lost_work((task,), now) / 1000)

    async def _bind(self, action: Bind, now: float) -> None:
        place = action.placement
        namespace = place.workload.split("/")[0]
        self._mirror.assume_bound(place, float(int(now)))  # objects hold whole seconds
        try:
            uid = self._mirror.uid(place.workload, place.task)
            await self._writes.bind(namespace, place.task, uid, place.node, self._devices(place))
        except ApiError as error:
            _log.warning("bind of %s to %s: %s", place.task, place.node, error)
            self.metrics.failed_binds.inc()
            self._mirror.forget_bound(place)
            if self._claims is not None and (pod := self._works.pod(place.workload, place.task)):
                self._claims.failed(pod)
            self._dirty["Workload"].add(place.workload)
            self._wake.set()
            return
        if pod := self._works.pod(place.workload, place.task):
            devices = f", devices {','.join(chosen)}" if (chosen := self._devices(place)) else ""
            await self._writes.event(pod, "Scheduled", f"{render(action.reason)}: node {place.node}{devices}")

    def _ids(self, place: Placement) -> tuple[str, ...]:
        return instances.ids(self._informers["Node"].objects.get(place.node), place)

    def _devices(self, place: Placement) -> tuple[str, ...]:
        """The devices of a place, where they are known one by one; else the kubelet chooses among its own."""
        node: Node | None = self._informers["Node"].objects.get(place.node)
        return self._ids(place) if node is not None and adapter.has_inventory(node) else ()

    # telling people

    def _due(self, now: float) -> set[str]:
        """Waiting workloads that are told again in this cycle: a few at a time, in turn."""
        if now - self._refreshed < _REFRESH_EVERY or not self._stale:
            return set()
        self._refreshed = now
        return set(itertools.islice(self._stale, _REFRESH_AT_ONCE))

    async def _report(self, plan: Plan, touched: set[str], fresh: set[str], now: float) -> None:
        """What this cycle saw or decided of its workloads; of the others nothing is new."""
        keys = touched | self._broken
        keys |= {a.placement.workload if isinstance(a, Bind) else a.workload for a in plan.actions}
        for key, verdict in plan.verdicts.items():
            if key in keys or self._told.get(key) != tuple(str(r.code) for r in verdict.reasons):
                keys.add(key)
            else:  # it waits for the same reason; the numbers in it can wait for their refresh
                self._stale.setdefault(key)
        keys |= fresh
        writes = []
        for key in sorted(keys):
            workload = self._works.get(key)
            if workload is None:
                self._told.pop(key, None)
                self._costs.forget(key)
                self._broken.discard(key)
                self._stale.pop(key, None)
            elif write := self._report_workload(key, workload, plan.verdicts.get(key), now, refresh=key in fresh):
                writes.append(write)
        await asyncio.gather(*writes)
        if self._stale:
            self._wake_in(_REFRESH_EVERY)

    async def _report_queues(self, now: float) -> None:
        if due := self._queues.due_in(now):
            self._wake_in(due)
        else:
            queues: Mapping[str, Queue] = self._informers["Queue"].objects
            await self._queues.report(self._mirror.state, queues, self._works.values(), now)

    def _wake_in(self, seconds: float) -> None:
        """Have a cycle after so long, unless one is due earlier."""
        loop = asyncio.get_running_loop()
        if self._later is not None and loop.time() < self._later.when() <= loop.time() + seconds:
            return
        if self._later is not None:
            self._later.cancel()
        self._later = loop.call_later(seconds, self._wake.set)

    def _report_workload(
        self, key: str, workload: Workload, verdict: Verdict | None, now: float, *, refresh: bool
    ) -> Any:
        """The write that makes a workload's status true, or None when it is (or may wait for its `refresh`)."""
        self._stale.pop(key, None)
        if workload.status.phase == "Finished":
            self._broken.discard(key)
            return None
        status = self._status(key, workload, verdict, now)
        (self._broken.add if status.broken_since else self._broken.discard)(key)
        if status == workload.status:
            return None
        if (status.broken_since, status.admitted_counts) != (
            workload.status.broken_since,
            workload.status.admitted_counts,
        ):  # the grace runs, and members are replaced, by what the engine is told
            self._dirty["Workload"].add(key)
            self._wake.set()
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
        await self._writes.status(workload, [p for p in self._works.pods(key) if not (p.spec.node_name or p.finished)])
        if announce:
            reason = workload.status.reasons[0]
            text = "; ".join(r.message for r in workload.status.reasons)
            await self._writes.event(workload, reason.code, text, warning=True)

    def _status(self, key: str, workload: Workload, verdict: Verdict | None, now: float) -> WorkloadStatus:
        bound = self._mirror.bound(key)
        minimum = sum(p.minimum for p in workload.spec.pod_sets)
        finished = sum(p.finished for p in self._works.pods(key))
        enough = bound + finished >= minimum or workload.spec.min_groups is not None
        running = enough and self._mirror.whole(key) and bound + finished > 0
        old = workload.status
        if refused := self._refusal(workload):
            reasons = [WorkloadReason(code="NotPermitted", message=refused)]
        elif problem := self._mirror.problems.get(key):
            reasons = [WorkloadReason(code="Refused", message=problem)]
        elif awaited := self._awaited(key) if not running else "":
            reasons = [WorkloadReason(code="VolumesPending", message=awaited)]
        elif running or verdict is None:
            reasons = []
        else:
            space = workload.metadata.namespace
            reasons = [
                *self._not_offered(workload),
                *(
                    WorkloadReason(code=str(r.code), message=self._writes.told(render(r), space))
                    for r in verdict.reasons
                ),
                *self._unattachable(self._works.pods(key)),
            ]
        was_admitted = (c := find_condition(old.conditions, "Admitted")) is not None and c.status == "True"
        if running and not (workload.spec.min_groups is not None and self._mirror.torn(key)):
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
            walltime_seconds=None if (limit := self._mirror.walltime(key)) is None else round(limit),
            admitted_counts=self._admitted_counts(key, workload, running=running) if bound + finished else {},
        )

    def _awaited(self, key: str) -> str:
        """The claims to volumes that a workload with a place waits for, in words; "" = none."""
        return self._claims.waiting.get(key, "") if self._claims is not None else ""

    def _unattachable(self, pods: Iterable[Pod], beside: Collection[Pod] = ()) -> list[WorkloadReason]:
        """Nodes on which pods that wait cannot have their volumes, though else they might go there; `beside` are pods
        that are not there yet and will be."""
        waiting = [pod for pod in pods if pod.spec.volumes and not (pod.spec.node_name or pod.finished)]
        if self._claims is None or not waiting or not (full := self._claims.full(waiting, beside)):
            return []
        return [WorkloadReason(code="VolumeLimit", message="; ".join(full))]

    def _not_offered(self, workload: Workload) -> list[WorkloadReason]:
        """MIG instances that it asks for and no node has, where nodes offer such instances as counts."""
        asked = {
            name for pod_set in workload.spec.pod_sets for name in pod_set.resources if name.startswith(MIG_PREFIX)
        }
        missing = instances.not_offered(asked, self._mirror.offers(MIG_PREFIX)) if asked and not self._picks else []
        return [WorkloadReason(code="NoSuchInstance", message=text) for text in missing]

    def _expected(self, key: str) -> str | None:
        start = self._forecasts.start_of(key)
        return None if start is None else to_text(start)

    def _admitted_counts(self, key: str, workload: Workload, *, running: bool) -> dict[str, int]:
        """How many pods each pod set that is not resizable started with, once it did."""
        known = workload.status.admitted_counts
        fixed = [p.name for p in workload.spec.pod_sets if not p.resizable]
        if not fixed or not running:
            return known
        runs = self._mirror.counts(key)
        return {name: count for name in fixed if (count := known.get(name) or runs.get(name, 0))}

    # answers

    def key_of(self, namespace: str, name: str) -> str:
        """The workload of this name, or else that of the pod of this name; "" = there is neither."""
        key = f"{namespace}/{name}"
        return key if self._works.get(key) is not None else self._works.key_of(namespace, name)

    async def explain(self, key: str) -> Answer:
        """Why a workload waits and what would help, by real what-ifs on the present state; and what it cost others.

        Raises:
            NotFound: there is no such workload.
        """
        async with self._lock:
            workload = self._works.get(key)
            if workload is None:
                raise NotFound(f'workloads.heddle.dev "{key}" not found')
            if workload.status.phase == "Finished":
                return Answer(key, False, [WorkloadReason(code="Finished", message="it has ended")])
            if refused := self._refusal(workload):
                return Answer(key, False, [WorkloadReason(code="NotPermitted", message=refused)])
            self._dirty["Workload"].update(self._apply_deltas())  # the next cycle tells of them
            if problem := self._mirror.problems.get(key):
                return Answer(key, False, [WorkloadReason(code="Refused", message=problem)])
            if awaited := self._awaited(key):
                return Answer(key, False, [WorkloadReason(code="VolumesPending", message=awaited)])
            if not self._mirror.knows(key):
                return Answer(key, False, [WorkloadReason(code="MembersMissing", message="it has no pods yet")])
            copy = await asyncio.to_thread(self._copy)
            cost, _ = self._costs.of(key, workload.status)
            unattachable = self._unattachable(self._works.pods(key))
            not_offered = self._not_offered(workload)
        found = await asyncio.to_thread(answers.answer, copy, key, time.time(), self._budget)
        found.cost = told(cost)
        if not found.admitted:
            found.reasons = not_offered + found.reasons + unattachable
        return found

    def _copy(self) -> State:
        return State.rebuild(self._mirror.state.snapshot())

    async def snapshot(self) -> Snapshot:
        """The world as the engine has it at the moment."""
        async with self._lock:
            self._dirty["Workload"].update(self._apply_deltas())  # the next cycle tells of them
            return await asyncio.to_thread(self._mirror.state.snapshot)

    async def preview(self, obj: Workload | Queue, pods: list[Pod]) -> Preview:
        """What would come of a workload with these pods if it were submitted now, or of a queue if it were written so.

        Raises:
            BadRequest: the engine refuses it; names the field.
        """
        async with self._lock:
            # under names that no pod can have, since there may be a job of this name
            shown = {pod.metadata.name: _renamed(pod) for pod in pods}
            for pod in shown.values():
                self._works.learn(pod, obj if isinstance(obj, Workload) else None)
            if self._claims is not None:
                self._claims.expect(pods)
            self._dirty["Workload"].update(self._apply_deltas())
            copy = await asyncio.to_thread(self._copy)
            models = self._mirror.models
            company = {name: self._works.company_of(pod) for name, pod in shown.items()}
            for pod in shown.values():
                self._works.forget(pod)
            reach, faults = self._works.reach_of_new(pods)
            unattachable = self._unattachable(pods, pods)
            not_offered = self._not_offered(obj) if isinstance(obj, Workload) else []
            attached, to_come = {}, []
            if self._claims is not None:
                attached = {pod.metadata.name: self._claims.volumes.asked(pod, pods) for pod in pods}
                to_come = self._claims.to_come(pods)
        now = time.time()
        try:
            if isinstance(obj, Queue):
                spec, name = adapter.queue_spec(obj), obj.metadata.name
                return await asyncio.to_thread(
                    answers.preview_change, copy, "Queue", name, lambda world: world.set_queue(spec), now, self._budget
                )
            if refused := self._refusal(obj):
                answer = Answer(obj.key, False, [WorkloadReason(code="NotPermitted", message=refused)])
                return Preview("TrainingJob", obj.key, answer)
            if faults:
                answer = Answer(obj.key, False, [WorkloadReason(code="Refused", message="; ".join(faults))])
                return Preview("TrainingJob", obj.key, answer)
            job = adapter.workload_spec(
                obj,
                pods,
                models=models,
                picks=self._picks,
                company_of=lambda pod: company[pod.metadata.name],
                reach_of=lambda pod: reach.get(pod.metadata.name, []),
                attached_of=lambda pod: attached.get(pod.metadata.name, {}),
            )
            preview = await asyncio.to_thread(answers.preview_job, copy, job, now, self._budget)
            if preview.answer is not None and preview.answer.admitted:
                preview.answer.assumptions += [WorkloadReason(code="VolumesPending", message=text) for text in to_come]
            elif preview.answer is not None:
                preview.answer.reasons = not_offered + preview.answer.reasons + unattachable
            return preview
        except ValueError as error:
            raise BadRequest(str(error)) from None


def _renamed(pod: Pod) -> Pod:
    return msgspec.structs.replace(
        pod, metadata=msgspec.structs.replace(pod.metadata, name=f"(preview) {pod.metadata.name}")
    )


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


def _echo(old: Kind, new: Kind) -> bool:
    """Whether a change is only the write of a status that we assumed when we made it."""
    if isinstance(old, Queue) and isinstance(new, Queue):
        return old.metadata.generation == new.metadata.generation
    if isinstance(old, Workload) and isinstance(new, Workload):
        return old.metadata.generation == new.metadata.generation and old.status == new.status
    return False
