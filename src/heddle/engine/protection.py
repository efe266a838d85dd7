"""What keeps from a claim, for a while, the room that it could take: told to whoever waits.

Found by a real what-if at the end of a cycle: the same search for room, as if nobody were protected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from heddle.engine.cycle import Cycle
from heddle.engine.placement import Need
from heddle.engine.queues import Queue
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.rules import rules_for
from heddle.engine.victims import RoomSearch
from heddle.engine.work import Task, TaskState, Work


def protections(cycle: Cycle, work: Work, queue: Queue, need: Need) -> list[Reason]:
    """What protects those whose room a claim would take at once; nothing = it has no right to any, or takes it."""
    if cycle.spared_until == math.inf and not cycle.budgets:
        return []
    disruptions = cycle.state.disruptions
    for rule in rules_for(cycle, work, queue, need, heed=False):
        point = cycle.state.checkpoint()
        search = RoomSearch(cycle, work, queue, need, rule)
        found = search.run()
        gone = dict.fromkeys(victim for victim, tasks, _ in search.gone if found and tasks)
        stopped = [victim for victim in gone if not victim.whole()]  # else it kept its minimum
        tasks = [task for _, some, _ in search.gone for task in some if found]
        cycle.state.rollback(point)
        reasons = []
        until = {victim: rule.kept_until(victim) for victim in stopped}
        kept = [victim for victim in stopped if until[victim] > cycle.now]
        if kept:
            at = max(until[victim] for victim in kept)
            holders = _holders(task for victim in kept for task in victim.tasks.values())
            reasons.append(Reason(ReasonCode.WITHIN_MIN_RUNTIME, queue=queue.name, holders=holders, at=at))
        for budget, count in sorted(disruptions.asked(filter(cycle.state.ran_before, tasks)).items()):
            least, runs = disruptions.least[budget], disruptions.running(budget)
            if runs - count < least:
                holders = _holders(task for task in tasks if budget in task.work.spec.pod_sets[task.part].budgets)
                reasons.append(
                    Reason(
                        ReasonCode.DISRUPTION_BUDGET,
                        queue=queue.name,
                        budget=budget,
                        cap=least,
                        used=runs,
                        tasks=count,
                        holders=holders,
                    )
                )
        if reasons:
            return reasons
    return []


def _holders(tasks: Iterable[Task]) -> tuple[tuple[str, int], ...]:
    """Who runs some tasks, with the GPUs of those, most first."""
    held: dict[str, int] = {}
    for task in tasks:
        if task.state is TaskState.BOUND:
            held[task.work.name] = held.get(task.work.name, 0) + task.cls.gpu
    return tuple(sorted(held.items(), key=lambda item: (-item[1], item[0])))
