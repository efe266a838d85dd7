"""What a cycle decides: ordered actions, and a verdict per pending workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heddle.engine.model import Placement
from heddle.engine.reasons import Reason


@dataclass(frozen=True, slots=True)
class Budget:
    """How much work a cycle may try, and the policy that is not part of an object. Counts work, never
    seconds.

    Attributes:
        victim_searches: how many pending claims may look for work to evict in one cycle. Those of whom it is known from
            before that they find nobody do not count: the next cycle goes on with others. So once it is spent, and only
            then, a plan depends on cycles before.
        victim_nodes: how many nodes (or domains) one such claim compares before it takes the cheapest.
        gang_grace: seconds that a gang may stay below its minimum before the rest of it is evicted, where the
            workload itself does not say.
        moves: how many tasks of preemptible work may be moved in one cycle so that others fit (0 = none).
        shadows: for how many claims that cannot start room is kept ahead of time, against known ends of
            running work (1 = EASY backfill, 0 = none; more is nearer to conservative backfill).
        shadow_searches: how many claims may look for such room in one cycle.
        overdue: seconds for which work that should have ended by its walltime is expected to end at any moment.
    """

    victim_searches: int = 10_000
    victim_nodes: int = 8
    gang_grace: float = 60.0
    moves: int = 64
    shadows: int = 1
    shadow_searches: int = 8
    overdue: float = 60.0


@dataclass(frozen=True, slots=True)
class Bind:
    """Start this task here, now."""

    placement: Placement
    reason: Reason


@dataclass(frozen=True, slots=True)
class Evict:
    """Stop this task. ``reason.beneficiary`` is the workload that gains (none for a broken gang)."""

    workload: str
    task: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Reserve:
    """Keep these places for the workload until they are free. It replaces what was reserved; empty =
    drop it."""

    workload: str
    placements: tuple[Placement, ...]


Action = Bind | Evict | Reserve


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the cycle concluded about a workload that had pending tasks when it began.

    Attributes:
        workload: its name.
        admitted: its minimum runs once the plan's binds are done.
        reasons: why it was placed, or why not now.
        position: 0 = next in its queue; None when it is not waiting.
    """

    workload: str
    admitted: bool
    reasons: tuple[Reason, ...]
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of :func:`heddle.engine.schedule`.

    Attributes:
        actions: in the order in which they should be carried out.
        verdicts: per workload that had pending tasks.
        again_at: seconds; from this moment on time alone may change the plan, as a minimum runtime that spared
            somebody ends. None = none does.
    """

    actions: tuple[Action, ...] = ()
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    again_at: float | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """What a cycle changed that was carried out at once.

    Attributes:
        changed: workloads of which tasks start, leave or are promised a place.
        evicted: (workload, task) of those that leave.
        again_at: as of :class:`Plan`.
        settled: work only started: another cycle at this moment would find nothing to do.
    """

    changed: Mapping[str, None]
    evicted: tuple[tuple[str, str], ...]
    again_at: float | None
    settled: bool = True
