"""Where the volumes of a pod can be reached, or made.

A claim of a class with `volumeBindingMode: WaitForFirstConsumer` gets its volume once a node is chosen for a pod that
uses it: one that is there already, or one that the class's provisioner makes. Until then a pod may go wherever such a
volume is or can be made. What has been chosen is in the objects (`spec.claimRef` of the volume, the annotation
`selected-node` of the claim); what is remembered here beside is lost without harm.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from heddle.api.core import Node
from heddle.api.pod import Pod
from heddle.api.volumes import (
    NO_PROVISIONER,
    CSIDriver,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)
from heddle.control.grouping import matching
from heddle.control.grouping.attachments import Attachments
from heddle.control.grouping.disks import Disks
from heddle.control.grouping.matching import Terms
from heddle.control.grouping.requests import claims_of


class Where(Protocol):
    """Knows where the volumes of pods are."""

    def of(self, pod: Pod, beside: Collection[Pod] = ()) -> tuple[tuple[Terms, ...], tuple[str, ...]]:
        """What each volume of a pod demands of its node, and why the pod must wait for some; `beside` are pods that are
        not there yet and will be."""
        ...

    def asked(self, pod: Pod, beside: Collection[Pod] = ()) -> dict[str, int]:
        """How many volumes its node must attach for a pod alone, as resources that nodes have."""
        ...

    def single(self, claim: str) -> bool:
        """Whether one pod at a time may use a claim (`namespace/name`)."""
        ...


class Nowhere:
    """Where nothing is known of volumes, whoever has one waits."""

    def of(self, pod: Pod, beside: Collection[Pod] = ()) -> tuple[tuple[Terms, ...], tuple[str, ...]]:
        """See `Where.of`."""
        return (), tuple(
            f"spec.volumes[{volume}]: claims of persistent volumes are not known here" for volume, _ in claims_of(pod)
        )

    def asked(self, pod: Pod, beside: Collection[Pod] = ()) -> dict[str, int]:
        """See `Where.asked`."""
        return {}

    def single(self, claim: str) -> bool:
        """See `Where.single`."""
        return False


class Volumes:
    """The claims and volumes of a cluster."""

    def __init__(
        self,
        claims: Mapping[str, PersistentVolumeClaim],
        volumes: Mapping[str, PersistentVolume],
        classes: Mapping[str, StorageClass] | None = None,
        drivers: Mapping[str, CSIDriver] | None = None,
        capacities: Mapping[str, CSIStorageCapacity] | None = None,
        nodes: Mapping[str, Node] | None = None,
    ) -> None:
        """Know claims and capacities by `namespace/name`, and volumes, classes, drivers and nodes by name.

        The mappings are followed; of changes of volumes and claims this must be told, too (`volume_changed`,
        `claim_changed`).
        """
        self.claims, self.volumes = claims, volumes
        self._classes = classes if classes is not None else {}
        self._drivers = drivers if drivers is not None else {}
        self._capacities = capacities if capacities is not None else {}
        self._free: dict[str, dict[str, PersistentVolume]] = defaultdict(dict)
        self._owner: dict[str, dict[str, PersistentVolume]] = defaultdict(dict)
        self._open: dict[str, set[str]] = defaultdict(set)
        self._shunned: dict[str, set[str]] = defaultdict(set)
        self._late: set[str] = set()
        self.attachments = Attachments(claims, volumes, self._classes)
        self.disks = Disks(nodes)
        self.taken: dict[str, str] = {}
        """Volumes that are being given to claims (`namespace/name`), until the volume says so itself."""
        for volume in volumes.values():
            self.volume_changed(None, volume)

    # -- what changes ------------------------------------------------------------------------------

    def volume_changed(self, old: PersistentVolume | None, new: PersistentVolume | None) -> set[str]:
        """A volume came, changed or went; returns the claims of which it is news."""
        touched: set[str] = set()
        for volume in (old, new):
            if volume is not None and (owner := volume.spec.claim_ref) is not None:
                touched.add(f"{owner.namespace}/{owner.name}")
        if old is not None:
            name = old.metadata.name
            self._free[old.storage_class].pop(name, None)
            for owner_key in touched:
                self._owner[owner_key].pop(name, None)
        if new is None:
            return touched
        name, reference = new.metadata.name, new.spec.claim_ref
        if reference is not None:
            self._owner[f"{reference.namespace}/{reference.name}"][name] = new
            self.taken.pop(name, None)
        elif new.status.phase == "Available":
            self._free[new.storage_class][name] = new
            if old is None or old.status.phase != "Available" or old.spec.claim_ref is not None:
                touched |= self.class_changed(new.storage_class)
        return touched

    def claim_changed(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> bool:
        """A claim came, changed or went; returns whether its provisioner refused the node that was chosen for it."""
        known = new or old
        if known is None:
            return False
        if new is None or new.status.phase == "Bound":
            self._open[known.storage_class].discard(known.key)
            self._shunned.pop(known.key, None)
            self._late.discard(known.key)
        elif old is not None and old.selected_node and not new.selected_node:  # the provisioner cannot make it there
            self._late.discard(known.key)
            self._shunned[known.key].add(old.selected_node)
            return True
        return False

    def class_changed(self, name: str) -> set[str]:
        """There may be volumes of a class where there were none; returns the claims that wait for one."""
        waiting = set(self._open.get(name, ()))
        for claim in waiting:
            self._shunned.pop(claim, None)
        return waiting

    def shun(self, claim: str, nodes: Iterable[str]) -> None:
        """No volume is to be had for a claim on these nodes, for the present."""
        self._shunned[claim].update(nodes)

    def forgive(self, claim: str) -> None:
        """The nodes that were shunned for a claim may be tried again."""
        self._shunned.pop(claim, None)
        self._late.discard(claim)

    def shunned(self, claim: str) -> frozenset[str]:
        """Nodes on which no volume was to be had for a claim."""
        return frozenset(self._shunned.get(claim, ()))

    def give_up(self, claim: str) -> None:
        """A claim has been waited for long enough: its pods hold no room for it any more."""
        self._late.add(claim)

    # -- what pods ask -----------------------------------------------------------------------------

    def of(self, pod: Pod, beside: Collection[Pod] = ()) -> tuple[tuple[Terms, ...], tuple[str, ...]]:
        """See `Where.of`."""
        demands, faults = [], []
        for volume, key in claims_of(pod):
            claim = self.claims.get(key)
            fault = "does not exist" if claim is None else _alien(pod, volume, claim)
            terms: Terms | None = None
            if claim is not None and not fault:
                terms, fault = self._bound(claim) if claim.status.phase == "Bound" else self._to_come(claim)
            if fault:
                faults.append(f"spec.volumes[{volume}]: claim {key.partition('/')[2]} {fault}")
            elif terms is not None:
                demands.append(terms)
        return (*demands, *self.attachments.reach(pod, beside)), tuple(faults)

    def asked(self, pod: Pod, beside: Collection[Pod] = ()) -> dict[str, int]:
        """See `Where.asked`."""
        found = self.attachments.asked(pod, beside)
        if alone := [claim for claim in self.unbound(pod) if self._asks_disk(claim)]:
            others = {claim for other in beside if other is not pod for _, claim in claims_of(other)}
            found |= self.disks.asked(
                claim for claim in alone if claim.key not in others and self.attachments.users(claim.key) <= {pod.key}
            )
        return found

    def limits(self, node: str) -> dict[str, int]:
        """How many volumes a node can attach, and has of its own, as resources."""
        return self.attachments.limits(node) | self.disks.there(node)

    def held(self, node: str) -> dict[str, int]:
        """What of that no pod asks for and is taken all the same."""
        return self.attachments.held(node) | self.disks.held(node)

    def _asks_disk(self, claim: PersistentVolumeClaim) -> bool:
        """Whether a claim gets one of the volumes that are there already, and none was chosen yet."""
        found = self._classes.get(claim.storage_class)
        return (
            found is not None
            and found.volume_binding_mode == "WaitForFirstConsumer"
            and found.provisioner in ("", NO_PROVISIONER)
            and not self.under_way(claim)
        )

    def reached_by(self, pod: Pod) -> list[Terms | None]:
        """The nodes that reach each volume of a pod that is there already; None = all."""
        claims = [self.claims[key] for _, key in claims_of(pod) if key in self.claims]
        found = [self.volumes[claim.spec.volume_name] for claim in claims if claim.spec.volume_name in self.volumes]
        return [matching.reached_from(volume) for volume in found]

    def single(self, claim: str) -> bool:
        """See `Where.single`."""
        found = self.claims.get(claim)
        return found is not None and "ReadWriteOncePod" in found.spec.access_modes

    def unbound(self, pod: Pod) -> list[PersistentVolumeClaim]:
        """Claims of a pod that have no volume yet."""
        found = [self.claims[key] for _, key in claims_of(pod) if key in self.claims]
        return [claim for claim in found if claim.status.phase != "Bound"]

    def under_way(self, claim: PersistentVolumeClaim) -> bool:
        """Whether its volume, or the node for which it is made, is chosen."""
        return bool(claim.spec.volume_name or claim.selected_node or self._kept(claim))

    def candidates(self, claim: PersistentVolumeClaim) -> list[PersistentVolume]:
        """Volumes of nobody's that a claim could have, the smallest first."""
        free = self._free.get(claim.storage_class, {}).values()
        mine = [v for v in free if self.taken.get(v.metadata.name, claim.key) == claim.key and matching.fits(v, claim)]
        return sorted(mine, key=lambda volume: (matching.room_of(volume), volume.metadata.name))

    def made_on(self, claim: PersistentVolumeClaim) -> Terms | None:
        """The nodes for which the class of a claim makes volumes; None = all."""
        found = self._classes.get(claim.storage_class)
        if found is None or found.provisioner in ("", NO_PROVISIONER):
            return ()
        terms = matching.allowed_by(found)
        driver = self._drivers.get(found.provisioner)
        if driver is not None and driver.spec.storage_capacity and matching.size_of(claim):
            terms = matching.both(terms, matching.with_room(self._capacities.values(), found, claim))
        return terms

    def provisioner(self, claim: PersistentVolumeClaim) -> str:
        """Who makes volumes of its class; "" = nobody."""
        found = self._classes.get(claim.storage_class)
        return found.provisioner if found is not None and found.provisioner != NO_PROVISIONER else ""

    def _bound(self, claim: PersistentVolumeClaim) -> tuple[Terms | None, str]:
        volume = self.volumes.get(claim.spec.volume_name)
        if volume is None:
            return None, f"is bound to a volume that does not exist: {claim.spec.volume_name}"
        return matching.without(matching.reached_from(volume), self.shunned(claim.key)), ""

    def _kept(self, claim: PersistentVolumeClaim) -> PersistentVolume | None:
        """A volume that names a claim that does not yet name it."""
        mine = self._owner.get(claim.key, {}).values()
        return next((v for v in mine if matching.is_for(v, claim) and matching.serves(v, claim)), None)

    def _to_come(self, claim: PersistentVolumeClaim) -> tuple[Terms | None, str]:
        found = self._classes.get(claim.storage_class)
        if claim.metadata.deletion_timestamp:
            return None, "is being deleted"
        if claim.status.phase == "Lost":
            return None, "has lost its volume"
        if claim.storage_class and found is None:
            return None, f"is not bound to a volume, and there is no StorageClass {claim.storage_class}"
        if found is None or found.volume_binding_mode != "WaitForFirstConsumer":
            return (
                None,
                "is not bound to a volume yet (its class does not wait for pods, so this does not wait for heddle)",
            )
        if claim.key in self._late:
            return None, f"has waited for {found.provisioner} too long"
        kept = self._kept(claim) or self.volumes.get(claim.spec.volume_name)
        if kept is not None:
            return matching.reached_from(kept), ""
        if claim.selected_node and not {"ReadWriteMany", "ReadOnlyMany"} & set(claim.spec.access_modes):
            return matching.only(claim.selected_node), ""
        if not claim.selected_node:
            self._open[claim.storage_class].add(claim.key)
        made = self.made_on(claim)
        ready = [matching.reached_from(volume) for volume in self.candidates(claim)]
        terms = None if made is None or None in ready else matching.either([made, *filter(None, ready)])
        if terms == ():
            return None, f"fits no volume of class {claim.storage_class} that is free, and none is made for it"
        return matching.without(terms, self.shunned(claim.key)), ""


def _alien(pod: Pod, volume: str, claim: PersistentVolumeClaim) -> str:
    """An ephemeral volume's claim must be the pod's own."""
    ephemeral = any(each.ephemeral for each in pod.spec.volumes if each.name == volume)
    if ephemeral and not any(owner.uid == pod.metadata.uid for owner in claim.metadata.owner_references):
        return "is not this pod's own, as that of an ephemeral volume must be: delete it"
    return ""
