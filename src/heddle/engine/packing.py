"""What a place costs by packing (or, turned round, by spreading): for many rows at once, and for one.

Packing takes the fullest device that has room for a share, then the fullest node; work without GPUs goes where fewest
GPUs are, then to the fullest node. A cost is a whole number below 2**20, lower goes first. Arrays win where many rows
are scored, plain numbers where a few changed: the two say the same (a property test compares them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heddle.engine.model import WHOLE
from heddle.engine.nodes import Bools, Ints

NOWHERE = -1
_NONE = 1 << 40


@dataclass(frozen=True, slots=True)
class Packing:
    """What a task asks for, as far as packing looks at it.

    Attributes:
        gpu: thousandths of GPUs in all; of one device where it is less than a whole one.
        cpu: thousandths.
        count: whole devices.
        spread: the emptiest place goes first, not the fullest.
    """

    gpu: int
    cpu: int
    count: int
    spread: bool

    def costs(self, free: Ints, devices: Ints, capacity: Ints) -> tuple[Ints, Bools]:
        """Costs, and where the devices are enough; of rows by what is free (rows, resources), free of devices (rows,
        devices), and there (rows, resources)."""
        gpu_left = free[:, 0] - self.gpu
        cpu_left = np.minimum((free[:, 1] - self.cpu) * 31 // np.maximum(capacity[:, 1], 1), 31)
        if not self.gpu:
            prefer = np.minimum(capacity[:, 0] // WHOLE, 15) << 14
            if self.spread:
                return prefer + (31 - cpu_left), np.ones(gpu_left.size, np.bool_)
            return prefer + (np.minimum(gpu_left // 64, 255) << 5) + cpu_left, np.ones(gpu_left.size, np.bool_)
        if self.count:
            enough: Bools = (devices >= WHOLE).sum(axis=1) >= self.count
            cost = np.minimum(gpu_left // 8, 4095) << 5
            if self.spread:
                return (4095 << 5) - cost + (31 - cpu_left), enough
            return cost + cpu_left, enough
        if self.spread:
            most = devices.max(axis=1)
            left = np.minimum(most - self.gpu, 999)
            cost = (((999 - left) // 8) << 13) + ((255 - np.minimum(gpu_left // 64, 255)) << 5)
            return cost + (31 - cpu_left), most >= self.gpu
        least = np.where(devices >= self.gpu, devices - self.gpu, _NONE).min(axis=1)
        cost = ((np.minimum(least, 1016) // 8) << 13) + (np.minimum(gpu_left // 64, 255) << 5) + cpu_left
        return cost, least < _NONE

    def cost(self, free: Sequence[int], devices: Sequence[int], capacity: Sequence[int]) -> int:
        """The same of one row; :data:`NOWHERE` = its devices are not enough."""
        gpu_left = free[0] - self.gpu
        cpu_left = min((free[1] - self.cpu) * 31 // max(capacity[1], 1), 31)
        if not self.gpu:
            prefer = min(capacity[0] // WHOLE, 15) << 14
            return prefer + (31 - cpu_left if self.spread else (min(gpu_left // 64, 255) << 5) + cpu_left)
        if self.count:
            whole = 0
            for left in devices:
                whole += left >= WHOLE
            if whole < self.count:
                return NOWHERE
            cost = min(gpu_left // 8, 4095) << 5
            return (4095 << 5) - cost + (31 - cpu_left) if self.spread else cost + cpu_left
        if self.spread:
            most = max(devices)
            if most < self.gpu:
                return NOWHERE
            cost = ((999 - min(most - self.gpu, 999)) // 8) << 13
            return cost + ((255 - min(gpu_left // 64, 255)) << 5) + (31 - cpu_left)
        fitting = [left for left in devices if left >= self.gpu]
        if not fitting:
            return NOWHERE
        least = min(min(fitting) - self.gpu, 1016)
        return ((least // 8) << 13) + (min(gpu_left // 64, 255) << 5) + cpu_left
