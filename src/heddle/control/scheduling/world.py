"""The world as the scheduler has it: objects, the workloads that they make up, and the engine's state of them.

Changes are collected as they come, and applied between two plans: while one is made nothing touches the state.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heddle.api.core import Node
from heddle.api.license import License
from heddle.api.meta import Kind
from heddle.api.pod import Pod
from heddle.api.policy import PodDisruptionBudget
from heddle.api.queue import Queue
from heddle.api.registry import LICENSES, NAMESPACES, NODES, PODS, QUEUES, TOPOLOGIES, WORKLOADS
from heddle.api.topology import Topology
from heddle.api.workload import GROUPS_ANNOTATION, USER_ANNOTATION, ReservedPlace, Workload
from heddle.control.access import refusal
from heddle.control.grouping.groups import Groups
from heddle.control.grouping.neighbours import Neighbourhood
from heddle.control.scheduling.budgets import Budgets
from heddle.control.scheduling.claims import ClaimBinder
from heddle.control.scheduling.mirror import Mirror
from heddle.control.scheduling.works import Works, matters
from heddle.engine import State
from heddle.store.informer import Informer, Informers

_log = logging.getLogger(__name__)

_LONGEST_PAUSE = 10.0
"""Seconds until what the API server refused again and again is tried once more, as by kube-scheduler."""


@dataclass(frozen=True, slots=True)
class Refused:
    """How often in succession the API server refused a workload's binds, until when it is not planned, and why."""

    times: int
    until: float
    why: str


