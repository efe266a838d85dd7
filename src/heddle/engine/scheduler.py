"""``plan = schedule(state, now, budget)``: the whole engine behind one call."""

from __future__ import annotations

from heddle.engine.cycle import Cycle
from heddle.engine.plan import Budget, Plan
from heddle.engine.stages import STAGES
from heddle.engine.state import State
from heddle.engine.verdicts import Verdicts


def schedule(state: State, now: float, budget: Budget | None = None) -> Plan:
    """Decides one cycle. Pure: equal inputs give equal plans, and the state is left as it was.

    Args:
        state: the world; changed only inside a transaction that is rolled back.
        now: seconds on the caller's clock.
        budget: how much work may be tried, and policy that no object holds.
    """
    cycle = Cycle(state, now, budget or Budget())
    state.begin()
    try:
        for stage in STAGES:
            stage(cycle)
        return Plan(cycle.actions(), Verdicts(cycle).all())
    finally:
        state.rollback()
        state.end()


def fair_shares(state: State) -> dict[str, dict[str, dict[str, int | None]]]:
    """Per queue and resource: ``usage``, ``quota``, ``limit`` (None = unbounded), ``share``, ``pending``.

    ``pending`` is what its own waiting tasks, and those of all queues below, ask for.
    """
    Cycle(state, 0.0, Budget())  # works the shares out
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
