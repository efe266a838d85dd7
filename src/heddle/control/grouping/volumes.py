"""Where the volumes of a pod can be reached."""

from collections.abc import Mapping
from typing import Protocol

from heddle.api.pod import NodeSelectorTerm, Pod
from heddle.api.volumes import PersistentVolume, PersistentVolumeClaim

Terms = tuple[NodeSelectorTerm, ...]
"""A node must meet one of these."""


class Where(Protocol):
    """Knows where the volumes of pods are."""

    def of(self, pod: Pod) -> tuple[tuple[Terms, ...], tuple[str, ...]]:
        """What each volume of a pod demands of its node, and why the pod must wait for some."""
        ...

    def single(self, claim: str) -> bool:
        """Whether one pod at a time may use a claim (`namespace/name`)."""
        ...


class Nowhere:
    """Where nothing is known of volumes, whoever has one waits."""

    def of(self, pod: Pod) -> tuple[tuple[Terms, ...], tuple[str, ...]]:
        """See `Where.of`."""
        return (), tuple(
            f"spec.volumes[{volume}]: claims of persistent volumes are not known here" for volume, _ in claims_of(pod)
        )

    def single(self, claim: str) -> bool:
        """See `Where.single`."""
        return False


class Volumes:
    """The claims and volumes of a cluster."""

    def __init__(self, claims: Mapping[str, PersistentVolumeClaim], volumes: Mapping[str, PersistentVolume]) -> None:
        """Know claims by `namespace/name`, and volumes by name."""
        self._claims, self._volumes = claims, volumes

    def of(self, pod: Pod) -> tuple[tuple[Terms, ...], tuple[str, ...]]:
        """See `Where.of`."""
        demands, faults = [], []
        for volume, key in claims_of(pod):
            where = f"spec.volumes[{volume}]: claim {key.partition('/')[2]}"
            claim = self._claims.get(key)
            found = self._volumes.get(claim.spec.volume_name) if claim else None
            if claim is None:
                faults.append(f"{where} does not exist")
            elif claim.status.phase != "Bound" or found is None:
                faults.append(
                    f"{where} is not bound to a volume; volumes that are made for a pod's node "
                    "(volumeBindingMode WaitForFirstConsumer) are not supported yet"
                )
            elif found.spec.node_affinity and found.spec.node_affinity.required:
                demands.append(tuple(found.spec.node_affinity.required.node_selector_terms))
        return tuple(demands), tuple(faults)

    def single(self, claim: str) -> bool:
        """See `Where.single`."""
        found = self._claims.get(claim)
        return found is not None and "ReadWriteOncePod" in found.spec.access_modes


def claims_of(pod: Pod) -> list[tuple[str, str]]:
    """Volumes of a pod that are claims, each with the claim as `namespace/name`."""
    found = []
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim:
            found.append((volume.name, f"{pod.metadata.namespace}/{volume.persistent_volume_claim.claim_name}"))
        elif volume.ephemeral:
            found.append((volume.name, f"{pod.metadata.namespace}/{pod.metadata.name}-{volume.name}"))
    return found
