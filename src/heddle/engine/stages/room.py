"""Making room for those with a claim: reclaim across queues towards fair share, then preemption by priority.

Both work claim by claim, in order of claim, so that nobody is evicted for a claim while a stronger one
of the same queue is untried. What they gain is promised (reserved) until the evicted have really left; a
claim with a promise causes no further evictions.
"""

from __future__ import annotations

from functools import partial

from heddle.engine.asks import Heard, Tried
from heddle.engine.choices import first_choice
from heddle.engine.cycle import Cycle, Place
from heddle.engine.kinds import Kind, apart_from_priority
from heddle.engine.placement import Need, arrangement
from heddle.engine.queues import Queue, QueueTree
from heddle.engine.rules import rules_for
from heddle.engine.stages.place import PASSES
from heddle.engine.stages.promises import take_up
from heddle.engine.turns import Turns, line_up
from heddle.engine.victims import RoomSearch
from heddle.engine.work import TaskState, Work

_MANY = 64
"""Evictions in one cycle after which only the play of the next round (`aftermath`) asks whether they last: to ask
for each anew costs their square."""
_KINDS = 64
"""Of more kinds of claims those are picked anew that may gain, each time that one of them did; fewer are all heard."""
_SWEEPS = 3
"""Room made for a later claim can help an earlier one that found none: so all are tried again, a few
times."""


def make_room_by_reclaim_then_preemption(cycle: Cycle) -> None:
    """Lets every claim that found no place look for work that must yield to it."""
    heard = cycle.may_gain()
    if cycle.silent(heard) or not _anybody_yields(cycle):
        return
    for again in range(_SWEEPS):
        if not _sweep(cycle, cycle.may_gain() if again else heard):
            break  # nobody gained: trying again would change nothing
    if cycle.loosened:
        cycle.reopen()
        for place_again in PASSES:
            place_again(cycle)


def _anybody_yields(cycle: Cycle) -> bool:
    """Whether there is anything to be had beside what is idle: room that is being left or promised, lower priority in
    the queue of a claim, or another queue in which anything runs."""
    state = cycle.state
    if state.holders or state.nodes.leaving:
        return True
    live = [queue for queue in state.tree.queues.values() if queue.live]
    for queue in cycle.lines:
        most = -queue.waiting[0][0]
        if any(other is not queue for other in live) or queue.live.below(most):
            return True
    return False


def _sweep(cycle: Cycle, heard: Heard | None) -> bool:
    """Tries every kind of open claim once that is heard, in order of claim; True when one of them gained."""
    tried: set[tuple[str, Kind]] = set()
    gained = False
    again = True
    many = len(cycle.state.lines.asks) > _KINDS
    # (queue, what was asked for in vain since somebody last gained) -> the priority, and as what that is remembered
    lost: dict[tuple[str, Kind], tuple[int, int | None]] = {}
    while again:
        again = False
        turns = Turns(cycle, without=tried, heard=heard)
        for queue, name in turns:
            work = cycle.state.works[name]
            need = cycle.open_need(work)
            if need is None or not queue.starts or work.spec.awaited:
                turns.give_up(queue, work, alike=False)
                continue
            kind = turns.kind(queue)
            wish = apart_from_priority(kind) if not work.held and not any(work.bound) else None
            if wish is not None and (before := lost.get((queue.name, wish[0]))) and wish[1] <= before[0]:
                if before[1] is not None:
                    cycle.state.lines.asks.in_vain(Tried.GAIN, queue.name, kind, before[1])
                tried.add((queue.name, kind))
                turns.give_up(queue, work)
                continue
            if cycle.known_in_vain(Tried.GAIN, queue, kind, cycle.stamp):
                tried.add((queue.name, kind))
                turns.give_up(queue, work)
                continue
            if cycle.searches >= cycle.budget.victim_searches:
                cycle.unsearched.add(name)
                cycle.unsearched_kinds.add((queue.name, kind))
                turns.give_up(queue, work)
                continue
            cycle.searches += 1
            loosened, cycle.loosened = cycle.loosened, False
            doubts, dated, near = cycle.doubts, cycle.dated, cycle.near
            if make_room(cycle, work, queue, need):
                gained = True
                lost.clear()
                displaced, cycle.loosened = cycle.loosened, loosened or cycle.loosened
                if cycle.shadows.pop(name, None):
                    cycle.loosened = True  # what was kept for it may serve others now
                if displaced:
                    cycle.reopen()
                    heard = cycle.may_gain() if many else None
                    again = True  # begin a new order: who was displaced claims again
                    break
                if heard is not None:  # others may gain now
                    heard = cycle.may_gain() if many else None
                    again = True
                    break
                if cycle.open_need(work) is None:
                    turns.done(queue)
                turns.restack()  # standings of others changed too
                continue
            cycle.loosened = loosened
            number = cycle.remembered_as(cycle.stamp, doubts, dated)
            if number is not None:
                cycle.state.lines.asks.in_vain(Tried.GAIN, queue.name, kind, number)
            if name not in cycle.barred:
                tried.add((queue.name, kind))
                if wish is not None and cycle.near == near:
                    lost[queue.name, wish[0]] = (wish[1], number)
            turns.give_up(queue, work, alike=name not in cycle.barred)
    return gained


