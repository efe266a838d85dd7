"""Making room for those with a claim: reclaim across queues towards fair share, then preemption by priority.

Both work claim by claim, in order of claim, so that nobody is evicted for a claim while a stronger one
of the same queue is untried. What they gain is promised (reserved) until the evicted have really left; a
claim with a promise causes no further evictions.
"""

from __future__ import annotations

from functools import partial

from heddle.engine.choices import first_choice
from heddle.engine.cycle import Cycle, Place
from heddle.engine.kinds import Kind
from heddle.engine.placement import Need, arrangement
from heddle.engine.queues import Queue, QueueTree
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.stages.place import (
    grow_into_idle_room,
    grow_within_fair_share,
    place_into_idle_room,
    place_within_fair_share,
)
from heddle.engine.stages.promises import redeem
from heddle.engine.state import TaskState, Work
from heddle.engine.turns import Turns, line_up
from heddle.engine.victims import RoomSearch, Rule

_MANY = 64
"""Evictions in one cycle after which only the play of the next round (`aftermath`) asks whether they last: to ask
for each anew costs their square."""
_SWEEPS = 3
"""Room made for a later claim can help an earlier one that found none: so all are tried again, a few
times."""


def make_room_by_reclaim_then_preemption(cycle: Cycle) -> None:
    """Lets every claim that found no place look for work that must yield to it."""
    for _ in range(_SWEEPS):
        if not _sweep(cycle):
            break  # nobody gained: trying again would change nothing
    if cycle.loosened:
        cycle.reopen()
        for place_again in (
            place_within_fair_share,
            grow_within_fair_share,
            place_into_idle_room,
            grow_into_idle_room,
        ):
            place_again(cycle)


def _sweep(cycle: Cycle) -> bool:
    """Tries every kind of open claim once, in order of claim; True when one of them gained."""
    tried: set[tuple[str, Kind]] = set()
    gained = False
    again = True
    while again:
        again = False
        turns = Turns(cycle, without=tried)
        for queue, name in turns:
            work = cycle.state.works[name]
            need = cycle.open_need(work)
            if need is None or not cycle.active(queue) or work.spec.awaited:
                turns.give_up(queue, work, alike=False)
                continue
            kind = turns.kind(queue)
            if cycle.searches >= cycle.budget.victim_searches:
                cycle.unsearched.add(name)
                cycle.unsearched_kinds.add((queue.name, kind))
                turns.give_up(queue, work)
                continue
            cycle.searches += 1
            loosened, cycle.loosened = cycle.loosened, False
            if make_room(cycle, work, queue, need):
                gained = True
                displaced, cycle.loosened = cycle.loosened, loosened or cycle.loosened
                if cycle.shadows.pop(name, None):
                    cycle.loosened = True  # what was kept for it may serve others now
                if displaced:
                    cycle.reopen()
                    again = True  # begin a new order: who was displaced claims again
                    break
                if cycle.open_need(work) is None:
                    turns.done(queue)
                turns.restack()  # standings of others changed too
                continue
            cycle.loosened = loosened
            if name not in cycle.barred:
                tried.add((queue.name, kind))
            turns.give_up(queue, work, alike=name not in cycle.barred)
    return gained


def make_room(cycle: Cycle, work: Work, queue: Queue, need: Need) -> bool:
    """Tries the rules for one claim, least disruptive first; True when it has (or is promised) its places.

    Before anyone is evicted for it, a claim takes room that others are leaving already: within its share
    it is promised that room, beyond it waits for the room like everybody.
    """
    gained = False

    def waits_for_what_others_leave() -> bool:
        nonlocal gained
        demand = cycle.demand(work, need)
        point = cycle.state.checkpoint()
        fixed = not work.spec.preemptible
        if cycle.state.tree.stopped_by(queue, demand, fixed=fixed, user=work.spec.user, land=True) is not None:
            return False
        within = cycle.state.tree.within(queue, demand, "share")
        if cycle.placer.place(work, need, land=True) is None:
            return False
        gained = within and cycle.leaves_room(work, queue, demand, held_places(work))
        if gained:
            cycle.gainers.add(work.name)
            redeem(cycle, work)
        else:
            cycle.state.rollback(point)
        return True

    if first_choice(work, need, waits_for_what_others_leave):
        return gained
    return first_choice(work, need, lambda: _evict_for(cycle, work, queue, need))


def _evict_for(cycle: Cycle, work: Work, queue: Queue, need: Need) -> bool:
    demand = cycle.demand(work, need)
    for rule in rules_for(cycle, work, queue, need) if work.name not in cycle.barred else ():
        point = cycle.state.checkpoint()
        if RoomSearch(cycle, work, queue, need, rule).run():
            if would_be_taken_back(cycle, work, queue, demand) or not cycle.leaves_room(
                work, queue, demand, held_places(work)
            ):
                cycle.state.rollback(point)
                continue
            cycle.gainers.add(work.name)
            redeem(cycle, work)
            return True
    return False


def held_places(work: Work) -> list[Place]:
    """The places promised to a workload."""
    return [(task, *task.hold) for task in work.tasks.values() if task.hold]


