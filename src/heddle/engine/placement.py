"""Where the tasks of one claim go. Knows nodes, devices and topology; is not aware of queues or of other
claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, permutations, takewhile
from typing import Protocol

import numpy as np

from heddle.engine.fitting import Fitting
from heddle.engine.model import WHOLE, Slices
from heddle.engine.nodes import Bools, Ints, Nodes
from heddle.engine.rankings import draw, draw_device
from heddle.engine.scores import RequestClass, preferred
from heddle.engine.slices import divide
from heddle.engine.spreading import Spreading
from heddle.engine.state import State
from heddle.engine.topology import Level
from heddle.engine.work import Task, TaskState, Work

Need = tuple[tuple[int, int], ...]
"""(pod set, number of tasks), to be placed all or nothing."""

_ORDERS = 6
"""In how many orders the pod sets of one need are tried."""


class Kept(Protocol):
    """Room that is kept for somebody: rows -> amounts and thousandths of devices that others may use there."""

    spare: dict[int, tuple[Ints, Ints]]


class Fence:
    """The rows on which a claim may use less than is free: those where room is kept that it would outlast."""

    def __init__(self, kept: Sequence[Kept], nodes: Nodes) -> None:
        self.kept = kept
        self.nodes = nodes
        self.rows: Ints = np.array(sorted({row for each in kept for row in each.spare}), np.int64)
        self._taken: list[tuple[RequestClass, int, tuple[int, ...]]] = []

    def free(self, row: int) -> tuple[Ints, Ints]:
        """What may be used of a row now, in all and by device."""
        amounts, devices = self.nodes.bind[row], self.nodes.dev_bind[row]
        for each in self.kept:
            found = each.spare.get(row)
            if found is not None:
                amounts, devices = np.minimum(amounts, found[0]), np.minimum(devices, found[1])
        return amounts, devices

    def guards(self, row: int) -> bool:
        """Whether room is kept on a row."""
        return any(row in each.spare for each in self.kept)

    def take(self, cls: RequestClass, row: int, devices: tuple[int, ...], sign: int = 1) -> None:
        """A task of the claim was placed (``sign=-1``: was not, after all)."""
        cls = cls.at(row)
        if sign > 0:
            self._taken.append((cls, row, devices))
        for each in self.kept:
            found = each.spare.get(row)
            if found is not None:
                found[0][:] -= sign * cls.need
                found[1][list(devices)] -= sign * cls.share

    def overdrawn(self) -> bool:
        """Whether more was taken than what others may use."""
        for cls, row, devices in self._taken:
            for each in self.kept:
                found = each.spare.get(row)
                if found is not None and (
                    any(found[0][column] < 0 for column in cls.fit)
                    or any(found[1][at] < cls.floor - cls.share for at in devices)
                ):
                    return True
        return False

    def back(self) -> None:
        """Takes back all that was taken."""
        while self._taken:
            self.take(*self._taken.pop(), -1)


class Placer:
    """Places claims on the ``bind`` ledger (start now) or the ``land`` ledger (a promise)."""

    def __init__(self, state: State, now: float = 0.0) -> None:
        """Places what starts at ``now`` (seconds)."""
        self.state = state
        self.now = now
        # needs that found no room: how often room had been freed, and the fence, so that no other has its identity
        self._failed: dict[tuple[object, ...], tuple[int, Fence | None]] = {}

    def place(self, work: Work, need: Need, *, land: bool = False, fence: Fence | None = None) -> list[Task] | None:
        """Gives every task of a need its place, outside the fence, or changes nothing and returns None."""
        required = work.spec.topology_required
        key: tuple[object, ...]
        if len(need) == 1 and required is None and not work.arranged and not work.social:
            key = (work.parts[need[0][0]], need[0][1], land)
        else:
            kinds = tuple((work.parts[part], count) for part, count in need)
            company = tuple(work.spec.pod_sets[part].neighbours for part, _ in need) if work.social else ()
            key = (kinds, required, work.name if required or work.arranged else "", company, land)
        if fence is not None:  # room that is kept only grows less while claims are heard
            key = (*key, *map(id, fence.kept))
        if key in self._failed and self._failed[key][0] == self.state.freed:
            return None
        for arena in self.arenas(work, need, land=land):
            for rows in self._with_room_to_join(work, need, arena, land=land) if work.social else (arena,):
                placed = self.place_within(work, need, rows, land=land, fence=fence)
                if placed is not None:
                    return placed
        self._failed[key] = (self.state.freed, fence)
        return None

    def has_place(self, work: Work, need: Need) -> bool:
        """Whether :meth:`place` would find a promise for a need; it is not made."""
        state = self.state
        ((part, count), *more) = need
        alone = not more and count == 1 and work.spec.topology_required is None
        if not alone or work.arranged or work.social or state.marks(work):
            point, freed = state.checkpoint(), state.freed
            found = self.place(work, need, land=True) is not None
            state.rollback(point)
            state.freed = freed
            return found
        key = (work.parts[part], count, True)
        if key in self._failed and self._failed[key][0] == state.freed:
            return False
        found = self.best(work, part, None, land=True) >= 0
        if not found:
            self._failed[key] = (state.freed, None)
        return found

    def place_on(self, work: Work, need: Need, row: int) -> list[Task] | None:
        """The same for one task for which only this row may have room now."""
        ((part, _),) = need
        task = waiting(work, part, 1)[0]
        admitted = self.state.cache.eligible.of(work.parts[part].key.where)
        if not admitted[row] or not self.fits(task, row, land=False):
            return None
        self.put(task, row, land=False)
        return [task]

    def place_within(
        self, work: Work, need: Need, rows: Ints | None, *, land: bool, fence: Fence | None = None
    ) -> list[Task] | None:
        """The same inside one set of rows (None = all)."""
        if len(need) == 1:
            return self._place_in_order(work, need, rows, land=land, fence=fence)
        # the largest first: they are the hardest to fit, but not always, as what is short may be something else
        largest = tuple(sorted(need, key=lambda item: (*work.parts[item[0]].size, item[0])))
        for order in islice(permutations(largest), _ORDERS):
            placed = self._place_in_order(work, order, rows, land=land, fence=fence)
            if placed is not None:
                return placed
        if fence is not None or work.arranged or work.social:
            return None
        fitting = Fitting(self, work, largest, rows, land=land)
        if not fitting.possible():
            return None
        return fitting.place([task for part, count in largest for task in waiting(work, part, count)])

    def _place_in_order(
        self, work: Work, order: Need, rows: Ints | None, *, land: bool, fence: Fence | None
    ) -> list[Task] | None:
        state = self.state
        point = state.checkpoint()
        freed = state.freed
        placed: list[Task] = []
        for part, count in order:
            tasks = waiting(work, part, count)
            for inside, number in self.groups(work, part, count, rows, land=land):
                if number < 0 or not self._fill(work, part, tasks[:number], inside, land=land, fence=fence):
                    state.rollback(point)
                    state.freed = freed
                    if fence is not None:
                        fence.back()
                    return None
                placed += tasks[:number]
                tasks = tasks[number:]
        return placed

    def _fill(
        self, work: Work, part: int, tasks: list[Task], rows: Ints | None, *, land: bool, fence: Fence | None = None
    ) -> bool:
        """Places identical tasks one after the other on the best row each time; False = one has no room."""
        cls = work.parts[part]
        spreading = self.spreading(work, part, rows, land=land)
        while tasks:
            if spreading is None and fence is None:
                row = self.best(work, part, rows, land=land, task=tasks[0])
            else:
                scores = self._scores(work, cls, land=land) if fence is None else self._beside(work, cls, fence)
                company = self.company(work, part, land=land)
                if company is not None:
                    scores = np.where(company, scores, -1)
                    if spreading is not None:
                        spreading.anew()  # each task may bar more than its own domain to the next
                if spreading is not None:
                    row = spreading.choose(scores, rows)
                else:
                    row = _highest(scores, self._gladly(work, part, scores, rows, land=land))
            if row < 0:
                return False
            if spreading is not None:
                spreading.add(row)
            many = 1
            if fence is not None and fence.guards(row):
                self._put_beside(tasks[0], row, fence)
            else:
                if cls.steady and spreading is None and not _ruled(work, part):
                    many = min(len(tasks), self.state.cache.fits(cls, row, land=land)) if len(tasks) > 1 else 1
                for task in tasks[:many]:
                    self.put(task, row, land=land)
            tasks = tasks[many:]
        return True

    def put(self, task: Task, row: int, *, land: bool, devices: tuple[int, ...] | None = None) -> None:
        """Gives one task its devices (None = the best) on a node that has room for it."""
        if devices is None:
            devices = self._chosen(task, row, land=land)
        if land:
            self.state.hold(task, row, devices)
        else:
            self.state.move(task, TaskState.BOUND, row, devices, self.now)

    def _chosen(self, task: Task, row: int, *, land: bool) -> tuple[int, ...]:
        """The best devices of a node for one task."""
        cls = task.cls.at(row)
        if cls.key.mig:
            return cls.cut(self._devices(task.work, cls, row, land=land))
        if cls.key.fragmentation and 0 < cls.gpu < WHOLE and not cls.key.separate:
            return (self.state.cache.least_broken(cls, row, land=land),)
        free = self._devices(task.work, cls, row, land=land).tolist() if cls.dev else []
        if cls.key.ranking == "random" and 0 < cls.gpu < WHOLE:
            return (draw_device(f"{task.work.name}/{task.name}", cls.gpu, free),)
        return self.state.nodes.choose_devices(row, cls.gpu, free, spread=cls.key.spread)

    def best(
        self,
        work: Work,
        part: int,
        rows: Ints | None,
        *,
        land: bool,
        task: Task | None = None,
        cls: RequestClass | None = None,
    ) -> int:
        """The best row for one task of a pod set, or of another class than its own; -1 = none. Only a ranking at random
        asks which task."""
        cls = cls or work.parts[part]
        company = self.company(work, part, land=land)
        if company is not None:
            rows = np.flatnonzero(company) if rows is None else rows[company[rows]]
        if task is not None and cls.key.ranking == "random":
            scores = self._scores(work, cls, land=land)
            at = draw(f"{task.work.name}/{task.name}", (scores if rows is None else scores[rows]) >= 0)
            return at if rows is None or at < 0 else int(rows[at])
        if _wishful(work, part):
            scores = self._scores(work, cls, land=land)
            return _highest(scores, self._gladly(work, part, scores, rows, land=land))
        if rows is None and not cls.key.separate:
            return self.state.cache.best(cls, land=land)
        return _highest(self._scores(work, cls, land=land), rows)

    def _gladly(self, work: Work, part: int, scores: Ints, rows: Ints | None, *, land: bool) -> Ints | None:
        """Of some rows (None = all) those that a task would rather be on for who is there, where it minds.

        After soft taints, and beside what it prefers of labels: one is worth as much as the other.
        """
        if not _wishful(work, part):
            return rows
        found: Ints = np.flatnonzero(scores >= 0) if rows is None else rows[scores[rows] >= 0]
        if not found.size:
            return found
        clean, _ = preferred(scores[found])
        found = found[clean == clean.max()]
        liking = self.state.crowds.liking(work, part, found, land=land)
        if liking is None:
            return found
        glad = liking + preferred(scores[found])[1]
        best: Ints = found[glad == glad.max()]
        return best

    def company(self, work: Work, part: int, *, land: bool) -> Bools | None:
        """Of each row, whether those who are there leave a task of a pod set in; None = anywhere."""
        return self.state.crowds.allowed(work, part, land=land) if work.social else None

    def fits(self, task: Task, row: int, *, land: bool) -> bool:
        """Whether a task fits on a node that admits it."""
        cls = task.work.parts[task.part]
        if task.work.social and not self.state.crowds.admits(task, row, land=land):
            return False
        if not cls.key.separate:
            return self.state.cache.fits(cls, row, land=land) > 0
        devices = self._devices(task.work, cls, row, land=land)
        return self.state.cache.fits_on(cls, row, devices, land=land) > 0

    def room_apart(self, work: Work, cls: RequestClass) -> int:
        """How many tasks of a class fit now on GPUs of their own, beside what a workload has already."""
        rows = np.flatnonzero(self.state.cache.scores(cls, land=False) >= 0)
        room = int(np.minimum(self.state.cache.count(cls, rows, land=False), 1 << 20).sum())
        for row in _shared_by(work, land=False):
            devices = self._devices(work, cls, row, land=False)
            room -= self.state.cache.fits(cls, row, land=False)
            room += self.state.cache.fits_on(cls, row, devices, land=False)
        return room

    def _devices(self, work: Work, cls: RequestClass, row: int, *, land: bool) -> Ints:
        """What a task of a workload may use of each device of a row."""
        nodes = self.state.nodes
        free: Ints = (nodes.dev_land if land else nodes.dev_bind)[row]
        if cls.key.separate and (taken := _shared_by(work, land=land).get(row)):
            free = free.copy()
            free[taken] = -1
        return free

    def _scores(self, work: Work, cls: RequestClass, *, land: bool) -> Ints:
        """Scores of a class for a workload: of shares that are to be on separate GPUs without those it is on."""
        scores = self.state.cache.scores(cls, land=land)
        taken = _shared_by(work, land=land) if cls.key.separate else {}
        if not taken:
            return scores
        nodes, rows = self.state.nodes, np.array(sorted(taken), np.int64)
        devices = np.array([self._devices(work, cls, row, land=land) for row in sorted(taken)])
        scores = scores.copy()
        amounts = (nodes.land if land else nodes.bind)[rows]
        scores[rows] = self.state.cache.score(cls, rows, amounts, devices, land=land)
        return scores

    def _beside(self, work: Work, cls: RequestClass, fence: Fence) -> Ints:
        """Scores of a class for tasks that start now beside what is kept."""
        scores = self._scores(work, cls, land=False)
        rows = fence.rows[scores[fence.rows] >= 0]  # where all that is free is not enough, what is left beside is not
        if not rows.size:
            return scores
        free = [fence.free(row) for row in rows.tolist()]
        amounts = np.array([each for each, _ in free])
        devices = np.array(
            [
                np.minimum(each, self._devices(work, cls, row, land=False))
                for row, (_, each) in zip(rows.tolist(), free, strict=True)
            ]
        )
        scores = scores.copy()
        scores[rows] = self.state.cache.score(cls, rows, amounts, devices, land=False)
        return scores

    def _put_beside(self, task: Task, row: int, fence: Fence) -> None:
        cls = task.cls.at(row)
        nodes = self.state.nodes
        free = np.minimum(fence.free(row)[1], self._devices(task.work, cls, row, land=False))
        if cls.key.mig:
            devices = cls.cut(free)
        else:
            devices = nodes.choose_devices(row, cls.gpu, free.tolist(), spread=cls.key.spread)
        self.state.move(task, TaskState.BOUND, row, devices, self.now)
        fence.take(cls, row, devices)

    # -- tasks apart and together ------------------------------------------------------------------

    def spreading(
        self, work: Work, part: int, within: Ints | None, *, land: bool, cordoned: bool = False
    ) -> Spreading | None:
        """Where the tasks of a pod set that must be apart are; None = it has no such rule.

        If a topology level is required, only the domain of it counts in which the given rows are. ``cordoned``:
        as if no node were.
        """
        rule = work.spec.pod_sets[part].spread
        if rule is None:
            return None
        level = self.state.topology.level(rule.level) or _nowhere(rule.level, self.state.nodes.open.size)
        self.state.cache.scores(work.parts[part], land=land)  # refreshes eligibility
        rows = [task.row for task in work.order[part] if task.row >= 0 and not (land and leaves(task))]
        rows += [task.hold[0] for task in work.order[part] if task.hold]
        cls = work.parts[part]
        eligible = self.state.cache.admitted(cls, cordoned=True) if cordoned else cls.eligible
        outer = self.state.topology.level(work.spec.topology_required) if work.spec.topology_required else None
        if outer is not None and within is not None and within.size:
            eligible = eligible & (outer.domain == outer.domain[within[0]])
        return Spreading(rule, level, eligible, rows)

    def groups(
        self, work: Work, part: int, count: int, rows: Ints | None, *, land: bool
    ) -> Sequence[tuple[Ints | None, int]]:
        """How the next tasks of a pod set divide: (rows, number of tasks), in the order of the tasks.

        A number below 0 says that slices of them have no room.
        """
        wish = work.spec.pod_sets[part].slices
        if wish is None:
            return ((rows, count),)
        level, inside, room, there = self._rooms(work, part, wish, rows, land=land)
        given = divide(wish, room, there, count, work.pending[part] - count)
        if given is None:
            return ((None, -1),)
        arena = np.zeros(level.domain.size, np.bool_)
        arena[inside] = True
        return [(level.rows[at][arena[level.rows[at]]], number) for at, number in enumerate(given) if number]

    def sliced(self, work: Work, part: int, count: int) -> int:
        """How many of the next tasks of a pod set could start now in whole slices, wherever these are."""
        wish = work.spec.pod_sets[part].slices
        if wish is None:
            return count
        _, _, room, there = self._rooms(work, part, wish, None, land=False)
        if not any(there):
            return min(count, sum(left // wish.size for left in room) * wish.size)
        further = work.pending[part]
        return next((n for n in range(count, 0, -1) if divide(wish, room, there, n, further - n) is not None), 0)

    def _rooms(
        self, work: Work, part: int, wish: Slices, rows: Ints | None, *, land: bool
    ) -> tuple[Level, Ints, list[int], list[int]]:
        """The level of slices, the rows in its domains, and per domain: room for tasks, and tasks there."""
        level = self.state.topology.level(wish.level) or _nowhere(wish.level, self.state.nodes.open.size)
        inside = level.rows_in_domains() if rows is None else rows[level.domain[rows] >= 0]
        fit = np.minimum(self.state.cache.count(work.parts[part], inside, land=land), 1 << 20)
        room = np.bincount(level.domain[inside], weights=fit, minlength=len(level.paths)).astype(np.int64).tolist()
        there = [0] * len(room)
        for task in work.order[part]:
            at = task.row if task.state is TaskState.BOUND else task.hold[0] if task.hold else -1
            if at >= 0 and level.domain[at] >= 0:
                there[level.domain[at]] += 1
        return level, inside, room, there

    def _with_room_to_join(self, work: Work, need: Need, arena: Ints | None, *, land: bool) -> Iterator[Ints | None]:
        """The parts of an arena to try for a need of which some seek each other's company: where the first goes there
        must be room for the rest. Tightest first; last the arena as it is."""
        crowds, wishes = self.state.crowds, [work.spec.pod_sets[part].neighbours for part, _ in need]
        first = next((w for w in wishes if w is not None and crowds.is_first(w, land=land)), None)
        if first is not None and first.near is not None and sum(count for _, count in need) > 1:
            together = [item for item, w in zip(need, wishes, strict=True) if w is not None and w.near == first.near]
            inside = np.ones(self.state.nodes.open.size, np.bool_)
            if arena is not None:
                inside[:] = False
                inside[arena] = True
            found = []
            for values, rows in crowds.first_domains(first.near):
                here = rows[inside[rows]]
                fits = [self.state.cache.count(work.parts[part], here, land=land) for part, _ in together]
                room = [int(np.minimum(fit, 1 << 20).sum()) for fit in fits]
                if all(many >= count for many, (_, count) in zip(room, together, strict=True)):
                    found.append((room[0], values, here))
            for _, _, here in sorted(found, key=lambda item: item[:2]):
                yield here
        yield arena

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
            if level is None or anchors:
                continue
            yield from self._domains(level, work, need, land=land)
        if anchors:
            fence = self._fence(outer, anchors)
            for rows in self._nearest(range(max(outer, 0), max(inner, outer) + 1), work, need, anchors, land=land):
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

    def _domains(self, level: Level, work: Work, need: Need, *, land: bool) -> Iterator[Ints]:
        """Domains of a level that may hold the need, best fit first, then by name."""
        counts = self.counts(level, work, need, land=land)
        fitting = np.flatnonzero(np.all([c >= n for c, (_, n) in zip(counts, need, strict=True)], axis=0))
        spare = counts[0]
        for at in sorted(fitting.tolist(), key=lambda at: (spare[at], level.paths[at])):
            yield level.rows[at]

    def _nearest(
        self, depths: Iterable[int], work: Work, need: Need, anchors: list[int], *, land: bool
    ) -> Iterator[Ints]:
        """Domains of some levels that may hold what is missing beside running members: those first that lie with a
        member in as many levels as may be, then the tightest, then best fit, then by name."""
        topology = self.state.topology
        homes = {topology.path(row) for row in anchors}
        found: list[tuple[tuple[int, int, int, tuple[str, ...]], Ints]] = []
        for depth in depths:
            level = topology.level(topology.labels[depth])
            if level is None:
                continue
            counts = self.counts(level, work, need, land=land)
            for at in np.flatnonzero(np.all([c >= n for c, (_, n) in zip(counts, need, strict=True)], axis=0)).tolist():
                path = level.paths[at]
                shared = max(_shared(path, home) for home in homes)
                found.append(((-shared, -depth, int(counts[0][at]), path), level.rows[at]))
        for _, rows in sorted(found, key=lambda item: item[0]):
            yield rows

    def counts(self, level: Level, work: Work, need: Need, *, land: bool, empty: bool = False) -> list[Ints]:
        """Per pod set of the need: how many tasks fit in each domain of a level, never too few."""
        inside = level.rows_in_domains()
        found = []
        for part, _count in need:
            fit = self.state.cache.count(work.parts[part], inside, land=land, empty=empty)
            fit = np.minimum(fit, 1 << 20)
            wish = work.spec.pod_sets[part].slices
            inner = self.state.topology.level(wish.level) if wish else None
            if wish is None or inner is None or self._outside(wish.level, level.label) or anchor_rows(work):
                sums = np.bincount(level.domain[inside], weights=fit, minlength=len(level.paths))
            else:
                sliced = inner.domain[inside] >= 0
                whole = np.bincount(inner.domain[inside[sliced]], weights=fit[sliced], minlength=len(inner.paths))
                outer = level.domain[inner.first]
                tasks = whole // wish.size * wish.size
                sums = np.bincount(outer[outer >= 0], weights=tasks[outer >= 0], minlength=len(level.paths))
            found.append(sums.astype(np.int64))
        return found

    def _outside(self, inner: str, outer: str) -> bool:
        """Whether a domain of the level meant to be inner holds whole domains of the outer one."""
        return self.state.topology.depth(inner) <= self.state.topology.depth(outer)


def _shared_by(work: Work, *, land: bool) -> dict[int, list[int]]:
    """By row, the devices of which a workload has a share, or will have."""
    found: dict[int, list[int]] = {}
    for task in work.tasks.values():
        if not task.cls.key.separate:
            continue
        if task.state is TaskState.BOUND or (leaves(task) and not land):
            found.setdefault(task.row, []).extend(task.devices)
        if task.hold:
            found.setdefault(task.hold[0], []).extend(task.hold[1])
    return found


def arrangement(work: Work, need: Need) -> tuple[object, ...]:
    """What, beside class and number of its tasks, decides whether a need has room; equal needs share answers."""
    if not work.arranged and not work.social:
        return ()
    sets = [work.spec.pod_sets[part] for part, _ in need]
    rules = tuple((pod_set.spread, pod_set.slices, pod_set.neighbours) for pod_set in sets)
    return (*rules, work.name if any(work.bound) or any(work.leaving) else "")


def _nowhere(label: str, size: int) -> Level:
    """A level without domains, for a label that is none."""
    return Level(label, (), (), np.full(size, -1, np.int64), np.zeros(0, np.int64))


def _ruled(work: Work, part: int) -> bool:
    """Whether where one task of a pod set goes may decide where the next one may go."""
    wish = work.spec.pod_sets[part].neighbours if work.social else None
    return wish is not None and (wish.ruled or wish.wishful)


def _wishful(work: Work, part: int) -> bool:
    """Whether a pod set would rather be with some, or without."""
    wish = work.spec.pod_sets[part].neighbours if work.social else None
    return wish is not None and wish.wishful


def leaves(task: Task) -> bool:
    """Whether a task was told to stop."""
    return task.state is TaskState.RELEASING


def _highest(scores: Ints, rows: Ints | None) -> int:
    """The row of the highest score among some (None = all); -1 = none is above 0."""
    among = scores if rows is None else scores[rows]
    at = int(among.argmax()) if among.size else -1
    if at < 0 or among[at] < 0:
        return -1
    return at if rows is None else int(rows[at])


def waiting(work: Work, part: int, count: int) -> list[Task]:
    """The first tasks of a pod set that have neither a place nor a promise."""
    found = []
    for task in work.order[part]:
        if task.state is TaskState.PENDING and task.hold is None:
            found.append(task)
            if len(found) == count:
                break
    return found


def _shared(path: tuple[str, ...], home: tuple[str, ...]) -> int:
    """How many levels two paths have in common, from the outermost on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, home, strict=False)))


def anchor_rows(work: Work) -> list[int]:
    """Rows where members run or are promised a place."""
    rows = {task.row for task in work.tasks.values() if task.state is TaskState.BOUND}
    rows |= {task.hold[0] for task in work.tasks.values() if task.hold}
    return sorted(rows)
