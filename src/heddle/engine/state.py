"""The engine's picture of the world: kept up to date by deltas, changed on trial by transactions.

A delta (``set_*``, ``remove_*``, ``bind``, ``mark_releasing``, ``release_task``) checks its input before it
changes anything: a bad one raises ``ValueError`` and leaves the state as it was. Inside, six moves of a task
change every counter and write the inverse move to an undo log, so that each what-if is ``checkpoint`` ...
``rollback``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from heddle.engine.crowds import Crowds, Presence
from heddle.engine.disruption import Disruptions
from heddle.engine.lines import Lines
from heddle.engine.living import Living
from heddle.engine.model import (
    COUNTER,
    CPU,
    GPU,
    MEMORY,
    MODEL,
    NodeSpec,
    Placement,
    QueueSpec,
    TaskMix,
    WorkloadSpec,
    check_budgets,
    check_counters,
)
from heddle.engine.nodes import TENANCY_NAME, Nodes
from heddle.engine.places import Places
from heddle.engine.plan import Action, Bind, Evict
from heddle.engine.queues import Queue, QueueTree, past_at
from heddle.engine.scores import RequestClass, ScoreCache
from heddle.engine.snapshot import Snapshot, TaskFact
from heddle.engine.stamps import Stamp, Stamps
from heddle.engine.topology import Topology
from heddle.engine.usage import PastUsage
from heddle.engine.work import Hold, Task, TaskState, Work

Undo = tuple[Task, TaskState, int, tuple[int, ...], float, Hold | None, int]
"""A task as it was before a move (state, row, devices, since, hold), and `QueueTree.version` then."""

_REMEMBERED = 4096
"""Of so many times that room became free it is remembered where."""

_MANY = 16
"""Starts that are quicker to take back all at once."""

_LEDGER = {TaskState.BOUND: 0, TaskState.RELEASING: 1}
_PRESENCE = {TaskState.BOUND: Presence.RUNS, TaskState.RELEASING: Presence.LEAVES}


class State:
    """The world as the engine knows it."""

    def __init__(self) -> None:
        self.resources = [GPU, CPU, MEMORY, TENANCY_NAME]  # the last is only of nodes: no queue is charged for it
        self.column = {name: at for at, name in enumerate(self.resources)}
        self.nodes = Nodes(self.resources)
        self.cache = ScoreCache(self.nodes, self.column, self._tenants)
        self.crowds = Crowds(self.nodes, self.cache.eligible)
        self.topology = Topology(self.nodes)
        self.tree = QueueTree(self.resources, self._free)
        self.works: dict[str, Work] = {}
        self.places = Places(self.nodes, self.works)
        self.lines = Lines(self.tree, self.works)
        self.on_row: dict[int, dict[Task, None]] = {}
        self.holds_on_row: dict[int, dict[Task, None]] = {}
        self.holders: dict[str, None] = {}
        self.disruptions = Disruptions(self)
        self.freed = 0  # moves whenever room may have become free
        self.freed_rows: dict[int, int] = {}  # of late: on which row, by value of `freed`; -1 = anywhere
        self.placed = 0  # moves whenever places, nodes or rules change, not as claims come and go
        self.withdrawn = 0  # moves whenever somebody who waits is changed, or is gone
        self._stamps = Stamps()
        self._log: list[Undo] | None = None
        self.touched: dict[Task, tuple[TaskState, int, tuple[int, ...], Hold | None]] | None = None

    # -- deltas: cluster ---------------------------------------------------------------------------

    def set_topology(self, levels: Sequence[str]) -> None:
        """Names the node labels that make up the topology, outermost first.

        Raises:
            ValueError: a level is empty or named twice.
        """
        if len(set(levels)) != len(levels) or not all(levels):
            raise ValueError(f"topology.levels: {list(levels)!r} is not valid; name each level once")
        self.topology.set(levels)
        self._anew()

    def set_task_mix(self, mix: TaskMix | None) -> None:
        """Sets the mix by which ``fragmentation`` places; None (as at first) learns it from all workloads
        that are known, whether they run or wait."""
        self.cache.fragmentation.give(mix)
        self._anew()

    def set_node(self, spec: NodeSpec) -> tuple[tuple[str, str], ...]:
        """Adds or replaces a node. Tasks keep their places; returns (workload, task) of those whose
        device is gone."""
        self._learn(spec.resources)
        self._anew()
        self.tree.move_on()  # what is idle, and so what may be lent, depends on nodes
        row = self.nodes.row.get(spec.name)
        if row is None:
            self.nodes.add(spec, self.column)
            self._learn_hardware()
            self.topology.update()
            return ()
        old = self.nodes.specs[row]
        if old is not None and old.devices == spec.devices and old.resources == spec.resources:
            self.nodes.relabel(row, spec)
            return ()
        here = sorted(self.on_row.get(row, ()), key=lambda t: (t.work.name, t.name))
        held = sorted(self.holds_on_row.get(row, ()), key=lambda t: (t.work.name, t.name))
        places = [(t, t.state, self.nodes.device_ids(row, t.devices), t.since) for t in here]
        promises = [(t, self.nodes.device_ids(row, t.hold[1] if t.hold else ())) for t in held]
        for task in here:
            self.move(task, TaskState.PENDING)
        for task in held:
            self.unhold(task)
        self.nodes.remove(row)
        row = self.nodes.add(spec, self.column)
        self._learn_hardware()
        index = self.nodes.device_index[row]
        lost = []
        for task, was, ids, since in places:
            if not all(i in index for i in ids) or not task.cls.holds(row, [index[i] for i in ids]):
                task.ready = False
                lost.append((task.work.name, task.name))
                continue
            devices = tuple(index[i] for i in ids)
            self.move(task, TaskState.BOUND, row, devices, since)
            if was is TaskState.RELEASING:
                self.move(task, was, row, devices, since)
        for task, ids in promises:
            if all(i in index for i in ids) and task.cls.holds(row, [index[i] for i in ids]):
                self.hold(task, row, tuple(index[i] for i in ids))
        for task in {**dict.fromkeys(here), **dict.fromkeys(held)}:
            self.lines.update(task.work)
        return tuple(lost)

    def remove_node(self, name: str) -> tuple[tuple[str, str], ...]:
        """Forgets a node; returns (workload, task) of the tasks that were on it: they are pending now.

        Raises:
            ValueError: there is no such node.
        """
        row = self.nodes.row.get(name)
        if row is None:
            raise ValueError(f"node.name: {name!r} is not known; remove a node that was set")
        self.tree.move_on()
        here = sorted(self.on_row.get(row, ()), key=lambda t: (t.work.name, t.name))
        for task in here:
            self.move(task, TaskState.PENDING)
            task.ready = False
            self.lines.update(task.work)
        for task in list(self.holds_on_row.get(row, ())):
            self.unhold(task)
            self.lines.update(task.work)
        self.nodes.remove(row)
        self._learn_hardware()
        self.tree.move_on()
        self._anew()  # where it was the emptiest value of a label, others may be taken now
        return tuple((task.work.name, task.name) for task in here)

    def _anew(self) -> None:
        """Anything may have become possible anywhere."""
        self.placed += 1
        self._free_up(-1)

    def _free_up(self, row: int) -> None:
        """Room may have become free on a row (-1 = anywhere)."""
        self.freed += 1
        if len(self.freed_rows) >= _REMEMBERED:
            self.freed_rows = {}
        self.freed_rows[self.freed] = row  # where `freed` is set back later, this is noted anew before it counts

    def stamp_of_gains(self, rules: object, moment: float) -> Stamp:
        """As long as places, nodes, rules and shares stay the same, and nobody who waits goes; others may come.

        Shares are those last divided; ``rules`` are such as no object of the state holds. Losses are reckoned as of the
        moment, in seconds.
        """
        return self._stamps.of((self.placed, self.withdrawn, self.tree.shares, rules), moment)

    def _learn_hardware(self) -> None:
        """What a task that has no place yet counts for depends on what hardware there is: all is counted anew."""
        if self.cache.learn_hardware():
            self.tree.stale = True

    def set_counters(self, counts: Mapping[str, int]) -> None:
        """Says how many there are of what no node has, replacing what was said; one that is absent is 0.

        What runs keeps what it holds when there is less of it than before.

        Raises:
            ValueError: a name does not begin with ``counter:``, or an amount is no whole number from 0.
        """
        check_counters(counts)
        self._learn(counts)
        counters = self.tree.counters
        for column in counters.cap:
            counters.cap[column] = counts.get(self.resources[column], 0)
        self.tree.move_on()
        self._anew()

    def set_disruption_budgets(self, least: Mapping[str, int]) -> None:
        """Says how many tasks of each budget must keep running, replacing what was said; an absent one binds nobody.

        Which tasks count is said by :attr:`PodSet.budgets`. Neither evictions for others' gain nor moves take more of
        them than run beyond that number; nothing is started to reach it.

        Raises:
            ValueError: a name is empty, or a number is no whole one from 0.
        """
        check_budgets(least)
        self.disruptions.least = dict(least)
        self._anew()

    def totals(self) -> list[int]:
        """What there is in the cluster, per resource."""
        found: list[int] = self.nodes.total.tolist()
        for column, cap in self.tree.counters.cap.items():
            found[column] = cap
        return found

    def _tenants(self, row: int) -> Iterable[int]:
        return (task.cls.gpu for task in self.on_row.get(row, ()))

    def _free(self, column: int, land: bool) -> int:
        counters = self.tree.counters
        return counters.free(column, land=land) if column in counters.cap else self.nodes.free(column, land)

    # -- deltas: queues ----------------------------------------------------------------------------

    def set_queue(self, spec: QueueSpec) -> None:
        """Adds or replaces a queue. A missing parent or a cycle is no error: such a queue is inactive."""
        self._learn(spec.quota, spec.limit, spec.borrowing_limit, spec.lending_limit, spec.user_limit)
        queue = self.tree.queues.get(spec.name)
        if queue is None:
            self.tree.queues[spec.name] = Queue(spec, len(self.resources))
        else:
            queue.spec = spec
            queue.tick = 0
            queue.past = queue.past if spec.usage_half_life is not None else None
        self.tree.stale = True
        self._anew()

    def remove_queue(self, name: str) -> None:
        """Forgets a queue; its workloads stay and wait for it to come back.

        Raises:
            ValueError: there is no such queue.
        """
        if name not in self.tree.queues:
            raise ValueError(f"queue.name: {name!r} is not known; remove a queue that was set")
        del self.tree.queues[name]
        self.tree.stale = True

    def note_usage(self, now: float) -> None:
        """Brings decayed use up to now (seconds), before what runs changes; O(queues)."""
        self.settle()
        for queue in self.tree.decaying:
            queue.past = past_at(queue, self.resources, now) or PastUsage(now)

    def set_past_usage(self, queue: str, past: PastUsage) -> None:
        """Gives back what :meth:`past_usage` said of a queue; one without a half-life has no use for it.

        Raises:
            ValueError: there is no such queue.
        """
        if queue not in self.tree.queues:
            raise ValueError(f"queue.name: {queue!r} is not known; set it first")
        self._learn(past.amounts)
        if self.tree.queues[queue].spec.usage_half_life is not None:
            self.tree.queues[queue].past = past

    def past_usage(self) -> dict[str, PastUsage]:
        """Decayed use of queues that have a half-life, as last noted or given: for the caller to keep."""
        queues = sorted(self.tree.queues.items())
        return {name: q.past for name, q in queues if q.past is not None}

    def settle(self) -> None:
        """Brings the queue tree up to date after queues changed. Called by every reader."""
        if not self.tree.stale:
            return
        self.tree.settle()
        self.lines.clear()
        for queue in self.tree.queues.values():
            for counter in (queue.running, queue.releasing, queue.reserved, queue.fixed, queue.request):
                counter[:] = [0] * len(self.resources)
            queue.works, queue.rows, queue.live = {}, {}, Living()
        for work in self.works.values():
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
            self.lines.update(work)
            if self.tree.counts_users:
                for task in work.tasks.values():
                    self._charge_user(task, task.row, _LEDGER.get(task.state), 1)
                    self._charge_user(task, task.hold[0] if task.hold else -1, 2 if task.hold else None, 1)
        self._anew()
        self.tree.move_on()

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

    def _charge(self, work: Work, sign: int) -> None:
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

    # -- deltas: workloads -------------------------------------------------------------------------

    def set_workload(self, spec: WorkloadSpec) -> tuple[tuple[str, str], ...]:
        """Adds or replaces a workload. Tasks that stay keep their places.

        Returns (workload, task) of tasks that had a place and are no longer in the spec: they count as
        gone. A task whose request changed while it has a place keeps the place with the new request.
        """
        old = self.works.get(spec.name)
        if old is not None and old.spec == spec:
            return ()
        if old is not None and (old.held or any(old.bound) or any(old.leaving)):
            self.placed += 1
        if old is not None and old.spec.priority != spec.priority and replace(old.spec, priority=spec.priority) == spec:
            self._rank(old, spec)
            return ()
        self._learn(*[pod_set.request for pod_set in spec.pod_sets])
        self.settle()
        work = Work(spec, self._classes(spec))
        kept = [(old.tasks[name], task) for name, task in work.tasks.items() if name in old.tasks] if old else []
        lost: list[tuple[str, str]] = []
        places = [(new, was.state, was.row, was.devices, was.since, was.hold) for was, new in kept]
        if old:
            lost = [(old.name, t.name) for t in old.tasks.values() if t.row >= 0 and t.name not in work.tasks]
            self._forget(old)
        self.works[spec.name] = work
        self._arrive(work, 1)
        work.queue = self.tree.queues.get(spec.queue)
        if work.queue:
            work.queue.works[work.name] = work
        self._charge(work, 1)
        for task, state, at, devices, since, hold in places:
            if state is not TaskState.PENDING and task.cls.holds(at, devices):
                self.move(task, TaskState.BOUND, at, devices, since)
                task.ready = old is not None and old.tasks[task.name].ready
                if state is TaskState.RELEASING:
                    self.move(task, state, at, devices, since)
            if hold and task.cls.holds(*hold):
                self.hold(task, *hold)
        self.lines.update(work)
        return tuple(lost)

    def _rank(self, work: Work, spec: WorkloadSpec) -> None:
        """Takes up a spec with another priority: places stay as they are, so no room has become free by it."""
        self.settle()
        self.withdrawn += 1
        queue = work.queue if work.queue is not None and work.name in work.queue.live else None
        if queue is not None:
            queue.live.discard(work)
        work.spec = spec
        if queue is not None:
            queue.live.add(work)
            self.tree.touch(queue)
        self.lines.update(work)

    def _arrive(self, work: Work, sign: int) -> None:
        """Counts a workload's tasks into (or out of) the mix that fragmentation learns, and the budgets they are of."""
        for pod_set, cls, tasks in zip(work.spec.pod_sets, work.parts, work.order, strict=True):
            if tasks and cls.typical is not None:
                self.cache.fragmentation.count(cls.typical, sign * len(tasks))
            if pod_set.budgets:
                self.disruptions.count(tasks, pod_set.budgets, known=sign > 0)
            if pod_set.neighbours is not None and self.crowds.know(pod_set.neighbours, sign):
                self._anew()

    def stand_in(self, spec: WorkloadSpec) -> Work:
        """A workload for a what-if: it has classes and pending tasks, but the state does not know it."""
        return Work(spec, self._classes(spec))  # in no queue: caps are asked about separately

    def _classes(self, spec: WorkloadSpec) -> list[RequestClass]:
        return [self.cache.of(pod_set, spec) for pod_set in spec.pod_sets]

    def remove_workload(self, name: str) -> None:
        """Forgets a workload; the room of its tasks is free at once.

        Raises:
            ValueError: there is no such workload.
        """
        self.settle()
        self._forget(self.places.work(name))
        del self.works[name]

    def _forget(self, work: Work) -> None:
        self.withdrawn += any(work.pending)
        for task in work.tasks.values():
            if task.hold:
                self.unhold(task)
            if task.state is not TaskState.PENDING:
                self.move(task, TaskState.PENDING)
        self._charge(work, -1)
        self._arrive(work, -1)
        self.lines.forget(work)
        if work.queue is not None:
            work.queue.works.pop(work.name, None)
        work.queue = None

    def bind(self, placement: Placement, since: float = 0.0) -> None:
        """A task has been bound to its place; what was promised to it there is used up.

        Raises:
            ValueError: workload, task, node or device is not known, the task already has a place, or a
                device is held by others.
        """
        self.settle()
        task, row, devices = self.places.resolve(placement)
        work = task.work
        if task.state is not TaskState.PENDING:
            raise ValueError(f"placement.task: {task.name!r} of {work.name} already has a place; release it first")
        self.places.require_free(placement, task, row, devices)
        if task.hold:
            self.unhold(task)
        self.move(task, TaskState.BOUND, row, devices, since)
        task.ready = False
        if self.tree.lending.columns and not self.nodes.open[row]:
            self._free_up(-1)  # its queue keeps less back now, while as much is idle as before
        self.lines.update(work, joined=task)

    def resume(self, facts: Iterable[TaskFact]) -> None:
        """Puts tasks back where a snapshot says they are; those that are there already stay.

        Raises:
            ValueError: as of :meth:`bind`.
        """
        # what leaves may share its place with what was promised, never with what runs
        for fact in sorted(facts, key=lambda fact: fact.releasing):
            workload, task = fact.placement.workload, fact.placement.task
            if self.places.task(workload, task).state is not TaskState.PENDING:
                continue
            self.bind(fact.placement, fact.since)
            if fact.ready:
                self.mark_ready(workload, task)
            if fact.releasing:
                self.mark_releasing(workload, task)

    def mark_ready(self, workload: str, task: str, *, ready: bool = True) -> None:
        """A running task does its work now (or, with ``ready=False``, no longer): those that start after it may.

        Raises:
            ValueError: it is not known, or not running.
        """
        found = self.places.task(workload, task)
        if found.state is not TaskState.BOUND:
            raise ValueError(f"task: {task!r} of {workload} does not run; only running tasks can be ready")
        found.ready = ready
        self.placed += 1

    def mark_releasing(self, workload: str, task: str) -> None:
        """A running task was told to stop; it occupies its place until :meth:`release_task`.

        Raises:
            ValueError: it is not known, or not running.
        """
        self.settle()
        found = self.places.task(workload, task)
        if found.state is not TaskState.BOUND:
            raise ValueError(f"task: {task!r} of {workload} does not run; only running tasks can be releasing")
        self.move(found, TaskState.RELEASING, found.row, found.devices, found.since)
        self.lines.update(found.work)

    def release_task(self, workload: str, task: str) -> None:
        """A task's process is gone: its room is free, and the task is pending while the spec names it.

        Raises:
            ValueError: it is not known, or has no place.
        """
        self.settle()
        found = self.places.task(workload, task)
        if found.state is TaskState.PENDING:
            raise ValueError(f"task: {task!r} of {workload} has no place; nothing to release")
        self.move(found, TaskState.PENDING)
        found.ready = False
        self.lines.update(found.work)

    def set_reservation(self, workload: str, placements: Iterable[Placement]) -> None:
        """Replaces what is promised to a workload; nothing = drop it.

        Raises:
            ValueError: a placement names something unknown, another workload, or a task that has a place.
        """
        self.settle()
        work = self.places.work(workload)
        places = []
        for placement in placements:
            if placement.workload != workload:
                raise ValueError(f"placement.workload: {placement.workload!r} is not {workload!r}; reserve for one")
            task, row, devices = self.places.resolve(placement)
            if task.state is TaskState.BOUND:
                raise ValueError(f"placement.task: {task.name!r} of {workload} runs; reserve only for pending tasks")
            places.append((task, row, devices))
        for task in work.tasks.values():
            if task.hold:
                self.unhold(task)
        for task, row, devices in places:
            self.hold(task, row, devices)
        self.lines.update(work)

    def apply(self, action: Action, now: float = 0.0) -> None:
        """Carries out a planned action at once: for simulators and tests."""
        if isinstance(action, Bind):
            self.bind(action.placement, now)
        elif isinstance(action, Evict):
            self.mark_releasing(action.workload, action.task)
        else:
            self.set_reservation(action.workload, action.placements)

    def _learn(self, *amounts: Mapping[str, object]) -> None:
        column = self.column
        new = [name for part in amounts for name in part if name not in column]
        if not new:
            return
        for name in sorted(set(new)):
            self.column[name] = len(self.resources)
            self.resources.append(name)
            if name.startswith(COUNTER):
                self.tree.counters.add(self.column[name])
            if name.startswith(MODEL) and self.cache.loose:
                self.tree.stale = True  # what runs on that model is counted by it from now on
        self.nodes.widen()
        self.tree.widen()
        self.lines.asks.widen(len(self.resources))
        self.cache.resize()

    # -- moves and transactions --------------------------------------------------------------------

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

    def _note(self, task: Task) -> None:
        """In a transaction: how a task is before it changes."""
        if self._log is None:
            return
        self._log.append((task, task.state, task.row, task.devices, task.since, task.hold, self.tree.version))
        if self.touched is not None and task not in self.touched:
            self.touched[task] = (task.state, task.row, task.devices, task.hold)

    def marks(self, work: Work) -> bool:
        """Whether a trial leaves a mark on a workload: of those of which a task was placed, if only on trial, nothing
        is moved in the same transaction."""
        return work.name in self.lines.movable

    def ran_before(self, task: Task) -> bool:
        """Whether a task runs, and did so before the transaction, if there is one."""
        before = (self.touched or {}).get(task)
        return task.state is TaskState.BOUND and (before is None or before[0] is TaskState.BOUND)

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

    def keep(self, now: float) -> None:
        """Ends a transaction in which tasks got places and nothing else changed: they run from now on (seconds)."""
        works: dict[Work, None] = {}
        for task, (was, *_) in (self.touched or {}).items():
            if was is TaskState.PENDING and task.state is TaskState.BOUND:
                task.since, task.ready = now, False
                works[task.work] = None
        self.end()
        for work in works:
            self.lines.update(work)

    def end(self) -> None:
        """Ends the transaction; what was not rolled back stays."""
        self.placed += bool(self._log)
        self._log = None
        self.touched = None

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

    def broken_room(self) -> float:
        """The part of all GPUs that is idle but of no use for what usually arrives: the mean F of Weng et al. (see
        :mod:`heddle.engine.fragmentation`), 0 to 1."""
        return self.cache.broken_room()

    def age(self, now: float) -> None:
        """Counts ages up to now (seconds): who waits may stand elsewhere in line."""
        self.settle()
        self.placed += self.lines.age(now)

    def ages_in(self, now: float) -> float | None:
        """Seconds until age may next change an order in which something waits; None = it does not."""
        self.settle()
        return self.lines.ages_in(now)

    def waiting(self) -> list[str]:
        """Names of all workloads with pending tasks, queue by queue, first in line first."""
        self.settle()
        return self.lines.names()

    def queue_usage(self) -> dict[str, dict[str, int]]:
        """Running and promised amounts per queue and resource."""
        self.settle()
        return {
            name: {resource: queue.used(at) for at, resource in enumerate(self.resources) if resource}
            for name, queue in sorted(self.tree.queues.items())
        }

    def snapshot(self) -> Snapshot:
        """Everything this state was told, as values."""
        works = [self.works[name] for name in sorted(self.works)]
        tasks, reservations = [], {}
        for work in works:
            for task in work.tasks.values():
                if task.row >= 0:
                    place = self.places.of(task, task.row, task.devices)
                    tasks.append(TaskFact(place, task.since, task.state is TaskState.RELEASING, task.ready))
            held = tuple(self.places.of(t, *t.hold) for t in work.tasks.values() if t.hold)
            if held:
                reservations[work.name] = held
        return Snapshot(
            self.topology.labels,
            tuple(sorted((spec for spec in self.nodes.specs if spec), key=lambda spec: spec.name)),
            tuple(queue.spec for _, queue in sorted(self.tree.queues.items())),
            tuple(work.spec for work in works),
            tuple(tasks),
            reservations,
            self.past_usage(),
            self.cache.fragmentation.given,
            {self.resources[column]: cap for column, cap in self.tree.counters.cap.items() if cap},
            self.disruptions.least,
        )

    @classmethod
    def rebuild(cls, snapshot: Snapshot) -> State:
        """A state made from scratch that plans exactly as the one that was snapshot."""
        state = cls()
        state.set_topology(snapshot.topology)
        state.set_task_mix(snapshot.task_mix)
        state.set_counters(snapshot.counters)
        state.set_disruption_budgets(snapshot.disruption_budgets)
        for node in snapshot.nodes:
            state.set_node(node)
        for queue in snapshot.queues:
            state.set_queue(queue)
        state.lines.defer()
        for workload in snapshot.workloads:
            state.set_workload(workload)
        state.resume(snapshot.tasks)
        for workload_name, placements in snapshot.reservations.items():
            state.set_reservation(workload_name, placements)
        state.lines.catch_up()
        for queue_name, past in snapshot.past_usage.items():
            state.set_past_usage(queue_name, past)
        return state
