"""How many volumes each node can still attach, counted as kube-scheduler's plugin NodeVolumeLimits counts them.

A driver says in the CSINode of a node how many of its volumes that node can attach; of other drivers it can attach any
number. What is in use is what the pods there use and what VolumeAttachments name; a volume counts once on a node,
however many pods use it there.

A plan counts amounts that add up, so a volume that one pod uses is an amount that this pod asks for, and nodes have as
many as they can attach. What several pods use, or nobody any more, is held on its node by nobody's pod (`held`), and
pods that share it ask for nothing, but for a node that has it attached, or is labelled as one that still can (`reach`).
"""

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from heddle.api.pod import NodeSelectorRequirement, NodeSelectorTerm, Pod
from heddle.api.volumes import (
    CSINode,
    InTree,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)
from heddle.control.grouping.matching import Terms
from heddle.control.grouping.requests import claims_of

RESOURCE = "volumes of "
"""Before a driver it is a resource of a node (no resource of Kubernetes can have this name)."""
UNLIMITED = 2**31
"""How many volumes nodes can attach of a driver that limits them on other nodes only."""
LEFT = "volumes-left:"
"""Before a driver it is a label of nodes that can attach few more of its volumes, with their number (no label of
Kubernetes can have this name)."""
_FEW = 16
"""Nodes that can attach fewer more than this are labelled."""
_LOOKED_AT = 256
"""Nodes that are looked at, at most, to tell people."""

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
        self._where: dict[Thing, set[str]] = defaultdict(set)  # nodes on which pods use it
        self._named: dict[str, Counter[Thing]] = defaultdict(Counter)  # by VolumeAttachments, per node
        self._attachments: dict[str, VolumeAttachment] = {}
        self._attached: dict[str, tuple[str, Thing]] = {}  # by the VolumeAttachment's name
        self._of_volume: dict[str, set[str]] = defaultdict(set)  # their names, by the volume's
        self._taken: dict[str, Counter[str]] = {}
        self._held: dict[str, dict[str, int]] = {}
        self._short: dict[str, list[str]] = defaultdict(list)  # driver -> nodes that can attach few more, in order
        self._shared: set[str] = set()  # drivers of which pods have shared volumes: nodes are labelled
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
            self._order(driver, name, short=False)
        if limits:
            self._limits[name] = limits
        for driver in limits:
            self._limited[driver].add(name)
        if new := before ^ set(self.drivers()):
            self._all_fresh = True
            for use in self._pods.values():
                if any(driver in new for driver, _ in use.things):
                    self._fresh_claims.update(use.claims)
            self._share(thing[0] for thing, users in self._users.items() if thing[0] in new and len(users) > 1)
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
        for attachment in list(self._of_volume.get(name, ())):
            self.attachment_changed(attachment, self._attachments[attachment])

    def attachment_changed(self, name: str, attachment: VolumeAttachment | None) -> None:
        """A VolumeAttachment came, changed or went."""
        before = self._attached.pop(name, None)
        after = None
        if (known := self._attachments.pop(name, None)) is not None:
            _remove(self._of_volume, [known.spec.source.persistent_volume_name], name)
        if attachment is not None:
            self._attachments[name], spec = attachment, attachment.spec
            volume = self._volumes.get(spec.source.persistent_volume_name)
            self._of_volume[spec.source.persistent_volume_name].add(name)
            if spec.attacher and volume is not None and volume.spec.csi is not None:
                after = self._attached[name] = (spec.node_name, (spec.attacher, volume.spec.csi.volume_handle))
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
        places = {use.node for use in (old, new) if use is not None and use.node}
        things = (old.things if old is not None else frozenset()) | (new.things if new is not None else frozenset())
        mine = [thing for thing in things if self._limited.get(thing[0])]
        before = {(node, thing) for node in places for thing in mine if thing in self._used[node]}
        alone = {thing for thing in mine if len(self._users.get(thing, ())) < 2}
        if old is not None:
            self._drop(pod, old)
        if new is not None:
            self._add(pod, new)
        for thing in mine:
            users = self._users.get(thing, set())
            if (thing in alone) != (len(users) < 2):  # others share it now, or no longer
                self._share([thing[0]] if len(users) > 1 else ())
                for user in users - {pod}:
                    self._fresh_claims.update(self._pods[user].claims)
                    places.add(self._pods[user].node)
            elif any(((node, thing) in before) != (thing in self._used[node]) for node in places):
                for user in users:  # who waits may go where it is by now
                    if not self._pods[user].node:
                        self._fresh_claims.update(self._pods[user].claims)
        for node in places - {""}:
            self._reckon(node)

    def _drop(self, pod: str, use: _Use) -> None:
        del self._pods[pod]
        for index, keys in ((self._claiming, use.claims), (self._users, use.things)):
            _remove(index, keys, pod)
        if use.node:
            _remove(self._used[use.node], use.things, pod)
            _remove(self._where, (thing for thing in use.things if thing not in self._used[use.node]), use.node)

    def _add(self, pod: str, use: _Use) -> None:
        self._pods[pod] = use
        for claim in use.claims:
            self._claiming[claim].add(pod)
        for thing in use.things:
            self._users[thing].add(pod)
            if use.node:
                self._used[use.node][thing].add(pod)
                self._where[thing].add(use.node)

    def expect(self, pods: Collection[Pod]) -> None:
        """It will be asked about pods that are not there."""
        for pod in pods:
            mine = self._needed(pod)
            self._share(driver for driver, _ in set(mine) - set(self._alone(pod, mine, pods)))

    def _share(self, drivers: Iterable[str]) -> None:
        """Nodes are to be labelled with what they can attach of these drivers."""
        for driver in set(drivers) - self._shared:
            self._shared.add(driver)
            self._fresh_nodes.update(self._short[driver])

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
            before = self.labels(node) if node in self._taken else {}
            self._taken[node] = taken
            for driver, limit in limits.items():
                self._order(driver, node, short=limit - taken[driver] < _FEW)
            if self.labels(node) != before:
                self._fresh_nodes.add(node)
        if dict(+held) != self._held.get(node, {}):
            self._held[node] = dict(+held)
            self._fresh_nodes.add(node)

    def _order(self, driver: str, node: str, *, short: bool) -> None:
        nodes = self._short[driver]
        at = bisect_left(nodes, node)
        there = at < len(nodes) and nodes[at] == node
        if short and not there:
            insort(nodes, node)
        elif there and not short:
            del nodes[at]

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

    def users(self, claim: str) -> set[str]:
        """The pods that use a claim."""
        return self._claiming.get(claim, set())

    def left(self, node: str, resource: str) -> int:
        """How many more of such volumes a node can attach now."""
        driver = resource.removeprefix(RESOURCE)
        limit = self._limits.get(node, {}).get(driver)
        return UNLIMITED if limit is None else limit - self._taken[node][driver]

    def held(self, node: str) -> dict[str, int]:
        """What of that no pod asks for and is taken all the same."""
        return {RESOURCE + driver: count for driver, count in self._held.get(node, {}).items()}

    def labels(self, node: str) -> dict[str, str]:
        """How many more volumes a node can attach, as labels, of drivers of which pods share volumes."""
        limits = self._limits.get(node)
        if not limits or not self._shared:
            return {}
        left = {driver: limit - self._taken[node][driver] for driver, limit in limits.items() if driver in self._shared}
        return {LEFT + driver: str(number) for driver, number in left.items() if number < _FEW}

    def reach(self, pod: Pod, beside: Collection[Pod] = ()) -> list[Terms]:
        """The nodes that have attached, or can attach now, what a pod shares with others, by driver."""
        mine = self._needed(pod)
        shared = set(mine) - set(self._alone(pod, mine, beside)) if mine else set()
        found = []
        for driver in sorted({driver for driver, _ in shared}):
            here = [thing for thing in mine if thing[0] == driver]
            there = Counter(node for thing in here for node in self._where.get(thing, ()))
            some = NodeSelectorRequirement(key=LEFT + driver, operator="DoesNotExist")
            terms = [NodeSelectorTerm(match_expressions=[some]), _with_left(driver, len(here))]
            for count in sorted(set(there.values())):
                names = sorted(node for node, number in there.items() if number == count)
                by_name = NodeSelectorRequirement(key="metadata.name", operator="In", values=names)
                terms.append(_with_left(driver, len(here) - count, [by_name]))
            found.append(tuple(terms))
        return found

    def full(self, pod: Pod, admits: Callable[[str], bool]) -> Iterator[str]:
        """For people: the nodes that `admits` and that cannot attach what a pod uses, of those looked at."""
        by_driver: dict[str, list[Thing]] = defaultdict(list)
        for thing in self._needed(pod):
            by_driver[thing[0]].append(thing)
        for driver, mine in sorted(by_driver.items()):
            for node in islice(self._short[driver], _LOOKED_AT):
                limit, used = self._limits[node][driver], self._used.get(node, {})
                left = limit - self._taken[node][driver]
                wanted = sum(thing not in used for thing in mine)
                if not wanted or wanted <= left or not admits(node):
                    continue
                if left > 0:
                    yield (
                        f"node {node} can attach {left} more {'volumes' if left > 1 else 'volume'} of driver {driver} "
                        f"(limit {limit}), and it asks for {wanted}"
                    )
                else:
                    yield f"node {node} can attach no more volumes of driver {driver} (limit {limit})"

    def fresh(self, pod: Pod, node: str) -> set[Thing]:
        """The volumes that a node would have to attach for a pod."""
        used = self._used.get(node, {})
        return {thing for thing in self._needed(pod) if thing not in used}

    def fits(self, node: str, more: Iterable[Thing]) -> bool:
        """Whether a node can attach some more volumes."""
        limits, taken = self._limits.get(node, {}), self._taken.get(node, Counter())
        count = Counter(driver for driver, _ in more)
        return all(taken[driver] + wanted <= limits[driver] for driver, wanted in count.items() if driver in limits)


def _remove(index: dict[Any, set[str]], keys: Iterable[Any], name: str) -> None:
    for key in keys:
        index[key].discard(name)
        if not index[key]:
            del index[key]


def _with_left(driver: str, count: int, fields: Iterable[NodeSelectorRequirement] = ()) -> NodeSelectorTerm:
    """Nodes, of those with few left, that can attach so many more."""
    left = NodeSelectorRequirement(key=LEFT + driver, operator="Gt", values=[str(count - 1)])
    return NodeSelectorTerm(match_expressions=[left] if count else [], match_fields=list(fields))


def _has(volume: PersistentVolume, field: str) -> bool:
    found: InTree | None = getattr(volume.spec, field)
    return found is not None