class World:
    """Follows the objects that placing depends on."""

    def __init__(
        self,
        informers: Informers,
        *,
        groups: Groups | None,
        budgets: Budgets | None,
        claims: ClaimBinder | None,
        scheduler: str,
        picks: bool,
        gone: Callable[[Pod], None],
    ) -> None:
        """Follow the objects of a store; arguments as of `SchedulingController`.

        Args:
            informers: of the store.
            groups: makes workloads of pods that have none.
            budgets: disruption budgets that evictions keep.
            claims: has claims to volumes bound before their pods are.
            scheduler: the name by which pods ask for this scheduler.
            picks: nodes list their GPUs one by one.
            gone: is told of pods that are not there any more.
        """
        self.pod_budgets, self.claims, self.picks = budgets, claims, picks
        self._scheduler, self._gone = scheduler, gone
        self.mirror = self._fresh_mirror()
        self.wake = asyncio.Event()
        """Set when a plan is due."""
        self.dirty: dict[str, set[str]] = defaultdict(set)
        """Names of what has changed since it was last applied, by kind."""
        self.promises: dict[str, list[ReservedPlace]] = {}
        """Promises that are being written, by workload: they hold whatever its object says meanwhile."""
        self._refused: dict[str, Refused] = {}
        self._later: asyncio.TimerHandle | None = None
        self._informers: dict[str, Informer[Any]] = {
            r.kind: informers.of(r) for r in (NODES, QUEUES, TOPOLOGIES, LICENSES, WORKLOADS, PODS)
        }
        self.nodes: Mapping[str, Node] = self._informers["Node"].objects
        self.queues: Mapping[str, Queue] = self._informers["Queue"].objects
        neighbours = None
        if groups is None:
            spaces = informers.of(NAMESPACES)
            spaces.on_change(lambda type_, old, new: self.space_changed((new or old).metadata.name))
            neighbours = Neighbourhood(scheduler, spaces.objects)
        self.works = Works(self._informers["Workload"].objects, self.queues, groups, neighbours)
        for kind, informer in self._informers.items():
            informer.on_change(self._handler(kind))
        if budgets is not None:
            self._informers["PodDisruptionBudget"] = budgets.informer
            budgets.informer.on_change(self._budget_changed)
        if claims is not None:
            claims.on_news(self.claim_changed, self.node_changed)

    def _fresh_mirror(self) -> Mirror:
        budgets_of = self.pod_budgets.of if self.pod_budgets else lambda pod: ()
        return Mirror(
            budgets_of,
            self._scheduler,
            lambda pod: self.works.company_of(pod),
            lambda pod: self.works.reach_of(pod),
            picks=self.picks,
            volumes=self.claims.volumes if self.claims else None,
        )

    async def synced(self) -> None:
        """Wait until all objects are known."""
        for informer in self._informers.values():
            await informer.synced()

    def _budget_changed(self, type_: str, old: PodDisruptionBudget | None, new: PodDisruptionBudget | None) -> None:
        budget = new or old
        assert budget is not None
        if old is None or new is None or old.spec != new.spec:  # other pods count
            space = f"{budget.metadata.namespace}/"
            self.dirty["Workload"].update(key for key in self.works.every_name() if key.startswith(space))
        elif old.status == new.status:
            return
        if self.pod_budgets is not None:
            self.pod_budgets.changed(budget.key)
        self.budgets_due()

    def budgets_due(self) -> None:
        """What disruption budgets allow may have changed."""
        self.dirty["PodDisruptionBudget"].add("")
        self.wake.set()

    def _handler(self, kind: str) -> Any:
        def changed(type_: str, old: Kind | None, new: Kind | None) -> None:
            obj = new or old
            assert obj is not None
            if old is not None and new is not None and _echo(old, new):
                return
            if isinstance(obj, Pod):
                touched = self.works.remove_pod(obj) if type_ == "DELETED" else self.works.set_pod(obj)
                if type_ == "DELETED":
                    self._gone(obj)
                if type_ == "DELETED" or obj.spec.node_name:
                    self.mirror.confirmed(obj.metadata.uid)
                if isinstance(old, Pod) and isinstance(new, Pod) and self._seen_through(old, new):
                    return
                self.dirty["Workload"] |= touched
            else:
                self.dirty[kind].add(obj.key)
                if kind == "Queue":  # who may submit may have changed
                    self.dirty["Workload"].update(self.works.names())
            self.wake.set()

        return changed

    def _seen_through(self, old: Pod, new: Pod) -> bool:
        """Whether a pod's change is nothing that placing depends on, or only our own bind that comes back."""
        key = self.works.key(new)
        in_order = self.mirror.in_order(key)
        before, after = matters(old, in_order=in_order), matters(new, in_order=in_order)
        if old.metadata.labels != new.metadata.labels and self._company(old) != self._company(new):
            return False
        if before == after:
            return True
        return (
            before[1:] == after[1:]
            and not before[0]
            and self.mirror.is_bound(key, new.metadata.name, new.spec.node_name)
        )

    def _company(self, pod: Pod) -> tuple[object, ...]:
        """To whom the labels of a pod make it count."""
        budgets = self.pod_budgets.of(pod) if self.pod_budgets is not None else ()
        return self.works.company_of(pod), budgets

    def owner_changed(self, kind: str, namespace: str, name: str) -> None:
        """An object that says how many pods belong together came, changed or went."""
        if touched := self.works.owner_changed(kind, namespace, name):
            self.dirty["Workload"] |= touched
            self.wake.set()

    def claim_changed(self, claim: str) -> None:
        """A claim to a volume (`namespace/name`), or what it can be bound to, came, changed or went."""
        if touched := self.works.claim_changed(claim):
            self.dirty["Workload"] |= touched
            self.wake.set()

    def node_changed(self, name: str) -> None:
        """A node can attach more volumes than before, or fewer."""
        self.dirty["Node"].add(name)
        self.wake.set()

    def space_changed(self, namespace: str) -> None:
        """A namespace came, went, or has other labels."""
        if touched := self.works.space_changed(namespace):
            self.dirty["Workload"] |= touched
            self.wake.set()

    def begin_anew(self) -> None:
        """Forget the engine's state: everything that it must know is in the objects, or under way to them."""
        self.promises.clear()  # by now they are written, or will not be
        assumed = self.mirror.assumed
        self.mirror = self._fresh_mirror()
        self.mirror.assumed = assumed
        for kind, informer in self._informers.items():
            if kind != "Pod":
                self.dirty[kind].update(informer.objects)
        self.dirty["Workload"].update(self.works.every_name())
        self.wake.set()

    def apply_deltas(self) -> set[str]:
        """Bring the mirror up to date; returns the workloads that something changed about."""
        self.mirror.state.note_usage(time.time())
        dirty, self.dirty = self.dirty, defaultdict(set)
        models = self.mirror.models
        for name in dirty["Queue"]:
            self.mirror.queue(name, self.queues.get(name))
        if self.mirror.models != models:
            dirty["Node"].update(self.nodes)
            dirty["Workload"].update(self.works.names())
        for name in dirty["Node"]:
            dirty["Workload"] |= self.mirror.node(name, self.nodes.get(name))
        if dirty["Topology"]:
            topologies: Mapping[str, Topology] = self._informers["Topology"].objects
            self.mirror.topology(topologies)
        if dirty["License"]:
            licenses: Mapping[str, License] = self._informers["License"].objects
            self.mirror.licenses(licenses)
        if dirty["PodDisruptionBudget"] and self.pod_budgets is not None:
            self.mirror.state.set_disruption_budgets(self.pod_budgets.least(time.monotonic()))
        for key in dirty["Workload"]:
            self.works.refresh(key)
        for key in self.works.gathered() - dirty["Workload"]:
            self.works.refresh(key)
            dirty["Workload"].add(key)
        for key in sorted(dirty["Workload"]):
            workload, fault = self.works.get(key), self.works.fault(key) or self._held_back(key)
            if workload is not None and key in self.promises:
                workload.status.reservation = self.promises[key]
            admitted = workload is not None and not fault and not self.refusal(workload)
            try:
                self.mirror.workload(key, workload, self.works.pods(key), admitted=admitted, sets=self.works.sets(key))
                self.mirror.problems.pop(key, None)
                if fault:
                    self.mirror.problems[key] = fault
            except ValueError as error:
                self.mirror.problems[key] = str(error)
                _log.warning("workload %s: %s", key, error)
        return dirty["Workload"]

    def hold_back(self, key: str, why: str) -> None:
        """The API server refused what was planned for a workload: at the second time in succession, and for longer each
        time, it is not planned, and people are told why."""
        before = self._refused.get(key)
        times = before.times + 1 if before else 1
        pause = 0.0 if times == 1 else min(_LONGEST_PAUSE, 2.0 ** (times - 2))
        self._refused[key] = Refused(times, time.monotonic() + pause, why)
        self.look_again(key)
        asyncio.get_running_loop().call_later(pause, self.look_again, key)

    def look_again(self, key: str) -> None:
        """Something about a workload is not as it was told."""
        self.dirty["Workload"].add(key)
        self.wake.set()

    def let_go(self, key: str) -> None:
        """What was planned for a workload was done."""
        self._refused.pop(key, None)

    def _held_back(self, key: str) -> str:
        if (found := self._refused.get(key)) is None:
            return ""
        if self.works.get(key) is None:
            del self._refused[key]
            return ""
        return found.why if time.monotonic() < found.until else ""

    def refusal(self, workload: Workload) -> str:
        """Why the submitter of a workload may not use its queue so; "" = they may."""
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

    def copy(self) -> State:
        """The engine's state once more, to try things on."""
        return self.mirror.state.copy()

    def wake_in(self, seconds: float) -> None:
        """Have a cycle after so long, unless one is due earlier."""
        loop = asyncio.get_running_loop()
        if self._later is not None and loop.time() < self._later.when() <= loop.time() + seconds:
            return
        if self._later is not None:
            self._later.cancel()
        self._later = loop.call_later(seconds, self.wake.set)


def _echo(old: Kind, new: Kind) -> bool:
    """Whether a change is only the write of a status that we assumed when we made it."""
    if isinstance(old, Queue) and isinstance(new, Queue):
        return old.metadata.generation == new.metadata.generation
    if isinstance(old, Workload) and isinstance(new, Workload):
        return old.metadata.generation == new.metadata.generation and old.status == new.status
    return False
