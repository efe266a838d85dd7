"""Carrying out what plans say: promises, evictions, binds.

What a plan says is assumed in the state at once, and written in the background while the next plan is made. Where a
write is refused it is taken back between two plans. Where nobody answers it is written again until it is known what
became of it: until then its place is taken.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakValueDictionary

from heddle import collector
from heddle.api.clock import to_text
from heddle.api.errors import ApiError, Conflict, NotFound
from heddle.api.meta import Condition
from heddle.api.workload import ReservedPlace
from heddle.control.scheduling import adapter, insistence, instances
from heddle.control.scheduling.afterwards import Write
from heddle.control.scheduling.costs import Costs
from heddle.control.scheduling.metrics import Metrics
from heddle.control.scheduling.world import World
from heddle.control.scheduling.writes import Writes
from heddle.engine import Bind, Evict, Placement, Plan, Reserve, render
from heddle.engine.lostwork import lost_work

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Binds:
    """What became of the binds of a plan."""

    untried: dict[Placement, str] = field(default_factory=dict)
    """With the UIDs of their pods."""
    made: set[str] = field(default_factory=set)
    """Workloads of which some were made."""
    refused: set[tuple[str, str]] = field(default_factory=set)
    """Workload and pod."""
    why: dict[str, str] = field(default_factory=dict)
    """Workloads of which a bind was refused, with why, where no news is on its way that says it."""


class Commits:
    """Writes plans out, the next while the last is still under way."""

    def __init__(self, world: World, writes: Writes, costs: Costs, metrics: Metrics) -> None:
        """Write what is planned for `world` by `writes`; what it costs whom is put down in `costs`."""
        self._world, self._writes, self._costs, self._metrics = world, writes, costs, metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self.under_way: Counter[str] = Counter()
        """Workloads of which something is being written."""
        self._taken_back: list[Callable[[], None]] = []
        self._ended: set[str] = set()
        self._fault: BaseException | None = None
        self._promising: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def settle(self) -> set[str]:
        """Between two plans: take back what was refused. Returns workloads of which all is written, or refused.

        Raises:
            Exception: a plan could not be carried out, and the state no longer says what is.
        """
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault
        taken_back, self._taken_back = self._taken_back, []
        for step in taken_back:
            step()
        ended, self._ended = self._ended, set()
        return ended

    def carry_out(self, plan: Plan, now: float) -> None:
        """Assume what a plan says, and begin to write it."""
        claims = self._world.claims.due() if self._world.claims is not None else []
        if not (plan.actions or claims):
            return
        binds = Binds()
        try:
            steps = self._assume(plan, now, claims, binds)
        except Exception:
            self._drop(binds)
            raise
        names = {a.placement.workload if isinstance(a, Bind) else a.workload for a in plan.actions}
        self.under_way.update(names)
        task = asyncio.create_task(self._carry(steps, names, binds, len(plan.actions)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _assume(self, plan: Plan, now: float, claims: Sequence[Write], tried: Binds) -> list[Sequence[Write]]:
        """Make the state as it will be; returns the steps that make it so."""
        reserves = [a for a in plan.actions if isinstance(a, Reserve)]
        evicts = [a for a in plan.actions if isinstance(a, Evict)]
        binds = [a for a in plan.actions if isinstance(a, Bind)]
        steps: list[Sequence[Write]] = [
            # promises first, so that a crash in between never evicts for a promise that nobody remembers
            [self._reserve(action) for action in reserves],
            claims,
            [step for action in evicts if (step := self._evict(action, now))],
        ]
        for action in reserves:  # a task that is moved must be leaving first
            self._world.mirror.state.set_reservation(action.workload, action.placements)
        return [
            *steps,
            [self._bind(action, now, tried) for action in binds],
            [partial(self._use_up, key, tried) for key in dict.fromkeys(a.placement.workload for a in binds)],
        ]

    async def idle(self) -> None:
        """Wait until nothing is being written."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def stop(self) -> None:
        """Leave what is under way as it is."""
        for task in self._tasks:
            task.cancel()

    async def _carry(self, steps: Iterable[Sequence[Write]], names: Iterable[str], binds: Binds, many: int) -> None:
        """Take steps one after the other, what is in one of them together."""
        begun = time.monotonic()
        try:
            # those of a gang are bound within moments of each other
            with self._writes.urgent(many), collector.paused():
                for step in steps:
                    ended = await asyncio.gather(*(write() for write in step), return_exceptions=True)
                    if faults := [one for one in ended if isinstance(one, BaseException)]:
                        raise faults[0]
        except Exception as error:
            self._fault = error
            self._drop(binds)
        _log.info("carried out %d actions in %.3f s", many, time.monotonic() - begun)
        for key in binds.made - binds.why.keys():
            self._world.let_go(key)
        for key, why in binds.why.items():
            self._world.hold_back(key, why)
        self.under_way -= Counter(dict.fromkeys(names, 1))
        self._ended.update(names)
        self._world.wake.set()

    def _take_back(self, workload: str, step: Callable[[], None]) -> None:
        self._taken_back.append(step)
        self._world.look_again(workload)

    # promises

    def _reserve(self, action: Reserve) -> Write:
        places = [
            ReservedPlace(pod_set=p.pod_set, pod=p.task, node=p.node, devices=list(self._ids(p)))
            for p in action.placements
        ]
        return self._promise(action.workload, places)

    def _promise(self, key: str, places: list[ReservedPlace]) -> Write:
        """Promise from now on; returns what writes it."""
        workload = self._world.works.get(key)
        before = workload.status.reservation if workload else []
        if workload is not None:
            workload.status.reservation = self._world.promises[key] = places

        async def write() -> None:
            order = self._promising.get(key) or self._promising.setdefault(key, asyncio.Lock())
            async with order:  # the newest last
                if workload is not None:
                    await insistence.insist(partial(self._writes.promise, workload, places, before))
            if self._world.promises.get(key) is places:
                del self._world.promises[key]

        return write

    async def _use_up(self, key: str, tried: Binds) -> None:
        """Forget promises that were kept, so that a pod made anew does not inherit its predecessor's."""
        workload = self._world.works.get(key)
        reserved = workload.status.reservation if workload else []
        left = [
            place
            for place in reserved
            if (key, place.pod) in tried.refused or not self._world.mirror.has_place(key, place.pod)
        ]
        if len(left) < len(reserved):
            await self._promise(key, left)()

    # evictions

    def _evict(self, action: Evict, now: float) -> Write | None:
        """Count a pod as leaving; returns what has it leave, None where there is none."""
        pod = self._world.works.pod(action.workload, action.task)
        if pod is None:
            return None
        message = render(action.reason)
        condition = Condition(
            type="DisruptionTarget",
            status="True",
            reason=str(action.reason.code),
            message=message,
            last_transition_time=to_text(now),
        )
        task = self._world.mirror.task(action.workload, action.task)
        lost = None if task is None else lost_work((task,), now) / 1000
        self._world.mirror.assume_leaving(action.workload, action.task)

        async def write() -> None:
            if refused := await insistence.insist(partial(self._writes.evict, pod, condition)):
                _log.info("eviction of %s: %s", pod.key, refused)
                self._metrics.refused_evictions.inc()
                if self._world.pod_budgets is not None:
                    begun = time.monotonic()
                    pause = self._world.pod_budgets.refused(pod, begun) - begun
                    self._world.budgets_due()  # others may do meanwhile
                    asyncio.get_running_loop().call_later(pause + 0.01, self._world.budgets_due)
                self._take_back(action.workload, partial(self._stays, action))
                await self._writes.event(pod, "EvictionRefused", refused, warning=True)
                return
            if lost is not None:
                self._charge(action, lost)
            await self._writes.event(pod, str(action.reason.code), message, warning=True)
            if workload := self._world.works.get(action.workload):
                await self._writes.event(workload, str(action.reason.code), f"{action.task}: {message}", warning=True)

        return write

    def _stays(self, action: Evict) -> None:
        self._world.mirror.stays(action.workload, action.task)

    def _charge(self, action: Evict, lost: float) -> None:
        """What a pod that stops loses, in GPU-seconds, is put down to whoever gains by it."""
        gainer = self._world.works.get(action.reason.beneficiary)
        loser = self._world.works.get(action.workload)
        if action.reason.beneficiary == action.workload:
            return
        name = action.workload
        if gainer is not None:
            name = self._writes.told(name, gainer.metadata.namespace)
        self._costs.charge(gainer, loser, name, lost)

    # binds

    def _bind(self, action: Bind, now: float, binds: Binds) -> Write:
        """Count a pod as bound; returns what binds it."""
        place = action.placement
        namespace = place.workload.split("/")[0]
        uid = self._world.mirror.uid(place.workload, place.task)
        devices = self._devices(place)
        self._world.mirror.assume_bound(place, float(int(now)), devices)  # objects hold whole seconds
        binds.untried[place] = uid

        async def write() -> None:
            del binds.untried[place]
            try:
                await insistence.insist(partial(self._writes.bind, namespace, place.task, uid, place.node, devices))
            except (Conflict, NotFound) as error:  # by the last try of which nobody told, by others, or it is gone
                bound = await insistence.insist(partial(self._writes.node_of, namespace, place.task, uid))
                if bound != place.node:
                    self._not_bound(binds, place, uid, error)
                    return
            except ApiError as error:
                binds.why[place.workload] = f"pod {place.task} cannot be bound to node {place.node}: {error}"
                self._not_bound(binds, place, uid, error)
                return
            binds.made.add(place.workload)
            if pod := self._world.works.pod(place.workload, place.task):
                where = f", devices {','.join(devices)}" if devices else ""
                await self._writes.event(pod, "Scheduled", f"{render(action.reason)}: node {place.node}{where}")

        return write

    def _not_bound(self, binds: Binds, place: Placement, uid: str, error: ApiError) -> None:
        binds.refused.add((place.workload, place.task))
        _log.warning("bind of %s to %s: %s", place.task, place.node, error)
        self._metrics.failed_binds.inc()
        if self._world.claims is not None and (pod := self._world.works.pod(place.workload, place.task)):
            self._world.claims.failed(pod)
        self._take_back(place.workload, partial(self._unbind, place, uid))

    def _drop(self, binds: Binds) -> None:
        for place, uid in binds.untried.items():
            self._take_back(place.workload, partial(self._unbind, place, uid))

    def _unbind(self, place: Placement, uid: str) -> None:
        self._world.mirror.forget_bound(place, uid)

    def _ids(self, place: Placement) -> tuple[str, ...]:
        return instances.ids(self._world.nodes.get(place.node), place)

    def _devices(self, place: Placement) -> tuple[str, ...]:
        """The devices of a place, where they are known one by one; else the kubelet chooses among its own."""
        node = self._world.nodes.get(place.node)
        return self._ids(place) if node is not None and adapter.has_inventory(node) else ()
