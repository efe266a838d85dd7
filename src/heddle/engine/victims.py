"""Making room for one claim: which running work would have to leave, and the least of it.

A rule says who may be evicted for whom; this module finds where. For each task that does not fit it
compares a few nodes by what would have to leave there, takes the cheapest, and at the end puts back
everyone whose place turned out not to be needed. What leaves is a unit: one elastic task, or, once a
gang is at its minimum, all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from heddle.engine.cycle import Cycle
from heddle.engine.nodes import Ints
from heddle.engine.placement import Need, waiting
from heddle.engine.queues import Cap, CapKind, Queue
from heddle.engine.reasons import Reason
from heddle.engine.state import Task, TaskState, Work


class Rule(Protocol):
    """Who may be evicted for a claim."""

    def candidates(self) -> list[Work]:
        """Workloads that might be evicted, cheapest first."""
        ...

    def allows(self, victim: Work) -> bool:
        """Whether a unit of this workload may be evicted as things stand."""
        ...

    def rank(self, victim: Work) -> tuple[int, ...]:
        """How dear a victim is: lower goes first."""
        ...

    def reason(self) -> Reason:
        """Why, for the evicted."""
        ...


Unit = tuple[Work, tuple[Task, ...], tuple[tuple[Task, int, tuple[int, ...]], ...]]
"""A workload, the running tasks that leave, and the promises that are taken back."""


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
        self._by_row: dict[int, list[Work]] | None = None
        found = (victim for victim in rule.candidates() if victim is not work)
        self.victims = sorted(found, key=lambda victim: victim.name)

    def run(self) -> bool:
        """Makes room and promises the places, or changes nothing. True when the need has its places."""
        alone = sum(count for _, count in self.need) == 1  # then trying is no dearer than asking
        if not self.victims or not (alone or self._could_ever_fit()):
            return False
        point = self.state.checkpoint()
        if self._lift_caps() and self._find_places():
            self._put_back()
            if self.state.tree.lending.columns and self._over_a_cap():  # what is kept back grew as others left
                self.state.rollback(point)
                return False
            if any(unit[2] or any(task.state is TaskState.PENDING for task in unit[1]) for unit in self.gone):
                self.cycle.loosened = True
            return True
        self.state.rollback(point)
        return False

    def _over_a_cap(self) -> bool:
        """Whether the claim, with its places, breaks a cap."""
        user = self.work.spec.user
        tree = self.state.tree
        return tree.stopped_by(self.queue, self.demand, fixed=False, user=user, land=True, included=True) is not None

    def _could_ever_fit(self) -> bool:
        """Cheap and never wrongly False: whether each pod set fits once every candidate has left."""
        point = self.state.checkpoint()
        for victim in self.victims:
            self._leave(victim, [t for t in victim.tasks.values() if t.state is TaskState.BOUND], quiet=True)
        placed = self.cycle.placer.place(self.work, self.need, land=True)
        self.state.rollback(point)
        return placed is not None

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
        if self.work.spec.topology_required is None:
            return self._fill(None)
        for rows in self._domains():
            point, mark = self.state.checkpoint(), len(self.gone)
            if self._fill(rows):
                return True
            self.state.rollback(point)
            del self.gone[mark:]
        return False

    def _domains(self) -> list[Ints]:
        """Domains of the required level in which the need would fit once all candidates have left, best
        fit first."""
        point = self.state.checkpoint()
        for victim in self.victims:
            self._leave(victim, [t for t in victim.tasks.values() if t.state is TaskState.BOUND], quiet=True)
        found = [rows for rows in self.cycle.placer.arenas(self.work, self.need, land=True) if rows is not None]
        self.state.rollback(point)
        return found

    def _fill(self, rows: Ints | None) -> bool:
        """Places task by task, evicting on the node that costs least wherever none has room."""
        placer = self.cycle.placer
        for part, count in sorted(self.need, key=lambda item: (-self.work.parts[item[0]].gpu, item[0])):
            cls = self.work.parts[part]
            for task in waiting(self.work, part, count):
                row = placer.best(cls, rows, land=True)
                if row < 0:
                    row = self._open_node(task, rows)
                if row < 0:
                    return False
                placer.put(task, row, land=True)
        return True

    def _open_node(self, task: Task, rows: Ints | None) -> int:
        """Evicts on the cheapest node until the task fits there; -1 = nowhere."""
        state = self.state
        inside = None if rows is None else set(rows.tolist())
        by_row = self._rows()
        if inside is not None:
            by_row = {row: works for row, works in by_row.items() if row in inside}
        nodes = state.nodes
        usable = [row for row in by_row if task.cls.accepts(nodes.specs[row])]
        free = nodes.land[usable, 0].tolist()
        order = sorted((-most, nodes.names[row], row) for most, row in zip(free, usable, strict=True))
        usable = [row for _, _, row in order]
        best: tuple[tuple[object, ...], int] | None = None
        compared = 0
        for row in usable:
            if compared >= self.cycle.budget.victim_nodes and best is not None:
                break
            point, mark = state.checkpoint(), len(self.gone)
            ranks = {victim: self.rule.rank(victim) for victim in by_row[row]}
            if self._clear(task, row, by_row[row], ranks):
                compared += 1
                spent = self.gone[mark:]
                running = [t for _, tasks, _ in spent for t in tasks]
                cost = (
                    max(
                        (ranks.get(victim) or self.rule.rank(victim) for victim, tasks, _ in spent if tasks),
                        default=(),
                    ),
                    sum(t.cls.gpu for t in running),
                    len(running),
                    nodes.names[row],
                )
                if best is None or cost < best[0]:
                    best = (cost, row)
            state.rollback(point)
            del self.gone[mark:]
        if best is None:
            return -1
        row = best[1]
        self._clear(task, row, by_row[row], {victim: self.rule.rank(victim) for victim in by_row[row]})
        return row

    def _rows(self) -> dict[int, list[Work]]:
        """The candidates on each row, worked out once: what leaves meanwhile is passed over later."""
        if self._by_row is None:
            self._by_row = {}
            for victim in self.victims:
                for member in victim.tasks.values():
                    at = member.row if member.state is TaskState.BOUND else member.hold[0] if member.hold else -1
                    if at >= 0:
                        here = self._by_row.setdefault(at, [])
                        if not here or here[-1] is not victim:
                            here.append(victim)
        return self._by_row

    def _clear(self, task: Task, row: int, here: Sequence[Work], ranks: dict[Work, tuple[int, ...]]) -> bool:
        """Evicts candidates on a row, cheapest first, until the task fits there; then puts needless ones
        back."""
        state = self.state
        mark = len(self.gone)
        for victim in sorted(here, key=lambda v: (ranks[v], v.name)):
            while not state.cache.fits(task.cls, row, land=True):
                if not self.rule.allows(victim) or not self._evict(victim, row):
                    break
            else:
                break
        if not state.cache.fits(task.cls, row, land=True):
            return False
        for unit in reversed(self.gone[mark:]):
            point = state.checkpoint()
            if not self._restore(unit):
                continue
            if state.cache.fits(task.cls, row, land=True):
                self.gone.remove(unit)
            else:
                state.rollback(point)
        return True

    # -- units -------------------------------------------------------------------------------------

    def _evict(self, victim: Work, row: int | None) -> bool:
        """Evicts the next unit of a workload (with ``row``: one that helps there). False = nothing left
        there."""
        running = [task for task in victim.tasks.values() if task.state is TaskState.BOUND]
        held = [task for task in victim.tasks.values() if task.hold]
        if row is not None and not any(t.row == row for t in running) and not any(
            t.hold is not None and t.hold[0] == row for t in held
        ):  # fmt: skip
            return False
        if held:
            promises = tuple((task, *task.hold) for task in held if task.hold)
            for task in held:
                self.state.unhold(task)
            begun = self._begun(victim, running)
            self._leave(victim, begun)
            self.gone[-1] = (victim, tuple(begun), promises)
            return True
        elastic = [
            task
            for task in running
            if victim.bound[task.part] > victim.spec.pod_sets[task.part].min and (row is None or task.row == row)
        ]
        if elastic and victim.whole():
            newest = max(elastic, key=lambda t: (self._fresh(t), t.since, victim.order[t.part].index(t)))
            self._leave(victim, [newest])
        elif group := self._spare_group(victim, row):
            self._leave(victim, group)
        elif running:
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
    def _spare_group(victim: Work, row: int | None) -> list[Task]:
        """What runs of the next group that may leave without breaking the workload (with ``row``: one that runs
        there)."""
        for group in victim.groups.spare(victim.bound) if victim.groups is not None else ():
            parts = victim.groups.parts[group] if victim.groups is not None else []
            tasks = [t for t in victim.tasks.values() if t.part in parts and t.state is TaskState.BOUND]
            if row is None or any(task.row == row for task in tasks):
                return tasks
        return []

    def _fresh(self, task: Task) -> bool:
        """Whether the task was placed in this very cycle: taking it back stops nothing that runs."""
        before = (self.state.touched or {}).get(task)
        return before is not None and before[0] is TaskState.PENDING

    def _leave(self, victim: Work, tasks: list[Task], *, quiet: bool = False) -> None:
        for task in tasks:
            if self._fresh(task):
                self.state.move(task, TaskState.PENDING)
            else:
                self.state.move(task, TaskState.RELEASING, task.row, task.devices, task.since)
                if not quiet:
                    self.cycle.evict_reason[task] = self.rule.reason()
        if quiet:
            for task in victim.tasks.values():
                if task.hold:
                    self.state.unhold(task)
        else:
            self.gone.append((victim, tuple(tasks), ()))

    def _restore(self, unit: Unit) -> bool:
        """Puts a unit back where it was, if its place is still free; changes nothing otherwise."""
        state = self.state
        nodes = state.nodes
        _victim, tasks, promises = unit
        if (promises and not tasks) or any(task.state is not TaskState.RELEASING for task in tasks):
            return False  # what was promised or just placed may look for a place again at no one's cost
        point = state.checkpoint()
        for task in tasks:
            free = all(nodes.land[task.row, c] >= task.cls.needs[c] for c in task.cls.used)
            if not free or any(nodes.dev_land[task.row, d] < task.cls.share for d in task.devices):
                state.rollback(point)
                return False
            state.move(task, TaskState.BOUND, task.row, task.devices, task.since)
        for task, row, devices in promises:
            free = all(nodes.land[row, c] >= task.cls.needs[c] for c in task.cls.used)
            if not free or any(nodes.dev_land[row, d] < task.cls.share for d in devices):
                state.rollback(point)
                return False
            state.hold(task, row, devices)
        whole = unit[0].promised_whole() if promises else unit[0].whole()
        if not whole or self._torn_by(unit):
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
        for unit in reversed(self.gone):
            point = self.state.checkpoint()
            if not self._restore(unit):
                continue
            if self._over_a_cap():
                self.state.rollback(point)
