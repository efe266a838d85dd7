"""Consolidation: moving running work together so that a claim fits, when all that is moved lands again.

Idle room is often there, only not in one place. This module finds tasks whose moving would open it: node
by node it asks the least costly movable tasks to step aside, gives the claim its places, and then finds a new
place for everyone who moved. Either all of that works, or nothing is changed. Who may be moved is said by
:mod:`heddle.engine.movers`.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from heddle.engine.lostwork import lost_work
from heddle.engine.model import WHOLE
from heddle.engine.movers import Movers
from heddle.engine.nodes import Ints
from heddle.engine.placement import Need, anchor_rows, waiting
from heddle.engine.work import Task, TaskState, Work

_LEAST = 1.0
"""Seconds of work that a move loses at least, so that the size of a task that just started counts too."""


class Moves:
    """The search for moves that make room for one need of one workload."""

    def __init__(
        self,
        movers: Movers,
        work: Work,
        need: Need,
        now: float,
        *,
        most: int,
    ) -> None:
        """Prepares a search.

        Args:
            movers: whose tasks may be moved.
            work: who needs room.
            need: for what.
            now: seconds.
            most: how many tasks may move.
        """
        self.movers, self.placer, self.state = movers, movers.placer, movers.state
        self.work, self.need = work, need
        self.now, self.most, self.compared = now, most, movers.compared
        self.moved: list[Task] = []
        self.tried = False  # whether anybody was asked to step aside, if only on trial
        self._on_row: dict[int, list[Task]] = {}  # of rows looked at

    def run(self) -> bool:
        """Makes room and promises all places, or changes nothing. True when it did; `moved` says who moves."""
        if len(self.need) == 1 and self.need[0][1] == 1 and self.work.spec.topology_required is None:
            cls = self.work.parts[self.need[0][0]]
            if self.placer.best(self.work, self.need[0][0], None, land=True) < 0:
                if not self.movers.could_clear(cls):
                    return False
            elif not self.state.marks(self.work):
                return False  # it has a place: nobody needs to move
        point = self.state.checkpoint()
        for rows in self._arenas():
            self.moved = []
            if self._open(rows) and self._stay() and self._stand():
                return True
            self.state.rollback(point)
        self.moved = []
        return False

    def _arenas(self) -> list[Ints | None]:
        label = self.work.spec.topology_required
        if label is None:
            return [None]
        level = self.state.topology.level(label)
        if level is None:
            return []
        counts = self.placer.counts(level, self.work, self.need, land=False, empty=True)
        fitting = np.flatnonzero(np.all([c >= n for c, (_, n) in zip(counts, self.need, strict=True)], axis=0))
        homes = {int(level.domain[row]) for row in anchor_rows(self.work)}
        if homes:
            fitting = np.array([at for at in fitting.tolist() if {at} == homes], np.int64)
        idle = self.state.nodes.land[:, 0]
        order = sorted(fitting.tolist(), key=lambda at: (-int(idle[level.rows[at]].sum()), level.paths[at]))
        return [level.rows[at] for at in order[: self.compared]]

    # -- opening nodes -----------------------------------------------------------------------------

    def _open(self, rows: Ints | None) -> bool:
        """Places the need task by task, clearing the node that costs least wherever none has room."""
        for part, count in sorted(self.need, key=lambda item: (-self.work.parts[item[0]].gpu, item[0])):
            for task in waiting(self.work, part, count):
                row = self.placer.best(self.work, part, rows, land=True)
                if row >= 0:
                    self.placer.put(task, row, land=True)
                elif not self._clear_cheapest(task, rows):
                    return False
        return True

    def _clear_cheapest(self, task: Task, rows: Ints | None) -> bool:
        """Places a task on the node where the least work is lost by moving."""
        state = self.state
        nodes = state.nodes
        cls = task.work.parts[task.part]
        state.cache.scores(cls, land=True)  # refreshes eligibility
        usable = np.flatnonzero(cls.eligible) if rows is None else rows[cls.eligible[rows]]
        best: tuple[tuple[float, int, str], int] | None = None
        for row in islice(filter(self._there, nodes.roomiest(usable)), self.compared):
            if not self._could_clear(task, row):
                continue
            self.tried = True
            point, mark = state.checkpoint(), len(self.moved)
            if self._clear(task, row):
                spent = self.moved[mark:]
                cost = (lost_work(spent, self.now, _LEAST), len(spent), nodes.names[row])
                if best is None or cost < best[0]:
                    best = (cost, row)
            state.rollback(point)
            del self.moved[mark:]
        return best is not None and self._clear(task, best[1])

    def _there(self, row: int) -> list[Task]:
        """Tasks on a row that may be moved, those that lose least first."""
        found = self._on_row.get(row)
        if found is None:
            here = self.state.on_row.get(row, ())
            ran = (t for t in here if (t.state is TaskState.BOUND and t.hold is None) or t in self.moved)
            found = [task for task in ran if task.work is not self.work and self.movers.movable(task.work)]
            found.sort(key=lambda task: (lost_work((task,), self.now, _LEAST), task.work.name, task.name))
            self._on_row[row] = found
        return found

    def _could_clear(self, task: Task, row: int) -> bool:
        """Cheap and never wrongly False, whoever moves first: whether the task fits on a row once everybody has left
        it for whom there is a place elsewhere; those who use a part of a GPU might also change to another one there."""
        state = self.state
        cls, room = task.work.parts[task.part], state.nodes.land[row].copy()
        able = []
        for other in self._there(row):
            goes = other.state is TaskState.BOUND and self.movers.place_of(other) >= 0
            if goes:
                room += other.cls.at(row).need
            if goes or 0 < other.cls.gpu < WHOLE:
                able.append(other)
        if any(room[column] < cls.least[column] for column in cls.fit):
            return False
        point = state.checkpoint()
        for other in able:
            if other.state is TaskState.BOUND:
                state.move(other, TaskState.RELEASING, other.row, other.devices, other.since)
        fits = self.placer.fits(task, row, land=True)
        state.rollback(point)
        return fits

    def _clear(self, task: Task, row: int) -> bool:
        """Lets movable tasks step aside until the task fits on a row, puts it there, and finds them places."""
        fits = self.placer.fits
        mark = len(self.moved)
        for other in self._there(row):
            if fits(task, row, land=True):
                break
            may = len(self.moved) < self.most and not self.state.disruptions.broken_by((other,))
            if other.state is TaskState.BOUND and may:
                self.state.move(other, TaskState.RELEASING, other.row, other.devices, other.since)
                self.moved.append(other)
        if not fits(task, row, land=True):
            return False
        for other in reversed(self.moved[mark:]):  # a later, larger one may have been enough by itself
            self.state.move(other, TaskState.BOUND, other.row, other.devices, other.since)
            if fits(task, row, land=True):
                self.moved.remove(other)
            else:
                self.state.move(other, TaskState.RELEASING, other.row, other.devices, other.since)
        self.placer.put(task, row, land=True)
        return self._land(self.moved[mark:])

    # -- landing -----------------------------------------------------------------------------------

    def _land(self, tasks: list[Task]) -> bool:
        """Promises everyone who moves a new place, the largest first."""
        for task in sorted(tasks, key=lambda task: (-task.cls.gpu, task.work.name, task.name)):
            row = self.movers.place_of(task)
            if row < 0:
                return False
            self.placer.put(task, row, land=True)
        return True

    def _stay(self) -> bool:
        """Takes back every move that turned out not to be needed; False when none is left."""
        for task in list(reversed(self.moved)):
            if self.state.has_room(task, task.row, task.devices, land=True) and self._welcome(task):
                self.state.unhold(task)
                self.state.move(task, TaskState.BOUND, task.row, task.devices, task.since)
                self.moved.remove(task)
        return bool(self.moved)

    def _welcome(self, task: Task) -> bool:
        """Whether a task could stay where it is beside those for whom room was made."""
        return not task.work.social or self.state.crowds.admits(task, task.row, land=True)

    def _stand(self) -> bool:
        """Whether all the places promised are such that those who will be there leave them in."""
        tasks = (*self.work.tasks.values(), *self.moved)
        return all(self.state.crowds.stands(task) for task in tasks if task.hold and task.work.social)
