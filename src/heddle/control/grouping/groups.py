"""Pods that nobody wrote a Workload for, as Workloads.

A pod is heddle's where its `schedulerName` says so. Those of one owner of a kind in the table (`kinds.toml`), or with
one label `heddle.dev/workload`, belong together; any other is a workload by itself. What is made here is not an object
(it becomes one for people to read, where there are several pods): its spec is read off the pods each time.
"""

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from heddle.api.core import Namespace
from heddle.api.meta import ObjectMeta, OwnerReference
from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.trainingjob import DEFAULT_QUEUE
from heddle.api.workload import (
    DERIVED_LABEL,
    MIN_AVAILABLE_LABEL,
    POD_GROUP_LABEL,
    PREEMPTIBLE_LABEL,
    QUEUE_LABEL,
    WORKLOAD_SIZE_LABEL,
    NodeAffinity,
    NodeTerm,
    PodSet,
    ReservedPlace,
    Workload,
    WorkloadSpec,
    WorkloadStatus,
)
from heddle.control.grouping.demands import Demand, Demands
from heddle.control.grouping.kinds import Owner, OwnerKind
from heddle.control.grouping.neighbours import Neighbourhood
from heddle.control.grouping.volumes import Nowhere, Where
from heddle.engine import Neighbours

ALONE = "(pod) "
"""Before the name of a pod that is a workload by itself; no object can have such a name."""

ONE_PART = "pods"
"""Pod set of groups that have only one."""

_FOR_EVER = 10**9
"""Seconds: pods that nobody makes anew are not evicted because others of their gang are lost."""

OwnerOf = Callable[[OwnerKind, str, str], Owner | None]
"""(kind, namespace, name) -> the object, where it is known."""


@dataclass(frozen=True, slots=True)
class Group:
    """What pods make up together."""

    workload: Workload
    members: tuple[str, ...]
    """Names of those that count: not gated, not leaving before they had a place, not failed where their owner makes
    others. What they are meanwhile is not remembered here: not all news of a pod makes its group anew."""
    sets: Mapping[str, str]
    """Name of a pod to its pod set."""
    fault: str = ""
    """Why heddle does not place them: names the fields that it does not support, or that contradict each other."""


