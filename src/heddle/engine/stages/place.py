"""Placing beside what runs: first what stays within fair shares, then on whatever is idle (nothing idle
is withheld).

Two passes, so that a queue's own share is never filled by another's surplus while its owner waits:
without them an evicted gang would win its old place back and be evicted again.
"""

from __future__ import annotations

import math
from functools import partial

from heddle.engine.asks import Tried
from heddle.engine.choices import first_choice
from heddle.engine.cycle import Cycle
from heddle.engine.kinds import Wish
from heddle.engine.placement import Fence, Need
from heddle.engine.queues import Queue
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.shadow import Shadow
from heddle.engine.speeds import slowness
from heddle.engine.turns import Turns
from heddle.engine.work import Task, TaskState, Work


def place_within_fair_share(cycle: Cycle) -> None:
    """Starts minimums that keep their queue, and all above it, within fair share."""
    _pass(cycle, grow=False, within=True)


def grow_within_fair_share(cycle: Cycle) -> None:
    """Starts elastic tasks step by step as long as shares are kept."""
    _pass(cycle, grow=True, within=True)


def place_into_idle_room(cycle: Cycle) -> None:
    """Starts minimums on room that nobody with a claim could use."""
    _pass(cycle, grow=False, within=False)


def grow_into_idle_room(cycle: Cycle) -> None:
    """Starts elastic tasks step by step on such room."""
    _pass(cycle, grow=True, within=False)


def place_beside_those_who_came(cycle: Cycle) -> None:
    """Those who seek the company of others are heard again once it has come."""
    for _ in range(_ROUNDS):
        came = _company(cycle)
        if came <= cycle.company:
            return
        cycle.company = came
        cycle.reopen()
        for place_again in PASSES:
            place_again(cycle)


def _company(cycle: Cycle) -> set[tuple[Task, int]]:
    """Who started in this cycle, and where, of those whose company is sought."""
    found: set[tuple[Task, int]] = set()
    for task in cycle.bind_reason:
        wish = task.work.spec.pod_sets[task.part].neighbours if task.work.social else None
        if wish is not None and task.state is TaskState.BOUND and cycle.state.crowds.sought(wish):
            found.add((task, task.row))
    return found


PASSES = (place_within_fair_share, grow_within_fair_share, place_into_idle_room, grow_into_idle_room)
_ROUNDS = 16
"""A longer chain of those who follow each other takes a further cycle."""


def _pass(cycle: Cycle, *, grow: bool, within: bool) -> None:
    works = cycle.state.works
    everyone = cycle.may_keep_ahead if not grow else _nobody
    what = Wish.GROW if grow else Wish.START
    heard = cycle.may_be_placed(what, within=within)
    if cycle.silent(heard) and not everyone():
        return
    turns = Turns(cycle, grow=grow, heard=heard, everyone=everyone, calm=True)
    narrow = not grow and bool(turns.lines) and cycle.few_rows_freed()
    for queue, name in turns:
        work = works[name]
        if grow:
            if work.spec.awaited or not work.whole() or not any(work.pending):
                turns.give_up(queue, work, alike=False)
            elif not _grow(cycle, work, queue, within=within):
                turns.give_up(queue, work)
            continue
        need = cycle.minimum(work)
        if need is None or work.spec.awaited or work.waits_in_order():
            turns.give_up(queue, work, alike=False)
            continue
        held = _lift(cycle, work) if work.held else []
        if first_choice(work, need, partial(_start, cycle, work, queue, need, grow=False, within=within)):
            turns.done(queue)
            if narrow:
                turns.only(cycle.may_be_placed(what, within=within))
            continue
        _keep_ahead(cycle, work, queue, need, within=within)
        for task, row, devices in held:
            cycle.state.hold(task, row, devices)
        turns.give_up(queue, work)


def _keep_ahead(cycle: Cycle, work: Work, queue: Queue, need: Need, *, within: bool) -> None:
    """Keeps room on the first model for which that helps; where speeds are known, on the one with which it ends
    first."""
    walltime, found = work.spec.walltime, dict[float, Shadow]()

    def keep() -> bool:
        kept = cycle.keep_ahead(work, queue, need, within=within)
        if not kept or walltime is None or not work.paced:
            return kept
        shadow = cycle.shadows.pop(work.name)
        found.setdefault(math.inf if shadow.drains else shadow.at + walltime * slowness(work), shadow)
        return False

    if not first_choice(work, need, keep) and found:
        cycle.shadows[work.name] = found[min(found)]


def _nobody() -> bool:
    return False


def _grow(cycle: Cycle, work: Work, queue: Queue, *, within: bool) -> bool:
    """Starts one step more of the first pod set for which there is room."""
    return any(
        first_choice(work, need, partial(_start, cycle, work, queue, need, grow=True, within=within))
        for need in cycle.growths(work)
    )


def _start(cycle: Cycle, work: Work, queue: Queue, need: Need, *, grow: bool, within: bool) -> bool:
    """Starts a need where it is idle; with ``within`` only if that keeps shares."""
    demand = cycle.demand(work, need)
    within_share = cycle.state.tree.within(queue, demand, "share")
    if within and not within_share:
        return False
    fixed = not work.spec.preemptible
    alike = work.kind is not None and len(work.kind) > 1 and not work.chooses
    if cycle.state.tree.stopped_by(queue, demand, fixed=fixed, user=work.spec.user, land=False):
        if alike and cycle.at_start():
            cycle.state.lines.asks.in_vain(Tried.CAP, queue.name, work.kind or (), cycle.state.freed)
        return False
    groups = work.groups
    new_group = groups is not None and not all(
        groups.of[part] < 0 or groups.whole(groups.of[part], work.bound) for part, _ in need
    )
    kept = cycle.outlasts(work)
    if not all(shadow.admits(queue, demand, fixed=fixed) for shadow in kept):
        return False
    row = -1
    if alike and not grow and not kept and not work.spec.topology_required:
        row = cycle.state.lines.asks.last_row(queue.name, work.kind or (), cycle.state.freed, cycle.state.freed_rows)
    if row >= 0:
        placed = cycle.placer.place_on(work, need, row)
    else:
        placed = cycle.placer.place(work, need, fence=Fence(kept, cycle.state.nodes) if kept else None)
    if placed is None:
        if alike and not kept and cycle.at_start():
            cycle.state.lines.asks.in_vain(Tried.ROOM, queue.name, work.kind or (), cycle.state.freed)
        return False
    for shadow in kept:
        shadow.charge(queue, demand, fixed=fixed)
    many = len(placed) if grow else 1
    code = ReasonCode.WITHIN_SHARE if within_share else ReasonCode.IDLE_ROOM
    if grow and within_share:
        code = ReasonCode.GROWN if many == 1 or not new_group else ReasonCode.GROUP_GROWN
    reason = cycle.reason(code, work.spec.queue)
    if code is ReasonCode.GROWN and many > 1:
        reason = Reason(code, queue=work.spec.queue, tasks=many)
    for task in cycle.hold_back(placed):
        cycle.started(task, reason)
    return True


def _lift(cycle: Cycle, work: Work) -> list[tuple[Task, int, tuple[int, ...]]]:
    """Takes a workload's promises back for a while, so that it can look for a place that is free already."""
    held = [(task, *task.hold) for task in work.tasks.values() if task.hold and task.state is TaskState.PENDING]
    for task, _row, _devices in held:
        cycle.state.unhold(task)
    return held
