"""What the GPUs of a node are, as far as it decides what a task takes of them. Nodes with equal hardware are alike."""

from __future__ import annotations

from dataclasses import dataclass

from heddle.engine.model import MODEL, WHOLE, NodeSpec


@dataclass(frozen=True, slots=True)
class Hardware:
    """The GPUs of a node.

    Attributes:
        memory_mib: of each; of several sizes the smallest (0 = that of some is not known, or there are none).
        model: of all of them; "" = several, or not known.
        counted: the node counts them by model too (``gpu:MODEL`` among its resources).
    """

    memory_mib: int = 0
    model: str = ""
    counted: bool = False

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
    memory = min(device.memory_mib for device in spec.devices)
    return Hardware(memory, model, bool(model) and MODEL + model in spec.resources)
