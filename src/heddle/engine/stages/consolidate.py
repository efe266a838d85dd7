"""Consolidation: idle room is gathered by moving preemptible work, when all that is moved lands again.

A move is no eviction: nobody loses a place for good, so nobody needs a claim to cause one. It has its own
budget and never touches work that is not preemptible. Claims within their share come before anyone is evicted
for them, the others last, when nobody with a better claim can use the room.
"""

from __future__ import annotations

from functools import partial

from heddle.engine.choices import first_choice
from heddle.engine.cycle import Cycle
from heddle.engine.moves import Moves
from heddle.engine.placement import Need
from heddle.engine.queues import Queue
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.stages.promises import redeem
from heddle.engine.stages.room import held_places, would_be_taken_back
from heddle.engine.state import Work
from heddle.engine.turns import Turns


def gather_room_within_fair_share(cycle: Cycle) -> None:
    """Moves others for claims that keep their queue, and all above it, within share."""
    _gather(cycle, within=True)


def gather_idle_room(cycle: Cycle) -> None:
    """Moves others for whoever still waits."""
    _gather(cycle, within=False)


def _gather(cycle: Cycle, *, within: bool) -> None:
    state = cycle.state
    if not state.movable or cycle.moves_left <= 0:
        return
    turns = Turns(cycle)
    for queue, name in turns:
        work = state.works[name]
        need = cycle.open_need(work) if cycle.moves_left > 0 and name not in cycle.barred else None
        if need is None or not cycle.active(queue) or work.arranged or work.spec.awaited or work.spec.gentle:
            turns.give_up(queue, work, alike=False)
            continue
        if first_choice(work, need, partial(_try, cycle, work, queue, need, within=within)):
            cycle.shadows.pop(name, None)
            turns.done(queue)
            turns.restack()
        else:
            turns.give_up(queue, work)


def _try(cycle: Cycle, work: Work, queue: Queue, need: Need, *, within: bool) -> bool:
    demand, tree = cycle.demand(work, need), cycle.state.tree
    fixed, user = not work.spec.preemptible, work.spec.user
    return (
        cycle.gathers(work, need, demand)
        and (not within or tree.within(queue, demand, "share"))
        and tree.stopped_by(queue, demand, fixed=fixed, user=user, land=True) is None
        and _move_others(cycle, work, queue, need, demand)
    )


def _move_others(cycle: Cycle, work: Work, queue: Queue, need: Need, demand: list[int]) -> bool:
    started = {task.work for task in cycle.bind_reason}  # in this very cycle
    movable = [
        other
        for other in map(cycle.state.works.__getitem__, sorted(cycle.state.movable))
        if other is not work
        and not other.arranged  # one task of it cannot be looked at by itself
        and other.whole()  # a broken gang would start nowhere: its promise could not be kept
        and any(other.bound)
        and not other.held
        and other.queue is not None
        and cycle.active(other.queue)
        and other.name not in cycle.gainers
        and other not in started
    ]
    point = cycle.state.checkpoint()
    moves = Moves(cycle.placer, work, need, movable, cycle.now, most=cycle.moves_left, nodes=cycle.budget.victim_nodes)
    if not moves.run():
        return False
    if would_be_taken_back(cycle, work, queue, demand) or not cycle.leaves_room(work, queue, demand, held_places(work)):
        cycle.state.rollback(point)
        return False
    for task in moves.moved:
        cycle.evict_reason[task] = Reason(ReasonCode.MOVED, queue=queue.name, beneficiary=work.name)
        cycle.gainers.add(task.work.name)
    cycle.moves_left -= len(moves.moved)
    cycle.gainers.add(work.name)
    redeem(cycle, work)
    return True
