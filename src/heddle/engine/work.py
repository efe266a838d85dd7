"""Workloads and their tasks: where each task is in its life, and how many of a pod set run, wait or leave.

Knows what was asked for and what of it has a place; is not aware of nodes, of policy or of other workloads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

from heddle.engine.groups import Groups
from heddle.engine.kinds import Kind
from heddle.engine.model import WorkloadSpec
from heddle.engine.queues import Queue
from heddle.engine.scores import RequestClass


class TaskState(IntEnum):
    """Where a task is in its life."""

    PENDING = 0
    BOUND = 1
    RELEASING = 2


Hold = tuple[int, tuple[int, ...]]
"""A place that is promised: its row and devices."""


class Task:
    """One task: its state, its place while it has one, and the place that is promised to it."""

    __slots__ = ("cls", "devices", "hold", "name", "part", "ready", "row", "since", "state", "work")

    def __init__(self, name: str, part: int, work: Work, cls: RequestClass) -> None:
        self.name = name
        self.part = part
        self.work = work
        self.cls = cls
        self.state = TaskState.PENDING
        self.row = -1
        self.devices: tuple[int, ...] = ()
        self.since = 0.0
        self.ready = False  # reported; counts while it runs
        self.hold: Hold | None = None


class Work:
    """A workload: its spec, its tasks, and how many of each pod set run, wait or leave."""

    __slots__ = (
        "after",
        "arranged",
        "bases",
        "bound",
        "chooses",
        "end",
        "fixed",
        "groups",
        "held",
        "key",
        "kind",
        "leaving",
        "name",
        "order",
        "paced",
        "parts",
        "pending",
        "queue",
        "social",
        "spec",
        "started",
        "tasks",
    )

    def __init__(self, spec: WorkloadSpec, classes: Sequence[RequestClass]) -> None:
        self.name = spec.name
        self.spec = spec
        self.queue: Queue | None = None
        self.bases = list(classes)  # the class of each pod set
        self.parts = list(classes)  # the same, or while one of several GPU models is tried: that of the model
        self.chooses = self.paced = self.social = ordered = False
        self.fixed = True  # whether what its tasks take is known before they have a place
        self.arranged = spec.separate_gpus  # whether its tasks' places depend on each other
        for pod_set in spec.pod_sets:
            if pod_set.gpu_models:
                self.chooses |= len(pod_set.gpu_models) > 1
                self.paced |= bool(pod_set.gpu_speeds)
            if pod_set.gpu_models or pod_set.gpu_memory or pod_set.mig:
                self.fixed = False
            if pod_set.spread or pod_set.slices:
                self.arranged = True
            if pod_set.neighbours is not None:
                self.social = True  # it matters who else is where
            ordered |= bool(pod_set.after)
        self.tasks: dict[str, Task] = {}
        self.order: list[list[Task]] = []  # per pod set, in the order given
        for part, pod_set in enumerate(spec.pod_sets):
            self.order.append([Task(name, part, self, self.parts[part]) for name in pod_set.tasks])
            self.tasks.update((task.name, task) for task in self.order[part])
        self.bound = [0] * len(self.order)
        self.pending = [len(tasks) for tasks in self.order]
        self.leaving = [0] * len(self.order)
        self.held = 0
        # per pod set: those that must be ready before
        self.after = _order_of(spec) if ordered else None
        self.groups = None if spec.min_groups is None else Groups(spec, spec.min_groups)
        self.key: tuple[int, float, str] | None = None  # its entry in Queue.waiting
        self.kind: Kind | None = None  # and in Queue.kinds
        self.started = math.inf  # of the earliest task that runs; kept where a walltime is known
        self.end: tuple[float, str] | None = None  # its entry in Lines.ends

    def may_lose(self, part: int) -> bool:
        """Whether tasks of a pod set beyond its minimum may leave without the others."""
        return self.spec.pod_sets[part].resizable and self.bound[part] > self.spec.pod_sets[part].min

    def missing(self) -> list[int]:
        """Per pod set: how many more tasks must start for the minimum."""
        return [max(0, least - b) for least, b in zip(self.floor(), self.bound, strict=True)]

    def floor(self) -> list[int]:
        """Per pod set: how many tasks must run for the minimum."""
        if self.groups is None:
            return [pod_set.min for pod_set in self.spec.pod_sets]
        return self.groups.floor(self.bound, self.promised(), self.pending)

    def promised(self) -> list[int]:
        """Per pod set: how many tasks that do not run have a place promised."""
        held = [0] * len(self.bound)
        for task in self.tasks.values() if self.held else ():
            held[task.part] += task.hold is not None and task.state is not TaskState.BOUND
        return held

    def home(self, part: int) -> int:
        """A row on which a task of a pod set runs, whatever others are still leaving; -1 = none does."""
        for task in self.order[part] if self.bound[part] else ():
            if task.state is TaskState.BOUND:
                return task.row
        return -1

    def unready(self, part: int) -> int | None:
        """The first pod set for which this one waits, since too few of its tasks are ready; None = it may start."""
        for before in self.after[part] if self.after is not None else ():
            if self.readied(before) < self.spec.pod_sets[before].min:
                return before
        return None

    def readied(self, part: int) -> int:
        """How many running tasks of a pod set are ready."""
        return sum(task.ready and task.state is TaskState.BOUND for task in self.order[part])

    def waits_in_order(self) -> bool:
        """Whether all that is missing has its place promised, and only waits for others of the workload."""
        if self.after is None or not self.held:
            return False
        missing, held = self.missing(), self.promised()
        parts = [part for part, count in enumerate(missing) if count]
        return bool(parts) and all(held[p] >= missing[p] and self.unready(p) is not None for p in parts)

    def torn(self) -> bool:
        """Whether something runs that cannot work: below the minimum, or a group below its own."""
        if not any(self.bound):
            return False
        return not self.whole() or (self.groups is not None and bool(self.groups.torn(self.bound)))

    def promised_whole(self) -> bool:
        """The same, with tasks counted that have a place promised."""
        held = [0] * len(self.bound)
        for task in self.tasks.values():
            held[task.part] += task.hold is not None
        if self.groups is not None:
            return self.groups.enough([b + h for b, h in zip(self.bound, held, strict=True)])
        return all(b + h >= s.min for s, b, h in zip(self.spec.pod_sets, self.bound, held, strict=True))

    def whole(self) -> bool:
        """Whether the minimum runs: that of every pod set, or of enough groups."""
        if self.groups is not None:
            return self.groups.enough(self.bound)
        if len(self.bound) == 1:
            return self.bound[0] >= self.spec.pod_sets[0].min
        return all(b >= s.min for s, b in zip(self.spec.pod_sets, self.bound, strict=True))


def _order_of(spec: WorkloadSpec) -> list[list[int]]:
    names = [pod_set.name for pod_set in spec.pod_sets]
    return [[names.index(name) for name in pod_set.after] for pod_set in spec.pod_sets]
