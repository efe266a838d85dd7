"""What keeps from a claim, for a while, the room that it could take: told to whoever waits.

Found by a real what-if at the end of a cycle: the same search for room, as if nobody were protected.
"""

from __future__ import annotations

import math

from heddle.engine.cycle import Cycle
from heddle.engine.placement import Need
from heddle.engine.queues import Queue
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.rules import rules_for
from heddle.engine.state import Work
from heddle.engine.victims import RoomSearch


def protections(cycle: Cycle, work: Work, queue: Queue, need: Need) -> list[Reason]:
    """What protects those whose room a claim would take at once; nothing = it has no right to any, or takes it."""
    if cycle.spared_until == math.inf:
        return []
    for rule in rules_for(cycle, work, queue, need, heed=False):
        point = cycle.state.checkpoint()
        search = RoomSearch(cycle, work, queue, need, rule)
        found = search.run()
        gone = dict.fromkeys(victim for victim, tasks, _ in search.gone if found and tasks)
        stopped = [victim for victim in gone if not victim.whole()]  # else it kept its minimum
        cycle.state.rollback(point)
        until = {victim: rule.kept_until(victim) for victim in stopped}
        kept = [victim for victim in stopped if until[victim] > cycle.now]
        if kept:
            held = sorted(((v.name, sum(n * c.gpu for n, c in zip(v.bound, v.parts, strict=True))) for v in kept),
                          key=lambda item: (-item[1], item[0]))  # fmt: skip
            at = max(until[victim] for victim in kept)
            return [Reason(ReasonCode.WITHIN_MIN_RUNTIME, queue=queue.name, holders=tuple(held), at=at)]
    return []
