"""How much of a node's GPUs the tasks that usually arrive could not use: fragmentation gradient descent.

After Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
Descent" (USENIX ATC 2023). For a typical task m, what node n has free on its devices is lost where m cannot
use it: F_n(m) is all that is free if m does not fit (its CPUs, its number of devices, its selector) or uses
no GPU, and else what is free on devices that have less free than m needs of one. F_n is the mean over the
mix of typical tasks. A task goes where F_n grows least, on the device for which that holds. As published, the
growth is put on a scale of 100 steps by a sigmoid, and equal steps go to the first node by name: nodes that are
almost equally good are filled one after the other, which leaves more whole than always taking the very best.

Two things are heddle's own (the strategy ``fgd`` is without them). Nodes of which others can use no substitute are left
to those others: where a task could go to several sorts of nodes, the sort that is wanted least for its size comes
first (:attr:`Fragmentation.wanted`). And work without GPUs, to which most nodes are equal, goes where fewest GPUs are
left to waste.

All figures are whole numbers: thousandths of a device times the weights of the mix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from heddle.engine.eligible import EligibleRows, Where, where
from heddle.engine.model import WHOLE, TaskMix, TypicalTask
from heddle.engine.nodes import Ints, Nodes

PUBLISHED = "fgd"
"""The strategy that places by the published scores alone."""
COVERAGE = 0.95
"""The most frequent tasks that make up this part of all are typical."""
_MOST = 256
_FINE = 16
STEPS = 100
_WANTED = 20
"""Steps that a node costs more for each time that all its GPUs are asked for over what an even load would be."""
_MOST_WANTED = 900
_SCALE = np.array([math.ceil(_FINE * WHOLE * math.log(k / (STEPS - k))) for k in range(1, STEPS)], np.int64)
"""floor(100 sigmoid(x / 1000)) is at least k + 1 from the k-th of these sixteenths of x on."""


def learned(counts: Mapping[TypicalTask, int]) -> TaskMix:
    """The mix of what has arrived: most frequent first, up to :data:`COVERAGE`, equal counts by their text.

    A weight keeps the two leading binary digits of its count (at most a third off), so that a few arrivals
    rarely change the mix: each change costs a look at every node.
    """
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    chosen = []
    covered = 0
    for task, count in ordered[:_MOST]:
        if covered >= COVERAGE * total:
            break
        covered += count
        low = max(0, count.bit_length() - 2)
        chosen.append((task, count >> low << low))
    return TaskMix(tuple(chosen))


class Fragmentation:
    """Scores nodes by how little a task would add to their fragmentation; keeps figures per row and ledger.

    The columns of the arrays are shapes: what typical tasks need of devices (share, number) and where they may
    run. How the weight of a shape depends on a node's free CPUs is a step function, kept as a table.
    """

    def __init__(self, nodes: Nodes, eligible: EligibleRows) -> None:
        self.nodes = nodes
        self.eligible = eligible
        self.version = 0  # moves when all scores are void
        self.stale = True
        self.counts: dict[TypicalTask, int] = {}
        self.given: TaskMix | None = None
        self.mix = TaskMix()
        self._sized: tuple[int, ...] = ()
        self.wanted: Ints = np.zeros(0, np.int64)
        self._wanted_at: tuple[int, ...] = ()
        self._compile()

    # -- the mix -----------------------------------------------------------------------------------

    def count(self, task: TypicalTask, tasks: int) -> None:
        """Tasks of this kind arrived (or, below 0, are no longer known)."""
        self.counts[task] = self.counts.get(task, 0) + tasks
        if not self.counts[task]:
            del self.counts[task]
        self.stale = True

    def give(self, mix: TaskMix | None) -> None:
        """Sets the mix; None = learn it from what arrives."""
        self.given = mix
        self.stale = True

    def settle(self) -> None:
        """Brings the mix up to date, and voids all scores if it changed."""
        if self.stale:
            self.stale = False
            mix = learned(self.counts) if self.given is None else self.given
            if mix != self.mix:
                self.mix = mix
                self._compile()
        now = (len(self.nodes.spec_log), self.nodes.spec_version, self.nodes.open.size)
        if self._wanted_at != now:
            self._wanted_at = now
            wanted = self._want()
            if not np.array_equal(wanted, self.wanted):
                self.wanted = wanted
                self.version += 1

    def _compile(self) -> None:
        shapes: dict[tuple[int, int, Where], int] = {}
        parts = []
        self.total = 0
        loads: dict[Where, int] = {}
        for task, weight in self.mix.tasks:
            self.total += weight
            if task.gpu:
                demand = where(dict(task.node_selector), task.tolerations, task.node_affinity)
                shape = (min(task.gpu, WHOLE), max(1, task.gpu // WHOLE), demand)
                parts.append((shapes.setdefault(shape, len(shapes)), task.cpu, weight))
                loads[demand] = loads.get(demand, 0) + task.gpu * weight
        self._needs = np.array([count for _, count, _ in shapes], np.int64)
        self._width = len(shapes)
        by_demand: dict[Where, list[int]] = {}
        for at, (_, _, demand) in enumerate(shapes):
            by_demand.setdefault(demand, []).append(at)
        self._demands = [(demand, np.array(columns, np.int64)) for demand, columns in by_demand.items()]
        self._cpus: Ints = np.unique(np.array([cpu for _, cpu, _ in parts], np.int64))
        self._loads = loads
        self._wanted_at = ()  # the mix decides who is wanted
        self._weights: Ints = np.zeros((self._cpus.size + 1, len(shapes)), np.int64)
        for column, cpu, weight in parts:
            self._weights[int(np.searchsorted(self._cpus, cpu)) + 1, column] += weight
        self._weights = np.cumsum(self._weights, axis=0)
        share = np.array([share for share, _, _ in shapes], np.int64)
        left = np.arange(WHOLE + 1)[:, None]
        self._counted: Ints = (left >= share).astype(np.int64)  # [what a device has free, shape]
        self._usable: Ints = left * self._counted
        self._both = np.concatenate((self._usable, self._counted), axis=1)
        self.version += 1

    # -- figures per row ---------------------------------------------------------------------------

    def refresh(self, rows: Ints | None, *, land: bool) -> None:
        """Works the figures of changed rows out anew (None = of all)."""
        size = self.nodes.open.size
        at = int(land)
        if self._sized != (size, self.version):
            self._sized = (size, self.version)
            width = self._width
            self._free = [np.zeros(size, np.int64) for _ in (0, 1)]
            self._use = [np.zeros((size, width), np.int64) for _ in (0, 1)]
            self._have = [np.zeros((size, width), np.int64) for _ in (0, 1)]
            self._before = [np.zeros(size, np.int64) for _ in (0, 1)]
        if rows is None:
            rows = np.arange(size)
        if not rows.size:
            return
        free, use, have = self._measure(rows, land=land)
        self._free[at][rows] = free
        self._use[at][rows] = use
        self._have[at][rows] = have
        cpu = (self.nodes.land if land else self.nodes.bind)[rows, 1]
        self._before[at][rows] = self._lost(free, use, have, self._weight(cpu))

    def _measure(self, rows: Ints, *, land: bool) -> tuple[Ints, Ints, Ints]:
        """Per row: free on all devices; per shape: free where it could be used, and on how many devices."""
        nodes = self.nodes
        left = np.maximum((nodes.dev_land if land else nodes.dev_bind)[rows], 0)
        both = self._both[left].sum(axis=1)
        have = both[:, self._width :]
        for demand, columns in self._demands:
            mask = self.eligible.of(demand)[rows]
            if not mask.all():
                have[np.ix_(~mask, columns)] = -1
        return left.sum(axis=1), both[:, : self._width], have

    def _weight(self, cpu: Ints) -> Ints:
        return self._weights[np.searchsorted(self._cpus, cpu, side="right")]

    def _lost(self, free: Ints, use: Ints, have: Ints, weight: Ints) -> Ints:
        """F_n times the weight of the mix, per row."""
        lost: Ints = free * self.total - (weight * use * (have >= self._needs)).sum(axis=1)
        return lost

    def sum(self) -> float:
        """F of all rows that are open, in thousandths of a device; ``refresh`` comes first."""
        return float(self._before[0][self.nodes.open].sum()) / max(self.total, 1)

    def _want(self) -> Ints:
        """Per row: how much its GPUs are asked for, in steps over the least wanted.

        What the mix asks for is spread evenly over the GPUs of all nodes that it may run on. A row is as wanted as the
        sum of that, 1 = as much as if everybody could run everywhere.
        """
        gpus = np.where(self.nodes.open, self.nodes.capacity[:, 0], 0)
        wanted = np.zeros(gpus.size, np.int64)
        total, asked = int(gpus.sum()), sum(self._loads.values())
        for demand, load in self._loads.items() if len(self._loads) > 1 else ():
            mask = self.eligible.of(demand) & (gpus > 0)
            if have := int(gpus[mask].sum()):
                wanted[mask] += _WANTED * load * total // (asked * have)
        held = wanted[gpus > 0]
        found: Ints = np.clip(wanted - (held.min() if held.size else 0), 0, _MOST_WANTED)
        return found

    # -- scores ------------------------------------------------------------------------------------

    def cost(self, gpu: int, cpu: int, rows: Ints, *, land: bool) -> Ints:
        """What a task of this size adds to F, from 0 (it shrinks most) to :data:`STEPS`; 50 = it stays.

        Rows on which the task does not fit get any figure. ``refresh`` comes first.
        """
        at = int(land)
        nodes = self.nodes
        weight = self._weight((nodes.land if land else nodes.bind)[rows, 1] - cpu)
        free, use, have = self._free[at][rows], self._use[at][rows], self._have[at][rows]
        if gpu >= WHOLE or not gpu:
            after = self._lost(free - gpu, use - gpu, have - gpu // WHOLE, weight)
        else:
            option, _, lost = self._options(gpu, rows, free, use, have, weight, land=land)
            after = np.zeros(rows.size, np.int64)
            if option.size:
                starts = np.flatnonzero(np.diff(option, prepend=-1))
                after[option[starts]] = np.minimum.reduceat(lost, starts)
        saved = (self._before[at][rows] - after) * _FINE // max(self.total, 1)
        steps: Ints = STEPS - np.searchsorted(_SCALE, saved, side="right")
        return steps

    def _options(
        self, gpu: int, rows: Ints, free: Ints, use: Ints, have: Ints, weight: Ints, *, land: bool
    ) -> tuple[Ints, Ints, Ints]:
        """Per row and distinct amount free on a device that fits a share: (position in rows, amount, F after)."""
        nodes = self.nodes
        left = np.sort((nodes.dev_land if land else nodes.dev_bind)[rows], axis=1)
        fits = left >= gpu
        fits[:, 1:] &= left[:, 1:] != left[:, :-1]
        option, device = fits.nonzero()
        had = left[option, device]
        rest = had - gpu
        lost = self._lost(
            free[option] - gpu,
            use[option] - self._usable[had] + self._usable[rest],
            have[option] - self._counted[had] + self._counted[rest],
            weight[option],
        )
        return option, had, lost

    def device(self, gpu: int, cpu: int, row: int, *, land: bool) -> int:
        """The device of a row on which a share adds least; equals go to the first device."""
        nodes = self.nodes
        rows = np.array([row], np.int64)
        free, use, have = self._measure(rows, land=land)
        weight = self._weight((nodes.land if land else nodes.bind)[rows, 1] - cpu)
        _, had, lost = self._options(gpu, rows, free, use, have, weight, land=land)
        order: list[int] = (nodes.dev_land if land else nodes.dev_bind)[row].tolist()
        return min((int(f), order.index(int(amount))) for f, amount in zip(lost, had, strict=True))[1]