class Groups:
    """Makes workloads of pods."""

    def __init__(
        self,
        scheduler: str,
        kinds: Sequence[OwnerKind],
        owner_of: OwnerOf,
        volumes: Where | None = None,
        spaces: Mapping[str, Namespace] | None = None,
    ) -> None:
        """Make workloads of the pods whose `schedulerName` is `scheduler`; `spaces` are the cluster's namespaces."""
        reachable = volumes or Nowhere()
        self.neighbours = Neighbourhood(scheduler, spaces, reachable.single)
        self._scheduler, self._kinds, self._owner_of = scheduler, tuple(kinds), owner_of
        self._marks = frozenset(kind.name_label for kind in kinds)
        self._demands = Demands(reachable)
        self._first: dict[str, dict[str, bytes]] = {}

    def ours(self, pod: Pod) -> bool:
        """Whether heddle places this pod."""
        return pod.spec.scheduler_name == self._scheduler

    def name(self, pod: Pod) -> str:
        """Name of the workload that a pod belongs to, unique in its namespace; of a stranger, what it is by itself."""
        labels = pod.metadata.labels
        if not self.ours(pod):
            return ALONE + pod.metadata.name
        if group := labels.get(POD_GROUP_LABEL):
            return group
        if kind := self._kind(pod):
            owner = self._owner(kind, pod)
            if owner and kind.together(owner):
                part = f"-{labels.get(kind.group_label, '')}" if kind.group_label else ""
                uid = str(owner.get("metadata", {}).get("uid", ""))
                return f"{kind.kind.lower()}-{labels[kind.name_label]}{part}-{uid[:5]}"
        return ALONE + pod.metadata.name

    def owner_key(self, pod: Pod) -> tuple[str, str, str] | None:
        """(kind, namespace, name) of the object of which the size of a pod's group is read."""
        kind = self._kind(pod) if self.ours(pod) and POD_GROUP_LABEL not in pod.metadata.labels else None
        return (kind.kind, pod.metadata.namespace, pod.metadata.labels[kind.name_label]) if kind else None

    def group(
        self, key: str, pods: Iterable[Pod], queues: Mapping[str, Queue], status: WorkloadStatus | None
    ) -> Group | None:
        """The workload that pods of one name make up; None where none of them is heddle's to place.

        Args:
            key: namespace/name of the workload.
            pods: those of that name.
            queues: by name.
            status: what is known of the workload; None = nothing yet: promises are read off the pods.
        """
        members = sorted((p for p in pods if self.ours(p) and _counts(p)), key=lambda p: p.metadata.name)
        if not members:
            return None
        first = members[0]
        demands = {pod.metadata.name: self._demands.of(pod) for pod in members}
        faults = dict.fromkeys(fault for demand in demands.values() for fault in demand.faults)
        sets = self._sets(key, members, demands)
        by_set: dict[str, list[Pod]] = {}
        for pod in members:
            by_set.setdefault(sets[pod.metadata.name], []).append(pod)
        preemptible = False
        counts: dict[str, int] = {}
        least: int | None = None
        try:
            counts = self._sizes(first)
            least = _least(first, by_set)
            preemptible = _preemptible(members, queues)
        except ValueError as error:
            faults[str(error)] = None
        workload = Workload(
            metadata=ObjectMeta(
                name=key.partition("/")[2],
                namespace=first.metadata.namespace,
                uid=first.metadata.uid if ALONE in key else "",
                creation_timestamp=min(p.metadata.creation_timestamp or "" for p in members) or None,
                labels={DERIVED_LABEL: "true"},
                owner_references=_owners(first),
            ),
            spec=WorkloadSpec(
                queue=_label(members, QUEUE_LABEL) or DEFAULT_QUEUE,
                pod_sets=_pod_sets(by_set, demands, counts, least),
                priority=max(p.spec.priority or 0 for p in members),
                preemptible=preemptible,
                walltime_seconds=_walltime(members),
                gang_grace_seconds=None if _owners(first) else _FOR_EVER,
            ),
            status=WorkloadStatus(reservation=_promised(members, sets)) if status is None else status,
        )
        return Group(workload, tuple(pod.metadata.name for pod in members), sets, "; ".join(faults))

    def _kind(self, pod: Pod) -> OwnerKind | None:
        if self._marks.isdisjoint(pod.metadata.labels):
            return None
        return next((kind for kind in self._kinds if kind.owns(pod)), None)

    def _owner(self, kind: OwnerKind, pod: Pod) -> Owner | None:
        return self._owner_of(kind, pod.metadata.namespace, pod.metadata.labels[kind.name_label])

    def _part(self, pod: Pod) -> str:
        kind = None if POD_GROUP_LABEL in pod.metadata.labels else self._kind(pod)
        return (kind.part(pod) if kind else "") or ONE_PART

    def _sets(self, key: str, members: Iterable[Pod], demands: Mapping[str, Demand]) -> dict[str, str]:
        """The set of each pod: those of a part that ask for other things than its first ones, or for other company,
        are a set of their own."""
        found: dict[str, str] = {}
        first = self._first.setdefault(key, {})
        company: dict[str, Neighbours | None] = {}
        for pod in members:
            part, shape = self._part(pod), demands[pod.metadata.name].shape
            wish = self.neighbours.of(pod)
            usual = first.setdefault(part, shape) == shape and company.setdefault(part, wish) == wish
            other = zlib.crc32(shape + (repr(wish).encode() if wish else b""))
            found[pod.metadata.name] = part if usual else f"{part}-{other:08x}"
        return found

    def reach(self, pod: Pod, beside: Collection[Pod] = ()) -> tuple[list[NodeTerm], tuple[str, ...]]:
        """What the volumes of a pod demand of its node, and why it must wait for them; `beside` are pods that are not
        there yet and will be."""
        return self._demands.reach(pod, beside)

    def forget(self, key: str) -> None:
        """A group is gone."""
        self._first.pop(key, None)

    def _sizes(self, first: Pod) -> dict[str, int]:
        """How many pods each part is to have, where something says so."""
        if POD_GROUP_LABEL in first.metadata.labels:
            size = _number(first, WORKLOAD_SIZE_LABEL)
            return {} if size is None else {ONE_PART: size}
        kind = self._kind(first)
        if kind is None:
            return {}
        owner = self._owner(kind, first)
        if owner is None:
            name = first.metadata.labels[kind.name_label]
            raise ValueError(f"label {kind.name_label}: there is no {kind.kind} {name!r} to say how many")
        return kind.counts(owner) if kind.together(owner) else {}


