"""A Node object from what a device library finds."""

import json
import platform
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version

import msgspec

from heddle.api.core import (
    DEVICES_INVENTORY_ANNOTATION,
    GPU_RESOURCE,
    Node,
    NodeAddress,
    NodeCondition,
    NodeInfo,
    NodeStatus,
)
from heddle.api.meta import ObjectMeta, Resources, Struct
from heddle.api.mig import resource_of
from heddle.api.quantity import render_bytes
from heddle.node.devices import Device, DeviceLibrary
from heddle.node.labels import architecture, gpu_labels, host_labels, label_value
from heddle.node.mig import arranged, geometry_of

MAX_PODS = 1000


class InventoryInstance(Struct, omit_defaults=False):
    """An instance of a GPU in MIG mode."""

    id: str
    profile: str
    start: int


class InventoryMig(Struct, omit_defaults=False):
    """How a GPU in MIG mode is cut; geometry "" = in a way that heddle does not know, so that it is not used."""

    geometry: str
    instances: list[InventoryInstance]


class InventoryDevice(Struct, omit_defaults=False):
    """A GPU as the Node's annotation lists it."""

    id: str
    index: int
    model: str
    memory_mib: int
    numa: int = -1
    link: str = ""
    mig: InventoryMig | None = None


def decode_inventory(node: Node) -> list[InventoryDevice]:
    """The node's devices; empty where it lists none.

    Raises:
        ValueError: the annotation cannot be read.
    """
    text = node.metadata.annotations.get(DEVICES_INVENTORY_ANNOTATION, "")
    if not text:
        return []
    try:
        return msgspec.json.decode(text, type=list[InventoryDevice])
    except msgspec.DecodeError as error:
        raise ValueError(f"node {node.metadata.name}: annotation {DEVICES_INVENTORY_ANNOTATION}: {error}") from None


def _cut(device: Device) -> InventoryMig | None:
    if device.mig is None:
        return None
    geometry = geometry_of(device.product, device.memory_mib)
    starts = arranged(geometry, [one.profile for one in device.mig])
    if starts is None:
        return InventoryMig(geometry="", instances=[])
    instances = [
        InventoryInstance(id=one.uuid, profile=one.profile, start=start)
        for one, start in zip(device.mig, starts, strict=True)
    ]
    return InventoryMig(geometry=geometry, instances=instances)


def describe_node(
    name: str,
    library: DeviceLibrary,
    *,
    cpus: int,
    memory: int,
    machine: str = "",
    extra_labels: Mapping[str, str] | None = None,
) -> Node:
    """The Node object of a machine, Ready as of now.

    Args:
        name: Of the node.
        library: Tells its GPUs.
        cpus: CPUs that pods may ask for.
        memory: Bytes that pods may ask for.
        machine: Product name of the server, for the label.
        extra_labels: Added to the others, for instance a zone.
    """
    devices = library.devices()
    resources: Resources = {"cpu": str(cpus), "memory": render_bytes(memory), "pods": str(MAX_PODS)}
    listed = [
        InventoryDevice(
            id=d.uuid,
            index=d.index,
            model=label_value(d.product),
            memory_mib=d.memory_mib,
            numa=d.numa,
            link=d.link,
            mig=_cut(d),
        )
        for d in devices
    ]
    if devices:
        resources[GPU_RESOURCE] = str(sum(one.mig is None for one in listed))
    cut = Counter(resource_of(one.profile) for device in listed if device.mig for one in device.mig.instances)
    resources |= {name: str(count) for name, count in sorted(cut.items())}
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    annotations = {DEVICES_INVENTORY_ANNOTATION: json.dumps(msgspec.to_builtins(listed))} if listed else {}
    return Node(
        metadata=ObjectMeta(
            name=name,
            labels=host_labels(name) | gpu_labels(library, machine=machine) | dict(extra_labels or {}),
            annotations=annotations,
        ),
        status=NodeStatus(
            capacity=resources,
            allocatable=dict(resources),
            conditions=[
                NodeCondition(
                    type="Ready",
                    status="True",
                    reason="HeddleReady",
                    message=library.absence,
                    last_transition_time=time,
                    last_heartbeat_time=time,
                )
            ],
            addresses=[NodeAddress(type="InternalIP", address="127.0.0.1"), NodeAddress(type="Hostname", address=name)],
            node_info=NodeInfo(
                architecture=architecture(),
                operating_system=platform.system().lower(),
                kernel_version=platform.release(),
                kubelet_version=f"heddle-{version('heddle')}",
                container_runtime_version=f"heddle://{version('heddle')}",
            ),
        ),
    )
