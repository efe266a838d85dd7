"""``plan = schedule(state, now, budget)``: the whole engine behind one call."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count

from heddle.engine.aftermath import undone
from heddle.engine.cycle import Cycle
from heddle.engine.hindsight import gained_unowed
from heddle.engine.plan import Advance, Bind, Budget, Evict, Plan
from heddle.engine.stages import STAGES
from heddle.engine.state import State
from heddle.engine.verdicts import Verdicts
from heddle.engine.work import TaskState

_ATTEMPTS = 4
_USUAL = Budget()


def schedule(
    state: State, now: float, budget: Budget | None = None, verdicts_of: Collection[str] | None = None
) -> Plan:
    """Decides one cycle. Pure: equal inputs give equal plans, and the state is left as it was.

    Args:
        state: the world; changed only inside a transaction that is rolled back.
        now: seconds on the caller's clock.
        budget: how much work may be tried, and policy that no object holds.
        verdicts_of: workloads that the caller wants a verdict on, beside those about which the plan does something;
            None = all that wait. To tell everyone why he waits costs more than to find it out.
    """
    with carried_through(state, now, budget) as cycle:
        actions, again_at = cycle.actions(), _again_at(cycle)
        if verdicts_of is None:
            return Plan(actions, Verdicts(cycle).all(), again_at)
        acted = (a.placement.workload if isinstance(a, Bind) else a.workload for a in actions)
        return Plan(actions, Verdicts(cycle).of({*verdicts_of, *acted}), again_at)


def decide(state: State, now: float, budget: Budget | None = None) -> Plan:
    """The same without verdicts: for those who run many cycles and read none."""
    with carried_through(state, now, budget) as cycle:
        return Plan(cycle.actions(), again_at=_again_at(cycle))


def advance(state: State, now: float, budget: Budget | None = None) -> Advance:
    """Decides one cycle and carries it out at once, for those who run in virtual time: who is bound runs, who is
    evicted is leaving, what is promised is reserved. The state is then what applying the actions of :func:`decide`
    makes of it, at a fraction of the cost where work only starts."""
    with carried_through(state, now, budget) as cycle:
        again_at = _again_at(cycle)
        changed = [
            (task, before[0])
            for task, before in (state.touched or {}).items()
            if task.state is not before[0] or task.hold != before[3]
        ]
        if all(was is TaskState.PENDING and task.state is TaskState.BOUND for task, was in changed):
            state.keep(now)
            settled = not (changed and cycle.barred)  # what starts now may be owed to them in the next
            return Advance(dict.fromkeys(task.work.name for task, _ in changed), (), again_at, settled)
        actions = cycle.actions()
    for action in actions:
        state.apply(action, now)
    names = (a.placement.workload if isinstance(a, Bind) else a.workload for a in actions)
    evicted = tuple((a.workload, a.task) for a in actions if isinstance(a, Evict))
    return Advance(dict.fromkeys(names), evicted, again_at, settled=False)


def _again_at(cycle: Cycle) -> float | None:
    at = min(cycle.spared_until, cycle.patient_until)
    return at if at < math.inf else None


@contextmanager
def carried_through(state: State, now: float, budget: Budget | None) -> Iterator[Cycle]:
    """A cycle whose stages are done, inside the transaction that is rolled back at the end.

    Those for whom others would leave who owe nothing are found out in the end, those for whom others would leave in
    vain by playing the next round; the cycle is then done again without anyone leaving for them.
    """
    barred: frozenset[str] = frozenset()
    spared_until = math.inf
    for attempt in count():
        cycle = Cycle(state, now, budget or _USUAL, barred)
        freed = state.freed
        state.begin()
        try:
            for stage in STAGES:
                stage(cycle)
            vain = gained_unowed(cycle)
            if not vain and attempt + 1 < _ATTEMPTS:
                vain = undone(cycle, STAGES)
            if not vain:
                cycle.spared_until = min(cycle.spared_until, spared_until)
                yield cycle
                return
            barred |= vain
            spared_until = min(cycle.spared_until, spared_until)
        finally:
            state.rollback()
            state.end()
            state.freed = freed  # what was free only on trial is not


def fair_shares(state: State) -> dict[str, dict[str, dict[str, int | None]]]:
    """Per queue and resource: ``usage``, ``quota``, ``limit`` (None = unbounded), ``share``, ``pending``.

    ``pending`` is what its own waiting tasks, and those of all queues below, ask for.
    """
    state.settle()
    state.tree.divide(state.totals())
    pending: dict[str, list[int]] = {name: [0] * len(state.resources) for name in state.tree.queues}
    for queue in state.tree.queues.values():
        for column in range(len(state.resources)):
            open_request = queue.request[column] - (0 if queue.children else queue.running[column])
            for at in queue.path:
                pending[at.name][column] += open_request
    return {
        name: {
            resource: {
                "usage": queue.used(column),
                "quota": queue.spec.quota.get(resource),
                "limit": queue.spec.limit.get(resource),
                "share": queue.share[column],
                "pending": pending[name][column],
            }
            for column, resource in enumerate(state.resources)
            if resource
        }
        for name, queue in sorted(state.tree.queues.items())
    }
