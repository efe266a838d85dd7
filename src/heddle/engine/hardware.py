"""What the GPUs of a node are, as far as it decides what a task takes of them. Nodes with equal hardware are alike."""

from __future__ import annotations

from dataclasses import dataclass

from heddle.engine.mig import Geometry, geometry_of
from heddle.engine.model import MODEL, WHOLE, Device, NodeSpec

FREE = -2
"""What is free of a slot of a GPU in MIG mode that has no user (-3 = it has one): never enough for any share."""
TAKEN = FREE - 1


@dataclass(frozen=True, slots=True)
class Hardware:
    """The GPUs of a node.

    Attributes:
        memory_mib: of each; of several sizes the smallest (0 = that of some is not known, or there are none).
        model: of all of them; "" = several, or not known.
        counted: the node counts them by model too (``gpu:MODEL`` among its resources).
        cut: of nodes with GPUs in MIG mode: the first slot of each such GPU in the ledger of devices, and its geometry.
    """

    memory_mib: int = 0
    model: str = ""
    counted: bool = False
    cut: tuple[tuple[int, Geometry], ...] = ()

    def share_of(self, memory_mib: int) -> int | None:
        """Thousandths of one device that hold so much of its memory, rounded up; None = it does not, or is not
        known."""
        if not 0 < memory_mib <= self.memory_mib:
            return None
        return -(-memory_mib * WHOLE // self.memory_mib)


NONE = Hardware()


def hardware_of(spec: NodeSpec) -> Hardware:
    """The hardware of a node."""
    if not spec.devices:
        return NONE
    models = {device.model for device in spec.devices}
    model = models.pop() if len(models) == 1 else ""
    memory = min((device.memory_mib for device in spec.devices if device.mig is None), default=0)
    cut, at = [], 0
    for device in in_order(spec):
        if device.mig is None:
            at += 1
            continue
        geometry = geometry_of(device.mig.geometry, device.mig.instances)
        cut.append((at, geometry))
        at += geometry.slots
    return Hardware(memory, model, bool(model) and MODEL + model in spec.resources, tuple(cut))


def in_order(spec: NodeSpec) -> list[Device]:
    """The devices of a node as they are offered."""
    return sorted(spec.devices, key=lambda device: (device.index, device.id))


def slots_of(spec: NodeSpec) -> list[tuple[str, int]]:
    """Ids of what tasks take on a node, and what is free of each at first: whole devices, and slots of those in MIG
    mode."""
    found: list[tuple[str, int]] = []
    for device in in_order(spec):
        if device.mig is None:
            found.append((device.id, WHOLE))
        else:
            slots = geometry_of(device.mig.geometry).slots
            found += [(f"{device.id}#{slot}", FREE) for slot in range(slots)]
    return found