def would_be_taken_back(cycle: Cycle, work: Work, queue: Queue, demand: list[int]) -> bool:
    """Whether someone, the newly evicted included, could in turn evict what was just gained: then it is
    not worth it.

    Without this, two claims that are each right by themselves evict each other for ever, since devices
    and gangs do not divide as shares do.
    """
    if len(cycle.evict_reason) > _MANY:
        return False
    state = cycle.state
    if all(at.used(c) <= min(at.share[c], at.quota[c]) for at in queue.path for c, n in enumerate(demand) if n):
        rivals = [queue]  # what is within quota on every level yields to higher priority only
    else:
        rivals = list(state.tree.queues.values())
    point = state.checkpoint()
    heard = (other for other in rivals if cycle.active(other))
    lines = (line_up(cycle, other, other.kinds, grow=None, without=set()) for other in heard)
    names = {key[2] for line in lines for key, _, _ in line}
    for task, (was, *_rest) in list((state.touched or {}).items()):
        if task.state is TaskState.RELEASING and was is TaskState.BOUND:
            state.move(task, TaskState.PENDING)
            names.add(task.work.name)
    tried: set[tuple[object, ...]] = set()
    taken = False
    for name in sorted(names - {work.name}):
        rival = state.works[name]
        rival_need = cycle.open_need(rival)
        if rival_need is None or rival.queue is None or not cycle.active(rival.queue):
            continue
        if cycle.behind(rival.queue, rival):
            continue
        spec = rival.spec
        parts = tuple((rival.parts[part].key, count) for part, count in rival_need)
        user = spec.user if state.tree.counts_users else ""
        key = (
            spec.queue,
            state.key_of(rival)[0],
            spec.priority,
            spec.preemptible,
            spec.topology_required,
            parts,
            user,
            arrangement(rival, rival_need),
        )
        if key in tried:
            continue
        tried.add(key)
        if first_choice(rival, rival_need, partial(_takes, cycle, rival, rival.queue, rival_need, work)):
            taken = True
            break
    state.rollback(point)
    return taken


def _takes(cycle: Cycle, rival: Work, queue: Queue, need: Need, work: Work) -> bool:
    """Whether a rival could evict something of a workload."""
    for rule in rules_for(cycle, rival, queue, need):
        if not rule.allows(work):
            continue
        before = cycle.state.checkpoint()
        bound, held = list(work.bound), work.held
        taken = RoomSearch(cycle, rival, queue, need, rule).run() and (work.bound != bound or work.held != held)
        cycle.state.rollback(before)
        if taken:
            return True
    return False


def rules_for(cycle: Cycle, work: Work, queue: Queue, need: Need) -> tuple[Rule, ...]:
    """The rules in the order in which they are tried."""
    return (
        ReclaimTowardsFairShare(cycle, work, queue, cycle.demand(work, need)),
        PreemptLowerPriorityInQueue(cycle, work, queue),
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

    def __init__(self, cycle: Cycle, work: Work, queue: Queue) -> None:
        self.cycle = cycle
        self.state = cycle.state
        self.work = work
        self.queue = queue

    def key(self) -> tuple[object, ...]:
        """Queue and priority."""
        return ("preempt", self.queue.name, self.state.key_of(self.work)[0], self.work.spec.priority)

    def possible(self) -> bool:
        """Whether anything of lower priority is in the queue."""
        return self.cycle.lowest_priority(self.queue) < self.work.spec.priority

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
        return victim.spec.preemptible or fresh(self.cycle, victim)

    def holds(self, victims: list[Work]) -> bool:
        """Always: priority does not depend on what anyone uses."""
        return True

    def rank(self, victim: Work) -> tuple[int, ...]:
        """Lowest priority first, then who loses least."""
        return _rank(victim, self.cycle.now)

    def reason(self) -> Reason:
        """Names the one who gains."""
        return Reason(ReasonCode.PREEMPTED, queue=self.queue.name, beneficiary=self.work.name)


class ReclaimTowardsFairShare:
    """Work of queues above their share yields to a queue that ends within its own.

    Compared just below the common ancestor: the gainer's queue, and all above it up to there, must end
    within their share while the loser's side is above its share; or within quota, while the loser's side
    is above its quota.
    """

    def __init__(self, cycle: Cycle, work: Work, queue: Queue, demand: list[int]) -> None:
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
        return any(cls.needs[c] for cls in victim.parts for c in self.columns)

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
        return (0 if strict else 1, *_rank(victim, self.cycle.now))

    def reason(self) -> Reason:
        """Names the queue that is owed the room and the workload that gains."""
        return Reason(ReasonCode.RECLAIMED, queue=self.queue.name, beneficiary=self.work.name)


def _rank(victim: Work, now: float) -> tuple[int, ...]:
    """Lowest priority first, then who loses least work: GPUs times the time since its tasks started; then newest."""
    running = (task for task in victim.tasks.values() if task.state is TaskState.BOUND)
    lost = sum(max(task.cls.gpu, 1) * max(now - task.since, 0.0) for task in running)
    return (victim.spec.priority, int(lost), -int(victim.spec.created * 1000))
