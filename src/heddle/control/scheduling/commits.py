"""Carrying out what a plan says: promises, evictions, binds, assumed in the state until the watch confirms them."""

import asyncio
import logging
import time

from heddle.api.clock import to_text
from heddle.api.errors import ApiError
from heddle.api.meta import Condition
from heddle.api.workload import ReservedPlace
from heddle.control.scheduling import adapter, instances
from heddle.control.scheduling.costs import Costs
from heddle.control.scheduling.metrics import Metrics
from heddle.control.scheduling.world import World
from heddle.control.scheduling.writes import Writes
from heddle.engine import Bind, Evict, Placement, Plan, Reserve, render
from heddle.engine.lostwork import lost_work

_log = logging.getLogger(__name__)


class Commits:
    """Writes plans out."""

    def __init__(self, world: World, writes: Writes, costs: Costs, metrics: Metrics) -> None:
        """Write what is planned for `world` by `writes`; what it costs whom is put down in `costs`."""
        self._world, self._writes, self._costs, self._metrics = world, writes, costs, metrics

    async def carry_out(self, plan: Plan, now: float) -> None:
        """Promises first, so that a crash in between never evicts for a promise that nobody remembers."""
        reserves = [a for a in plan.actions if isinstance(a, Reserve)]
        evicts = [a for a in plan.actions if isinstance(a, Evict)]
        binds = [a for a in plan.actions if isinstance(a, Bind)]
        await asyncio.gather(*(self._reserve(action) for action in reserves))
        if self._world.claims is not None:
            await self._world.claims.write()
        await asyncio.gather(*(self._evict(action, now) for action in evicts))
        for action in reserves:  # a task that is moved must be leaving first
            self._world.mirror.state.set_reservation(action.workload, action.placements)
        await asyncio.gather(*(self._bind(action, now) for action in binds))
        await asyncio.gather(*(self._use_up(key) for key in dict.fromkeys(a.placement.workload for a in binds)))

    async def _use_up(self, key: str) -> None:
        """Forget promises that were kept, so that a pod made anew does not inherit its predecessor's."""
        workload = self._world.works.get(key)
        reserved = workload.status.reservation if workload else []
        left = [place for place in reserved if not self._world.mirror.has_place(key, place.pod)]
        if len(left) < len(reserved):
            await self._write_reservation(key, left)

    async def _reserve(self, action: Reserve) -> None:
        places = [
            ReservedPlace(pod_set=p.pod_set, pod=p.task, node=p.node, devices=list(self._ids(p)))
            for p in action.placements
        ]
        await self._write_reservation(action.workload, places)

    async def _write_reservation(self, key: str, places: list[ReservedPlace]) -> None:
        if workload := self._world.works.get(key):
            await self._writes.promise(workload, places)

    async def _evict(self, action: Evict, now: float) -> None:
        message = render(action.reason)
        pod = self._world.works.pod(action.workload, action.task)
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
            self._metrics.refused_evictions.inc()
            if self._world.pod_budgets is not None:
                begun = time.monotonic()
                pause = self._world.pod_budgets.refused(pod, begun) - begun
                self._world.budgets_due()  # others may do meanwhile
                asyncio.get_running_loop().call_later(pause + 0.01, self._world.budgets_due)
            await self._writes.event(pod, "EvictionRefused", refused, warning=True)
            return
        self._charge(action, now)
        self._world.mirror.assume_leaving(action.workload, action.task)
        await self._writes.event(pod, str(action.reason.code), message, warning=True)
        if workload := self._world.works.get(action.workload):
            await self._writes.event(workload, str(action.reason.code), f"{action.task}: {message}", warning=True)

    def _charge(self, action: Evict, now: float) -> None:
        """What a pod that stops loses is put down to whoever gains by it."""
        task = self._world.mirror.task(action.workload, action.task)
        gainer = self._world.works.get(action.reason.beneficiary)
        loser = self._world.works.get(action.workload)
        if task is None or action.reason.beneficiary == action.workload:
            return
        name = action.workload
        if gainer is not None:
            name = self._writes.told(name, gainer.metadata.namespace)
        self._costs.charge(gainer, loser, name, lost_work((task,), now) / 1000)

    async def _bind(self, action: Bind, now: float) -> None:
        place = action.placement
        namespace = place.workload.split("/")[0]
        self._world.mirror.assume_bound(place, float(int(now)))  # objects hold whole seconds
        try:
            uid = self._world.mirror.uid(place.workload, place.task)
            await self._writes.bind(namespace, place.task, uid, place.node, self._devices(place))
        except ApiError as error:
            _log.warning("bind of %s to %s: %s", place.task, place.node, error)
            self._metrics.failed_binds.inc()
            self._world.mirror.forget_bound(place)
            if self._world.claims is not None and (pod := self._world.works.pod(place.workload, place.task)):
                self._world.claims.failed(pod)
            self._world.dirty["Workload"].add(place.workload)
            self._world.wake.set()
            return
        if pod := self._world.works.pod(place.workload, place.task):
            devices = f", devices {','.join(chosen)}" if (chosen := self._devices(place)) else ""
            await self._writes.event(pod, "Scheduled", f"{render(action.reason)}: node {place.node}{devices}")

    def _ids(self, place: Placement) -> tuple[str, ...]:
        return instances.ids(self._world.nodes.get(place.node), place)

    def _devices(self, place: Placement) -> tuple[str, ...]:
        """The devices of a place, where they are known one by one; else the kubelet chooses among its own."""
        node = self._world.nodes.get(place.node)
        return self._ids(place) if node is not None and adapter.has_inventory(node) else ()