def _pod_sets(
    by_set: Mapping[str, list[Pod]], demands: Mapping[str, Demand], counts: Mapping[str, int], least: int | None
) -> list[PodSet]:
    found = []
    for name in sorted({*by_set, *counts}):
        pods = by_set.get(name, [])
        demand = demands[pods[0].metadata.name] if pods else None
        odd = sum(len(more) for other, more in by_set.items() if other.rpartition("-")[0] == name)
        count = max(len(pods), counts.get(name, 0) - odd)
        if count:
            found.append(
                PodSet(
                    name=name,
                    count=count,
                    min_count=None if least is None else min(least, count),
                    resources=demand.resources if demand else {},
                    node_selector=demand.node_selector if demand else {},
                    node_affinity=demand.node_affinity if demand else NodeAffinity(),
                )
            )
    return found


def _promised(members: Iterable[Pod], sets: Mapping[str, str]) -> list[ReservedPlace]:
    return [
        ReservedPlace(pod_set=sets[p.metadata.name], pod=p.metadata.name, node=p.status.nominated_node_name)
        for p in members
        if p.status.nominated_node_name and not p.spec.node_name
    ]


def _counts(pod: Pod) -> bool:
    if pod.spec.node_name:
        return pod.status.phase != "Failed" or not _owners(pod)
    return not (pod.spec.scheduling_gates or pod.metadata.deletion_timestamp or pod.finished)


def _walltime(members: Iterable[Pod]) -> int | None:
    """The longest that any of them may run, where all say it: the kubelet ends a pod at its deadline."""
    longest = 0
    for pod in members:
        if pod.spec.active_deadline_seconds is None:
            return None
        longest = max(longest, pod.spec.active_deadline_seconds)
    return longest or None


def _owners(pod: Pod) -> list[OwnerReference]:
    return [owner for owner in pod.metadata.owner_references if owner.controller]


def _label(pods: Iterable[Pod], name: str) -> str:
    return next((value for p in pods if (value := p.metadata.labels.get(name))), "")


def _least(first: Pod, by_set: Mapping[str, list[Pod]]) -> int | None:
    least = _number(first, MIN_AVAILABLE_LABEL)
    if least is not None and len(by_set) > 1:
        raise ValueError(f"label {MIN_AVAILABLE_LABEL}: only for pods that all ask for the same; leave it out")
    return least


def _number(pod: Pod, label: str) -> int | None:
    text = pod.metadata.labels.get(label)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100_000):
        raise ValueError(f"label {label}: {text!r} is not valid; give a whole number from 1 to 100000")
    return int(text)


def _preemptible(pods: Iterable[Pod], queues: Mapping[str, Queue]) -> bool:
    """Only where all say so: nobody's work is evicted unasked."""
    for pod in pods:
        said = pod.metadata.labels.get(PREEMPTIBLE_LABEL)
        if said not in (None, "true", "false"):
            raise ValueError(f"label {PREEMPTIBLE_LABEL}: {said!r} is not valid; write true or false")
        queue = queues.get(pod.metadata.labels.get(QUEUE_LABEL) or DEFAULT_QUEUE)
        if said != "true" and (said == "false" or queue is None or not queue.spec.preemptible_pods):
            return False
    return True
