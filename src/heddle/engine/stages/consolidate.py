"""Consolidation: idle room is gathered by moving preemptible work, when all that is moved lands again.

A move is no eviction: nobody loses a place for good, so nobody needs a claim to cause one. It has its own
budget and never touches work that is not preemptible. Claims within their share come before anyone is evicted
for them, the others last, when nobody with a better claim can use the room.
"""

from __future__ import annotations

from functools import partial

from heddle.engine.asks import Tried
from heddle.engine.choices import first_choice
from heddle.engine.cycle import Cycle
from heddle.engine.movers import Movers
from heddle.engine.moves import Moves
from heddle.engine.placement import Need
from heddle.engine.queues import Queue
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.stages.promises import take_up
from heddle.engine.stages.room import held_places, would_be_taken_back
from heddle.engine.turns import Turns
from heddle.engine.work import Work


def gather_room_within_fair_share(cycle: Cycle) -> None:
    """Moves others for claims that keep their queue, and all above it, within share."""
    _gather(cycle, within=True)


def gather_idle_room(cycle: Cycle) -> None:
    """Moves others for whoever still waits."""
    _gather(cycle, within=False)


def _gather(cycle: Cycle, *, within: bool) -> None:
    state = cycle.state
    if not state.lines.movable or cycle.moves_left <= 0:
        return
    heard = cycle.may_gather()
    if cycle.silent(heard):
        return
    movers = _movers(cycle)
    turns = Turns(cycle, heard=heard)
    for queue, name in turns:
        work = state.works[name]
        need = cycle.open_need(work) if cycle.moves_left > 0 and name not in cycle.barred else None
        if need is None or not queue.starts or work.arranged or work.spec.awaited or work.spec.gentle:
            turns.give_up(queue, work, alike=False)
            continue
        if cycle.known_in_vain(Tried.GATHER, queue, turns.kind(queue), cycle.held_stamp):
            turns.give_up(queue, work)
            continue
        doubts, dated = cycle.doubts, cycle.dated
        if first_choice(work, need, partial(_try, cycle, work, queue, need, movers, within=within)):
            cycle.shadows.pop(name, None)
            turns.done(queue)
            turns.restack()
        else:
            tried = not within or state.tree.within(queue, cycle.demand(work, need), "share")
            if tried and (number := cycle.remembered_as(cycle.held_stamp, doubts, dated)) is not None:
                state.lines.asks.in_vain(Tried.GATHER, queue.name, turns.kind(queue), number)
            turns.give_up(queue, work)


def _try(cycle: Cycle, work: Work, queue: Queue, need: Need, movers: Movers, *, within: bool) -> bool:
    demand, tree = cycle.demand(work, need), cycle.state.tree
    fixed, user = not work.spec.preemptible, work.spec.user
    return (
        cycle.gathers(work, need, demand)
        and (not within or tree.within(queue, demand, "share"))
        and tree.stopped_by(queue, demand, fixed=fixed, user=user, land=True) is None
        and _move_others(cycle, work, queue, need, demand, movers)
    )


def _movers(cycle: Cycle) -> Movers:
    """Whoever may be moved; who got a place in this cycle, or moves already, may not."""

    def movable(work: Work) -> bool:
        return (
            work.name in cycle.state.lines.movable
            and not work.arranged  # one task of it cannot be looked at by itself
            and work.whole()  # a broken gang would start nowhere: its promise could not be kept
            and not work.held
            and work.queue is not None
            and work.queue.starts
            and work.name not in cycle.gainers
            and not any(map(cycle.placed_now, work.tasks.values()))
        )

    return Movers(cycle.placer, movable, cycle.budget.victim_nodes)


def _move_others(cycle: Cycle, work: Work, queue: Queue, need: Need, demand: list[int], movers: Movers) -> bool:
    point = cycle.state.checkpoint()
    moves = Moves(movers, work, need, cycle.now, most=cycle.moves_left)
    if not moves.run():
        cycle.doubts += moves.tried  # who steps aside first, and where to, changes as time passes and others arrive
        return False
    cycle.doubts += 1
    if (
        would_be_taken_back(cycle, work, queue, demand)
        or not cycle.leaves_room(work, queue, demand, held_places(work))
        or not take_up(cycle, work)
    ):
        cycle.state.rollback(point)
        return False
    for task in moves.moved:
        cycle.evict_reason[task] = Reason(ReasonCode.MOVED, queue=queue.name, beneficiary=work.name)
        cycle.gainers.add(task.work.name)
    cycle.moves_left -= len(moves.moved)
    return True
