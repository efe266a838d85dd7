"""Room for several pod sets that start together, where placing them one after the other finds none.

Placed on the best node each time, one pod set may take what another cannot do without: the idle GPU that its shares
could have left alone, the node with the processors. Here places are sought depth first, the tightest first whatever
the strategy, with a bound on how many are tried: what is not found by then waits. Knows nodes and devices; is not
aware of queues, of other claims, or of rules on how the tasks of a pod set stand to each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heddle.engine.model import WHOLE
from heddle.engine.nodes import Ints
from heddle.engine.scores import RequestClass

if TYPE_CHECKING:
    from heddle.engine.placement import Need, Placer
    from heddle.engine.work import Task, Work

_TURNS = 256
"""So many places are tried at most beyond one for each task, where there are few."""
_FEW = 32
"""More tasks than these are placed once, and no other place is tried: what stands in their way may be far back."""
_WIDE = 8
"""And on so many nodes for one task, those like one that was tried among them."""

_Devices = tuple[int, ...] | None
"""None = those that the task takes by itself."""


class _Step:
    """One task, and what was tried for it while those before it are where they are."""

    __slots__ = ("cls", "devices", "met", "point", "row", "rows", "task")

    def __init__(self, task: Task, cls: RequestClass, point: int) -> None:
        self.task = task
        self.cls = cls
        self.point = point
        self.row = -1
        self.devices: list[_Devices] = []  # of this row, still to be tried
        self.rows: list[int] = []
        self.met: set[tuple[object, ...]] = set()  # what those rows were like


class Fitting:
    """Looks for places for all tasks of a need together, inside a transaction.

    Args:
        placer: who gives a task its place.
        work: whose tasks they are.
        need: how many of which pod sets.
        rows: where (None = anywhere).
        land: whether places are promised (``land``), not taken now (``bind``).
    """

    def __init__(self, placer: Placer, work: Work, need: Need, rows: Ints | None, *, land: bool) -> None:
        self.placer = placer
        self.state = placer.state
        self.work = work
        self.need = need
        self.rows = np.arange(self.state.nodes.open.size) if rows is None else rows
        self.land = land
        nodes = self.state.nodes
        self._free = nodes.land if land else nodes.bind
        self._devices = nodes.dev_land if land else nodes.dev_bind

    def possible(self) -> bool:
        """Whether there is room for each pod set by itself, and in sum for what all of them ask for, and it might be
        found here."""
        parts = [self.work.parts[part] for part, _ in self.need]
        if sum(count for _, count in self.need) > _FEW and all(cls is self.state.cache.packing(cls) for cls in parts):
            return False  # packed once they were already
        somewhere = np.zeros(self.rows.size, np.bool_)
        asked = np.zeros(len(self.state.resources), np.int64)
        for part, count in self.need:
            cls = self.work.parts[part]
            fits = self.state.cache.count(cls, self.rows, land=self.land)
            if int(np.minimum(fits, count).sum()) < count:
                return False
            somewhere |= fits > 0
            if cls.fixed:
                asked[cls.used] += cls.need[cls.used] * count
        room = self._free[self.rows[somewhere]].sum(axis=0)
        return bool((asked <= room).all())

    def place(self, tasks: list[Task]) -> list[Task] | None:
        """Gives each of some tasks a place, in the order given, or changes nothing and returns None."""
        state = self.state
        freed = state.freed
        few = len(tasks) <= _FEW
        steps = [self._step(tasks[0])]
        vain: set[tuple[object, ...]] = set()  # what was left when the task whose turn it was had no place
        for _ in range(len(tasks) + _TURNS * few):
            place = self._next(steps[-1])
            while place is None and few and len(steps) > 1:
                vain.add(self._left(steps))
                steps.pop()
                state.rollback(steps[-1].point)
                place = self._next(steps[-1])
            if place is None:
                break
            row, devices = place
            self.placer.put(steps[-1].task, row, land=self.land, devices=devices)
            if len(steps) == len(tasks):
                return tasks
            steps.append(self._step(tasks[len(steps)]))
            if vain and self._left(steps) in vain:
                steps.pop()
                state.rollback(steps[-1].point)
        state.rollback(steps[0].point)
        state.freed = freed
        return None

    def _step(self, task: Task) -> _Step:
        return _Step(task, self.state.cache.packing(self.work.parts[task.part]), self.state.checkpoint())

    def _next(self, step: _Step) -> tuple[int, _Devices] | None:
        """The tightest place that was not tried for a task; None = none is left, or enough were."""
        if not step.devices:
            step.row = self._row(step)
            if step.row < 0:
                return None
            step.devices = self._choices(step.cls, step.row)
        return step.row, step.devices.pop(0)

    def _row(self, step: _Step) -> int:
        """The best row that was not tried, and is not like one that was; -1 = there is none."""
        among = self.state.cache.scores(step.cls, land=self.land)[self.rows]
        among[step.rows] = -1
        while len(step.rows) < _WIDE:
            at = int(among.argmax())
            if among[at] < 0:
                break
            among[at] = -1
            step.rows.append(at)
            row = int(self.rows[at])
            like = self._like(row)
            if like not in step.met:
                step.met.add(like)
                return row
        return -1

    def _like(self, row: int) -> tuple[object, ...]:
        """What a row has in common with those that would do as well."""
        admits = tuple(bool(self.work.parts[part].eligible[row]) for part, _ in self.need)
        return (int(self.state.nodes.kind[row]), admits, *self._room(row))

    def _room(self, row: int) -> tuple[object, ...]:
        return self._free[row].tobytes(), tuple(sorted(self._devices[row].tolist()))

    def _choices(self, cls: RequestClass, row: int) -> list[_Devices]:
        """The devices of a row that a task may take: for a share the fullest first, of several as full as each other
        one."""
        gpu = cls.at(row).gpu
        if not 0 < gpu < WHOLE or cls.key.mig:
            return [None]  # there is nothing to choose that would matter to others
        free = self._devices[row].tolist()
        only = ([left if left == level else -1 for left in free] for level in sorted(set(free)) if level >= gpu)
        return [self.state.nodes.choose_devices(row, gpu, left) for left in only]

    def _left(self, steps: list[_Step]) -> tuple[object, ...]:
        """What is left of the rows that tasks before the last were given, and whose turn it is."""
        rows = sorted({step.row for step in steps[:-1]})
        return (len(steps), *((row, *self._room(row)) for row in rows))
