"""PersistentVolume and PersistentVolumeClaim: the subset of core/v1 that bears on where a pod may run."""

from msgspec import field

from heddle.api.meta import Kind, Struct
from heddle.api.pod import NodeSelector


class VolumeNodeAffinity(Struct):
    """Nodes from which a volume can be reached."""

    required: NodeSelector | None = None


class PersistentVolumeSpec(Struct):
    """Where it is."""

    node_affinity: VolumeNodeAffinity | None = None


class PersistentVolume(Kind):
    """A volume of the cluster."""

    API_VERSION = "v1"
    KIND = "PersistentVolume"

    spec: PersistentVolumeSpec = field(default_factory=PersistentVolumeSpec)


class PersistentVolumeClaimSpec(Struct):
    """What is asked for, and the volume that it got."""

    volume_name: str = ""
    access_modes: list[str] = []


class PersistentVolumeClaimStatus(Struct):
    """Pending, Bound or Lost."""

    phase: str = ""


class PersistentVolumeClaim(Kind):
    """A claim of a namespace to a volume."""

    API_VERSION = "v1"
    KIND = "PersistentVolumeClaim"

    spec: PersistentVolumeClaimSpec = field(default_factory=PersistentVolumeClaimSpec)
    status: PersistentVolumeClaimStatus = field(default_factory=PersistentVolumeClaimStatus)
