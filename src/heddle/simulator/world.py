"""A cluster in virtual time: what happens is brought to the engine, what the engine decides is done at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from heapq import heappop, heappush

from heddle.engine.forward import ROUNDS, get_ready
from heddle.engine.model import NodeSpec, QueueSpec
from heddle.engine.plan import Budget
from heddle.engine.scheduler import advance
from heddle.engine.speeds import slowness
from heddle.engine.state import State
from heddle.simulator.course import Course
from heddle.simulator.events import Event, NodeComes, NodeFails, QueueChanges, ordered
from heddle.simulator.jobs import Job
from heddle.simulator.policies import SERVICE, Policy, Preempts
from heddle.simulator.present import Present
from heddle.simulator.records import Record

_ALONE = "all"
_ANYWAY = frozenset({"cancelled", "grace"})
"""What comes though the job has begun, lost or got tasks since it was foreseen."""
_HAIR = 1e-6


class World:
    """One simulation. It runs on one core, and the same inputs give the same course.

    Attributes:
        records: what became of each job, by name.
        course: the figures over time.
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        jobs: Iterable[Job],
        policy: Policy,
        *,
        topology: Sequence[str] = (),
        queues: Sequence[QueueSpec] = (),
        events: Iterable[Event] = (),
        interval: float = 0.0,
        budget: Budget | None = None,
        present: Present | None = None,
    ) -> None:
        """A cluster before its first job.

        Args:
            nodes: machines.
            jobs: what arrives, in any order.
            policy: how it is scheduled.
            topology: levels, as of :meth:`State.set_topology`.
            queues: the queue tree; queues that jobs name beside it have no quota and no limit.
            events: what happens beside.
            interval: seconds between two cycles at least; what happens in between is heard together at the next whole
                multiple. 0 = a cycle whenever something happens.
            budget: of a cycle.
            present: a live heddle of which this goes on, on these nodes and with these queues; ``jobs`` are what comes
                on top.

        Raises:
            ValueError: a policy without queues gets some, an event names a node that is not there, or two jobs have
                one name.
        """
        self.policy = policy
        self.jobs = sorted((*(present.jobs if present else ()), *jobs), key=lambda job: job.submit)
        self.interval = interval
        base = budget or Budget()
        searches = max(base.shadow_searches, policy.shadows)
        self.budget = replace(base, shadows=policy.shadows, shadow_searches=searches, overdue=math.inf)
        self.state = State()
        self.state.set_topology(topology)
        self.nodes = {node.name: node for node in nodes}
        self.gone: dict[str, NodeSpec] = {}
        self._ageing = False
        for node in nodes:
            self.state.set_node(node)
        self._set_queues(queues)
        self.now = self.jobs[0].submit if self.jobs else 0.0
        self.records: dict[str, Record] = {}
        self.running: dict[str, Record] = {}
        self.arrived = 0
        self.ended = 0
        self.cycles = 0
        self.again_at: float | None = None
        self._due: list[tuple[float, int, int, str, str]] = []  # (when, version, number, what, whom)
        self._numbers = 0
        self._events = ordered(events)
        self._happened = 0
        self.course = Course(sum(len(node.devices) for node in nodes))
        self._in_order = any(pods.after for job in self.jobs if job.told for pods in job.told.pod_sets)
        if present is not None:
            self._take_up(present)

    def _set_queues(self, queues: Sequence[QueueSpec]) -> None:
        if self.policy.alone:
            queues = (QueueSpec(_ALONE),)
        named = {queue.name for queue in queues}
        others = () if self.policy.alone else sorted({job.queue for job in self.jobs if not job.told} - named)
        for queue in (*queues, *map(QueueSpec, others)):
            self.state.set_queue(self._ordered(queue))

    def _ordered(self, queue: QueueSpec) -> QueueSpec:
        self._ageing = self._ageing or queue.ageing is not None
        return queue if self.policy.ordering is None else replace(queue, ordering=self.policy.ordering)

    def _take_up(self, present: Present) -> None:
        """What runs in a live heddle runs on, what waits waits on."""
        state, told, self.now = self.state, present.snapshot, present.at
        if len({job.name for job in self.jobs}) < len(self.jobs):
            raise ValueError("jobs: one has the name of another that is there already; give each its own")
        state.set_task_mix(told.task_mix)
        state.set_counters(told.counters)
        state.set_disruption_budgets(told.disruption_budgets)
        for job in present.jobs:
            record = self.records[job.name] = Record(job)
            state.set_workload(job.workload())
            self.course.arrived(self.now, record)
        self.arrived = len(present.jobs)
        for fact in told.tasks:
            state.bind(fact.placement, fact.since)
            if fact.ready:
                state.mark_ready(fact.placement.workload, fact.placement.task)
        for name, places in told.reservations.items():
            state.set_reservation(name, places)
        for name, past in told.past_usage.items():
            if name in state.tree.queues:
                state.set_past_usage(name, past)
        for name, since in sorted(present.since.items()):
            record, spec = self.records[name], state.works[name].spec
            record.at = min(since, self.now)
            self._recount((name,), record.at)
            record.saved = max(0.0, (spec.checkpointed or since) - since) if spec.movable else 0.0
            if state.works[name].torn():
                self._break((name,))
        self.again_at = self.now

    # -- time --------------------------------------------------------------------------------------

    def run(self, watch: Callable[[World], bool] | None = None, until: float = math.inf) -> bool:
        """Goes on until nothing is left to happen, or until a moment (seconds).

        ``watch`` is called after each cycle; when it returns False the simulation stops where it is. Returns whether
        it did not.
        """
        stopped = False
        while (at := self._next()) is not None and at <= until:
            if self.interval:
                at = math.ceil(at / self.interval) * self.interval
            self.now = max(self.now, at)
            self.state.note_usage(self.now)
            self._happen()
            self._settle()
            stopped = watch is not None and not watch(self)
            if stopped:
                break
        for record in self.running.values():
            record.count(self.now)
        self.course.close(self.now)
        return not stopped

    def _next(self) -> float | None:
        due = self._due
        while due and due[0][3] not in _ANYWAY and due[0][1] != self.records[due[0][4]].version:
            heappop(due)
        found = [due[0][0]] if due else []
        if self.arrived < len(self.jobs):
            found.append(self.jobs[self.arrived].submit)
        if self._happened < len(self._events):
            found.append(self._events[self._happened].at)
        if self.again_at is not None:
            found.append(self.again_at)
        if found and self._ageing and (ages := self.state.ages_in(self.now)) is not None:
            found.append(self.now + ages + _HAIR)  # where nothing else is to come age alone starts nobody
        return min(found, default=None)

    def _foresee(self, at: float, record: Record, what: str) -> None:
        self._numbers += 1
        heappush(self._due, (at, record.version, self._numbers, what, record.job.name))

    # -- what happens ------------------------------------------------------------------------------

    def _happen(self) -> None:
        now, due = self.now, self._due
        while due and due[0][0] <= now:
            at, version, _, what, name = heappop(due)
            record = self.records[name]
            if record.end is None and (what in _ANYWAY or version == record.version):
                self._due_now(at, what, record)
        while self._happened < len(self._events) and self._events[self._happened].at <= now:
            self._beside(self._events[self._happened])
            self._happened += 1
        while self.arrived < len(self.jobs) and self.jobs[self.arrived].submit <= now:
            self._arrive(self.jobs[self.arrived])
            self.arrived += 1
        if self.again_at is not None and self.again_at <= now:
            self.again_at = None

    def _due_now(self, at: float, what: str, record: Record) -> None:
        if what == "grace":
            return  # the cycle that comes now sees that it is over
        if what == "level":
            record.count(at)
            self._rank(record)
            self._next_level(record)
            return
        self.running.pop(record.job.name, None)
        record.finish(at, what)
        self.course.ended(at, record)
        self.state.remove_workload(record.job.name)
        self.ended += 1

    def _arrive(self, job: Job) -> None:
        policy = self.policy
        record = self.records[job.name] = Record(job)
        if policy.preempts is Preempts.SHORTEST:
            record.priority = -_rank_of(job.duration)
        self.state.set_workload(
            job.workload(
                strategy=policy.strategy,
                queue=_ALONE if policy.alone else None,
                priority=record.priority if policy.alone else None,
                created=policy.order(job) if policy.order else None,
                walltime=policy.walltime(job),
            )
        )
        self.course.arrived(self.now, record)
        if job.cancel is not None:
            self._foresee(max(job.cancel, self.now), record, "cancelled")

    def _beside(self, event: Event) -> None:
        match event:
            case NodeFails(node=name):
                if name in self.nodes:
                    self.gone[name] = self.nodes.pop(name)
                    lost = {work for work, _ in self.state.remove_node(name)}
                    self._recount(lost)
                    self._break(lost)
            case NodeComes(node=spec, name=name):
                spec = spec or self.gone.pop(name, None)
                if spec is not None:
                    self.nodes[spec.name] = spec
                    self.state.set_node(spec)
            case QueueChanges(queue=queue):
                if not self.policy.alone:
                    self.state.set_queue(self._ordered(queue))
        self.course.resized(self.now, sum(len(node.devices) for node in self.nodes.values()))

    def _break(self, names: Iterable[str]) -> None:
        """Gangs that lost a member wait for another in its place for a grace."""
        for name in sorted(names):
            work = self.state.works[name]
            if not work.torn():
                continue
            if work.spec.broken_since is None:
                self.state.set_workload(replace(work.spec, broken_since=self.now))
            grace = self.budget.gang_grace if work.spec.gang_grace is None else work.spec.gang_grace
            since = self.state.works[name].spec.broken_since or self.now
            self._foresee(max(self.now, since + grace), self.records[name], "grace")

    # -- what is decided ---------------------------------------------------------------------------

    def _settle(self) -> None:
        state, now = self.state, self.now
        for _ in range(ROUNDS):
            if self.policy.preempts is Preempts.SHORTEST:
                self._compare()
            if self._in_order:
                get_ready(state)
            found = advance(state, now, self.budget)
            self.cycles += 1
            if found.again_at is not None and found.again_at > now:
                self.again_at = found.again_at if self.again_at is None else min(self.again_at, found.again_at)
            for workload, task in found.evicted:
                state.release_task(workload, task)
            self._recount(found.changed)
            if found.settled:
                break
        self.course.note(now, state)

    def _recount(self, names: Iterable[str], since: float | None = None) -> None:
        """Takes up how many tasks of some workloads run now, or have since then."""
        for name in names:
            record, work = self.records[name], self.state.works[name]
            tasks = sum(work.bound)
            if tasks == record.tasks:
                continue
            before = record.running
            whole = work.whole() if record.job.told is not None else None
            record.run(self.now if since is None else since, tasks, whole=whole, slow=slowness(work))
            self.course.ran(self.now, record)
            if record.running:
                self.running[name] = record
                if record.left() < math.inf or record.job.walltime is not None:
                    at, outcome = record.ends()
                    self._foresee(max(at, self.now), record, outcome)
                self._next_level(record)
                if work.spec.broken_since is not None:
                    self.state.set_workload(replace(work.spec, broken_since=None))
            elif before:
                self.running.pop(name, None)
                if self.policy.preempts is Preempts.SHORTEST:
                    self._rank(record)

    # -- policies that look at progress ------------------------------------------------------------

    def _rank(self, record: Record) -> None:
        policy = self.policy
        shortest = policy.preempts is Preempts.SHORTEST
        priority = -_rank_of(record.left()) if shortest else -policy.level(record.used)
        if priority != record.priority:
            record.priority = priority
            work = self.state.works[record.job.name]
            self.state.set_workload(replace(work.spec, priority=priority))

    def _compare(self) -> None:
        """Those who run and might yield to the shortest that waits are asked how much they have left."""
        queue = self.state.tree.queues[_ALONE]
        if not queue.waiting:
            return
        best = -queue.waiting[0][0]  # its priority
        for record in [record for record in self.running.values() if record.priority < best]:
            record.count(self.now)
            self._rank(record)

    def _next_level(self, record: Record) -> None:
        if self.policy.preempts is not Preempts.ATTAINED or not record.running:
            return
        level = self.policy.level(record.used)
        if level < len(SERVICE) and record.gpus:
            self._foresee(record.at + (SERVICE[level] - record.used) / record.gpus, record, "level")


def _rank_of(left: float) -> int:
    """Seconds left as a rank: whole seconds, the same for all that are more than 30 years."""
    return int(min(left, 1e9))
