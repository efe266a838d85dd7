"""Volumes, claims to them and their classes: the subset of core/v1 and storage.k8s.io/v1 that bears on where a pod may
run."""

from msgspec import field

from heddle.api.meta import Kind, Quantity, Resources, Struct
from heddle.api.pod import NodeSelector
from heddle.api.selectors import Selector

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
"""Names the class of a claim or volume, as before there was a field for it; Kubernetes still obeys it first."""
SELECTED_NODE_ANNOTATION = "volume.kubernetes.io/selected-node"
"""On a claim: the scheduler's choice of a node, for which the provisioner is to make the volume."""
BOUND_BY_CONTROLLER_ANNOTATION = "pv.kubernetes.io/bound-by-controller"
"""On a volume: it was given to its claim by a machine, which may take it back, not by a person."""
NO_PROVISIONER = "kubernetes.io/no-provisioner"
"""Provisioner of classes whose volumes people make beforehand."""


class VolumeNodeAffinity(Struct):
    """Nodes from which a volume can be reached."""

    required: NodeSelector | None = None


class ClaimReference(Struct):
    """The claim that a volume belongs to."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class PersistentVolumeSpec(Struct):
    """What it is, and where."""

    capacity: Resources = {}
    access_modes: list[str] = []
    volume_mode: str = "Filesystem"
    storage_class_name: str = ""
    volume_attributes_class_name: str = ""
    claim_ref: ClaimReference | None = None
    node_affinity: VolumeNodeAffinity | None = None


class PersistentVolumeStatus(Struct):
    """Available, Bound, Released, Failed."""

    phase: str = ""


class PersistentVolume(Kind):
    """A volume of the cluster."""

    API_VERSION = "v1"
    KIND = "PersistentVolume"

    spec: PersistentVolumeSpec = field(default_factory=PersistentVolumeSpec)
    status: PersistentVolumeStatus = field(default_factory=PersistentVolumeStatus)

    @property
    def storage_class(self) -> str:
        """Name of its class; "" = it has none."""
        return self.metadata.annotations.get(CLASS_ANNOTATION) or self.spec.storage_class_name


class VolumeResources(Struct):
    """How much is asked for."""

    requests: Resources = {}


class PersistentVolumeClaimSpec(Struct):
    """What is asked for, and the volume that it got."""

    volume_name: str = ""
    access_modes: list[str] = []
    volume_mode: str = "Filesystem"
    storage_class_name: str = ""
    volume_attributes_class_name: str = ""
    selector: Selector | None = None
    resources: VolumeResources = field(default_factory=VolumeResources)


class PersistentVolumeClaimStatus(Struct):
    """Pending, Bound or Lost."""

    phase: str = ""


class PersistentVolumeClaim(Kind):
    """A claim of a namespace to a volume."""

    API_VERSION = "v1"
    KIND = "PersistentVolumeClaim"

    spec: PersistentVolumeClaimSpec = field(default_factory=PersistentVolumeClaimSpec)
    status: PersistentVolumeClaimStatus = field(default_factory=PersistentVolumeClaimStatus)

    @property
    def storage_class(self) -> str:
        """Name of its class; "" = it has none."""
        return self.metadata.annotations.get(CLASS_ANNOTATION) or self.spec.storage_class_name

    @property
    def selected_node(self) -> str:
        """The node for which its volume is to be made; "" = none was chosen."""
        return self.metadata.annotations.get(SELECTED_NODE_ANNOTATION, "")


class TopologyLabelRequirement(Struct):
    """A label of a node, and the values of which it must have one."""

    key: str = ""
    values: list[str] = []


class TopologySelectorTerm(Struct):
    """Demands on the labels of a node that must all hold."""

    match_label_expressions: list[TopologyLabelRequirement] = []


class StorageClass(Kind):
    """How volumes of a kind are made, and when."""

    API_VERSION = "storage.k8s.io/v1"
    KIND = "StorageClass"

    provisioner: str = ""
    volume_binding_mode: str = "Immediate"
    allowed_topologies: list[TopologySelectorTerm] = []


class CSIDriverSpec(Struct):
    """What it can do."""

    storage_capacity: bool = False


class CSIDriver(Kind):
    """A driver of volumes."""

    API_VERSION = "storage.k8s.io/v1"
    KIND = "CSIDriver"

    spec: CSIDriverSpec = field(default_factory=CSIDriverSpec)


class CSIStorageCapacity(Kind):
    """How much room a class has on some nodes."""

    API_VERSION = "storage.k8s.io/v1"
    KIND = "CSIStorageCapacity"

    storage_class_name: str = ""
    node_topology: Selector | None = None
    capacity: Quantity | None = None
    maximum_volume_size: Quantity | None = None
