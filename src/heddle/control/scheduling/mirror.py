"""Keeps the engine's state equal to the objects, by deltas.

The mirror remembers which pods it has told the engine of, so that each watch event becomes the one delta that it
means, and so that a bind or eviction of ours is known before its watch event comes back.
"""

import logging
from collections.abc import Mapping

from heddle.api.core import Node
from heddle.api.license import License
from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.topology import Topology
from heddle.api.workload import Workload
from heddle.control.scheduling import adapter
from heddle.engine import Placement, State

_log = logging.getLogger(__name__)


class Mirror:
    """The engine's state and what of the objects it holds."""

    def __init__(self) -> None:
        self.state = State()
        self.problems: dict[str, str] = {}
        """Workload, queue or node to why the engine refuses it."""
        self.models: frozenset[str] = frozenset()
        """GPU models that queues name: nodes and workloads are told again when these change."""
        self._models_of: dict[str, frozenset[str]] = {}
        self._workloads: set[str] = set()
        self._bound: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
        self._leaving: set[tuple[str, str]] = set()
        self._uids: dict[str, dict[str, str]] = {}

    def node(self, name: str, node: Node | None) -> set[str]:
        """A node changed or went; returns the workloads that lost a place."""
        lost = (
            self.state.remove_node(name) if node is None else self.state.set_node(adapter.node_spec(node, self.models))
        )
        for task in lost:
            self._bound.pop(task, None)
            self._leaving.discard(task)
        return {workload for workload, _ in lost}

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

    def workload(self, key: str, workload: Workload | None, pods: list[Pod], *, admitted: bool = True) -> None:
        """A workload or one of its pods changed, or it went.

        Whatever becomes of the workload, its pods count for as long as they have a node and have not ended.
        """
        holding = [p for p in pods if p.spec.node_name and not p.finished]
        if workload is not None and workload.status.phase == "Finished":
            admitted = False
        if workload is None or not (admitted or holding or workload.status.phase != "Finished"):
            if not holding:
                self._forget(key)
                return
            spec = adapter.orphan_spec(key, holding)
        else:
            spec = adapter.workload_spec(workload, pods, admitted=admitted, models=self.models)
        sets = {task: pod_set.name for pod_set in spec.pod_sets for task in pod_set.tasks}
        # a pod that went and was made anew between two looks is another one: the place was the first one's
        uids = {pod.metadata.name: pod.metadata.uid for pod in pods}
        lost = {name for name, uid in self._uids.get(key, {}).items() if uids.get(name) != uid}
        self._uids[key] = uids
        for gone in [t for t in self._bound if t[0] == key and (t[1] not in sets or t[1] in lost)]:
            self.state.release_task(*gone)
            del self._bound[gone]
            self._leaving.discard(gone)
        self.state.set_workload(spec)
        self._workloads.add(key)
        for pod in pods:
            if pod.metadata.name in sets:
                self._pod(key, pod, sets[pod.metadata.name])
        if workload is not None and admitted and workload.status.reservation:
            self._reserve(workload)

    def _forget(self, key: str) -> None:
        if key in self._workloads:
            self.state.remove_workload(key)
            self._workloads.discard(key)
            self._uids.pop(key, None)
            for task in [t for t in self._bound if t[0] == key]:
                del self._bound[task]
                self._leaving.discard(task)

    def knows(self, key: str) -> bool:
        """Whether the engine has been told of this workload."""
        return key in self._workloads

    def whole(self, key: str) -> bool:
        """Whether the minimum of a workload has places, of all pod sets or of enough groups; of one that the engine
        does not know nothing else is said."""
        return key not in self._workloads or self.state.works[key].whole()

    def torn(self, key: str) -> bool:
        """Whether something of a workload runs that cannot work, for want of the rest of its gang or group."""
        return key in self._workloads and self.state.works[key].torn()

    def _pod(self, key: str, pod: Pod, pod_set: str) -> None:
        task = (key, pod.metadata.name)
        if pod.finished:
            return
        if pod.spec.node_name:
            place = adapter.placement(key, pod, pod_set)
            held = self._bound.get(task)
            if held != (place.node, place.devices):
                if held is not None:
                    self.state.release_task(*task)
                    self._bound.pop(task)
                try:
                    self.state.bind(place, since=pod.scheduled_at)
                except ValueError as error:  # its node or device is gone: nothing of it is in use here
                    _log.warning("pod %s of %s: %s", pod.metadata.name, key, error)
                    return
                self._bound[task] = (place.node, place.devices)
                self._leaving.discard(task)
            if task not in self._leaving and self.state.works[key].after is not None:
                self.state.mark_ready(*task, ready=adapter.is_ready(pod))
            if pod.metadata.deletion_timestamp and task not in self._leaving:
                self.state.mark_releasing(*task)
                self._leaving.add(task)

    def _reserve(self, workload: Workload) -> None:
        key = workload.key
        places = [
            Placement(key, r.pod_set, r.pod, r.node, tuple(r.devices))
            for r in workload.status.reservation
            if (key, r.pod) not in self._bound
        ]
        try:
            self.state.set_reservation(key, places)
        except ValueError as error:  # a node or pod of the promise is gone: the next cycle makes a new one
            _log.info("reservation of %s dropped: %s", key, error)
            self.state.set_reservation(key, [])

    def uid(self, workload: str, task: str) -> str:
        """UID of the pod that a plan means by this task; "" where it is not known."""
        return self._uids.get(workload, {}).get(task, "")

    def assume_bound(self, place: Placement, now: float) -> None:
        """We bound a pod; its watch event will say the same."""
        self.state.bind(place, since=now)
        self._bound[place.workload, place.task] = (place.node, place.devices)

    def forget_bound(self, place: Placement) -> None:
        """A bind of ours failed."""
        if self._bound.pop((place.workload, place.task), None):
            self.state.release_task(place.workload, place.task)

    def assume_leaving(self, workload: str, task: str) -> None:
        """We evicted a pod; its watch event will say the same."""
        if (workload, task) in self._bound and (workload, task) not in self._leaving:
            self.state.mark_releasing(workload, task)
            self._leaving.add((workload, task))

    def has_place(self, key: str, pod: str) -> bool:
        """Whether a pod is bound, or was a moment ago by us, and is not leaving: one that is moved has yet to land."""
        return (key, pod) in self._bound and (key, pod) not in self._leaving

    def counts(self, key: str) -> dict[str, int]:
        """Pods of a workload that have a place and are not leaving, by pod set."""
        work = self.state.works.get(key)
        return {} if work is None else {s.name: n for s, n in zip(work.spec.pod_sets, work.bound, strict=True)}

    def bound(self, key: str) -> int:
        """Pods of a workload that have a place and are not leaving."""
        return sum(1 for task in self._bound if task[0] == key and task not in self._leaving)
