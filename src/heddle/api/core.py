"""The small core kinds: Node, Namespace, Event, Lease, ConfigMap, Secret, with the fields that heddle uses."""

from typing import Annotated, Any

from msgspec import Meta, field

from heddle.api.meta import Condition, Kind, ObjectMeta, Resources, Struct

GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
"""Label of a node: model of its GPUs, as NVIDIA's feature discovery writes it."""
GPU_MEMORY_LABEL = "nvidia.com/gpu.memory"
"""Label of a node: MiB of each of its GPUs, as NVIDIA's feature discovery writes it."""
GPU_RESOURCE = "nvidia.com/gpu"
DEVICES_INVENTORY_ANNOTATION = "heddle.dev/device-inventory"
"""Annotation of a Node: its GPUs as a JSON list of {id, index, model, memoryMiB, numa, link}."""
NODE_NAME_FIELD = "field:metadata.name"
"""Stands for a node's name where labels are compared (no label can have this name)."""
SCHEDULER_NAME = "heddle"
"""What `spec.schedulerName` of heddle's pods is, where nothing else was chosen."""
SCHEDULER_TAINT = "heddle.dev/scheduler"
"""Taint of nodes that one scheduler alone fills: its value is the name by which pods ask for that scheduler."""
UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
UNREACHABLE_TAINT = "node.kubernetes.io/unreachable"


class NodeTaint(Struct):
    """Keeps away pods that do not tolerate it."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"
    time_added: str | None = None


class NodeSpec(Struct):
    """How the node may be used."""

    unschedulable: bool = False
    taints: list[NodeTaint] = []
    provider_id: Annotated[str, Meta()] = field(default="", name="providerID")


class NodeAddress(Struct):
    """An address of the node."""

    type: str
    address: str


class NodeCondition(Condition):
    """A condition that is renewed by a heartbeat."""

    last_heartbeat_time: str | None = None


class NodeInfo(Struct):
    """Versions on the node."""

    architecture: str = ""
    operating_system: str = ""
    os_image: str = ""
    kernel_version: str = ""
    kubelet_version: str = ""
    container_runtime_version: str = ""
    machine_id: Annotated[str, Meta()] = field(default="", name="machineID")
    system_uuid: Annotated[str, Meta()] = field(default="", name="systemUUID")
    boot_id: Annotated[str, Meta()] = field(default="", name="bootID")
    kube_proxy_version: str = ""


class NodeStatus(Struct):
    """What the node has and how it is."""

    capacity: Resources = {}
    allocatable: Resources = {}
    conditions: list[NodeCondition] = []
    addresses: list[NodeAddress] = []
    node_info: NodeInfo = field(default_factory=NodeInfo)


class Node(Kind):
    """A machine."""

    API_VERSION = "v1"
    KIND = "Node"

    spec: NodeSpec = field(default_factory=NodeSpec)
    status: NodeStatus = field(default_factory=NodeStatus)


class NamespaceStatus(Struct):
    """Active or Terminating."""

    phase: str = ""


class Namespace(Kind):
    """A scope for names."""

    API_VERSION = "v1"
    KIND = "Namespace"

    spec: dict[str, Any] = {}
    status: NamespaceStatus = field(default_factory=NamespaceStatus)


class ObjectReference(Struct):
    """Names any object."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""


class EventSource(Struct):
    """Who saw it."""

    component: str = ""
    host: str = ""


class Event(Kind):
    """Something that happened to an object."""

    API_VERSION = "v1"
    KIND = "Event"

    involved_object: ObjectReference = field(default_factory=ObjectReference)
    reason: str = ""
    message: str = ""
    source: EventSource = field(default_factory=EventSource)
    type: str = ""
    count: int = 0
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    action: str = ""
    related: ObjectReference | None = None
    reporting_component: str = ""
    reporting_instance: str = ""


class LeaseSpec(Struct):
    """Who holds it, since when, for how long."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Kind):
    """A claim that must be renewed (coordination.k8s.io/v1)."""

    API_VERSION = "coordination.k8s.io/v1"
    KIND = "Lease"

    spec: LeaseSpec = field(default_factory=LeaseSpec)


class ConfigMap(Kind):
    """Text by key."""

    API_VERSION = "v1"
    KIND = "ConfigMap"

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}
    immutable: bool | None = None


class Secret(Kind):
    """Base64 by key; not for everyone's eyes."""

    API_VERSION = "v1"
    KIND = "Secret"

    data: dict[str, str] = {}
    string_data: dict[str, str] = {}
    type: str = "Opaque"
    immutable: bool | None = None


__all__ = [
    "DEVICES_INVENTORY_ANNOTATION", "GPU_RESOURCE", "SCHEDULER_NAME", "SCHEDULER_TAINT", "UNREACHABLE_TAINT",
    "UNSCHEDULABLE_TAINT", "ConfigMap", "Event", "EventSource", "Lease", "LeaseSpec", "Namespace",
    "NamespaceStatus", "Node", "NodeAddress", "NodeCondition", "NodeInfo", "NodeSpec", "NodeStatus", "NodeTaint",
    "ObjectMeta", "ObjectReference", "Secret",
]  # fmt: skip
