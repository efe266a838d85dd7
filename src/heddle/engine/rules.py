"""Who must yield to whom: work of lower priority in the same queue, and work of queues above their share.

A rule says who may be evicted for one claim, and in which order; :mod:`heddle.engine.victims` finds where, and how
little of it is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from heddle.engine.cycle import Cycle
from heddle.engine.lostwork import lost_work
from heddle.engine.minruntime import has_more, keeps_until
from heddle.engine.placement import Need
from heddle.engine.queues import Queue, QueueTree
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.victims import Rule
from heddle.engine.work import Task, TaskState, Work

_BOUNDS = ("share", "quota")


def rules_for(cycle: Cycle, work: Work, queue: Queue, need: Need, *, heed: bool = True) -> tuple[Rule, ...]:
    """The rules in the order in which they are tried; without ``heed`` as if nothing protected anybody for a while."""
    if work.spec.gentle:
        return ()
    return (
        ReclaimTowardsFairShare(cycle, work, queue, cycle.demand(work, need), heed=heed),
        PreemptLowerPriorityInQueue(cycle, work, queue, heed=heed),
    )


def yields(cycle: Cycle, work: Work) -> bool:
    """Whether a workload has anything to give that others did not just leave for."""
    return (any(work.bound) or work.held > 0) and work.name not in cycle.gainers


def fresh(cycle: Cycle, work: Work) -> bool:
    """Whether all that runs of a workload was placed in this very cycle, and not on room that others
    left for it."""
    if work.name in cycle.redeemed:
        return False
    running = [task for task in work.tasks.values() if task.state is TaskState.BOUND]
    return bool(running) and all(cycle.placed_now(task) for task in running)


class Stand(NamedTuple):
    """Where a queue stands against a claim.

    Attributes:
        hopes: it must yield, perhaps only once others have.
        over: it must yield as things are.
        strict: it is above its own share on every level below the common ancestor.
    """

    hopes: bool
    over: bool
    strict: bool


_NOWHERE = Stand(hopes=False, over=False, strict=False)


class PreemptLowerPriorityInQueue:
    """Work of strictly lower priority in the same queue yields, lowest first, then who loses least."""

    def __init__(self, cycle: Cycle, work: Work, queue: Queue, *, heed: bool = True) -> None:
        self.heed = heed
        self.cycle = cycle
        self.state = cycle.state
        self.work = work
        self.queue = queue

    def key(self) -> tuple[object, ...]:
        """Queue and priority."""
        return ("preempt", self.queue.name, self.state.lines.key_of(self.work)[0], self.work.spec.priority)

    def possible(self) -> bool:
        """Whether anything of lower priority has a place in the queue."""
        return self.queue.live.below(self.work.spec.priority)

    def candidates(self) -> list[Work]:
        """Preemptible work (or work that was only just placed) of lower priority."""
        return [victim for victim in self.queue.live.values() if self.allows(victim)]

    def rows(self) -> Iterator[Iterable[int]]:
        """Where the candidates are."""
        for victim in self.candidates():
            yield (task.row for task in victim.tasks.values() if task.state is TaskState.BOUND)
            yield (task.hold[0] for task in victim.tasks.values() if task.hold)

    def allows(self, victim: Work) -> bool:
        """Strictly lower priority, with ages counted too, and preemptible or placed in this very cycle."""
        if victim.queue is not self.queue or victim.spec.priority >= self.work.spec.priority:
            return False
        if not yields(self.cycle, victim):
            return False
        if self.queue.spec.ageing and self.state.lines.key_of(victim)[0] <= self.state.lines.key_of(self.work)[0]:
            return False
        if self.spares(victim) and not has_more(victim):
            return False
        return victim.spec.preemptible or fresh(self.cycle, victim)

    def might(self, victim: Work) -> bool:
        """The same: it depends on nobody else."""
        return self.allows(victim)

    def spares(self, victim: Work) -> bool:
        """Whether it has not run its minimum runtime against preemption."""
        return self.heed and self.queue.preempt_min > 0 and _spared(self.cycle, victim, self.kept_until(victim))

    def kept_until(self, victim: Work) -> float:
        """When it has."""
        return keeps_until(self.cycle, victim, self.queue.preempt_min)

    def holds(self, victims: list[Work]) -> bool:
        """Always: priority does not depend on what anyone uses."""
        return True

    def owed(self, victim: Work, tasks: Sequence[Task]) -> bool:
        """Always, likewise."""
        return True

    def rank(self, victim: Work) -> tuple[int, ...]:
        """Lowest priority first, then who loses least."""
        return _dearness(self.cycle, victim)

    def reason(self) -> Reason:
        """Names the one who gains."""
        return Reason(ReasonCode.PREEMPTED, queue=self.queue.name, beneficiary=self.work.name)


class ReclaimTowardsFairShare:
    """Work of queues above their share yields to a queue that ends within its own.

    Compared just below the common ancestor: the gainer's queue, and all above it up to there, must end
    within their share while the loser's side is above its share; or within quota, while the loser's side
    is above its quota. Where they would not for what queues below the same one use beyond their own, these yield first.
    """

    def __init__(self, cycle: Cycle, work: Work, queue: Queue, demand: list[int], *, heed: bool = True) -> None:
        self.heed = heed
        self.cycle = cycle
        self.state = cycle.state
        self.work = work
        self.queue = queue
        self.demand = demand
        self.columns = [column for column, wanted in enumerate(demand) if wanted]
        self._most = {column: queue.used(column) + demand[column] for column in self.columns}  # with all its places
        self._seen = -1
        self._stands: dict[Queue, Stand] = {}
        self._gains: dict[Queue, tuple[str, ...]] = {}
        # these two by version of the tree: after each trial things are as they were before it
        self._known: dict[int, tuple[dict[Queue, Stand], dict[Queue, tuple[str, ...]]]] = {}
        # the same once all that queues beside use beyond their own has left
        self._hopes = {at: tuple(bounds) for at, bounds in self._at_best().items()}

    def _at_best(self) -> dict[Queue, list[str]]:
        found: dict[Queue, list[str]] = {at: [] for at in self.queue.path}
        for bound in _BOUNDS:
            used, below = [self._most[column] for column in self.columns], self.queue
            for at in self.queue.path:
                for sibling in at.children:
                    if sibling is not below:
                        own = getattr(sibling, bound)
                        used = [u + min(sibling.used(c), own[c]) for u, c in zip(used, self.columns, strict=True)]
                amounts = getattr(at, bound)
                if any(u > amounts[c] for u, c in zip(used, self.columns, strict=True)):
                    break
                found[at].append(bound)
                below = at
        return found

    def key(self) -> tuple[object, ...]:
        """Queue and demand."""
        return ("reclaim", self.queue.name, *self.demand)

    def possible(self) -> bool:
        """Whether the claim may gain, and any other queue that has something is above what is its own."""
        self._recall()
        if not self._gains_against(self.queue):
            return False
        return any(q.live and q is not self.queue and self._standing(q).over for q in self.state.tree.queues.values())

    def candidates(self) -> list[Work]:
        """Preemptible work of other queues that are above what is theirs."""
        found = []
        for queue in self.state.tree.queues.values():
            if queue is not self.queue and queue.live and self._standing(queue).hopes:
                found += [victim for victim in queue.live.values() if self._may(victim)]
        return found

    def rows(self) -> Iterator[Iterable[int]]:
        """Where anybody has a place who is preemptible and of a queue that may have to yield, or was just placed: in a
        large cluster that is told sooner than who of them may be evicted."""
        for queue in self.state.tree.queues.values():
            if queue is not self.queue and queue.live and self._standing(queue).hopes:
                yield queue.rows
        for task in self.state.touched or ():
            yield [task.row] if task.state is TaskState.BOUND else [task.hold[0]] if task.hold else []

    def allows(self, victim: Work) -> bool:
        """As the class says, and preemptible or placed in this very cycle."""
        queue = victim.queue
        return queue is not None and queue is not self.queue and self._standing(queue).over and self._may(victim)

    def might(self, victim: Work) -> bool:
        """The same, perhaps only once work of queues beside the claim's has left."""
        queue = victim.queue
        return queue is not None and queue is not self.queue and self._standing(queue).hopes and self._may(victim)

    def _may(self, victim: Work) -> bool:
        """What does not depend on where the queues stand."""
        if not yields(self.cycle, victim):
            return False
        if not (victim.spec.preemptible or fresh(self.cycle, victim)):
            return False
        if self.spares(victim) and not has_more(victim):
            return False
        return any(cls.needs[c] for cls in victim.parts for c in self.columns)

    def spares(self, victim: Work) -> bool:
        """Whether it has not run its minimum runtime against reclaim."""
        seconds = victim.queue.reclaim_min if victim.queue is not None else 0.0
        return self.heed and seconds > 0 and _spared(self.cycle, victim, self.kept_until(victim))

    def kept_until(self, victim: Work) -> float:
        """When it has."""
        return keeps_until(self.cycle, victim, victim.queue.reclaim_min if victim.queue is not None else 0.0)

    def holds(self, victims: list[Work]) -> bool:
        """Whether the claim's queues end within what is theirs, up to where they part from every victim's."""
        for victim in victims:
            sides = QueueTree.sides(self.queue, victim.queue) if victim.queue else None
            if sides is None:
                return False
            path = self.queue.path[: self.queue.path.index(sides[0]) + 1]
            used = [(at, c, at.used(c)) for at in path for c in self.columns]
            if not any(all(amount <= getattr(at, bound)[c] for at, c, amount in used) for bound in _BOUNDS):
                return False
        return True

    def owed(self, victim: Work, tasks: Sequence[Task]) -> bool:
        """Whether the victim's side would be above what is its own with those of these that ran before. What was only
        just placed is taken back at no one's cost."""
        ran = [task for task in tasks if task.state is TaskState.RELEASING]
        sides = QueueTree.sides(self.queue, victim.queue) if victim.queue else None
        if not ran or sides is None:
            return True
        theirs, bounds = sides[1], self._gains_against(sides[0])
        for column in self.columns:
            used = theirs.used(column)
            for task in ran:
                used += task.cls.at(task.row).needs[column]
            if any(used > getattr(theirs, bound)[column] for bound in bounds):
                return True
        return False

    def _recall(self) -> None:
        """Takes up what is known of how things stand now."""
        version = self.state.tree.version
        if self._seen != version:
            self._seen = version
            self._stands, self._gains = self._known.setdefault(version, ({}, {}))

    def _standing(self, queue: Queue) -> Stand:
        self._recall()
        found = self._stands.get(queue)
        if found is None:
            sides = QueueTree.sides(self.queue, queue)
            hopes = over = strict = False
            if sides is not None:
                hopes = self._yields(queue, sides[1], self._hopes[sides[0]])
                over = hopes and self._yields(queue, sides[1], self._gains_against(sides[0]))
                for at in queue.path:
                    strict = any(at.used(c) > at.share[c] for c in self.columns)
                    if not strict or at is sides[1]:
                        break
            found = self._stands[queue] = Stand(hopes, over, strict)
        return found

    def _yields(self, queue: Queue, theirs: Queue, bounds: tuple[str, ...]) -> bool:
        if queue.keeps and any(0 < queue.used(c) <= queue.keep[c] for c in self.columns):
            return False
        return any(any(theirs.used(c) > getattr(theirs, bound)[c] for c in self.columns) for bound in bounds)

    def _gains_against(self, ours: Queue) -> tuple[str, ...]:
        """The bounds within which the claim's queue, and all above it up to one, end as things stand."""
        found = self._gains.get(ours)
        if found is None:
            below = self.queue.path[: self.queue.path.index(ours) + 1]
            # of its places some are counted already; those that are not come on top of what each queue uses
            lacks = {column: most - self.queue.used(column) for column, most in self._most.items()}
            found = self._gains[ours] = tuple(
                bound
                for bound in _BOUNDS
                if all(at.used(c) + lack <= getattr(at, bound)[c] for at in below for c, lack in lacks.items())
            )
        return found

    def rank(self, victim: Work) -> tuple[int, ...]:
        """Who may go at once before who may later; queues that are above their own share on every level first; then
        lowest priority, then who loses least."""
        stand = self._standing(victim.queue) if victim.queue is not None else _NOWHERE
        return (not stand.over, not stand.strict, *_dearness(self.cycle, victim))

    def reason(self) -> Reason:
        """Names the queue that is owed the room and the workload that gains."""
        return Reason(ReasonCode.RECLAIMED, queue=self.queue.name, beneficiary=self.work.name)


def _spared(cycle: Cycle, victim: Work, until: float) -> bool:
    """Whether a workload keeps its minimum beyond this moment; if so, it is noted when that ends."""
    if until <= cycle.now:
        return False
    cycle.spared_until = min(cycle.spared_until, until)
    cycle.doubts += 1
    return True


def _dearness(cycle: Cycle, victim: Work) -> tuple[int, ...]:
    """Lowest priority first, then who loses least work, then who started last, then the newest."""
    touched = cycle.state.touched
    if touched and any(task in touched for task in victim.tasks.values()):
        return _reckoned(victim, cycle.losses_at)
    found = cycle.dear.get(victim)
    if found is None:
        found = cycle.dear[victim] = _reckoned(victim, cycle.losses_at)
    return found


def _reckoned(victim: Work, now: float) -> tuple[int, ...]:
    running = [task for task in victim.tasks.values() if task.state is TaskState.BOUND]
    started = max((task.since for task in running), default=0.0)
    lost = int(lost_work(running, now))
    return (victim.spec.priority, lost, -int(started * 1000), -int(victim.spec.created * 1000))
