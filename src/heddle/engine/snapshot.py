"""The world as values: what a state was told, from which an equal one can be made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heddle.engine.model import NodeSpec, Placement, QueueSpec, TaskMix, WorkloadSpec
from heddle.engine.usage import PastUsage


@dataclass(frozen=True, slots=True)
class TaskFact:
    """A task that has a place: since when (seconds), and whether it was told to stop, or is ready."""

    placement: Placement
    since: float
    releasing: bool
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a state was told; ``State.rebuild`` makes an equal state from it."""

    topology: tuple[str, ...]
    nodes: tuple[NodeSpec, ...]
    queues: tuple[QueueSpec, ...]
    workloads: tuple[WorkloadSpec, ...]
    tasks: tuple[TaskFact, ...]
    reservations: Mapping[str, tuple[Placement, ...]]
    past_usage: Mapping[str, PastUsage] = field(default_factory=dict)
    task_mix: TaskMix | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    disruption_budgets: Mapping[str, int] = field(default_factory=dict)
