"""Simulated GPUs: any count of a known model, with no hardware."""

import re
import uuid
from dataclasses import dataclass

from heddle.engine.mig import GEOMETRIES
from heddle.node.devices import Device, MigInstance
from heddle.node.mig import arranged, capable_models, geometry_of
from heddle.node.models import ALIASES, MODELS, Model, family

_FORM = re.compile(r"^(\d+)[x×](\d+)[x×]([A-Za-z0-9-]+)(?::(.+))?$")
_CUT = re.compile(r"^(?:(\d)[x×])?(\d+g\.[A-Za-z0-9.+]+)$")
MAX_NODES, MAX_GPUS = 10_000, 16
DRIVER_VERSION = "580.65.06"
CUDA_VERSION = (13, 0)


@dataclass(frozen=True)
class Simulation:
    """So many nodes with so many GPUs of a model each; `mig`: profiles of the instances that each GPU is cut into."""

    nodes: int
    gpus: int
    model: Model
    mig: tuple[str, ...] = ()

    @property
    def cpus(self) -> int:
        """CPUs of one node: the share of such a server that goes with its GPUs, at least one for each."""
        return max(self.gpus, self.model.cpus * self.gpus // 8)

    @property
    def memory_bytes(self) -> int:
        """Memory of one node, by the same share."""
        return (self.model.memory_gib * self.gpus // 8) << 30


def parse(text: str) -> Simulation:
    """The simulation that a text such as "2x8xH100" (nodes × GPUs × model) asks for.

    Raises:
        ValueError: it cannot be read; the message says how to write it and which models are known.
    """
    known = ", ".join(MODELS)
    match = _FORM.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no simulation; write NODESxGPUSxMODEL, for instance 2x8xH100; models: {known}")
    nodes, gpus = int(match[1]), int(match[2])
    if not 1 <= nodes <= MAX_NODES or not 1 <= gpus <= MAX_GPUS:
        raise ValueError(f"{text!r}: nodes go from 1 to {MAX_NODES}, GPUs of a node from 1 to {MAX_GPUS}")
    wanted = match[3].upper()
    model = MODELS.get(ALIASES.get(wanted, wanted))
    if model is None:
        raise ValueError(f"{text!r}: unknown model {match[3]!r}; known models: {known}")
    return Simulation(nodes, gpus, model, _profiles(text, model, match[4] or ""))


def _profiles(text: str, model: Model, said: str) -> tuple[str, ...]:
    """The instances of `2x1g.10gb,3g.40gb`."""
    found: list[str] = []
    geometry = geometry_of(model.product, model.memory_mib)
    for part in said.split(",") if said else ():
        match = _CUT.match(part.strip())
        if match is None:
            raise ValueError(f"{text!r}: {part!r} is no MIG instance; write 1x8xH100:2x1g.10gb,3g.40gb")
        found += [match[2]] * int(match[1] or 1)
    if found and not geometry:
        raise ValueError(f"{text!r}: {model.name} has no MIG; models that have: {', '.join(capable_models())}")
    if found and arranged(geometry, found) is None:
        known = ", ".join(profile.name for profile in GEOMETRIES[geometry].profiles)
        raise ValueError(f"{text!r}: these instances do not fit on one {model.name}; its profiles: {known}")
    return tuple(found)


class SimulatedLibrary:
    """The GPUs of one simulated node. Ids are the same at every start, as those of real GPUs are."""

    driver_version = DRIVER_VERSION
    cuda_version = CUDA_VERSION
    absence = ""

    def __init__(self, node: str, simulation: Simulation) -> None:
        self.node = node
        self.simulation = simulation

    def devices(self) -> list[Device]:
        """All GPUs, by index; NUMA nodes are two halves, NVLink joins all where the model has it."""
        model, count = self.simulation.model, self.simulation.gpus
        return [
            Device(
                uuid=f"GPU-{self._uuid(index)}",
                index=index,
                product=model.product,
                memory_mib=model.memory_mib,
                numa=index * 2 // count if count > 1 else 0,
                link="0" if model.nvlink and count > 1 else "",
                compute_capability=model.compute_capability,
                family=family(model.compute_capability),
                mig_capable=model.mig,
                mig=self._instances(index),
            )
            for index in range(count)
        ]

    def _instances(self, index: int) -> tuple[MigInstance, ...] | None:
        profiles = self.simulation.mig
        found = (MigInstance(f"MIG-{self._uuid(index, at, name)}", name) for at, name in enumerate(profiles))
        return tuple(found) if profiles else None

    def _uuid(self, *what: object) -> uuid.UUID:
        parts = (self.node, self.simulation.model.name, *what)
        return uuid.uuid5(uuid.NAMESPACE_DNS, "/".join(map(str, parts)))
