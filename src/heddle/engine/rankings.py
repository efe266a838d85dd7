"""Placement policies of others, to compare with: each ranks the nodes on which a task fits.

They are names of :attr:`WorkloadSpec.strategy` beside heddle's own. Each is a class with its source; scores follow
the artifact of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), so that its figures can be reproduced: whole
numbers from 0 to 100, fractions cut off, equals to the first node by name. A node's CPUs and GPUs are measured against
a machine of 128 CPUs and 8 GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol
from zlib import crc32

import numpy as np
import numpy.typing as npt

from heddle.engine.model import WHOLE
from heddle.engine.nodes import Bools, Ints

_CPUS = 128_000
_GPUS = 8 * WHOLE
_BEST = 100

Floats = npt.NDArray[np.float64]

Demand = tuple[int, int]
"""Thousandths of GPUs and of CPUs that a task asks for."""

Tenants = Callable[[int], Iterable[int]]
"""Of a row: what each task there asks for, in thousandths of GPUs."""


class Ranking(Protocol):
    """A placement policy."""

    def rank(self, demand: Demand, rows: Ints, free: Ints, devices: Ints) -> Ints:
        """0 (worst) to 100 for each of some rows; of a row on which the task does not fit it may say anything.

        Args:
            demand: what the task asks for.
            rows: their numbers.
            free: what is free there, per resource; shape (rows, resources).
            devices: what is free of each device, in thousandths; -1 = there is none. Shape (rows, devices).
        """


class DotProduct:
    """Aligns what is asked for with what is free, and takes the row with the *smallest* product, as the artifact does.

    Source: Grandl et al., "Multi-resource packing for cluster schedulers" (Tetris), SIGCOMM 2014.
    """

    def __init__(self, tenants: Tenants) -> None:
        """Does not ask who is there."""

    def rank(self, demand: Demand, rows: Ints, free: Ints, devices: Ints) -> Ints:
        """100 less half the product of shares, in hundredths."""
        gpu, cpu = demand
        product = free[:, 0] / _GPUS * (gpu / _GPUS) + free[:, 1] / _CPUS * (cpu / _CPUS)
        return _cut(1 - product / 2)


class BestFit:
    """Leaves least free, CPUs and GPUs counting alike.

    Source: Hadary et al., "Protean: VM allocation service at scale", OSDI 2020.
    """

    def __init__(self, tenants: Tenants) -> None:
        """Does not ask who is there."""

    def rank(self, demand: Demand, rows: Ints, free: Ints, devices: Ints) -> Ints:
        """100 less the mean share that is left free, in hundredths."""
        gpu, cpu = demand
        return _cut(1 - ((free[:, 1] - cpu) / _CPUS + (free[:, 0] - gpu) / _GPUS) / 2)


class GpuPacking:
    """First devices that are shared already, then idle ones of a node in use, last a node of which all are idle.

    Source: Weng et al., "MLaaS in the wild", NSDI 2022; the order within each as in the artifact.
    """

    def __init__(self, tenants: Tenants) -> None:
        """Does not ask who is there."""

    def rank(self, demand: Demand, rows: Ints, free: Ints, devices: Ints) -> Ints:
        """From 50 for shared devices, from 33 for idle ones beside others, less for idle nodes; 0 without GPUs."""
        gpu, _ = demand
        if not gpu:
            return np.zeros(rows.size, np.int64)
        idle = (devices == WHOLE).sum(axis=1)
        there = (devices >= 0).sum(axis=1)
        untouched: Ints = np.maximum(_BEST // 3 - idle, idle)
        if gpu >= WHOLE:
            beside = np.maximum(_BEST // 2 - gpu // WHOLE, _BEST // 3)
            alone: Ints = np.where(idle == there, untouched, beside)
            return alone
        smallest = np.where(devices >= gpu, devices, WHOLE).min(axis=1, initial=WHOLE)
        shared = np.maximum(_BEST - smallest * 100 // WHOLE // 10, _BEST // 2)
        beside = np.maximum(_BEST // 2 - 1, _BEST // 3)
        found: Ints = np.where(idle == there, untouched, np.where(smallest == WHOLE, beside, shared))
        return found


class GpuClustering:
    """Keeps tasks of equal GPU number together, shares being one more number.

    Source: Xiao et al., "Gandiva", OSDI 2018 (affinity of GPU numbers).
    """

    def __init__(self, tenants: Tenants) -> None:
        self.tenants = tenants

    def rank(self, demand: Demand, rows: Ints, free: Ints, devices: Ints) -> Ints:
        """From 75 where only the like run, from 50 where they do too, from 25 where nobody does; 0 without GPUs."""
        gpu, _ = demand
        if not gpu:
            return np.zeros(rows.size, np.int64)
        own = _number(gpu)
        base = np.zeros(rows.size, np.int64)
        for at, row in enumerate(rows.tolist()):
            numbers = {_number(other) for other in self.tenants(row) if other}
            alike = own in numbers
            base[at] = 25 * (1 + alike + (alike and len(numbers) == 1)) if alike or not numbers else 0
        used: Ints = 25 * np.maximum(_GPUS - free[:, 0], 0) // _GPUS
        return base + used


class Random:
    """Any row on which it fits, any device for a share. What looks like chance is the task's name, hashed."""

    def __init__(self, tenants: Tenants) -> None:
        """Does not ask who is there."""

    def rank(self, demand: Demand, rows: Ints, free: Ints, devices: Ints) -> Ints:
        """All alike: see :func:`draw`."""
        return np.zeros(rows.size, np.int64)


RANKINGS: dict[str, Callable[[Tenants], Ranking]] = {
    "best-fit": BestFit,
    "dot-product": DotProduct,
    "gpu-clustering": GpuClustering,
    "gpu-packing": GpuPacking,
    "random": Random,
}


def draw(name: str, fits: Bools) -> int:
    """One of those that fit, as good as at random, the same for the same name; -1 = none does."""
    found = np.flatnonzero(fits)
    return int(found[crc32(name.encode()) % found.size]) if found.size else -1


def draw_device(name: str, gpu: int, free: Sequence[int]) -> int:
    """The same among devices of which a share is free."""
    return draw("device of " + name, np.array(free) >= gpu)


def _number(gpu: int) -> int:
    return gpu // WHOLE if gpu >= WHOLE else 0


def _cut(score: Floats) -> Ints:
    """0 to 1 as whole hundredths."""
    return np.clip(np.floor(score * _BEST), 0, _BEST).astype(np.int64)
