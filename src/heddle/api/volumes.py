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


class CSIVolume(Struct):
    """A volume as a CSI driver knows it."""

    driver: str = ""
    volume_handle: str = ""


class InTree(Struct):
    """A volume of a kind that was Kubernetes' own once; only that it is one counts here."""


class PersistentVolumeSpec(Struct):
    """What it is, and where."""

    csi: CSIVolume | None = None
    aws_elastic_block_store: InTree | None = None
    gce_persistent_disk: InTree | None = None
    azure_disk: InTree | None = None
    azure_file: InTree | None = None
    cinder: InTree | None = None
    vsphere_volume: InTree | None = None
    portworx_volume: InTree | None = None
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


class VolumeNodeResources(Struct):
    """What a driver can do on a node."""

    count: int | None = None
    """How many of its volumes the node can attach; absent: any number."""


class CSINodeDriver(Struct):
    """A driver that runs on a node."""

    name: str = ""
    allocatable: VolumeNodeResources | None = None


class CSINodeSpec(Struct):
    """The drivers of a node."""

    drivers: list[CSINodeDriver] | None = []
    """Where there are none the API server says null."""


class CSINode(Kind):
    """What the drivers of volumes say of a node, which has the same name."""

    API_VERSION = "storage.k8s.io/v1"
    KIND = "CSINode"

    spec: CSINodeSpec = field(default_factory=CSINodeSpec)

    @property
    def limits(self) -> dict[str, int]:
        """Drivers that can attach only so many volumes here, and how many."""
        return {
            driver.name: driver.allocatable.count
            for driver in self.spec.drivers or ()
            if driver.allocatable is not None and driver.allocatable.count is not None
        }


class VolumeAttachmentSource(Struct):
    """What is attached."""

    persistent_volume_name: str = ""


class VolumeAttachmentSpec(Struct):
    """What is attached, where and by whom."""

    attacher: str = ""
    node_name: str = ""
    source: VolumeAttachmentSource = field(default_factory=VolumeAttachmentSource)


class VolumeAttachment(Kind):
    """A volume that is attached to a node, or about to be, or about to be detached."""

    API_VERSION = "storage.k8s.io/v1"
    KIND = "VolumeAttachment"

    spec: VolumeAttachmentSpec = field(default_factory=VolumeAttachmentSpec)
