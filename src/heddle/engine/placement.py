"""Where the tasks of one claim go. Knows nodes, devices and topology; is not aware of queues or of other
claims."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from heddle.engine.model import WHOLE
from heddle.engine.nodes import Ints
from heddle.engine.scores import RequestClass
from heddle.engine.state import State, Task, TaskState, Work
from heddle.engine.topology import Level

Need = tuple[tuple[int, int], ...]
"""(pod set, number of tasks), to be placed all or nothing."""


class Placer:
    """Places claims on the ``bind`` ledger (start now) or the ``land`` ledger (a promise)."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._failed: dict[tuple[object, ...], int] = {}

    def place(self, work: Work, need: Need, *, land: bool = False) -> list[Task] | None:
        """Gives every task of a need its place, or changes nothing and returns None."""
        required = work.spec.topology_required
        key: tuple[object, ...]
        if len(need) == 1 and required is None:
            key = (work.parts[need[0][0]], need[0][1], land)
        else:
            kinds = tuple((work.parts[part], count) for part, count in need)
            key = (kinds, required, work.name if required else "", land)
        if self._failed.get(key) == self.state.freed:
            return None
        for rows in self.arenas(work, need, land=land):
            placed = self.place_within(work, need, rows, land=land)
            if placed is not None:
                return placed
        self._failed[key] = self.state.freed
        return None

    def place_within(self, work: Work, need: Need, rows: Ints | None, *, land: bool) -> list[Task] | None:
        """The same inside one set of rows (None = all)."""
        state = self.state
        point = state.checkpoint()
        freed = state.freed
        placed: list[Task] = []
        order = need
        if len(need) > 1:  # the largest first: they are the hardest to fit
            order = tuple(sorted(need, key=lambda item: (-work.parts[item[0]].gpu, work.parts[item[0]].needs, item[0])))
        for part, count in order:
            cls = work.parts[part]
            tasks = waiting(work, part, count)
            while tasks:
                row = self.best(cls, rows, land=land)
                if row < 0:
                    state.rollback(point)
                    state.freed = freed
                    return None
                many = 1
                if cls.steady and len(tasks) > 1:
                    many = min(len(tasks), state.cache.fits(cls, row, land=land))
                for task in tasks[:many]:
                    self.put(task, row, land=land)
                placed += tasks[:many]
                tasks = tasks[many:]
        return placed

    def put(self, task: Task, row: int, *, land: bool) -> None:
        """Gives one task its devices on a node that has room for it."""
        cls = task.cls
        if cls.key.fragmentation and 0 < cls.gpu < WHOLE:
            devices: tuple[int, ...] = (self.state.cache.least_broken(cls, row, land=land),)
        else:
            devices = self.state.nodes.choose_devices(row, cls.gpu, land=land, spread=cls.key.spread)
        if land:
            self.state.hold(task, row, devices)
        else:
            self.state.move(task, TaskState.BOUND, row, devices)

    def best(self, cls: RequestClass, rows: Ints | None, *, land: bool) -> int:
        """The best row for one task; -1 = none."""
        if rows is None:
            return self.state.cache.best(cls, land=land)
        if not rows.size:
            return -1
        scores = self.state.cache.scores(cls, land=land)[rows]
        at = int(scores.argmax())
        return int(rows[at]) if scores[at] >= 0 else -1

    # -- topology ----------------------------------------------------------------------------------

    def arenas(self, work: Work, need: Need, *, land: bool) -> Iterator[Ints | None]:
        """Sets of rows to try, tightest first: preferred level, levels above it, then the required one
        or all."""
        spec = work.spec
        if spec.topology_required is None and spec.topology_preferred is None:
            yield None
            return
        labels = self.state.topology.labels
        outer = labels.index(spec.topology_required) if spec.topology_required in labels else -1
        inner = labels.index(spec.topology_preferred) if spec.topology_preferred in labels else outer
        anchors = anchor_rows(work)
        if spec.topology_required is not None and outer < 0:
            return
        for depth in range(max(inner, outer), max(outer, 0) - 1, -1):
            level = self.state.topology.level(labels[depth])
            if level is None:
                continue
            fence = self._fence(outer, anchors)
            for rows in self._domains(level, work, need, anchors, land=land):
                if fence is None or np.isin(rows, fence).all():
                    yield rows
        if spec.topology_required is None:
            yield None

    def _fence(self, outer: int, anchors: list[int]) -> Ints | None:
        """The required domain in which running members already are."""
        if outer < 0 or not anchors:
            return None
        level = self.state.topology.level(self.state.topology.labels[outer])
        if level is None:
            return None
        domains = {int(level.domain[row]) for row in anchors}
        if len(domains) != 1 or -1 in domains:
            return np.zeros(0, np.int64)
        return level.rows[domains.pop()]

    def _domains(self, level: Level, work: Work, need: Need, anchors: list[int], *, land: bool) -> Iterator[Ints]:
        """Domains of a level that may hold the need, those of running members first, then best fit, then
        name."""
        counts = self.counts(level, work, need, land=land)
        fitting = np.flatnonzero(np.all([c >= n for c, (_, n) in zip(counts, need, strict=True)], axis=0))
        home = {int(level.domain[row]) for row in anchors}
        spare = counts[0]
        for at in sorted(fitting.tolist(), key=lambda at: (at not in home, spare[at], level.paths[at])):
            yield level.rows[at]

    def counts(self, level: Level, work: Work, need: Need, *, land: bool, empty: bool = False) -> list[Ints]:
        """Per pod set of the need: how many tasks fit in each domain of a level."""
        inside = np.flatnonzero(level.domain >= 0)
        found = []
        for part, _count in need:
            fit = self.state.cache.count(work.parts[part], inside, land=land, empty=empty)
            fit = np.minimum(fit, 1 << 20)
            sums = np.bincount(level.domain[inside], weights=fit, minlength=len(level.paths))
            found.append(sums.astype(np.int64))
        return found


def waiting(work: Work, part: int, count: int) -> list[Task]:
    """The first tasks of a pod set that have neither a place nor a promise."""
    found = []
    for task in work.order[part]:
        if task.state is TaskState.PENDING and task.hold is None:
            found.append(task)
            if len(found) == count:
                break
    return found


def anchor_rows(work: Work) -> list[int]:
    """Rows where members run or are promised a place."""
    rows = {task.row for task in work.tasks.values() if task.state is TaskState.BOUND}
    rows |= {task.hold[0] for task in work.tasks.values() if task.hold}
    return sorted(rows)
