"""The engine's picture of the world: kept up to date by deltas, changed on trial by transactions.

Three layers, each a class that knows nothing of those built on it: ``Supply`` (what there is), ``Ledger`` (who has what
of it), and here what callers tell and ask. They are one object, not parts of one, since whoever decides moves tasks
hundreds of thousands of times a second: that is one call. A delta (``set_*``, ``remove_*``, ``bind``,
``mark_releasing``, ``release_task``) checks its input before it changes anything: a bad one raises ``ValueError`` and
leaves the state as it was. Those that move no task are of the supply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from heddle.engine.disruption import Disruptions
from heddle.engine.ledger import Ledger
from heddle.engine.lines import Lines
from heddle.engine.model import NodeSpec, Placement, WorkloadSpec, check_budgets
from heddle.engine.places import Places
from heddle.engine.plan import Action, Bind, Evict
from heddle.engine.queues import past_at
from heddle.engine.scores import RequestClass
from heddle.engine.snapshot import Snapshot, TaskFact
from heddle.engine.stamps import Stamp, Stamps
from heddle.engine.usage import PastUsage
from heddle.engine.work import TaskState, Work


class State(Ledger):
    """The world as the engine knows it."""

    def __init__(self) -> None:
        super().__init__()
        self.works: dict[str, Work] = {}
        self.places = Places(self.nodes, self.works)
        self.lines = Lines(self.tree, self.works)
        self.disruptions = Disruptions(self)
        self.withdrawn = 0  # moves whenever somebody who waits is changed, or is gone
        self._stamps = Stamps()

    # -- deltas: cluster ---------------------------------------------------------------------------

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

    # -- deltas: queues ----------------------------------------------------------------------------

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

    def _learn(self, *amounts: Mapping[str, object]) -> bool:
        """The same, for what waits too."""
        new = super()._learn(*amounts)
        if new:
            self.lines.asks.widen(len(self.resources))
        return new

    def settle(self) -> None:
        """Brings the queue tree up to date after queues changed. Called by every reader."""
        if not self.tree.stale:
            return
        self.tree.settle()
        self.lines.clear()
        self._recount(self.works.values())
        for work in self.works.values():
            self.lines.update(work)
        self._anew()
        self.tree.move_on()

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

    # -- transactions ------------------------------------------------------------------------------

    def marks(self, work: Work) -> bool:
        """Whether a trial leaves a mark on a workload: of those of which a task was placed, if only on trial, nothing
        is moved in the same transaction."""
        return work.name in self.lines.movable

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

    # -- reading -----------------------------------------------------------------------------------

    def stamp_of_gains(self, rules: object, moment: float) -> Stamp:
        """As long as places, nodes, rules and shares stay the same, and nobody who waits goes; others may come.

        Shares are those last divided; ``rules`` are such as no object of the state holds. Losses are reckoned as of the
        moment, in seconds.
        """
        return self._stamps.of((self.placed, self.withdrawn, self.tree.shares, rules), moment)

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

    def facts_of(self, work: Work) -> list[TaskFact]:
        """The tasks of a workload that have a place."""
        return [
            TaskFact(
                self.places.of(task, task.row, task.devices), task.since, task.state is TaskState.RELEASING, task.ready
            )
            for task in work.tasks.values()
            if task.row >= 0
        ]

    def promised_to(self, work: Work) -> tuple[Placement, ...]:
        """The places that are promised to a workload."""
        return tuple([self.places.of(task, *task.hold) for task in work.tasks.values() if task.hold])

    def snapshot(self) -> Snapshot:
        """Everything this state was told, as values."""
        works = [self.works[name] for name in sorted(self.works)]
        tasks = tuple([fact for work in works for fact in self.facts_of(work)])
        reservations = {work.name: self.promised_to(work) for work in works if work.held}
        return replace(self._told(), tasks=tasks, reservations=reservations)

    def _told(self) -> Snapshot:
        """What this state was told, but for where tasks are."""
        return Snapshot(
            self.topology.labels,
            tuple(sorted((spec for spec in self.nodes.specs if spec), key=lambda spec: spec.name)),
            tuple(queue.spec for _, queue in sorted(self.tree.queues.items())),
            tuple(self.works[name].spec for name in sorted(self.works)),
            (),
            {},
            self.past_usage(),
            self.cache.fragmentation.given,
            self.counters(),
            self.disruptions.least,
        )

    @classmethod
    def rebuild(cls, snapshot: Snapshot) -> State:
        """A state made from scratch that plans exactly as the one that was snapshot."""

        def put(state: State) -> None:
            state.resume(snapshot.tasks)
            for name, placements in snapshot.reservations.items():
                state.set_reservation(name, placements)

        return cls._made(snapshot, put)

    def copy(self) -> State:
        """A state that plans exactly as this one, to try things on: what :meth:`rebuild` makes of a snapshot, without
        the way over names."""
        return State._made(self._told(), self._put_likewise)

    def _put_likewise(self, twin: State) -> None:
        """Gives the tasks of a state that was just told the same the places that they have here."""
        twin.settle()
        rows = {row: twin.nodes.row[name] for name, row in self.nodes.row.items()}
        for name, copied in twin.works.items():
            for task, own in zip(copied.tasks.values(), self.works[name].tasks.values(), strict=True):
                if own.row >= 0:
                    twin.move(task, TaskState.BOUND, rows[own.row], own.devices, own.since)
                    task.ready = own.ready
                    if own.state is TaskState.RELEASING:
                        twin.move(task, TaskState.RELEASING, rows[own.row], own.devices, own.since)
                if own.hold is not None:
                    twin.hold(task, rows[own.hold[0]], own.hold[1])

    @classmethod
    def _made(cls, told: Snapshot, put: Callable[[State], None]) -> State:
        """A state that was told all this, and whose tasks were then put where they belong; lines are made last."""
        state = cls()
        state.set_topology(told.topology)
        state.set_task_mix(told.task_mix)
        state.set_counters(told.counters)
        state.set_disruption_budgets(told.disruption_budgets)
        for node in told.nodes:
            state.set_node(node)
        for queue in told.queues:
            state.set_queue(queue)
        state.lines.defer()
        for workload in told.workloads:
            state.set_workload(workload)
        put(state)
        state.lines.catch_up()
        for queue_name, past in told.past_usage.items():
            state.set_past_usage(queue_name, past)
        return state
