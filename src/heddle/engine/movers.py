"""Who may be moved from where: what is the same for all claims for which others might be moved.

In a long line many ask in vain, one after the other. As long as nothing is moved, the nodes that would be looked at for
them, and what would be free there at most, are the same; they are worked out once. Knows tasks and places; is not aware
of who asks, but for the class of what they ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np

from heddle.engine.nodes import Ints
from heddle.engine.placement import Placer
from heddle.engine.scores import RequestClass
from heddle.engine.work import Task, TaskState, Work

_NONE = np.zeros(0, np.int64)


class Movers:
    """Tasks that may be moved, and where to."""

    def __init__(self, placer: Placer, movable: Callable[[Work], bool], nodes: int) -> None:
        """Running tasks of whoever is ``movable`` may be moved; so many ``nodes`` are compared for a claim."""
        self.placer, self.state = placer, placer.state
        self.movable = movable
        self.compared = nodes
        self._seen = -1
        self._room: dict[int, list[int] | None] = {}
        self._rows: dict[object, list[list[int]]] = {}

    def could_clear(self, cls: RequestClass) -> bool:
        """Whether a task of a class might fit on a node that would be looked at once all have moved away from it for
        whom there is a place: cheap, and never wrongly False."""
        if self._seen != self.state.tree.moved:
            self._seen = self.state.tree.moved
            self._room, self._rows = {}, {}
        key = cls.key.where if cls.fixed else cls
        rooms = self._rows.get(key)
        if rooms is None:
            self.state.cache.scores(cls, land=True)  # refreshes eligibility
            rows = self.state.nodes.roomiest(np.flatnonzero(cls.eligible))
            some = filter(None, map(self._room_on, rows))
            rooms = self._rows[key] = list(islice(some, self.compared))
        return any(all(room[column] >= cls.least[column] for column in cls.fit) for room in rooms)

    def place_of(self, task: Task) -> int:
        """The row where a task that moves would go; -1 = none. A required domain is not left."""
        cls = task.cls.beside(task.row) or task.cls  # on GPUs of the same model
        return self.placer.best(task.work, task.part, self._home(task), land=True, cls=cls)

    def _room_on(self, row: int) -> list[int] | None:
        """What is free on a row once all have left who can go elsewhere; None = nobody there may be moved."""
        if row in self._room:
            return self._room[row]
        here = (t for t in self.state.on_row.get(row, ()) if t.state is TaskState.BOUND and t.hold is None)
        some = [task for task in here if self.movable(task.work)]
        found: list[int] | None = None
        if some:
            total = self.state.nodes.land[row].copy()
            for task in some:
                if self.place_of(task) >= 0:
                    total += task.cls.at(row).need
            found = total.tolist()
        self._room[row] = found
        return found

    def _home(self, task: Task) -> Ints | None:
        label = task.work.spec.topology_required
        if label is None:
            return None
        level = self.state.topology.level(label)
        at = -1 if level is None else int(level.domain[task.row])
        return _NONE if level is None or at < 0 else level.rows[at]
