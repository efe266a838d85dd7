"""Making room for one claim: which running work would have to leave, and the least of it.

A rule says who may be evicted for whom; this module finds where. For each task that does not fit it
compares a few nodes by what would have to leave there, takes the cheapest, and at the end puts back
everyone whose place turned out not to be needed. What leaves is a unit: one elastic step, a task as a
rule, or, once a gang is at its minimum, all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from heddle.engine.cycle import Cycle, Place
from heddle.engine.nodes import Bools, Ints
from heddle.engine.placement import Need, waiting
from heddle.engine.queues import Cap, CapKind, Queue
from heddle.engine.reasons import Reason
from heddle.engine.steps import to_shrink
from heddle.engine.work import Task, TaskState, Work


class Rule(Protocol):
    """Who may be evicted for a claim."""

    def possible(self) -> bool:
        """Whether anybody at all might be evicted: cheap, and never wrongly False."""
        ...

    def key(self) -> tuple[object, ...]:
        """Equal for claims that may evict the same workloads."""
        ...

    def candidates(self) -> list[Work]:
        """Workloads that might be evicted."""
        ...

    def rows(self) -> Iterator[Iterable[int]]:
        """Rows of nodes on which anybody might be evicted, some of them perhaps in vain."""
        ...

    def allows(self, victim: Work) -> bool:
        """Whether a unit of this workload may be evicted as things stand."""
        ...

    def might(self, victim: Work) -> bool:
        """Whether it may be, now or once others have left."""
        ...

    @property
    def heed(self) -> bool:
        """Whether disruption budgets are kept."""
        ...

    def spares(self, victim: Work) -> bool:
        """Whether its minimum may not be taken at this moment, though what it has beyond may."""
        ...

    def kept_until(self, victim: Work) -> float:
        """The moment, in seconds, up to which its minimum may not be taken."""
        ...

    def holds(self, victims: list[Work]) -> bool:
        """Whether, with all its places and without these victims, the claim is still in the right."""
        ...

    def owed(self, victim: Work, tasks: Sequence[Task]) -> bool:
        """Whether these had to leave even if all others who leave had gone before them."""
        ...

    def rank(self, victim: Work) -> tuple[int, ...]:
        """How dear a victim is: lower goes first."""
        ...

    def reason(self) -> Reason:
        """Why, for the evicted."""
        ...


Unit = tuple[Work, tuple[Task, ...], tuple[tuple[Task, int, tuple[int, ...]], ...]]
"""A workload, the running tasks that leave, and the promises that are taken back."""
Ranks = dict[Work, tuple[int, ...]]
"""How dear victims are: lower goes first."""
Layout = dict[int, Sequence[tuple[Ints | None, int]]]
"""Per pod set: rows, and how many of its tasks go there."""

_FEW = 64
"""Rows that are looked at for one task and on which nobody may be evicted, before it is asked who is where."""


class Offer(NamedTuple):
    """A row on which somebody may be evicted."""

    least: tuple[object, ...]
    """What it costs at least."""
    row: int
    ranks: Ranks
    """Who may be evicted there, and how dear each is."""

    def __lt__(self, other: tuple[object, ...]) -> bool:
        return self[:2] < other[:2]


class RoomSearch:
    """The search for room for one need of one workload under one rule."""

    def __init__(self, cycle: Cycle, work: Work, queue: Queue, need: Need, rule: Rule) -> None:
        self.cycle = cycle
        self.state = cycle.state
        self.work = work
        self.queue = queue
        self.need = need
        self.rule = rule
        self.demand = cycle.demand(work, need)
        self.gone: list[Unit] = []
        self._vain = 0  # rows looked at for a task on which nobody may be evicted

    @cached_property
    def victims(self) -> list[Work]:
        """Everyone whom the rule might evict, by name. Where one node will do, nobody needs the whole list."""
        found = (victim for victim in self.rule.candidates() if victim is not self.work)
        return sorted(found, key=lambda victim: victim.name)

    def run(self) -> bool:
        """Makes room and promises the places, or changes nothing. True when the need has its places."""
        alone = sum(count for _, count in self.need) == 1  # then trying is no dearer than asking
        if not self.rule.possible():
            return False
        if self.work.kind is None or len(self.work.kind) == 1:
            self.cycle.doubts += 1  # where its tasks are put may be chosen otherwise as others arrive
        if not (alone or (self.victims and self._could_ever_fit())):
            return False
        point = self.state.checkpoint()
        found = self._lift_caps() and self._find_places()
        self.cycle.near += found or not alone or self.work.arranged or self.work.social
        if found:
            self._put_back()
            right = self.rule.holds([victim for victim, tasks, _ in self.gone if tasks]) and self._owed(self.gone)
            if not right or not self._stands():
                self.state.rollback(point)
                return False
            if self.state.tree.lending.columns and self._over_a_cap():  # what is kept back grew as others left
                self.state.rollback(point)
                return False
            if any(unit[2] or any(task.state is TaskState.PENDING for task in unit[1]) for unit in self.gone):
                self.cycle.loosened = True
            return True
        self.state.rollback(point)
        return False

    def _stands(self) -> bool:
        """Whether those who are there, or are not any more, leave the claim its places."""
        if not self.work.social:
            return True
        held = [(task, *task.hold) for task in self.work.tasks.values() if task.hold]
        return all(self.state.crowds.stands(task) for task, _, _ in held) and self._are_let_in(held)

    def _are_let_in(self, places: list[Place]) -> bool:
        """Whether its tasks are let in one after the other, as when they start: they may have found the company they
        seek in those who have to leave, and then only in each other."""
        state, freed = self.state, self.state.freed
        point = state.checkpoint()
        for task, _, _ in places:
            state.unhold(task)
        while places:
            shut_out = []
            for task, row, devices in places:
                if state.crowds.admits(task, row, land=True):
                    state.hold(task, row, devices)
                else:
                    shut_out.append((task, row, devices))
            if len(shut_out) == len(places):
                break
            places = shut_out
        state.rollback(point)
        state.freed = freed
        return not places

    def _over_a_cap(self) -> bool:
        """Whether the claim, with its places, breaks a cap."""
        user = self.work.spec.user
        tree = self.state.tree
        return tree.stopped_by(self.queue, self.demand, fixed=False, user=user, land=True, included=True) is not None

    def _could_ever_fit(self) -> bool:
        """Cheap and never wrongly False: whether each pod set fits, by amounts, once every candidate has left."""
        state = self.state
        room = state.nodes.land.copy()
        for victim in self.victims:
            for task in victim.tasks.values():
                if task.state is TaskState.BOUND:
                    room[task.row] += task.cls.at(task.row).need
                if task.hold:
                    room[task.hold[0]] += task.cls.at(task.hold[0]).need
        label = self.work.spec.topology_required
        level = state.topology.level(label) if label else None
        enough = np.ones(1 if level is None else len(level.paths), np.bool_)
        for part, count in self.need:
            cls = self.work.parts[part]
            state.cache.scores(cls, land=True)  # refreshes eligibility
            fits = np.where(cls.eligible, count, 0)
            for column in cls.fit:
                fits = np.minimum(fits, np.maximum(room[:, column], 0) // cls.least[column])
            if level is None:
                enough &= fits.sum() >= count
            else:
                inside = level.domain >= 0
                enough &= np.bincount(level.domain[inside], weights=fits[inside], minlength=len(level.paths)) >= count
        return bool(enough.any())

    # -- caps --------------------------------------------------------------------------------------

    def _lift_caps(self) -> bool:
        """Evicts below a queue whose limit (or quota, for fixed work) stands in the way."""
        tree = self.state.tree
        fixed = not self.work.spec.preemptible
        while cap := tree.stopped_by(self.queue, self.demand, fixed=fixed, user=self.work.spec.user, land=True):
            if not self._evict_below(cap):
                return False
        return True

    def _evict_below(self, cap: Cap) -> bool:
        over_quota = cap.kind is CapKind.QUOTA
        for victim in self._by_rank():
            if (
                victim.queue is None
                or not cap.relieved_by(victim.queue, victim.spec.user)
                or not self.rule.allows(victim)
            ):
                continue
            if over_quota and victim.spec.preemptible and cap.used == cap.queue.fixed[cap.column]:
                continue
            if any(cls.needs[cap.column] for cls in victim.parts) and self._evict(victim, None):
                return True
        return False

    def _by_rank(self) -> list[Work]:
        return sorted(self.victims, key=lambda victim: (self.rule.rank(victim), victim.name))

    # -- places ------------------------------------------------------------------------------------

    def _find_places(self) -> bool:
        if self.cycle.placer.place(self.work, self.need, land=True) is not None:
            return True
        sliced = any(self.work.spec.pod_sets[part].slices for part, _ in self.need)
        if self.work.spec.topology_required is None and not sliced:
            return self._fill(None, {})
        for rows, layout in self._domains(sliced=sliced):
            point, mark = self.state.checkpoint(), len(self.gone)
            if self._fill(rows, layout):
                return True
            self.state.rollback(point)
            del self.gone[mark:]
        return False

    def _domains(self, *, sliced: bool) -> list[tuple[Ints | None, Layout]]:
        """Domains of the required level in which the need would fit once all candidates have left, best fit
        first; with slices the first few of them, and how the tasks would then divide."""
        point = self.state.checkpoint()
        for victim in self.victims:
            self._leave(victim, [t for t in victim.tasks.values() if t.state is TaskState.BOUND], quiet=True)
        found: list[tuple[Ints | None, Layout]] = []
        for rows in self.cycle.placer.arenas(self.work, self.need, land=True):
            if not sliced:
                if rows is not None:
                    found.append((rows, {}))
            elif (layout := self._layout(rows)) is not None:
                found.append((rows, layout))
                if len(found) >= self.cycle.budget.victim_nodes:
                    break
        self.state.rollback(point)
        return found

    def _layout(self, rows: Ints | None) -> Layout | None:
        """How each pod set would divide in a domain as it stands; None = not at all."""
        placer = self.cycle.placer
        point = self.state.checkpoint()
        layout: Layout = {}
        for part, count in self._order():
            layout[part] = placer.groups(self.work, part, count, rows, land=True)
            if placer.place_within(self.work, ((part, count),), rows, land=True) is None:
                layout = {}
                break
        self.state.rollback(point)
        return layout or None

    def _order(self) -> Need:
        return tuple(sorted(self.need, key=lambda item: (-self.work.parts[item[0]].gpu, item[0])))

    def _fill(self, rows: Ints | None, layout: Layout) -> bool:
        """Places task by task, evicting on the node that costs least wherever none has room."""
        placer = self.cycle.placer
        for part, count in self._order():
            tasks = waiting(self.work, part, count)
            spreading = placer.spreading(self.work, part, rows, land=True)
            for inside, number in layout.get(part, ((rows, count),)):
                for task in tasks[:number]:
                    here = inside if spreading is None else spreading.rows(inside)
                    row = placer.best(self.work, part, here, land=True)
                    if row < 0:
                        row = self._open_node(task, here)
                    if row < 0:
                        return False
                    placer.put(task, row, land=True)
                    if spreading is not None:
                        spreading.add(row)
                tasks = tasks[number:]
        return True

    def _open_node(self, task: Task, rows: Ints | None) -> int:
        """Evicts on the cheapest node until the task fits there; -1 = nowhere.

        Nodes are compared a few at a time, the one that may be cheapest first, and only as long as one can still be
        cheaper than what was found.
        """
        most = self.cycle.budget.victim_nodes
        barren = self.cycle.barren.setdefault(self.rule.key(), set())
        self._vain = 0
        known = frozenset(barren)
        # those on which nobody was found before come last: who gained since may have made somebody yield there
        for last in (False, True) if known else (False,):
            offers = self._offers(self._by_room(task, rows), barren, known, last=last)
            compared = 0
            best: tuple[tuple[object, ...], Offer] | None = None
            while compared < most and (batch := sorted(islice(offers, most - compared))):
                for at, offer in enumerate(batch):
                    if best is not None and best[0] <= offer.least:
                        compared += len(batch) - at
                        break
                    point, mark = self.state.checkpoint(), len(self.gone)
                    if self._clear(task, offer.row, offer.ranks):
                        compared += 1
                        cost = self._cost(offer, self.gone[mark:])
                        rest = batch[at + 1 :]
                        if best is None or cost < best[0]:
                            if compared + len(rest) >= most and (not rest or cost <= rest[0].least):
                                return offer.row  # nothing cheaper is to come
                            best = (cost, offer)
                    self.state.rollback(point)
                    del self.gone[mark:]
            if best is not None:
                self._clear(task, best[1].row, best[1].ranks)
                return best[1].row
        return -1

    def _offers(self, rows: Iterable[int], barren: set[int], known: frozenset[int], *, last: bool) -> Iterator[Offer]:
        """Rows on which somebody may be evicted, of those that are ``known`` (``last``) or of the others; rows where
        nobody is are noted."""
        for row in rows:
            if (row in known) is not last:
                continue
            if not (here := self._here(row)):
                barren.add(row)
                self._vain += 1
                continue
            if not any(map(self.rule.allows, here)):
                self._vain += 1
                continue  # somebody elsewhere would have to leave first
            ranks = {victim: self.rule.rank(victim) for victim in here}
            yield Offer(self._least(row, ranks), row, ranks)

    def _least(self, row: int, ranks: Ranks) -> tuple[object, ...]:
        """What clearing a row costs at least: the cheapest of those who are there goes, with the fewest GPUs."""
        if any(victim.held for victim in ranks):
            return ()  # promises that are taken back cost nothing
        there = (t.cls.gpu for t in self.state.on_row[row] if t.state is TaskState.BOUND and t.work in ranks)
        return (min(ranks.values()), min(there), 1, self.state.nodes.names[row])

    def _cost(self, offer: Offer, spent: Sequence[Unit]) -> tuple[object, ...]:
        """How dear it is that these leave: the dearest of them, their GPUs, how many they are, the node's name."""
        running = [task for _, tasks, _ in spent for task in tasks]
        dearest = max((offer.ranks.get(v) or self.rule.rank(v) for v, tasks, _ in spent if tasks), default=())
        return (dearest, sum(t.cls.gpu for t in running), len(running), self.state.nodes.names[offer.row])

    def _by_room(self, task: Task, rows: Ints | None) -> Iterator[int]:
        """Rows that admit a task, those with most GPUs free first, then by name."""
        cls = task.work.parts[task.part]
        self.state.cache.scores(cls, land=True)  # refreshes eligibility
        usable = np.flatnonzero(cls.eligible) if rows is None else rows[cls.eligible[rows]]
        reachable = self.state.crowds.reachable(task.work, task.part) if task.work.social else None
        if reachable is not None:
            usable = usable[reachable[usable]]
        met: list[int] = []
        for row in self.state.nodes.roomiest(usable):
            if self._vain >= _FEW:
                break
            met.append(row)
            yield row
        if len(met) < usable.size:
            left = self._inhabited()
            left[met] = False
            yield from self.state.nodes.roomiest(usable[left[usable]])

    def _inhabited(self) -> Bools:
        """Which rows have anybody on them whom the rule might evict, and perhaps some more."""
        found = np.zeros(len(self.state.nodes.names), np.bool_)
        for rows in self.rule.rows():
            found[[*rows]] = True
        return found

    def _here(self, row: int) -> list[Work]:
        """Workloads on a row that the rule may evict, now or once others have left."""
        state = self.state
        there = {task.work: None for task in state.on_row.get(row, ()) if task.state is TaskState.BOUND}
        there.update((task.work, None) for task in state.holds_on_row.get(row, ()))
        return [work for work in there if work is not self.work and self.rule.might(work)]

    def _clear(self, task: Task, row: int, ranks: Ranks) -> bool:
        """Evicts candidates on a row, cheapest first, until the task fits there; then puts needless ones
        back."""
        state, placer = self.state, self.cycle.placer
        if not self._could_fit_on(task, row, ranks):
            return False
        mark = len(self.gone)
        in_order = sorted(ranks, key=lambda v: (ranks[v], v.name))
        for victim, shrink in (*((v, True) for v in in_order if _may_shrink(v)), *((v, False) for v in in_order)):
            while not placer.fits(task, row, land=True):  # all shrink before anyone stops
                if not self.rule.allows(victim) or not self._evict(victim, row, shrink=shrink):
                    break
            else:
                break
        if not placer.fits(task, row, land=True):
            return False
        units = self.gone[mark:]
        for unit in reversed(units) if len(units) > 1 else ():  # a single one was needed
            point = state.checkpoint()
            if not self._restore(unit):
                continue
            if placer.fits(task, row, land=True):
                self.gone.remove(unit)
            else:
                state.rollback(point)
        return self._owed(self.gone[mark:])

    def _owed(self, units: Sequence[Unit]) -> bool:
        """Whether each of some units had to leave, whichever was asked first: one that does not divide, or was only
        just placed, may take its queue so far below what is its own that those before it were asked for nothing."""
        if len(self.gone) == 1 and len(self.gone[0][1]) == 1:
            return True  # the rule allowed it as things stood
        stopped: set[Work] = set()
        for victim, tasks, _ in units:
            if not tasks or victim in stopped:
                continue
            if not victim.whole():  # what is more than its minimum goes with that
                stopped.add(victim)
                tasks = tuple([task for other, some, _ in self.gone for task in some if other is victim])
            if not self.rule.owed(victim, tasks):
                return False
        return True

    def _could_fit_on(self, task: Task, row: int, ranks: Ranks) -> bool:
        """Cheap and never wrongly False: whether a task fits on a row, by amounts, once some have left it."""
        state, cls = self.state, task.work.parts[task.part]
        room = state.nodes.land[row].tolist()
        running = (t for t in state.on_row.get(row, ()) if t.state is TaskState.BOUND and t.work in ranks)
        promised = (t for t in state.holds_on_row.get(row, ()) if t.work in ranks)
        for other in (*running, *promised):
            needs = other.cls.at(row).needs
            for column in cls.fit:
                room[column] += needs[column]
        return all(room[column] >= cls.least[column] for column in cls.fit)

    # -- units -------------------------------------------------------------------------------------

    def _evict(self, victim: Work, row: int | None, *, shrink: bool = False) -> bool:
        """Evicts the next unit of a workload (with ``row``: one that helps there; with ``shrink``: not its minimum).
        False = nothing left there."""
        running = [task for task in victim.tasks.values() if task.state is TaskState.BOUND]
        held = [task for task in victim.tasks.values() if task.hold]
        if row is not None and not any(t.row == row for t in running) and not any(
            t.hold is not None and t.hold[0] == row for t in held
        ):  # fmt: skip
            return False
        spared = self.rule.spares(victim)
        if spared and not victim.whole():  # what it runs and what is promised to it is its minimum on its way
            return False
        if held:
            promises = tuple((task, *task.hold) for task in held if task.hold)
            begun = self._begun(victim, running)
            if not self._may_stop(begun):
                return False
            for task in held:
                self.state.unhold(task)
            self._leave(victim, begun)
            self.gone[-1] = (victim, tuple(begun), promises)
            return True
        groups = victim.groups if victim.whole() else None  # without the rest what is left of it could not work
        torn = groups.torn(victim.bound) if groups is not None else []
        if torn and (rest := self._first_group(victim, torn, row)):
            self._leave(victim, rest)
            return True
        elastic = [
            task
            for task in running
            if (victim.may_lose(task.part) or (self.cycle.placed_now(task) and self._spare(task)))
            and (row is None or task.row == row)
            and not (groups is not None and groups.of[task.part] in torn)  # these stop together or not at all
        ]
        if elastic and victim.whole() and (step := self._newest_step(victim, elastic, row)):
            self._leave(victim, step)
        elif not shrink and groups and (spare := self._first_group(victim, groups.spare(victim.bound), row)):
            self._leave(victim, spare)
        elif running and not shrink and not spared and self._may_stop(running):
            self._leave(victim, running)
        else:
            return False
        return True

    @staticmethod
    def _begun(victim: Work, running: list[Task]) -> list[Task]:
        """What runs only to wait for those whose promises are taken: it leaves with them."""
        if victim.after is None or not victim.torn():
            return []
        if victim.groups is None or not victim.whole():
            return running
        parts = [part for group in victim.groups.torn(victim.bound) for part in victim.groups.parts[group]]
        return [task for task in running if task.part in parts]

    @staticmethod
    def _spare(task: Task) -> bool:
        """Whether its pod set runs more than its minimum."""
        return task.work.bound[task.part] > task.work.spec.pod_sets[task.part].min

    def _newest_step(self, victim: Work, elastic: list[Task], row: int | None) -> list[Task]:
        """The step that leaves first of those to which some elastic tasks belong, the newest that may stop."""

        def age(task: Task) -> tuple[bool, float, int]:
            return (self.cycle.placed_now(task), task.since, victim.order[task.part].index(task))

        heeds = self.rule.heed and self.state.disruptions.least
        if not heeds and all(pod_set.step == 1 for pod_set in victim.spec.pod_sets):
            return [max(elastic, key=age)]
        for newest in sorted(elastic, key=age, reverse=True):
            part = newest.part
            count = to_shrink(victim.spec.pod_sets[part], victim.bound[part])
            mine = [t for t in victim.order[part] if t.state is TaskState.BOUND and t is not newest]
            mine.sort(key=lambda t: (t.row == row, *age(t)), reverse=True)  # as much as possible where room is needed
            step = [newest, *mine[: count - 1]]
            if self._may_stop(step):
                return step
        return []

    def _may_stop(self, tasks: list[Task]) -> bool:
        """Whether every disruption budget allows that these stop."""
        if not self.rule.heed or not (budget := self.state.disruptions.broken_by(tasks)):
            return True
        self.cycle.budgets.add(budget)
        self.cycle.doubts += 1
        return False

    def _first_group(self, victim: Work, groups: Iterable[int], row: int | None) -> list[Task]:
        """What runs of the first of some groups that may stop (with ``row``: of which something runs there)."""
        for group in groups:
            parts = victim.groups.parts[group] if victim.groups is not None else []
            tasks = [t for t in victim.tasks.values() if t.part in parts and t.state is TaskState.BOUND]
            if (row is None or any(task.row == row for task in tasks)) and self._may_stop(tasks):
                return tasks
        return []

    def _leave(self, victim: Work, tasks: list[Task], *, quiet: bool = False) -> None:
        for task in tasks:
            if self.cycle.placed_now(task):
                self.state.move(task, TaskState.PENDING)
            elif quiet:
                self.state.move(task, TaskState.RELEASING, task.row, task.devices, task.since)
            else:
                self.cycle.evict(task, self.rule.reason())
                self.cycle.dated += 1  # who goes first may change as what they would lose grows
        if quiet:
            for task in victim.tasks.values():
                if task.hold:
                    self.state.unhold(task)
        else:
            self.gone.append((victim, tuple(tasks), ()))

    def _restore(self, unit: Unit) -> bool:
        """Puts a unit back where it was, if its place is still free; changes nothing otherwise."""
        state = self.state
        _victim, tasks, promises = unit
        if (promises and not tasks) or any(task.state is not TaskState.RELEASING for task in tasks):
            return False  # what was promised or just placed may look for a place again at no one's cost
        point = state.checkpoint()
        for task in tasks:
            if not state.has_room(task, task.row, task.devices, land=True):
                state.rollback(point)
                return False
            state.move(task, TaskState.BOUND, task.row, task.devices, task.since)
        for task, row, devices in promises:
            if not state.has_room(task, row, devices, land=True):
                state.rollback(point)
                return False
            state.hold(task, row, devices)
        whole = unit[0].promised_whole() if promises else unit[0].whole()
        if not whole or self._torn_by(unit) or not self._stands():
            state.rollback(point)  # an elastic task is no use without its gang
            return False
        return True

    def _torn_by(self, unit: Unit) -> bool:
        """Whether putting a unit back leaves a group below its minimum that was not so before the cycle."""
        victim, tasks, promises = unit
        groups = victim.groups
        if groups is None:
            return False
        counts = [runs + held for runs, held in zip(victim.bound, victim.promised(), strict=True)]
        parts = {task.part for task in tasks} | {task.part for task, _, _ in promises}
        torn = {groups.of[part] for part in parts} & set(groups.torn(counts))
        before = self.state.touched or {}
        for group in torn:
            members = [task for task in victim.tasks.values() if groups.of[task.part] == group]
            if any(t in before and before[t][0] is TaskState.BOUND and t.state is not TaskState.BOUND for t in members):
                return True
        return False

    def _put_back(self) -> None:
        """Spares every unit whose going turned out not to matter, dearest first."""
        for unit in self.gone[::-1]:
            point = self.state.checkpoint()
            if not self._restore(unit):
                continue
            left = [other for other in self.gone if other is not unit]
            if self._over_a_cap() or not self.rule.holds([victim for victim, tasks, _ in left if tasks]):
                self.state.rollback(point)
            else:
                self.gone = left


def _may_shrink(work: Work) -> bool:
    """Whether a workload could give something up and run on; never wrongly False."""
    if work.held or work.groups is not None:
        return True
    return any(bound > pod_set.min for bound, pod_set in zip(work.bound, work.spec.pod_sets, strict=True))
