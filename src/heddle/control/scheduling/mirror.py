"""Keeps the engine's state equal to the objects, by deltas.

The mirror remembers which pods it has told the engine of, so that each watch event becomes the one delta that it
means, and so that a bind or eviction of ours is known before its watch event comes back.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from heddle.api.clock import to_text
from heddle.api.core import SCHEDULER_NAME, Node
from heddle.api.license import License
from heddle.api.meta import Condition, set_condition
from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.topology import Topology
from heddle.api.workload import DEVICES_ANNOTATION, NodeTerm, Workload
from heddle.control.grouping import requests
from heddle.control.grouping.volumes import Volumes
from heddle.control.scheduling import adapter, instances
from heddle.engine import Neighbours, Placement, PodSet, State, WorkloadSpec
from heddle.engine.speeds import slowness
from heddle.engine.work import Task

_log = logging.getLogger(__name__)

_SHORT = " without its devices: "
"""Between a workload and a pod of it: no object can have this name."""
_VOLUMES = "(volumes of node) "
"""Before a node it is the workload that holds what is taken of the node's volumes and no pod asks for."""
_Place = tuple[str, tuple[str, ...]]
"""Node and devices."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """Where, and as of when, we have bound a pod; its devices where heddle chooses them."""

    node: str
    devices: tuple[str, ...]
    since: float


class Mirror:
    """The engine's state and what of the objects it holds."""

    def __init__(
        self,
        budgets_of: Callable[[Pod], tuple[str, ...]] = lambda pod: (),
        scheduler: str = SCHEDULER_NAME,
        company_of: Callable[[Pod], Neighbours | None] = lambda pod: None,
        reach_of: Callable[[Pod], list[NodeTerm]] = lambda pod: [],
        *,
        picks: bool = True,
        volumes: Volumes | None = None,
    ) -> None:
        """Hold nothing yet.

        Args:
            budgets_of: names the disruption budgets that keep a pod.
            scheduler: the name by which pods ask for this scheduler.
            company_of: says whom a pod must, or must not, run beside.
            reach_of: says what a pod demands of its node beside what its workload says.
            picks: nodes list their GPUs one by one, and heddle says which MIG instance a pod gets; False: kubelets do.
            volumes: knows how many volumes nodes can attach and have; absent: that does not count.
        """
        self._picks = picks
        self._volumes = volumes or Volumes({}, {})
        self._budgets_of, self._scheduler, self._company_of = budgets_of, scheduler, company_of
        self._reach_of = reach_of
        self.state = State()
        self.problems: dict[str, str] = {}
        """Workload, queue or node to why the engine refuses it."""
        self.models: frozenset[str] = frozenset()
        """GPU models that queues name: nodes and workloads are told again when these change."""
        self._models_of: dict[str, frozenset[str]] = {}
        self._workloads: set[str] = set()
        self._bound: dict[str, dict[str, _Place]] = {}
        self._leaving: dict[str, set[str]] = {}
        self._stranded: dict[str, set[str]] = {}
        self._short: dict[str, set[str]] = {}
        self._nodes: dict[str, Node] = {}
        self._held: dict[str, dict[str, int]] = {}
        self._ports: frozenset[str] = frozenset()
        self._uids: dict[str, dict[str, str]] = {}
        self.assumed: dict[str, Assumed] = {}
        """Binds of ours that no watch event has confirmed, by UID of the pod: they outlast whatever becomes of the
        state or the node meanwhile, since only the API server knows how they ended."""

    def node(self, name: str, node: Node | None) -> set[str]:
        """A node changed or went; returns the workloads to look at again: those that lost a place, and those with pods
        there of which it could not be told what they use."""
        lost: tuple[tuple[str, str], ...] = ()
        if node is None:
            if self._nodes.pop(name, None) is not None:
                lost = self.state.remove_node(name)
        else:
            self._nodes[name] = node
            lost = self._tell(node)
        for key, task in lost:
            self._lost(key, task)
        self._hold_volumes(name)
        stranded = self._stranded.pop(name, set()) if node is not None else set()
        named = {workload.partition(_SHORT)[0] for workload, _ in lost if not workload.startswith(_VOLUMES)}
        return named | stranded

    def _tell(self, node: Node) -> tuple[tuple[str, str], ...]:
        name = node.metadata.name
        attaches, marks = self._volumes.limits(name), self._volumes.attachments.labels(name)
        spec = adapter.node_spec(node, self.models, self._ports, self._scheduler, attaches, marks)
        row = self.state.nodes.row.get(name)
        if row is not None and self.state.nodes.specs[row] == spec:  # to tell it anew would have all room searched anew
            return ()
        return self.state.set_node(spec)

    def _hold_volumes(self, name: str) -> None:
        """What is taken of a node's volumes and no pod asks for is held there by a workload of its own."""
        key = f"{_VOLUMES}{name}"
        held = self._volumes.held(name) if name in self._nodes else {}
        if held == self._held.get(name, {}):
            return
        if self._held.pop(name, None):
            self.state.remove_workload(key)
        if held:
            self._held[name] = held
            part = PodSet(name=name, tasks=(name,), min=1, request=held)
            self.state.set_workload(WorkloadSpec(name=key, queue=adapter.NO_QUEUE, pod_sets=(part,), preemptible=False))
            self.state.bind(Placement(key, name, name, name))

    def _lost(self, key: str, task: str) -> None:
        """A task has no place any more."""
        self._bound.get(key, {}).pop(task, None)
        self._leaving.get(key, set()).discard(task)

    def _release(self, key: str, task: str) -> None:
        """A task gives its place up."""
        self.state.release_task(key, task)
        self._lost(key, task)

    def queue(self, name: str, queue: Queue | None) -> None:
        """A queue changed or went."""
        self._models_of.pop(name, None)
        if queue is None:
            self.state.remove_queue(name)
        else:
            spec = adapter.queue_spec(queue)
            self.state.set_queue(spec)
            told, known = adapter.past_usage(queue), self.state.past_usage().get(name)
            if told and (known is None or known.at < told.at):
                self.state.set_past_usage(name, told)
            self._models_of[name] = adapter.models_of(spec)
        self.models = frozenset().union(*self._models_of.values())

    def topology(self, topologies: Mapping[str, Topology]) -> None:
        """The topologies changed: the first by name counts."""
        first = topologies[min(topologies)] if topologies else None
        self.state.set_topology([level.node_label for level in first.spec.levels] if first else [])

    def licenses(self, licenses: Mapping[str, License]) -> None:
        """The licences changed."""
        self.state.set_counters(adapter.counters(licenses))

    def workload(
        self,
        key: str,
        workload: Workload | None,
        pods: list[Pod],
        *,
        admitted: bool = True,
        sets: Mapping[str, str] | None = None,
    ) -> None:
        """A workload or one of its pods changed, or it went.

        Whatever becomes of the workload, its pods count for as long as they have a node, or were given one by us, and
        have not ended. `sets` says to which pod set a pod belongs, where its label does not.
        """
        pods = [self._as_assumed(pod) for pod in pods] if self.assumed else pods
        self._offer(pods)
        for name in self._short.pop(key, ()):
            self.state.remove_workload(name)
        holding = [p for p in pods if p.spec.node_name and not p.finished]
        if workload is not None and workload.status.phase == "Finished":
            admitted = False
        if workload is None or not (admitted or holding or workload.status.phase != "Finished"):
            if not holding:
                self._forget(key)
                return
            spec = adapter.orphan_spec(
                key,
                holding,
                picks=self._picks,
                budgets_of=self._budgets_of,
                company_of=self._company_of,
                attached_of=self._volumes.asked,
            )
        else:
            spec = adapter.workload_spec(
                workload,
                pods,
                admitted=admitted,
                models=self.models,
                sets=sets,
                picks=self._picks,
                budgets_of=self._budgets_of,
                company_of=self._company_of,
                reach_of=self._reach_of,
                attached_of=self._volumes.asked,
            )
        part_of = {task: pod_set.name for pod_set in spec.pod_sets for task in pod_set.tasks}
        # a pod that went and was made anew between two looks is another one: the place was the first one's
        uids = {pod.metadata.name: pod.metadata.uid for pod in pods}
        lost = {name for name, uid in self._uids.get(key, {}).items() if uids.get(name) != uid}
        self._uids[key] = uids
        for gone in [task for task in self._bound.get(key, ()) if task not in part_of or task in lost]:
            self._release(key, gone)
        self.state.set_workload(spec)
        self._workloads.add(key)
        for pod in pods:
            if pod.metadata.name in part_of:
                self._pod(key, pod, part_of[pod.metadata.name])
        if workload is not None and admitted and workload.status.reservation:
            self._reserve(workload, part_of)

    def _offer(self, pods: Iterable[Pod]) -> None:
        """Each node has one of each port that pods ask for."""
        asked = {port for pod in pods if requests.has_ports(pod) for port in requests.ports(pod)}
        if not asked <= self._ports:
            self._ports |= asked
            for node in self._nodes.values():
                self._tell(node)

    def _forget(self, key: str) -> None:
        if key in self._workloads:
            self.state.remove_workload(key)
            self._workloads.discard(key)
            for known in (self._uids, self._bound, self._leaving):
                known.pop(key, None)

    def knows(self, key: str) -> bool:
        """Whether the engine has been told of this workload."""
        return key in self._workloads

    def in_order(self, key: str) -> bool:
        """Whether pods of a workload start once others are Ready."""
        work = self.state.works.get(key)
        return work is not None and work.after is not None

    def whole(self, key: str) -> bool:
        """Whether the minimum of a workload has places, of all pod sets or of enough groups; of one that the engine
        does not know nothing else is said."""
        return key not in self._workloads or self.state.works[key].whole()

    def walltime(self, key: str) -> float | None:
        """The walltime of a workload on the models of GPUs that it got, where it names speeds."""
        work = self.state.works.get(key)
        if work is None or not work.paced or work.spec.walltime is None or not any(work.bound):
            return None
        return work.spec.walltime * slowness(work)

    def torn(self, key: str) -> bool:
        """Whether something of a workload runs that cannot work, for want of the rest of its gang or group."""
        return key in self._workloads and self.state.works[key].torn()

    def _pod(self, key: str, pod: Pod, pod_set: str) -> None:
        name = pod.metadata.name
        if pod.finished:
            return
        bound, leaving = self._bound.setdefault(key, {}), self._leaving.setdefault(key, set())
        if pod.spec.node_name:
            place = instances.placed(self._nodes.get(pod.spec.node_name), adapter.placement(key, pod, pod_set))
            held = bound.get(name)
            if held is not None and held[0] == place.node and not place.devices:
                place = replace(place, devices=held[1])  # the kubelet has chosen: which, is all the same here
            if held != (place.node, place.devices):
                if held is not None:
                    self.state.release_task(key, name)
                    del bound[name]
                try:
                    place = self._with_devices(place)
                    self.state.bind(place, since=pod.scheduled_at)
                except ValueError as error:  # its node or device is gone, or is not there yet
                    self._stranded.setdefault(place.node, set()).add(key)
                    _log.warning("pod %s of %s: %s", name, key, error)
                    self._count_rest(key, pod)
                    return
                bound[name] = (place.node, place.devices)
                leaving.discard(name)
            if name not in leaving and self.in_order(key):
                self.state.mark_ready(key, name, ready=pod.ready)
            if pod.metadata.deletion_timestamp and name not in leaving:
                self.state.mark_releasing(key, name)
                leaving.add(name)

    def _count_rest(self, key: str, pod: Pod) -> None:
        """A pod whose devices are not all there takes the rest of what it asks for all the same, as a workload by
        itself: its own may still have to find a place."""
        node = pod.spec.node_name
        if node not in self._nodes:
            return
        name = f"{key}{_SHORT}{pod.metadata.name}"
        spec = adapter.orphan_spec(
            name,
            [pod],
            picks=self._picks,
            budgets_of=self._budgets_of,
            company_of=self._company_of,
            attached_of=self._volumes.asked,
        )
        (part,) = spec.pod_sets
        given, there = adapter.devices_of(pod), self.state.places.unused_devices(node)
        found = tuple(device for device in there if not given or device in given)[: part.gpu // 1000]
        part = replace(part, gpu=1000 * len(found), mig="", gpu_memory=0)
        self.state.set_workload(replace(spec, pod_sets=(part,)))
        self._short.setdefault(key, set()).add(name)
        self.state.bind(Placement(name, part.name, pod.metadata.name, node, found), since=pod.scheduled_at)
        if pod.metadata.deletion_timestamp:
            self.state.mark_releasing(name, pod.metadata.name)

    def _with_devices(self, place: Placement, *, land: bool = False, without: Collection[str] = ()) -> Placement:
        """A place with devices of its node, as many as it needs, where nobody says which they are.

        Args:
            place: it.
            land: those that are being given up will do.
            without: devices that are spoken for.
        """
        if place.devices or not (width := self.state.places.width_of(place)):
            return place
        return replace(place, devices=self.state.places.free_devices(place.node, width, land=land, without=without))

    def is_bound(self, key: str, pod: str, node: str) -> bool:
        """Whether we know that a pod is on a node."""
        held = self._bound.get(key, {}).get(pod)
        return held is not None and held[0] == node

    def _reserve(self, workload: Workload, part_of: Mapping[str, str]) -> None:
        key = workload.key
        places = [
            instances.placed(
                self._nodes.get(r.node),
                Placement(key, part_of.get(r.pod, r.pod_set), r.pod, r.node, tuple(r.devices)),
            )
            for r in workload.status.reservation
            if r.pod not in self._bound.get(key, {})
        ]
        try:
            self.state.set_reservation(key, [])
            self.state.set_reservation(key, self._promised(places))
        except ValueError as error:  # a node or pod of the promise is gone: the next cycle makes a new one
            _log.info("reservation of %s dropped: %s", key, error)
            self.state.set_reservation(key, [])

    def _promised(self, places: list[Placement]) -> list[Placement]:
        """Promised places with devices; those of one node get different ones."""
        taken: dict[str, set[str]] = {}
        found = []
        for place in places:
            mine = taken.setdefault(place.node, set())
            found.append(self._with_devices(place, land=True, without=mine))
            mine.update(found[-1].devices)
        return found

    def offers(self, prefix: str) -> list[str]:
        """Resources with names that begin so of which nodes have any."""
        nodes = self.state.nodes
        rows = list(nodes.row.values())
        columns = [at for name, at in self.state.column.items() if name.startswith(prefix)]
        return [self.state.resources[at] for at in columns if (nodes.capacity[rows, at] > 0).any()]

    def task(self, workload: str, name: str) -> Task | None:
        """A task as the engine has it; None = it does not."""
        work = self.state.works.get(workload)
        return work.tasks.get(name) if work is not None else None

    def uid(self, workload: str, task: str) -> str:
        """UID of the pod that a plan means by this task; "" where it is not known."""
        return self._uids.get(workload, {}).get(task, "")

    def assume_bound(self, place: Placement, now: float, devices: tuple[str, ...] = ()) -> None:
        """We are binding a pod, with these devices where heddle chooses them; its watch event will say the same."""
        self.state.bind(place, since=now)
        self._bound.setdefault(place.workload, {})[place.task] = (place.node, place.devices)
        if uid := self.uid(place.workload, place.task):
            self.assumed[uid] = Assumed(place.node, devices, now)

    def confirmed(self, uid: str) -> None:
        """The API server has told what became of a bind of ours, or of its pod."""
        self.assumed.pop(uid, None)

    def forget_bound(self, place: Placement, uid: str) -> None:
        """A bind of ours failed."""
        self.assumed.pop(uid, None)
        if self.uid(place.workload, place.task) == uid and self.is_bound(place.workload, place.task, place.node):
            self._release(place.workload, place.task)

    def _as_assumed(self, pod: Pod) -> Pod:
        """A pod as it will be once the watch confirms our bind."""
        found = self.assumed.get(pod.metadata.uid)
        if found is None or pod.spec.node_name:
            return pod
        given = {DEVICES_ANNOTATION: ",".join(found.devices)} if found.devices else {}
        scheduled = Condition(type="PodScheduled", status="True", last_transition_time=to_text(found.since))
        replace_ = msgspec.structs.replace
        return replace_(
            pod,
            metadata=replace_(pod.metadata, annotations={**pod.metadata.annotations, **given}),
            spec=replace_(pod.spec, node_name=found.node),
            status=replace_(pod.status, conditions=set_condition(pod.status.conditions, scheduled)),
        )

    def assume_leaving(self, workload: str, task: str) -> None:
        """We are evicting a pod; its watch event will say the same."""
        if self.has_place(workload, task):
            self.state.mark_releasing(workload, task)
            self._leaving.setdefault(workload, set()).add(task)

    def stays(self, workload: str, task: str) -> None:
        """A pod that we wanted to evict stays: with the next news of its workload it is put back where it runs."""
        if task in self._leaving.get(workload, ()):
            self._release(workload, task)

    def has_place(self, key: str, pod: str) -> bool:
        """Whether a pod is bound, or was a moment ago by us, and is not leaving: one that is moved has yet to land."""
        return pod in self._bound.get(key, {}) and pod not in self._leaving.get(key, ())

    def promised(self, key: str) -> dict[str, Placement]:
        """Places that are promised to a workload, by pod."""
        work = self.state.works.get(key)
        held = work.tasks.values() if work is not None and work.held else ()
        return {task.name: self.state.places.of(task, *task.hold) for task in held if task.hold}

    def counts(self, key: str) -> dict[str, int]:
        """Pods of a workload that have a place and are not leaving, by pod set."""
        work = self.state.works.get(key)
        return {} if work is None else {s.name: n for s, n in zip(work.spec.pod_sets, work.bound, strict=True)}

    def bound(self, key: str) -> int:
        """Pods of a workload that have a place and are not leaving."""
        return len(self._bound.get(key, ())) - len(self._leaving.get(key, ()))
