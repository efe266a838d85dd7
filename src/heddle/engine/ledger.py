"""Who has what of the supply: the moves of a task, everything that counts them, and the log that takes them back.

Six moves of a task (starting, being told to stop, being gone, and the way back of each) and the promise of a place
change every counter and write the inverse to an undo log, so that each what-if is ``checkpoint`` ... ``rollback``.
Knows tasks and their queues; is not aware of who waits in which line, or of what callers say.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from heddle.engine.crowds import Presence
from heddle.engine.living import Living
from heddle.engine.queues import Queue
from heddle.engine.scores import RequestClass
from heddle.engine.supply import Supply
from heddle.engine.work import Hold, Task, TaskState, Work

Undo = tuple[Task, TaskState, int, tuple[int, ...], float, Hold | None, int]
"""A task as it was before a move (state, row, devices, since, hold), and `QueueTree.version` then."""

_MANY = 16
"""Starts that are quicker to take back all at once."""

_LEDGER = {TaskState.BOUND: 0, TaskState.RELEASING: 1}
_PRESENCE = {TaskState.BOUND: Presence.RUNS, TaskState.RELEASING: Presence.LEAVES}


class Ledger(Supply):
    """What tasks use, and are promised: the middle layer of :class:`State`."""

    def __init__(self) -> None:
        super().__init__(self._tenants)
        self.on_row: dict[int, dict[Task, None]] = {}  # who runs or leaves on a row of nodes
        self.holds_on_row: dict[int, dict[Task, None]] = {}  # who has a promise of a place there
        self.holders: dict[str, None] = {}  # workloads that have a promise
        self._log: list[Undo] | None = None
        # within a transaction: how each task that it moved was before
        self.touched: dict[Task, tuple[TaskState, int, tuple[int, ...], Hold | None]] | None = None

    # -- reading -----------------------------------------------------------------------------------

    def has_room(self, task: Task, row: int, devices: tuple[int, ...], *, land: bool) -> bool:
        """Whether a place is free for a task, down to its devices: now, or (``land``) once all who leave have left.

        Who else is there is not asked.
        """
        nodes, cls = self.nodes, task.cls.at(row)
        free, dev_free = (nodes.land, nodes.dev_land) if land else (nodes.bind, nodes.dev_bind)
        return all(free[row, column] >= cls.needs[column] for column in cls.fit) and all(
            dev_free[row, device] >= cls.floor for device in devices
        )

    def ran_before(self, task: Task) -> bool:
        """Whether a task runs, and did so before the transaction, if there is one."""
        before = (self.touched or {}).get(task)
        return task.state is TaskState.BOUND and (before is None or before[0] is TaskState.BOUND)

    def _tenants(self, row: int) -> Iterable[int]:
        return (task.cls.gpu for task in self.on_row.get(row, ()))

    # -- moves -------------------------------------------------------------------------------------

    def move(self, task: Task, to: TaskState, row: int = -1, devices: tuple[int, ...] = (), since: float = 0.0) -> None:
        """Takes a task from its state to another and adjusts every counter; undoable inside a transaction."""
        was = task.state
        self._note(task)
        cls, work = task.cls, task.work
        if not cls.fixed:
            cls = cls.at(row if was is TaskState.PENDING else task.row)
        nodes = self.nodes
        self.tree.move_on()
        if was is TaskState.PENDING:
            if to is TaskState.BOUND:
                nodes.occupy(row, cls.need, devices, cls.share)
            else:
                nodes.gone(row, cls.need, devices, cls.share, -1)
            self.on_row.setdefault(row, {})[task] = None
            work.pending[task.part] -= 1
        elif was is TaskState.BOUND:
            if to is TaskState.PENDING:
                nodes.occupy(task.row, cls.need, task.devices, cls.share, -1)
            else:
                nodes.leave(task.row, cls.need, task.devices, cls.share)
            work.bound[task.part] -= 1
        else:
            if to is TaskState.PENDING:
                nodes.gone(task.row, cls.need, task.devices, cls.share)
            else:
                nodes.leave(task.row, cls.need, task.devices, cls.share, -1)
            work.leaving[task.part] -= 1
        if self._log is None:
            self.placed += 1
        if to is TaskState.PENDING:
            del self.on_row[task.row][task]
            work.pending[task.part] += 1
            row = -1
            self._free_up(task.row)
        elif to is TaskState.BOUND:
            work.bound[task.part] += 1
        else:
            work.leaving[task.part] += 1
            self._free_up(row)
        queue = work.queue
        if queue is not None:
            if to is TaskState.BOUND:
                queue.live.add(work)
            elif was is TaskState.BOUND and not (work.held or any(work.bound)):
                queue.live.discard(work)
            fixed = not work.spec.preemptible
            if not fixed and to is TaskState.BOUND:
                queue.settle_on(row, 1)
            elif not fixed and was is TaskState.BOUND:
                queue.settle_on(task.row, -1)
            runs = (to is TaskState.BOUND) - (was is TaskState.BOUND)
            self._count_in(queue, cls, runs, (to is TaskState.RELEASING) - (was is TaskState.RELEASING), fixed=fixed)
        for column in cls.counted:
            counters, amount = self.tree.counters, cls.needs[column]
            counters.running[column] += amount * ((to is TaskState.BOUND) - (was is TaskState.BOUND))
            counters.releasing[column] += amount * ((to is TaskState.RELEASING) - (was is TaskState.RELEASING))
        if self.tree.counts_users:
            at_row = row if was is TaskState.PENDING else task.row
            self._charge_user(task, at_row, _LEDGER.get(was), -1)
            self._charge_user(task, at_row, _LEDGER.get(to), 1)
        if work.social:
            if was is not TaskState.PENDING:
                self._meet(task, _PRESENCE[was], task.row, -1)
            if to is not TaskState.PENDING:
                self._meet(task, _PRESENCE[to], row, 1)
        task.state, task.row, task.devices, task.since = to, row, devices, since

    def _count_in(self, queue: Queue, cls: RequestClass, runs: int, leaves: int, *, fixed: bool) -> None:
        """So many more tasks of a class run, or are leaving, in a queue and all above it."""
        self.tree.touch(queue)
        needs, charged = cls.needs, cls.charged
        for at in queue.path:
            if runs:
                running = at.running
                for column in charged:
                    running[column] += needs[column] * runs
                if fixed:
                    firm = at.fixed
                    for column in charged:
                        firm[column] += needs[column] * runs
            if leaves:
                releasing = at.releasing
                for column in charged:
                    releasing[column] += needs[column] * leaves

    def _meet(self, task: Task, how: Presence, row: int, sign: int) -> None:
        """Counts a task among those who are on a row."""
        wish = task.work.spec.pod_sets[task.part].neighbours
        if wish is not None and self.crowds.count(wish, how, row, sign):
            self._free_up(-1)  # whoever seeks its company may find room by it

    def hold(self, task: Task, row: int, devices: tuple[int, ...]) -> None:
        """Promises a place to a task."""
        self._note(task)
        cls = task.cls.at(row)
        self.nodes.reserve(row, cls.need, devices, cls.share)
        self.holds_on_row.setdefault(row, {})[task] = None
        task.hold = (row, devices)
        self._promise(task, cls, row, 1)
        if task.work.social:
            self._meet(task, Presence.HELD, row, 1)

    def unhold(self, task: Task) -> None:
        """Takes a promise back."""
        self._note(task)
        row, devices = task.hold or (-1, ())
        cls = task.cls.at(row)
        self.nodes.reserve(row, cls.need, devices, cls.share, -1)
        del self.holds_on_row[row][task]
        task.hold = None
        self._promise(task, cls, row, -1)
        if task.work.social:
            self._meet(task, Presence.HELD, row, -1)
        self._free_up(row)

    def _promise(self, task: Task, cls: RequestClass, row: int, sign: int) -> None:
        work = task.work
        self.tree.move_on()
        if self._log is None:
            self.placed += 1
        work.held += sign
        if work.held:
            self.holders[work.name] = None
        else:
            self.holders.pop(work.name, None)
        for column in cls.counted:
            self.tree.counters.reserved[column] += sign * cls.needs[column]
        if work.queue is None:
            return
        self.tree.touch(work.queue)
        if sign > 0:
            work.queue.live.add(work)
        elif not (work.held or any(work.bound)):
            work.queue.live.discard(work)
        fixed = not work.spec.preemptible
        if not fixed:
            work.queue.settle_on(row, sign)
        for column in cls.charged:
            amount = sign * cls.needs[column]
            for at in work.queue.path:
                at.reserved[column] += amount
                if fixed:
                    at.fixed[column] += amount
        if self.tree.counts_users:
            self._charge_user(task, row, 2, sign)

    # -- transactions ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts a transaction: every move from here on can be taken back."""
        self._log = []
        self.touched = {}

    def checkpoint(self) -> int:
        """A point in the transaction to which :meth:`rollback` can return."""
        return len(self._log or ())

    def rollback(self, point: int = 0) -> None:
        """Takes back every move since a checkpoint."""
        log = self._log
        if log is None:
            return
        placed, self._log = self.placed, None  # what follows must not be noted, and leaves all as it was
        while len(log) > point:
            if len(log) - point >= _MANY and (starts := self._starts(log, point)):
                version = log[-len(starts)][-1]
                del log[-len(starts) :]
                self._take_back(starts)
                self.tree.version = version
                continue
            task, state, row, devices, since, hold, version = log.pop()
            if hold != task.hold:
                if hold is None:
                    self.unhold(task)
                else:
                    self.hold(task, *hold)
            else:
                self.move(task, state, row, devices, since)
            self.tree.version = version
        self._log, self.placed = log, placed

    def _starts(self, log: list[Undo], point: int) -> list[Undo]:
        """The last moves since a checkpoint, as far as they are starts that can be taken back all at once; none, if
        they are too few for that to be cheaper."""
        if self.tree.counts_users:
            return []
        at = len(log)
        while at > point:
            task, was, _, _, _, hold, _ = log[at - 1]
            plain = was is TaskState.PENDING and task.state is TaskState.BOUND and task.hold == hold
            if not plain or task.work.social or task.cls.counted:
                break
            at -= 1
        return log[at:] if len(log) - at >= _MANY else []

    def _take_back(self, starts: list[Undo]) -> None:
        """Takes many starts back, each task's last move: what they took is summed up first."""
        self.tree.move_on()
        places: list[tuple[int, RequestClass, tuple[int, ...]]] = []
        counts: dict[tuple[Queue, RequestClass, bool], int] = {}
        for task, _, _, _, since, _, _ in reversed(starts):
            work, row = task.work, task.row
            cls = task.cls.at(row)
            places.append((row, cls, task.devices))
            del self.on_row[row][task]
            work.bound[task.part] -= 1
            work.pending[task.part] += 1
            task.state, task.row, task.devices, task.since = TaskState.PENDING, -1, (), since
            queue = work.queue
            if queue is not None:
                if not (work.held or any(work.bound)):
                    queue.live.discard(work)
                fixed = not work.spec.preemptible
                if not fixed:
                    queue.settle_on(row, -1)
                key = (queue, cls, fixed)
                counts[key] = counts.get(key, 0) + 1
        for (queue, cls, fixed), count in counts.items():
            self._count_in(queue, cls, -count, 0, fixed=fixed)
        rows = [row for row, _, _ in places]
        needs = np.array([cls.need for _, cls, _ in places])
        used = [(row, device, cls.share) for row, cls, devices in places for device in devices]
        self.nodes.vacate(rows, needs, used)
        for row in dict.fromkeys(rows):
            self._free_up(row)

    def end(self) -> None:
        """Ends the transaction; what was not rolled back stays."""
        self.placed += bool(self._log)
        self._log = None
        self.touched = None

    def _note(self, task: Task) -> None:
        """In a transaction: how a task is before it changes."""
        if self._log is None:
            return
        self._log.append((task, task.state, task.row, task.devices, task.since, task.hold, self.tree.version))
        if self.touched is not None and task not in self.touched:
            self.touched[task] = (task.state, task.row, task.devices, task.hold)

    # -- charging queues ---------------------------------------------------------------------------

    def _recount(self, works: Iterable[Work]) -> None:
        """Counts all that some workloads use and ask for anew: the queues, or who is in which, may be others."""
        for queue in self.tree.queues.values():
            for counter in (queue.running, queue.releasing, queue.reserved, queue.fixed, queue.request):
                counter[:] = [0] * len(self.resources)
            queue.works, queue.rows, queue.live = {}, {}, Living()
        for work in works:
            work.queue = self.tree.queues.get(work.spec.queue)
            if work.queue:
                work.queue.works[work.name] = work
                if work.held or any(work.bound):
                    work.queue.live.add(work)
                for task in work.tasks.values() if work.spec.preemptible else ():
                    if task.state is TaskState.BOUND:
                        work.queue.settle_on(task.row, 1)
                    if task.hold:
                        work.queue.settle_on(task.hold[0], 1)
            self._charge(work, 1)
            if self.tree.counts_users:
                for task in work.tasks.values():
                    self._charge_user(task, task.row, _LEDGER.get(task.state), 1)
                    self._charge_user(task, task.hold[0] if task.hold else -1, 2 if task.hold else None, 1)

    def _charge(self, work: Work, sign: int) -> None:
        """Counts all that a workload uses and asks for into its queue and those above it (or out of them)."""
        queue = work.queue
        if queue is None:
            return
        self.tree.asked(queue)
        fixed = not work.spec.preemptible
        for task in work.tasks.values():
            for column in task.cls.wanted:
                queue.request[column] += sign * (task.cls.needs[column] or task.cls.gpu)
            if task.state is not TaskState.PENDING:
                cls = task.cls.at(task.row)
                for column in cls.charged:
                    amount = sign * cls.needs[column]
                    for at in queue.path:
                        if task.state is TaskState.BOUND:
                            at.running[column] += amount
                            at.fixed[column] += amount * fixed
                        else:
                            at.releasing[column] += amount
            if task.hold:
                cls = task.cls.at(task.hold[0])
                for column in cls.charged:
                    amount = sign * cls.needs[column]
                    for at in queue.path:
                        at.reserved[column] += amount
                        at.fixed[column] += amount * fixed
        self.tree.touch(queue)

    def _charge_user(self, task: Task, row: int, ledger: int | None, sign: int) -> None:
        """Counts a task on a row for its submitter in queues that cap submitters; ledgers as in ``Submitters.of``."""
        work = task.work
        if work.queue is None or ledger is None:
            return
        cls = task.cls.at(row)
        for at in work.queue.path:
            if at.submitters is not None:
                counter = at.submitters.of(work.spec.user)[ledger]
                for column in cls.charged:
                    counter[column] += sign * cls.needs[column]
