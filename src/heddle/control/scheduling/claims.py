"""Has the claims of pods bound before the pods are, where their class waits for a pod's node.

A plan says where pods go; of those whose claims have no volume yet the place is promised, not taken. For that node a
volume is chosen for each claim, or the provisioner is asked to make one, and once all claims of all pods that start
together are bound, the promise is kept. What is under way is in the objects, so that whoever leads next goes on.

It also follows what nodes have attached, and takes pods out of a plan whose volumes a node could not attach after all.
"""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from heddle.api.core import NODE_NAME_FIELD, Node
from heddle.api.errors import ApiError, Conflict, NotFound
from heddle.api.pod import Pod
from heddle.api.registry import NODES, PODS, Resource
from heddle.api.volumes import (
    BOUND_BY_CONTROLLER_ANNOTATION,
    SELECTED_NODE_ANNOTATION,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)
from heddle.control.grouping import matching
from heddle.control.grouping.attachments import Thing
from heddle.control.grouping.requests import claims_of
from heddle.control.grouping.volumes import Volumes
from heddle.control.scheduling.afterwards import Write
from heddle.engine import Action, Bind, Placement, Plan, Reserve
from heddle.store.client import Client
from heddle.store.informer import Informers

_log = logging.getLogger(__name__)

_GROUP = "storage.k8s.io"
PERSISTENTVOLUMES = Resource("", "v1", "PersistentVolume", "persistentvolumes", False, PersistentVolume)
PERSISTENTVOLUMECLAIMS = Resource(
    "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, PersistentVolumeClaim
)
STORAGECLASSES = Resource(_GROUP, "v1", "StorageClass", "storageclasses", False, StorageClass)
CSIDRIVERS = Resource(_GROUP, "v1", "CSIDriver", "csidrivers", False, CSIDriver)
CSISTORAGECAPACITIES = Resource(_GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities", True, CSIStorageCapacity)
CSINODES = Resource(_GROUP, "v1", "CSINode", "csinodes", False, CSINode)
VOLUMEATTACHMENTS = Resource(_GROUP, "v1", "VolumeAttachment", "volumeattachments", False, VolumeAttachment)

_PATIENCE = 600.0
"""Seconds that room is held for a claim to be bound, as by kube-scheduler."""
_PAUSE = 60.0
"""Seconds in which a node is not tried again for a claim that could have no volume there."""
_CROWDED = 5.0
"""The same for a claim whose volume the node could not attach beside those of others after all."""
_TOLD = 3
"""Nodes that are named, of those that can attach no more volumes."""
_LOOKED_AT = 256
"""Nodes that are looked at, at most, to tell what they can attach in all."""


@dataclass(slots=True)
class _Choice:
    """What is to become of the claims of pods that start together."""

    given: list[tuple[PersistentVolumeClaim, PersistentVolume]] = field(default_factory=list)
    made: list[tuple[PersistentVolumeClaim, str]] = field(default_factory=list)
    """Claims with the node for which their volume is to be made."""
    refused: list[tuple[PersistentVolumeClaim, list[str]]] = field(default_factory=list)
    """Claims with the nodes on which there is no volume for them, after all."""


class ClaimBinder:
    """Follows claims, volumes and classes, and brings claims and volumes together."""

    def __init__(self, informers: Informers) -> None:
        """Follow those of a cluster."""
        self._client = Client(informers.store)
        self._claims, self._volumes = informers.of(PERSISTENTVOLUMECLAIMS), informers.of(PERSISTENTVOLUMES)
        self._classes, self._drivers = informers.of(STORAGECLASSES), informers.of(CSIDRIVERS)
        self._capacities = informers.of(CSISTORAGECAPACITIES)
        self._limits, self._attached = informers.of(CSINODES), informers.of(VOLUMEATTACHMENTS)
        self._nodes: Mapping[str, Node] = informers.of(NODES).objects
        self.volumes = Volumes(
            self._claims.objects, self._volumes.objects, self._classes.objects, self._drivers.objects,
            self._capacities.objects, self._nodes,
        )  # fmt: skip
        self.attachments = self.volumes.attachments
        self._since: dict[str, float] = {}
        self._written: set[str] = set()  # claims of which the write of ours has not come back yet
        self._due: list[_Choice] = []
        self._news: Callable[[str], None] = lambda claim: None
        self._node_news: Callable[[str], None] = lambda node: None
        self.waiting: dict[str, str] = {}
        """Workloads whose places wait for claims, to what they wait for; of the last plan."""
        self._claims.on_change(self._claim_changed)
        self._volumes.on_change(self._volume_changed)
        self._classes.on_change(lambda type_, old, new: self._class_changed((new or old).metadata.name))
        self._capacities.on_change(lambda type_, old, new: self._room_changed((new or old).storage_class_name))
        # pods are heard of before the scheduler hears of them, who then asks what they use
        informers.of(PODS).on_change(self._pod_changed)
        informers.of(NODES).on_change(lambda type_, old, new: self.volumes.disks.node_changed(old, new))
        self._limits.on_change(self._limits_changed)
        self._attached.on_change(self._attachment_changed)

    def on_news(self, told: Callable[[str], None], node: Callable[[str], None] = lambda node: None) -> None:
        """Call `told` with a claim (`namespace/name`) of which something has changed for its pods, and `node` with a
        node that can attach more volumes than before, or fewer."""
        self._news, self._node_news = told, node

    async def synced(self) -> None:
        """Wait until all is known."""
        storage = (self._claims, self._volumes, self._classes, self._drivers, self._capacities)
        for informer in (*storage, self._limits, self._attached):
            await informer.synced()

    def _claim_changed(self, type_: str, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        claim = new or old
        assert claim is not None
        self._written.discard(claim.key)
        if self.volumes.claim_changed(old, new):
            self._pause(claim.key)
        if new is None or not self.volumes.under_way(new):
            self._since.pop(claim.key, None)
        self.attachments.claim_changed(claim.key)
        if new is not None and new.status.phase != "Bound" and not self.volumes.provisioner(new):
            for node in self.volumes.disks.learn(new):
                self._node_news(node)
        self._tell()
        self._news(claim.key)

    def _volume_changed(self, type_: str, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        known = new or old
        assert known is not None
        self.attachments.volume_changed(known.metadata.name)
        for node in self.volumes.disks.volume_changed(old, new):
            self._node_news(node)
        for claim in self.volumes.volume_changed(old, new):
            self._written.discard(claim)
            self.attachments.claim_changed(claim)
            self._news(claim)
        self._tell()

    def _class_changed(self, name: str) -> None:
        self.attachments.class_changed(name)
        self._tell()
        self._room_changed(name)

    def _room_changed(self, name: str) -> None:
        for claim in self.volumes.class_changed(name):
            self._news(claim)

    def _pod_changed(self, type_: str, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        if pod.spec.volumes:
            self.attachments.pod_changed(pod, gone=new is None)
            self._tell()

    def _limits_changed(self, type_: str, old: CSINode | None, new: CSINode | None) -> None:
        node = new or old
        assert node is not None
        self.attachments.node_changed(node.metadata.name, new)
        self._tell()

    def _attachment_changed(self, type_: str, old: VolumeAttachment | None, new: VolumeAttachment | None) -> None:
        attachment = new or old
        assert attachment is not None
        self.attachments.attachment_changed(attachment.metadata.name, new)
        self._tell()

    def _tell(self) -> None:
        claims, nodes, every = self.attachments.news()
        for claim in claims:
            self._news(claim)
        for node in [*self._nodes] if every else nodes:
            self._node_news(node)

    def _pause(self, claim: str, seconds: float = _PAUSE) -> None:
        def again() -> None:
            self._written.discard(claim)
            self.volumes.forgive(claim)
            self._news(claim)

        asyncio.get_running_loop().call_later(seconds, again)

    # -- a plan ------------------------------------------------------------------------------------

    def hold(
        self, plan: Plan, pod_of: Callable[[str, str], Pod | None], promised: Callable[[str], Mapping[str, Placement]]
    ) -> Plan:
        """A plan with promises in the place of binds that have to wait for claims.

        Args:
            plan: it.
            pod_of: the pod of a workload by name.
            promised: what is promised to a workload already, by pod.
        """
        self.waiting, self._due = {}, []
        starts: dict[str, list[tuple[Pod, Bind]]] = defaultdict(list)
        for action in plan.actions:
            if isinstance(action, Bind):
                pod = pod_of(action.placement.workload, action.placement.task)
                if pod is not None:
                    starts[action.placement.workload].append((pod, action))
        plan = self._attachable(plan, starts)
        held = {
            key: pods
            for key, pods in starts.items()
            if any(pod.spec.volumes and self.volumes.unbound(pod) for pod, _ in pods)
        }
        for key in starts.keys() - held.keys():
            for pod, bind in starts[key]:
                self.attachments.assume(pod, bind.placement.node)
        if not held:
            return plan
        actions: list[Action] = []
        promises = {action.workload: action for action in plan.actions if isinstance(action, Reserve)}
        for action in plan.actions:
            name = action.placement.workload if isinstance(action, Bind) else action.workload
            if name not in held or not isinstance(action, Bind | Reserve):
                actions.append(action)
        for key, pods in held.items():
            before = promised(key)
            others = promises[key].placements if key in promises else tuple(before.values())
            places = {place.task: place for place in others} | {b.placement.task: b.placement for _, b in pods}
            if not self._prepare(key, [(pod, bind.placement.node) for pod, bind in pods]):
                places = {}
            if {task: place.node for task, place in places.items()} != {t: p.node for t, p in before.items()}:
                actions.append(Reserve(key, tuple(places.values())))
        return replace(plan, actions=tuple(actions))

    def _attachable(self, plan: Plan, starts: dict[str, list[tuple[Pod, Bind]]]) -> Plan:
        """A plan without those who would together have a node attach more volumes than it can: a plan counts volumes
        that one pod uses, but not those that several share."""
        if not self.attachments.drivers():
            return plan
        more: dict[str, set[Thing]] = defaultdict(set)
        for key, pods in list(starts.items()):
            mine: dict[str, set[Thing]] = defaultdict(set)
            for pod, bind in pods:
                mine[bind.placement.node] |= self.attachments.fresh(pod, bind.placement.node)
            over = [node for node, things in mine.items() if not self.attachments.fits(node, more[node] | things)]
            if not over:
                for node, things in mine.items():
                    more[node] |= things
                continue
            del starts[key]
            self.waiting[key] = f"its volumes do not all find room on node {over[0]} at once"
            for claim in {claim for pod, bind in pods if bind.placement.node in over for _, claim in claims_of(pod)}:
                self.volumes.shun(claim, over)
                self._pause(claim, _CROWDED)
                self._news(claim)
        if not self.waiting:
            return plan
        kept = (a for a in plan.actions if not (isinstance(a, Bind) and a.placement.workload in self.waiting))
        return replace(plan, actions=tuple(kept))

    def failed(self, pod: Pod) -> None:
        """A pod was not bound after all."""
        self.attachments.pod_changed(pod)
        self._tell()

    def expect(self, pods: Collection[Pod]) -> None:
        """It will be asked about pods that are not there."""
        self.attachments.expect(pods)
        self._tell()

    def to_come(self, pods: Iterable[Pod]) -> list[str]:
        """For people: the claims of these pods that get a volume once there is a node for them."""
        found = {claim.key: claim for pod in pods for claim in self.volumes.unbound(pod)}
        return [
            f"claim {claim.metadata.name} gets a volume there first" + (f", from provisioner {who}" if who else "")
            for claim in found.values()
            for who in [self.volumes.provisioner(claim)]
        ]

    def full(self, pods: Collection[Pod], beside: Collection[Pod] = ()) -> list[str]:
        """For people: why nodes cannot attach the volumes of these pods, of those where they may go otherwise; `beside`
        are pods that are not there yet and will be."""
        found: dict[str, None] = {}
        using = [pod for pod in pods if pod.spec.volumes] if self.attachments.drivers() else []
        for pod in using:
            found |= dict.fromkeys(islice(self.attachments.full(pod, partial(self._admits, pod)), _TOLD + 1))
            if len(found) > _TOLD:
                break
        told = [*islice(found, _TOLD), *(["nor can others"] if len(found) > _TOLD else [])]
        total: Counter[str] = Counter()
        for pod in using:
            total.update(self.attachments.asked(pod, beside))
        for resource, wanted in total.items():
            left = self._left(using[0], resource, wanted)
            if left < wanted and len(using) > 1:
                told.append(f"the nodes where they may go can attach {left} more {resource}, and they ask for {wanted}")
        return told

    def _left(self, pod: Pod, resource: str, wanted: int) -> int:
        """How many volumes the nodes where a pod may go can attach in all, as far as it takes to know that these are as
        many as are wanted; as many, too, where it takes too long to know."""
        left = 0
        for at, node in enumerate(self._nodes):
            if left >= wanted or at >= _LOOKED_AT:
                return wanted
            if self._admits(pod, node):
                left += max(0, self.attachments.left(node, resource))
        return left

    def _admits(self, pod: Pod, node: str) -> bool:
        """Whether labels of a node are as a pod and its volumes want them."""
        found, spec = self._nodes.get(node), pod.spec
        if found is None or not spec.node_selector.items() <= found.metadata.labels.items():
            return False
        affinity = spec.affinity.node_affinity if spec.affinity else None
        required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
        terms = [tuple(required.node_selector_terms) if required else None, *self.volumes.reached_by(pod)]
        return all(self._meets(node, each) for each in terms)

    def _prepare(self, key: str, places: list[tuple[Pod, str]]) -> bool:
        """Choose for all claims of a workload; False = some can have no volume where its pods were to go."""
        users: dict[str, list[str]] = defaultdict(list)
        claims: dict[str, PersistentVolumeClaim] = {}
        for pod, node in places:
            for claim in self.volumes.unbound(pod):
                claims[claim.key] = claim
                users[claim.key].append(node)
        fresh = [c for c in claims.values() if c.key not in self._written and not self.volumes.under_way(c)]
        choice = self._choose(fresh, users)
        if choice.refused:
            for _, volume in choice.given:
                self.volumes.taken.pop(volume.metadata.name, None)
            for claim, nodes in choice.refused:
                self.volumes.shun(claim.key, nodes)
                self._pause(claim.key)
                self._news(claim.key)
            return False
        late = [name for name in claims if self._is_late(name)]
        for name in late:
            self.volumes.give_up(name)
            self._news(name)
        if late:
            return False
        self._due.append(choice)
        self._written.update(claim.key for claim, _ in (*choice.given, *choice.made))
        self.waiting[key] = self._told(claims.values(), users)
        return True

    def _choose(self, claims: Iterable[PersistentVolumeClaim], users: Mapping[str, list[str]]) -> _Choice:
        choice = _Choice()
        for claim in sorted(claims, key=lambda claim: (matching.size_of(claim), claim.key)):
            nodes = list(dict.fromkeys(users[claim.key]))
            reached = [
                (volume, {node for node in nodes if self._meets(node, matching.reached_from(volume))})
                for volume in self.volumes.candidates(claim)
            ]
            volume = next((volume for volume, there in reached if there == set(nodes)), None)
            made = self.volumes.made_on(claim)
            able = [n for n in nodes if self._meets(n, made) and n not in self.volumes.shunned(claim.key)]
            if volume is not None:
                self.volumes.taken[volume.metadata.name] = claim.key
                choice.given.append((claim, volume))
            elif able:
                choice.made.append((claim, able[0]))
            else:  # pods that share it go where one volume reaches
                best = next((there for _, there in reached if nodes[0] in there), set())
                choice.refused.append((claim, [node for node in nodes if node not in best]))
        return choice

    def _meets(self, node: str, terms: matching.Terms | None) -> bool:
        found = self._nodes.get(node)
        return found is not None and matching.meets({**found.metadata.labels, NODE_NAME_FIELD: node}, terms)

    def _is_late(self, claim: str) -> bool:
        now = time.monotonic()
        if claim not in self._since:
            self._since[claim] = now
            asyncio.get_running_loop().call_later(_PATIENCE + 1, self._news, claim)
        return now - self._since[claim] >= _PATIENCE

    def _told(self, claims: Iterable[PersistentVolumeClaim], users: Mapping[str, list[str]]) -> str:
        """What is waited for, for people."""
        parts = []
        for claim in claims:
            who = self.volumes.provisioner(claim)
            by = f" (provisioner {who})" if who and not claim.spec.volume_name else ""
            parts.append(f"claim {claim.metadata.name} on node {claim.selected_node or users[claim.key][0]}{by}")
        return f"its room is reserved until its volumes are there: {', '.join(sorted(parts))}"

    # -- writing -----------------------------------------------------------------------------------

    def due(self) -> list[Write]:
        """Writes of what was chosen for the last plan, to be made once its promises are out; what fails is planned
        anew."""
        due, self._due = self._due, []
        return [
            *(partial(self._give, claim, volume) for choice in due for claim, volume in choice.given),
            *(partial(self._ask, claim, node) for choice in due for claim, node in choice.made),
        ]

    async def _give(self, claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
        """Name a claim in a volume; Kubernetes' volume controller then binds the claim to it."""
        meta = claim.metadata
        reference = {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace, "name": meta.name,
            "uid": meta.uid, "resourceVersion": meta.resource_version,
        }  # fmt: skip
        patch = {
            "metadata": {
                "resourceVersion": volume.metadata.resource_version,
                "annotations": {BOUND_BY_CONTROLLER_ANNOTATION: "yes"},
            },
            "spec": {"claimRef": reference},
        }
        try:
            await self._client.patch(PERSISTENTVOLUMES, volume.metadata.name, patch)
        except ApiError as error:
            self.volumes.taken.pop(volume.metadata.name, None)
            self._failed(claim, error)

    async def _ask(self, claim: PersistentVolumeClaim, node: str) -> None:
        """Ask the provisioner for a volume that a node reaches."""
        meta = claim.metadata
        patch = {
            "metadata": {"resourceVersion": meta.resource_version, "annotations": {SELECTED_NODE_ANNOTATION: node}}
        }
        try:
            await self._client.patch(PERSISTENTVOLUMECLAIMS, meta.name, patch, meta.namespace)
        except ApiError as error:
            self._failed(claim, error)

    def _failed(self, claim: PersistentVolumeClaim, error: ApiError) -> None:
        if isinstance(error, Conflict | NotFound):  # it has changed meanwhile: the change is on its way to us
            self._written.discard(claim.key)
            self._news(claim.key)
        else:
            _log.warning("claim %s: %s", claim.key, error)
            self._pause(claim.key)
