"""The stages of a cycle, one module each, least disruptive first. :data:`STAGES` is the policy at a
glance."""

from __future__ import annotations

from collections.abc import Callable

from heddle.engine.cycle import Cycle
from heddle.engine.stages.broken import evict_gangs_broken_beyond_grace
from heddle.engine.stages.company import step_back_without_company
from heddle.engine.stages.consolidate import gather_idle_room, gather_room_within_fair_share
from heddle.engine.stages.drain import drain_stopped_queues
from heddle.engine.stages.lines import step_back_behind_the_head
from heddle.engine.stages.place import (
    grow_into_idle_room,
    grow_within_fair_share,
    place_beside_those_who_came,
    place_into_idle_room,
    place_within_fair_share,
)
from heddle.engine.stages.promises import keep_promises
from heddle.engine.stages.room import make_room_by_reclaim_then_preemption

Stage = Callable[[Cycle], None]

STAGES: tuple[Stage, ...] = (
    drain_stopped_queues,
    keep_promises,
    place_within_fair_share,
    grow_within_fair_share,
    place_beside_those_who_came,
    place_into_idle_room,
    grow_into_idle_room,
    place_beside_those_who_came,
    gather_room_within_fair_share,
    make_room_by_reclaim_then_preemption,
    gather_idle_room,
    step_back_behind_the_head,
    step_back_without_company,
    step_back_behind_the_head,  # the head may have been without company
    step_back_without_company,
    evict_gangs_broken_beyond_grace,
)
