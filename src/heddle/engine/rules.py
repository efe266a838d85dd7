"""Who must yield to whom: work of lower priority in the same queue, and work of queues above their share.

A rule says who may be evicted for one claim, and in which order; :mod:`heddle.engine.victims` finds where, and how
little of it is enough.
"""

from __future__ import annotations

from heddle.engine.cycle import Cycle
from heddle.engine.lostwork import lost_work
from heddle.engine.minruntime import has_more, keeps_until
from heddle.engine.placement import Need
from heddle.engine.queues import Queue, QueueTree
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.state import TaskState, Work
from heddle.engine.victims import Rule


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
        return ("preempt", self.queue.name, self.state.key_of(self.work)[0], self.work.spec.priority)

    def possible(self) -> bool:
        """Whether anything of lower priority has a place in the queue."""
        return self.queue.live.below(self.work.spec.priority)

    def candidates(self) -> list[Work]:
        """Preemptible work (or work that was only just placed) of lower priority."""
        return [victim for victim in self.queue.live.values() if self.allows(victim)]

    def allows(self, victim: Work) -> bool:
        """Strictly lower priority, with ages counted too, and preemptible or placed in this very cycle."""
        if victim.queue is not self.queue or victim.spec.priority >= self.work.spec.priority:
            return False
        if not yields(self.cycle, victim):
            return False
        if self.queue.spec.ageing and self.state.key_of(victim)[0] <= self.state.key_of(self.work)[0]:
            return False
        if self.spares(victim) and not has_more(victim):
            return False
        return victim.spec.preemptible or fresh(self.cycle, victim)

    def spares(self, victim: Work) -> bool:
        """Whether it has not run its minimum runtime against preemption."""
        return self.heed and self.queue.preempt_min > 0 and _spared(self.cycle, victim, self.kept_until(victim))

    def kept_until(self, victim: Work) -> float:
        """When it has."""
        return keeps_until(self.cycle, victim, self.queue.preempt_min)

    def holds(self, victims: list[Work]) -> bool:
        """Always: priority does not depend on what anyone uses."""
        return True

    def rank(self, victim: Work) -> tuple[int, ...]:
        """Lowest priority first, then who loses least."""
        return _dearness(victim, self.cycle.now)

    def reason(self) -> Reason:
        """Names the one who gains."""
        return Reason(ReasonCode.PREEMPTED, queue=self.queue.name, beneficiary=self.work.name)


class ReclaimTowardsFairShare:
    """Work of queues above their share yields to a queue that ends within its own.

    Compared just below the common ancestor: the gainer's queue, and all above it up to there, must end
    within their share while the loser's side is above its share; or within quota, while the loser's side
    is above its quota.
    """

    def __init__(self, cycle: Cycle, work: Work, queue: Queue, demand: list[int], *, heed: bool = True) -> None:
        self.heed = heed
        self.cycle = cycle
        self.state = cycle.state
        self.work = work
        self.queue = queue
        self.demand = demand
        self.columns = [column for column, wanted in enumerate(demand) if wanted]
        self.gains: dict[Queue, dict[str, bool]] = {}
        self._seen = -1
        self._stands: dict[Queue, tuple[bool, bool]] = {}
        for bound in ("share", "quota"):
            # what siblings use beyond their own must yield to the claim first, so it does not count against a parent
            used = [queue.used(c) + demand[c] for c in self.columns]
            within, below = True, queue
            for at in queue.path:
                for sibling in at.children:
                    if sibling is not below:
                        own = getattr(sibling, bound)
                        used = [u + min(sibling.used(c), own[c]) for u, c in zip(used, self.columns, strict=True)]
                amounts = getattr(at, bound)
                within = within and all(u <= amounts[c] for u, c in zip(used, self.columns, strict=True))
                self.gains.setdefault(at, {})[bound] = within
                below = at

    def key(self) -> tuple[object, ...]:
        """Queue and demand."""
        return ("reclaim", self.queue.name, *self.demand)

    def possible(self) -> bool:
        """Whether the claim may gain, and any other queue that has something is above what is its own."""
        if not any(any(gain.values()) for gain in self.gains.values()):
            return False
        return any(q.live and q is not self.queue and self._over(q) for q in self.state.tree.queues.values())

    def candidates(self) -> list[Work]:
        """Preemptible work of other queues that are above what is theirs."""
        found = []
        for queue in self.state.tree.queues.values():
            if queue is not self.queue and queue.live and self._over(queue):
                found += [victim for victim in queue.live.values() if self._may(victim)]
        return found

    def allows(self, victim: Work) -> bool:
        """As the class says, and preemptible or placed in this very cycle."""
        queue = victim.queue
        return queue is not None and queue is not self.queue and self._may(victim) and self._over(queue)

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
            if not any(
                all(at.used(c) <= getattr(at, bound)[c] for at in path for c in self.columns)
                for bound in ("share", "quota")
            ):
                return False
        return True

    def _over(self, queue: Queue) -> bool:
        return self._standing(queue)[0]

    def _standing(self, queue: Queue) -> tuple[bool, bool]:
        """Whether a queue must yield, and whether it is above its own share on every level below the ancestor."""
        moved = self.state.tree.moved
        if self._seen != moved:
            self._seen = moved
            self._stands = {}
        found = self._stands.get(queue)
        if found is None:
            sides = QueueTree.sides(self.queue, queue)
            over = strict = False
            if sides is not None:
                over = self._yields(queue, *sides)
                for at in queue.path:
                    strict = any(at.used(c) > at.share[c] for c in self.columns)
                    if not strict or at is sides[1]:
                        break
            found = self._stands[queue] = (over, strict)
        return found

    def _yields(self, queue: Queue, ours: Queue, theirs: Queue) -> bool:
        gain = self.gains.get(ours)
        if gain is None or (queue.keeps and any(0 < queue.used(c) <= queue.keep[c] for c in self.columns)):
            return False
        return any(
            gain[bound] and any(theirs.used(c) > getattr(theirs, bound)[c] for c in self.columns)
            for bound in ("share", "quota")
        )

    def rank(self, victim: Work) -> tuple[int, ...]:
        """Queues that are above their own share on every level first; then lowest priority, then who loses least."""
        strict = victim.queue is not None and self._standing(victim.queue)[1]
        return (0 if strict else 1, *_dearness(victim, self.cycle.now))

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


def _dearness(victim: Work, now: float) -> tuple[int, ...]:
    """Lowest priority first, then who loses least work, then the newest."""
    running = [task for task in victim.tasks.values() if task.state is TaskState.BOUND]
    return (victim.spec.priority, int(lost_work(running, now)), -int(victim.spec.created * 1000))
