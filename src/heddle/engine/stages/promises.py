"""Reserved places: used as soon as they are free, kept while evicted work is still leaving, dropped when
void."""

from __future__ import annotations

from collections import Counter

from heddle.engine.cycle import Cycle
from heddle.engine.reasons import ReasonCode
from heddle.engine.steps import to_grow
from heddle.engine.work import Task, TaskState, Work


def keep_promises(cycle: Cycle) -> None:
    """Binds every workload whose reserved places have become free."""
    for name in sorted(cycle.state.holders):
        if redeem(cycle, cycle.state.works[name]):
            cycle.redeemed.add(name)


def take_up(cycle: Cycle, work: Work) -> bool:
    """Binds what was just promised as far as it is free. False: all of it is void, as those who stay mind its company;
    then nobody is to leave for it."""
    promised = [task for task in work.tasks.values() if task.hold]
    redeem(cycle, work)
    if all(task.hold is None and task.state is not TaskState.BOUND for task in promised):
        return False
    cycle.gainers.add(work.name)
    return True


def redeem(cycle: Cycle, work: Work) -> bool:
    """Binds what can be bound of one workload's promises: a minimum all or nothing, elastic tasks step by step.

    Void promises (place taken or gone, queue inactive, not enough for the minimum) are dropped. Returns
    whether anything was bound.
    """
    state = cycle.state
    held = [task for task in work.tasks.values() if task.hold]
    queue = work.queue
    leaving = any(task.state is TaskState.RELEASING or task.name in work.spec.awaited for task in held)
    if leaving:
        return False
    short = [
        max(0, missing - sum(1 for task in held if task.part == part)) for part, missing in enumerate(work.missing())
    ]
    if queue is None or not queue.starts or any(short) or not all(_stands(cycle, task) for task in held):
        for task in held:
            state.unhold(task)
        return False
    if work.social and not all(state.crowds.stands(task) for task in held):
        for task in held:
            state.unhold(task)
        cycle.barred |= {work.name}  # others came between: nobody leaves for it a second time in a row
        return False
    if work.whole():
        bound = [_redeem_together(cycle, work, batch) for batch in _batches(cycle, work, held)]
        return any(bound)
    first: list[Task] = []
    for part, missing in enumerate(work.missing()):
        first += [task for task in held if task.part == part][:missing]
    if not _redeem_together(cycle, work, first):
        return False
    for batch in _batches(cycle, work, [task for task in held if task not in first]):
        _redeem_together(cycle, work, batch)
    return True


def _batches(cycle: Cycle, work: Work, held: list[Task]) -> list[list[Task]]:
    """Promises beyond the minimum by what starts together: a group as a whole, else step by step.

    Those of a group or step of which too few have a place are dropped.
    """
    groups = work.groups
    if groups is None:
        return _steps(cycle, work, held)
    alone: list[Task] = []
    together: dict[int, list[Task]] = {}
    for task in held:
        group = groups.of[task.part]
        if group < 0 or groups.whole(group, work.bound):
            alone.append(task)
        else:
            together.setdefault(group, []).append(task)
    for group, tasks in list(together.items()):
        counts = [runs + sum(task.part == part for task in tasks) for part, runs in enumerate(work.bound)]
        if not groups.whole(group, counts):
            for task in together.pop(group):
                cycle.state.unhold(task)
    return [*together.values(), *_steps(cycle, work, alone)]


def _steps(cycle: Cycle, work: Work, held: list[Task]) -> list[list[Task]]:
    """Promises of single tasks by the steps in which they start; those that make none are dropped."""
    batches: list[list[Task]] = []
    for part, pod_set in enumerate(work.spec.pod_sets):
        mine = [task for task in held if task.part == part]
        count = work.bound[part]
        while mine:
            size = to_grow(pod_set, count)
            if len(mine) < size:
                for task in mine:
                    cycle.state.unhold(task)
                break
            batches.append(mine[:size])
            count, mine = count + size, mine[size:]
    return batches


def _stands(cycle: Cycle, task: Task) -> bool:
    """Whether a promise can still come true: its node admits the task and is not promised or used beyond
    capacity."""
    nodes = cycle.state.nodes
    row, devices = task.hold or (-1, ())
    cls = task.cls.at(row)
    floor = cls.floor - cls.share
    return (
        task.cls.accepts(nodes.specs[row])
        and all(nodes.land[row, column] >= 0 for column in task.cls.fit)
        and all(nodes.dev_land[row, device] >= floor for device in devices)
    )


def _redeem_together(cycle: Cycle, work: Work, group: list[Task]) -> bool:
    state = cycle.state
    if all(work.unready(task.part) is not None for task in group):
        return False
    point = state.checkpoint()
    places = [(task, *(task.hold or (-1, ()))) for task in group]
    for task in group:
        state.unhold(task)
    demand = cycle.amounts(Counter(task.cls.at(row) for task, row, _ in places))
    fine = work.queue is not None and not state.tree.stopped_by(
        work.queue, demand, fixed=not work.spec.preemptible, user=work.spec.user, land=False
    )
    while places and fine:
        shut_out = []
        for task, row, devices in places:
            fine = fine and state.has_room(task, row, devices, land=False)
            if fine and (not work.social or state.crowds.admits(task, row, land=False)):
                state.move(task, TaskState.BOUND, row, devices, cycle.now)
            else:
                shut_out.append((task, row, devices))
        fine = fine and len(shut_out) < len(places)
        places = shut_out  # once others of the group are there they may be let in
    if not fine:
        state.rollback(point)
        return False
    for task in cycle.hold_back(group):
        cycle.started(task, cycle.reason(ReasonCode.PROMISE_KEPT, work.spec.queue))
    return True
