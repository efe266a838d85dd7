"""Devices of a node, whoever found them: one protocol, implemented by `nvml` and `simulated`."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class MigInstance:
    """One instance that a GPU is cut into."""

    uuid: str
    profile: str
    """As NVIDIA names it, for instance "3g.40gb"."""


@dataclass(frozen=True)
class Device:
    """One GPU."""

    uuid: str
    index: int
    product: str
    """As NVML names it, for instance "NVIDIA H100 80GB HBM3"."""
    memory_mib: int
    numa: int = -1
    """NUMA node of its PCI slot; -1: unknown."""
    link: str = ""
    """NVLink group: devices of one node with the same non-empty text reach each other by NVLink."""
    compute_capability: tuple[int, int] = (0, 0)
    family: str = ""
    """Architecture in lower case, for instance "hopper"."""
    mig_capable: bool = False
    mig: tuple[MigInstance, ...] | None = None
    """Its instances; None: it is not in MIG mode, and used as a whole."""


class DeviceLibrary(Protocol):
    """What a node's GPUs are."""

    @property
    def driver_version(self) -> str:
        """Version of the driver, or an empty string."""
        ...

    @property
    def cuda_version(self) -> tuple[int, int]:
        """CUDA version that the driver supports, (0, 0) if unknown."""
        ...

    @property
    def absence(self) -> str:
        """Why there are no devices; empty where there are some."""
        ...

    def devices(self) -> list[Device]:
        """All GPUs, by index."""
        ...
