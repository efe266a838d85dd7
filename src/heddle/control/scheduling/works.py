"""What there is to place: Workload objects with their pods, and the workloads that other pods make up."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from heddle.api.core import SCHEDULER_NAME
from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.workload import POD_GROUP_LABEL, POD_SET_LABEL, NodeTerm, Workload
from heddle.control.grouping.demands import unsupported
from heddle.control.grouping.groups import ALONE, Group, Groups
from heddle.control.grouping.neighbours import Neighbourhood
from heddle.control.grouping.requests import claims_of
from heddle.engine import Neighbours


class Works:
    """Workloads by `namespace/name`, whoever speaks for them."""

    def __init__(
        self,
        objects: Mapping[str, Workload],
        queues: Mapping[str, Queue],
        groups: Groups | None = None,
        neighbours: Neighbourhood | None = None,
    ) -> None:
        """Workloads are `objects`; with `groups` also what pods without one make up. `neighbours`: whom pods must run
        beside, where groups do not know it."""
        self._objects, self._queues, self._groups = objects, queues, groups
        self._neighbours = groups.neighbours if groups else neighbours or Neighbourhood(SCHEDULER_NAME)
        self._pods: dict[str, dict[str, Pod]] = defaultdict(dict)
        self._key_of: dict[tuple[str, str], str] = {}
        self._owned: dict[tuple[str, str, str], set[tuple[str, str]]] = defaultdict(set)
        self._claiming: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._derived: dict[str, Group] = {}

    # pods come and go

    def set_pod(self, pod: Pod) -> set[str]:
        """A pod is there or has changed; returns the workloads that this is news of."""
        meta = pod.metadata
        identity = (meta.namespace, meta.name)
        key = f"{meta.namespace}/{self._name(pod)}"
        touched = {key}
        if (before := self._key_of.get(identity)) not in (None, key):
            self._pods[str(before)].pop(meta.name, None)
            touched.add(str(before))
        self._key_of[identity] = key
        self._pods[key][meta.name] = pod
        if self._groups and (owner := self._groups.owner_key(pod)):
            self._owned[owner].add(identity)
        self.learn(pod, self._objects.get(key))
        for _, claim in claims_of(pod):
            self._claiming[claim].add(identity)
        return touched

    def remove_pod(self, pod: Pod) -> set[str]:
        """A pod is gone."""
        meta = pod.metadata
        key = self._key_of.pop((meta.namespace, meta.name), None)
        if key is None:
            return set()
        self._pods[key].pop(meta.name, None)
        self._neighbours.forget(pod)
        if self._groups and (owner := self._groups.owner_key(pod)):
            self._owned[owner].discard((meta.namespace, meta.name))
        for _, claim in claims_of(pod):
            self._claiming[claim].discard((meta.namespace, meta.name))
        return {key}

    def claim_changed(self, claim: str) -> set[str]:
        """A claim (`namespace/name`) to a volume came, changed or went."""
        touched: set[str] = set()
        for identity in self._claiming.get(claim, ()):
            key = self._key_of.get(identity)
            if key is not None and (pod := self._pods[key].get(identity[1])):
                touched.add(key)
                self.learn(pod, self._objects.get(key))
        return touched

    def gathered(self) -> set[str]:
        """Workloads of which pods are of a crowd that nobody asked about before."""
        if not (fresh := self._neighbours.news()):
            return set()
        within = self._neighbours.within
        return {key for key, pods in self._pods.items() if any(within(fresh, pod) for pod in pods.values())}

    def space_changed(self, namespace: str) -> set[str]:
        """The labels of a namespace changed: its pods may be of other crowds."""
        if not self._neighbours.by_labels:
            return set()
        return {key for key in self._pods if key.startswith(f"{namespace}/")}

    def company_of(self, pod: Pod) -> Neighbours | None:
        """Whom a pod must, or must not, run beside."""
        return self._neighbours.of(pod)

    def learn(self, pod: Pod, workload: Workload | None) -> None:
        """What a pod, or the pod set that it belongs to, demands of those around."""
        name = pod.metadata.labels.get(POD_SET_LABEL, "")
        sets = workload.spec.pod_sets if workload is not None and not self._is_derived(workload) else ()
        pod_set = next((one for one in sets if one.name == name), None)
        if pod_set is not None and pod_set.seeks_company:
            self._neighbours.learn(pod, pod_set.pod_affinity.required, pod_set.pod_anti_affinity.required)
        else:
            self._neighbours.learn(pod)

    def forget(self, pod: Pod) -> None:
        """It was only learned of for a while."""
        self._neighbours.forget(pod)

    def owner_changed(self, kind: str, namespace: str, name: str) -> set[str]:
        """An object that says how many pods belong together came, changed or went."""
        touched: set[str] = set()
        for identity in list(self._owned.get((kind, namespace, name), ())):
            key = self._key_of.get(identity)
            if key is not None and (pod := self._pods[key].get(identity[1])):
                touched |= self.set_pod(pod)
        return touched

    def _name(self, pod: Pod) -> str:
        if self._groups:
            return self._groups.name(pod)
        return pod.metadata.labels.get(POD_GROUP_LABEL) or ALONE + pod.metadata.name

    # what they make up

    def refresh(self, key: str) -> None:
        """Work out anew what the pods of this name make up; due for every name that there is news of."""
        pods = self._pods.get(key)
        if not pods:
            self._pods.pop(key, None)
        known = self._objects.get(key)
        if known is not None and any(pod_set.seeks_company for pod_set in known.spec.pod_sets):
            for pod in pods.values() if pods else ():  # it may have come after them
                self.learn(pod, known)
        if self._groups is None:
            return
        group = None
        if pods and (known is None or known.derived):
            before = self._derived.get(key)
            status = before.workload.status if before else known.status if known else None
            group = self._groups.group(key, pods.values(), self._queues, status)
        if group is not None:
            self._derived[key] = group
        elif self._derived.pop(key, None):
            self._groups.forget(key)

    def get(self, key: str) -> Workload | None:
        """A workload."""
        if group := self._derived.get(key):
            return group.workload
        known = self._objects.get(key)
        return known if known is not None and not self._is_derived(known) else None

    def _is_derived(self, workload: Workload) -> bool:
        return self._groups is not None and workload.derived

    def derived(self, key: str) -> Group | None:
        """What pods make up, where no object of somebody's says it."""
        return self._derived.get(key)

    def fault(self, key: str) -> str:
        """Why the pods of this name are not placed; "" = nothing is wrong with them."""
        group = self._derived.get(key)
        if group or self._groups is None:
            return group.fault if group else ""
        waiting = [pod for pod in self._pods.get(key, {}).values() if not pod.spec.node_name]
        faults = [fault for pod in waiting for fault in unsupported(pod)]
        faults += [fault for pod in waiting if pod.spec.volumes for fault in self._groups.reach(pod)[1]]
        return "; ".join(dict.fromkeys(faults))

    def reach_of(self, pod: Pod) -> list[NodeTerm]:
        """What the volumes of a pod of a Workload object demand; where pods make up a workload, its spec says it."""
        if self._groups is None or not pod.spec.volumes or self.key(pod) in self._derived:
            return []
        return self._groups.reach(pod)[0]

    def reach_of_new(self, pods: Collection[Pod]) -> tuple[dict[str, list[NodeTerm]], list[str]]:
        """The same of pods that are not there, by name, and why they would have to wait."""
        if self._groups is None:
            return {}, []
        found = {pod.metadata.name: self._groups.reach(pod, pods) for pod in pods}
        faults = [fault for pod in pods for fault in unsupported(pod)]
        faults += [fault for _, why in found.values() for fault in why]
        return {name: terms for name, (terms, _) in found.items()}, list(dict.fromkeys(faults))

    def sets(self, key: str) -> Mapping[str, str] | None:
        """Pods to pod sets, where their labels do not say it."""
        group = self._derived.get(key)
        return group.sets if group else None

    def pods(self, key: str) -> list[Pod]:
        """The pods of a workload that count."""
        group = self._derived.get(key)
        pods = self._pods.get(key, {})
        return [pods[name] for name in group.members if name in pods] if group else list(pods.values())

    def key(self, pod: Pod) -> str:
        """The name under which a pod is known; "" = it is not."""
        return self.key_of(pod.metadata.namespace, pod.metadata.name)

    def key_of(self, namespace: str, name: str) -> str:
        """The same by a pod's namespace and name."""
        return self._key_of.get((namespace, name), "")

    def of_owner(self, namespace: str, name: str) -> str:
        """The workload of the pods of a Job (JobSet ...) of this name, of several one that waits; "" = none."""
        found: dict[str, bool] = {}
        for (_, space, owner), pods in self._owned.items():
            if (space, owner) == (namespace, name):
                found |= {key: self._waits(key) for identity in pods if (key := self._key_of.get(identity))}
        return min(found, key=lambda key: (not found[key], key), default="")

    def _waits(self, key: str) -> bool:
        return any(not pod.spec.node_name for pod in self.pods(key))

    def pod(self, key: str, name: str) -> Pod | None:
        """One pod of a workload."""
        return self._pods.get(key, {}).get(name)

    def every_name(self) -> list[str]:
        """Names of workloads, and of pods without one."""
        return list({**dict.fromkeys(self._objects), **dict.fromkeys(self._pods)})

    def names(self) -> list[str]:
        """The workloads that there are."""
        return [key for key, known in self._objects.items() if not self._is_derived(known)] + list(self._derived)

    def values(self) -> Iterator[Workload]:
        """The workloads that there are."""
        for key in self.names():
            if (found := self.get(key)) is not None:
                yield found


_COPIED = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
"""Labels that the API server copies from a node to each pod that is bound to it (PodTopologyLabels, since 1.33)."""


def _without_copied(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name not in _COPIED}


def matters(pod: Pod, *, in_order: bool) -> tuple[object, ...]:
    """All of a pod that placing depends on, its node first, but for whom its labels make it company of.

    That it is Ready matters where others start only `in_order`.
    """
    spec, meta, status = pod.spec, pod.metadata, pod.status
    return (
        spec.node_name,
        meta.uid,
        meta.labels if meta.labels.keys().isdisjoint(_COPIED) else _without_copied(meta.labels),
        meta.annotations,
        bool(meta.deletion_timestamp),
        status.phase if pod.finished else "",
        in_order and pod.ready,
        spec.scheduling_gates,
        spec.tolerations,
        spec.node_selector,
        spec.affinity,
    )
