"""How many volumes each node can still attach, counted as kube-scheduler's plugin NodeVolumeLimits counts them.

A driver says in the CSINode of a node how many of its volumes that node can attach; of other drivers it can attach any
number. What is in use is what the pods there use and what VolumeAttachments name; a volume counts once on a node,
however many pods use it there.

A plan counts amounts that add up, so a volume that one pod uses is an amount that this pod asks for, and nodes have as
many as they can attach. What several pods use, or nobody any more, is held on its node by nobody's pod (`held`), and
pods that share it ask for nothing, but stay away from nodes that could not attach it now (`closed`).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from heddle.api.pod import Pod
from heddle.api.volumes import (
    CSINode,
    InTree,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)
from heddle.control.grouping.requests import claims_of

RESOURCE = "volumes of "
"""Before a driver it is a resource of a node (no resource of Kubernetes can have this name)."""
UNLIMITED = 2**31
"""How many volumes nodes can attach of a driver that limits them on other nodes only."""
_CLOSE = 16
"""Nodes that can attach fewer more than this are looked at where a pod asks for no more."""

Thing = tuple[str, str]
"""A volume: its driver, and what the driver calls it."""

_IN_TREE = {
    "aws_elastic_block_store": ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    "gce_persistent_disk": ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    "azure_disk": ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    "azure_file": ("kubernetes.io/azure-file", "file.csi.azure.com"),
    "cinder": ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    "vsphere_volume": ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
    "portworx_volume": ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
}
"""Volumes that were Kubernetes' own: field of a PersistentVolume, provisioner, and the driver that has them now
(k8s.io/csi-translation-lib)."""
_NOW_OF = dict(_IN_TREE.values())


class _Use:
    """What a pod uses, and where it is."""

    __slots__ = ("claims", "node", "things")

    def __init__(self, node: str, claims: tuple[str, ...], things: frozenset[Thing]) -> None:
        self.node, self.claims, self.things = node, claims, things

    def same(self, other: "_Use") -> bool:
        return (self.node, self.claims, self.things) == (other.node, other.claims, other.things)


class Attachments:
    """What the nodes of a cluster have attached, and what they can attach."""

    def __init__(
        self,
        claims: Mapping[str, PersistentVolumeClaim],
        volumes: Mapping[str, PersistentVolume],
        classes: Mapping[str, StorageClass],
    ) -> None:
        """Know claims by `namespace/name`, volumes and classes by name; the mappings are followed.

        Of changes of anything this must be told, too (`…_changed`); `news` then says whom they concern.
        """
        self._claims, self._volumes, self._classes = claims, volumes, classes
        self._limits: dict[str, dict[str, int]] = {}
        self._limited: dict[str, set[str]] = defaultdict(set)  # driver -> nodes that can attach so many only
        self._pods: dict[str, _Use] = {}
        self._claiming: dict[str, set[str]] = defaultdict(set)
        self._users: dict[Thing, set[str]] = defaultdict(set)
        self._used: dict[str, dict[Thing, set[str]]] = defaultdict(lambda: defaultdict(set))  # by pods, per node
        self._named: dict[str, Counter[Thing]] = defaultdict(Counter)  # by VolumeAttachments, per node
        self._attached: dict[str, tuple[str, Thing]] = {}  # by the VolumeAttachment's name
        self._of_volume: dict[str, dict[str, VolumeAttachment]] = defaultdict(dict)
        self._taken: dict[str, Counter[str]] = {}
        self._held: dict[str, dict[str, int]] = {}
        self._close: dict[str, set[str]] = defaultdict(set)  # driver -> nodes that can attach few more
        self._seekers: set[str] = set()  # pods without a node that share a volume
        self._fresh_claims: set[str] = set()
        self._fresh_nodes: set[str] = set()
        self._all_fresh = False

    def news(self) -> tuple[set[str], set[str], bool]:
        """Claims whose pods are concerned by what has changed since this was last asked, nodes that are, and whether
        all nodes are."""
        found = self._fresh_claims, self._fresh_nodes, self._all_fresh
        self._fresh_claims, self._fresh_nodes, self._all_fresh = set(), set(), False
        return found

    # -- what changes ------------------------------------------------------------------------------

    def node_changed(self, name: str, node: CSINode | None) -> None:
        """What drivers say of a node changed."""
        limits = node.limits if node is not None else {}
        if limits == self._limits.get(name, {}):
            return
        before = set(self.drivers())
        for driver in self._limits.pop(name, {}):
            self._limited[driver].discard(name)
            self._close[driver].discard(name)
        if limits:
            self._limits[name] = limits
        for driver in limits:
            self._limited[driver].add(name)
        if new := before ^ set(self.drivers()):
            self._all_fresh = True
            for pod, use in self._pods.items():
                if any(driver in new for driver, _ in use.things):
                    self._fresh_claims.update(use.claims)
                    self._learn(pod, use)
            for each in list(self._limits):
                self._reckon(each)
        self._fresh_nodes.add(name)
        self._reckon(name, always=True)

    def pod_changed(self, pod: Pod, *, gone: bool = False) -> None:
        """A pod came, changed or went; one that has ended uses nothing."""
        if gone or pod.finished or not pod.spec.volumes:
            if pod.key in self._pods:
                self._set(pod.key, None)
            return
        claims = tuple(dict.fromkeys(claim for _, claim in claims_of(pod)))
        if claims:
            self._set(pod.key, _Use(pod.spec.node_name, claims, self._things(pod)))

    def assume(self, pod: Pod, node: str) -> None:
        """A pod is being bound to a node; the pod itself will say the same."""
        if (use := self._pods.get(pod.key)) is not None:
            self._set(pod.key, _Use(node, use.claims, use.things))

    def claim_changed(self, claim: str) -> None:
        """A claim, or what it is bound to, changed."""
        for pod in list(self._claiming.get(claim, ())):
            use = self._pods[pod]
            self._set(pod, _Use(use.node, use.claims, frozenset(self._of_claims(use.claims))))

    def class_changed(self, name: str) -> None:
        """A class came, changed or went."""
        for claim in [key for key in self._claiming if (c := self._claims.get(key)) and c.storage_class == name]:
            self.claim_changed(claim)

    def volume_changed(self, name: str) -> None:
        """A volume came, changed or went; its claim is told of elsewhere."""
        for attachment in list(self._of_volume.get(name, {}).values()):
            self.attachment_changed(attachment.metadata.name, attachment)

    def attachment_changed(self, name: str, attachment: VolumeAttachment | None) -> None:
        """A VolumeAttachment came, changed or went."""
        before = self._attached.pop(name, None)
        after = None
        if attachment is not None:
            spec = attachment.spec
            volume = self._volumes.get(spec.source.persistent_volume_name)
            self._of_volume[spec.source.persistent_volume_name][name] = attachment
            if spec.attacher and volume is not None and volume.spec.csi is not None:
                after = self._attached[name] = (spec.node_name, (spec.attacher, volume.spec.csi.volume_handle))
        else:
            for volume_name, known in list(self._of_volume.items()):
                if known.pop(name, None) is not None and not known:
                    del self._of_volume[volume_name]
        if before == after:
            return
        for change, sign in ((before, -1), (after, 1)):
            if change is not None:
                node, thing = change
                self._named[node][thing] += sign
                if not self._named[node][thing]:
                    del self._named[node][thing]
                self._reckon(node)

    def _set(self, pod: str, new: _Use | None) -> None:
        old = self._pods.get(pod)
        if old is not None and new is not None and old.same(new):
            return
        if old is not None:
            del self._pods[pod]
            for claim in old.claims:
                self._claiming[claim].discard(pod)
                if not self._claiming[claim]:
                    del self._claiming[claim]
            for thing in old.things:
                self._users[thing].discard(pod)
                users = self._used[old.node][thing] if old.node else set()
                users.discard(pod)
                if old.node and not users:
                    del self._used[old.node][thing]
        self._seekers.discard(pod)
        if new is not None:
            self._pods[pod] = new
            for claim in new.claims:
                self._claiming[claim].add(pod)
            for thing in new.things:
                self._users[thing].add(pod)
                if new.node:
                    self._used[new.node][thing].add(pod)
        before, after = (use.things if use is not None else frozenset() for use in (old, new))
        for thing in before ^ after:  # it is shared now, or no longer
            if len(self._users[thing]) <= 2:
                for user in self._users[thing]:
                    self._learn(user, self._pods[user])
            if not self._users[thing]:
                del self._users[thing]
        if new is not None:
            self._learn(pod, new)
        for node in {use.node for use in (old, new) if use is not None and use.node}:
            self._reckon(node)

    def _learn(self, pod: str, use: _Use) -> None:
        """What a pod asks for may be other than before."""
        mine = [thing for thing in use.things if self._limited.get(thing[0])]
        shares = not use.node and any(len(self._users[thing]) > 1 for thing in mine)
        (self._seekers.add if shares else self._seekers.discard)(pod)
        if mine:
            self._fresh_claims.update(use.claims)
            if use.node:
                self._reckon(use.node)

    def _reckon(self, node: str, *, always: bool = False) -> None:
        """Count what a node has attached."""
        limits = self._limits.get(node)
        if not limits:
            self._taken.pop(node, None)
            if self._held.pop(node, None):
                self._fresh_nodes.add(node)
            return
        used, taken, held = self._used.get(node, {}), Counter[str](), Counter[str]()
        for thing in {**used, **self._named.get(node, {})}:
            if thing[0] in limits:
                taken[thing[0]] += 1
                held[thing[0]] += thing not in used or len(self._users[thing]) > 1
        if always or taken != self._taken.get(node):
            self._taken[node] = taken
            for driver, limit in limits.items():
                (self._close[driver].add if limit - taken[driver] < _CLOSE else self._close[driver].discard)(node)
            for pod in self._seekers:
                self._fresh_claims.update(self._pods[pod].claims)
        if dict(+held) != self._held.get(node, {}):
            self._held[node] = dict(+held)
            self._fresh_nodes.add(node)

    # -- what pods use -----------------------------------------------------------------------------

    def _things(self, pod: Pod) -> frozenset[Thing]:
        return frozenset(self._of_claims(claim for _, claim in claims_of(pod)))

    def _of_claims(self, claims: Iterable[str]) -> Iterator[Thing]:
        for key in claims:
            claim = self._claims.get(key)
            thing = self._thing(claim) if claim is not None else None
            if thing is not None:
                yield thing

    def _thing(self, claim: PersistentVolumeClaim) -> Thing | None:
        """The volume of a claim, or that which its class will make; None = no driver attaches it."""
        volume = self._volumes.get(claim.spec.volume_name) if claim.spec.volume_name else None
        if volume is not None:
            if volume.spec.csi is not None:
                return volume.spec.csi.driver, volume.spec.csi.volume_handle
            own = (driver for field, (_, driver) in _IN_TREE.items() if _has(volume, field))
            driver = next(own, "")
            return (driver, f"volume {volume.metadata.name}") if driver else None
        found = self._classes.get(claim.storage_class)
        if found is None:
            return None
        return _NOW_OF.get(found.provisioner, found.provisioner), f"claim {claim.key}"

    def _needed(self, pod: Pod) -> list[Thing]:
        """Volumes of a pod of which some node can attach only so many."""
        if not self._limits or not pod.spec.volumes:
            return []
        return sorted(thing for thing in self._things(pod) if self._limited.get(thing[0]))

    # -- what is planned with ----------------------------------------------------------------------

    def drivers(self) -> list[str]:
        """Drivers that can attach only so many volumes to some node."""
        return sorted(driver for driver, nodes in self._limited.items() if nodes)

    def asked(self, pod: Pod, beside: Collection[Pod] = ()) -> dict[str, int]:
        """What a pod asks of its node, as resources: the volumes that no other pod uses.

        Args:
            pod: it.
            beside: pods that are not there yet and will be.
        """
        mine = self._needed(pod)
        alone = self._alone(pod, mine, beside) if mine else ()
        return {RESOURCE + driver: count for driver, count in Counter(driver for driver, _ in alone).items()}

    def _alone(self, pod: Pod, mine: Iterable[Thing], beside: Collection[Pod]) -> list[Thing]:
        theirs = {thing for other in beside if other is not pod for thing in self._things(other)}
        return [thing for thing in mine if thing not in theirs and self._users.get(thing, set()) <= {pod.key}]

    def limits(self, node: str) -> dict[str, int]:
        """How many volumes a node can attach, as resources."""
        own = self._limits.get(node, {})
        return {RESOURCE + driver: own.get(driver, UNLIMITED) for driver in self.drivers()}

    def left(self, node: str, resource: str) -> int:
        """How many more of such volumes a node can attach now."""
        driver = resource.removeprefix(RESOURCE)
        limit = self._limits.get(node, {}).get(driver)
        return UNLIMITED if limit is None else limit - self._taken[node][driver]

    def held(self, node: str) -> dict[str, int]:
        """What of that no pod asks for and is taken all the same."""
        return {RESOURCE + driver: count for driver, count in self._held.get(node, {}).items()}

    def closed(self, pod: Pod, beside: Collection[Pod] = ()) -> list[str]:
        """Nodes that cannot attach now what a pod shares with others."""
        mine = self._needed(pod)
        shared = set(mine) - set(self._alone(pod, mine, beside)) if mine else set()
        if not shared:
            return []
        return sorted({node for node, _, fresh in self._short(mine) if not shared.isdisjoint(fresh)})

    def full(self, pod: Pod, admits: Callable[[str], bool]) -> Iterator[str]:
        """For people: the nodes that `admits` and that cannot attach what a pod uses."""
        for node, driver, fresh in sorted(self._short(self._needed(pod))):
            if admits(node):
                limit = self._limits[node][driver]
                left = limit - self._taken[node][driver]
                if left > 0:
                    yield (
                        f"node {node} can attach {left} more {'volumes' if left > 1 else 'volume'} of driver {driver} "
                        f"(limit {limit}), and it asks for {len(fresh)}"
                    )
                else:
                    yield f"node {node} can attach no more volumes of driver {driver} (limit {limit})"

    def _short(self, mine: Collection[Thing]) -> Iterator[tuple[str, str, list[Thing]]]:
        """Nodes that cannot attach some volumes, each with the driver, and those that are not in use there."""
        by_driver: dict[str, list[Thing]] = defaultdict(list)
        for thing in mine:
            by_driver[thing[0]].append(thing)
        for driver, each in by_driver.items():
            for node in self._close[driver] if len(each) <= _CLOSE else self._limited[driver]:
                used = self._used.get(node, {})
                fresh = [thing for thing in each if thing not in used]
                if fresh and self._taken[node][driver] + len(fresh) > self._limits[node][driver]:
                    yield node, driver, fresh

    def fresh(self, pod: Pod, node: str) -> set[Thing]:
        """The volumes that a node would have to attach for a pod."""
        used = self._used.get(node, {})
        return {thing for thing in self._needed(pod) if thing not in used}

    def fits(self, node: str, more: Iterable[Thing]) -> bool:
        """Whether a node can attach some more volumes."""
        limits, taken = self._limits.get(node, {}), self._taken.get(node, Counter())
        count = Counter(driver for driver, _ in more)
        return all(taken[driver] + wanted <= limits[driver] for driver, wanted in count.items() if driver in limits)


def _has(volume: PersistentVolume, field: str) -> bool:
    found: InTree | None = getattr(volume.spec, field)
    return found is not None