def make_room(cycle: Cycle, work: Work, queue: Queue, need: Need) -> bool:
    """Tries the rules for one claim, least disruptive first; True when it has (or is promised) its places.

    Before anyone is evicted for it, a claim takes room that others are leaving already: within its share
    it is promised that room, beyond it waits for the room like everybody.
    """
    simple = not work.chooses and not cycle.state.marks(work)
    if simple and not _might_gain(cycle, work, queue, cycle.demand(work, need)):
        return False
    gained = False

    def waits_for_what_others_leave() -> bool:
        nonlocal gained
        demand = cycle.demand(work, need)
        point = cycle.state.checkpoint()
        fixed = not work.spec.preemptible
        if cycle.state.tree.stopped_by(queue, demand, fixed=fixed, user=work.spec.user, land=True) is not None:
            return False
        if not cycle.state.tree.within(queue, demand, "share"):
            found = cycle.placer.has_place(work, need)
            cycle.doubts += found
            return found
        if cycle.placer.place(work, need, land=True) is None:
            return False
        cycle.doubts += 1
        gained = cycle.leaves_room(work, queue, demand, held_places(work)) and take_up(cycle, work)
        if not gained:
            cycle.state.rollback(point)
        return True

    if first_choice(work, need, waits_for_what_others_leave):
        return gained
    return first_choice(work, need, lambda: _evict_for(cycle, work, queue, need))


def _might_gain(cycle: Cycle, work: Work, queue: Queue, demand: list[int]) -> bool:
    """Cheap and never wrongly False: whether a claim may be promised what others are leaving, or any rule may let it
    evict somebody."""
    within = cycle.state.tree.within
    if within(queue, demand, "share"):
        return True
    if work.spec.gentle or work.name in cycle.barred:
        return False
    if queue.live.below(work.spec.priority):
        return True
    return within(queue, demand, "share", queue) or within(queue, demand, "quota", queue)


def _evict_for(cycle: Cycle, work: Work, queue: Queue, need: Need) -> bool:
    demand = cycle.demand(work, need)
    for rule in rules_for(cycle, work, queue, need) if work.name not in cycle.barred else ():
        point = cycle.state.checkpoint()
        if RoomSearch(cycle, work, queue, need, rule).run():
            if _lasts(cycle, work, queue, demand) and take_up(cycle, work):
                return True
            cycle.state.rollback(point)
    return False


def _lasts(cycle: Cycle, work: Work, queue: Queue, demand: list[int]) -> bool:
    """Whether what was just gained is neither taken back nor kept for others."""
    if would_be_taken_back(cycle, work, queue, demand):
        cycle.doubts += bool(cycle.state.tree.strict)  # somebody who comes may hold up the rival
        return False
    cycle.doubts += 1
    return cycle.leaves_room(work, queue, demand, held_places(work))


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
    rivals: Heard = {queue.name: [*queue.kinds]}
    if not all(at.used(c) <= min(at.share[c], at.quota[c]) for at in queue.path for c, n in enumerate(demand) if n):
        owed = state.lines.asks.owed(state.tree.slack.own())
        rivals |= {o.name: owed.get(o.name, []) for o in state.tree.queues.values() if _may_take_from(o, queue)}
    point = state.checkpoint()
    heard = ((state.tree.queues[name], kinds) for name, kinds in rivals.items())
    lines = (line_up(cycle, other, kinds, grow=None, without=set()) for other, kinds in heard if other.starts)
    names = {key[2] for line in lines for key, _, _ in line}
    for task, (was, *_rest) in list((state.touched or {}).items()):
        if task.state is TaskState.RELEASING and was is TaskState.BOUND:
            state.move(task, TaskState.PENDING)
            names.add(task.work.name)
    tried: set[tuple[object, ...]] = set()
    taken = False
    for name in sorted(names - {work.name}):
        rival = state.works[name]
        if rival.queue is work.queue and rival.spec.priority <= work.spec.priority:
            continue  # no rule lets it
        rival_need = cycle.open_need(rival)
        if rival_need is None or rival.queue is None or not rival.queue.starts or rival.spec.gentle:
            continue
        if cycle.behind(rival.queue, rival):
            continue
        spec = rival.spec
        parts = tuple((rival.parts[part].key, count) for part, count in rival_need)
        user = spec.user if state.tree.counts_users else ""
        key = (
            spec.queue,
            state.lines.key_of(rival)[0],
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


def _may_take_from(rival: Queue, queue: Queue) -> bool:
    """Whether a queue might take what another uses beyond what is its own; never wrongly False. Within one queue it is
    priority that counts, and work that is within quota on every level yields to nothing else."""
    sides = QueueTree.sides(rival, queue)
    if sides is None:
        return False
    theirs = sides[1]
    return any(
        theirs.used(c) > min(share, quota)
        for c, (share, quota) in enumerate(zip(theirs.share, theirs.quota, strict=True))
    )


def _takes(cycle: Cycle, rival: Work, queue: Queue, need: Need, work: Work) -> bool:
    """Whether a rival could evict something of a workload."""
    for rule in rules_for(cycle, rival, queue, need):
        if not rule.might(work):
            continue
        before = cycle.state.checkpoint()
        bound, held = list(work.bound), work.held
        taken = RoomSearch(cycle, rival, queue, need, rule).run() and (work.bound != bound or work.held != held)
        cycle.state.rollback(before)
        if taken:
            return True
    return False
