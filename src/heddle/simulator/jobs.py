"""What a simulation runs: jobs, as a trace tells of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from heddle.engine.model import CPU, GPU, MEMORY, WHOLE, LabelMatch, PodSet, Term, WorkloadSpec

MODEL_LABEL = "nvidia.com/gpu.product"
"""The label of a node that names its GPUs, as GPU feature discovery sets it."""

_MOST_TASKS = 1_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """A job of a trace. What a trace does not say keeps its default.

    Attributes:
        name: unique in the simulation.
        submit: seconds at which it arrives.
        duration: seconds that it runs with all its tasks (infinite = it never ends).
        tasks: how many there are; they start together.
        gpu: thousandths of a GPU of one task, as in :class:`heddle.engine.PodSet`.
        cpu: milli-CPUs of one task.
        memory: bytes of one task.
        queue: where it waits.
        user: who submitted it.
        priority: higher goes first.
        preemptible: others may take its place.
        walltime: seconds after which it is stopped, as its user said (None = nobody said).
        models: GPU models that it accepts (none = any).
        speeds: (model, how fast it is): its duration and walltime are for speed 1, which models beside these have. It
            uses GPUs of one model, the fastest that is free (none = all are alike, and mix).
        least: tasks with which it can run; fewer than ``tasks`` = it is elastic (None = all).
        checkpoint: seconds of work between two checkpoints (None = it starts over when evicted).
        restart: seconds of work that each start after the first costs beside.
        speedup: how an elastic job gains by tasks: n of N run at (n / N) to this power (1 = evenly).
        cancel: seconds at which its user gives up waiting or stops it (None = never).
        topology: label of the level of which one domain should hold it.
        required: the domain must hold it.
        told: the workload that it is, where a live heddle or a manifest said so: it is placed as that says. Its
            ``tasks`` are those of all its pod sets, and ``gpu`` is of no account.
    """

    name: str
    submit: float
    duration: float
    tasks: int = 1
    gpu: int = WHOLE
    cpu: int = 0
    memory: int = 0
    queue: str = "default"
    user: str = ""
    priority: int = 0
    preemptible: bool = True
    walltime: float | None = None
    models: tuple[str, ...] = ()
    speeds: tuple[tuple[str, float], ...] = ()
    least: int | None = None
    checkpoint: float | None = None
    restart: float = 0.0
    speedup: float = 1.0
    cancel: float | None = None
    topology: str | None = None
    required: bool = False
    told: WorkloadSpec | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.queue:
            where = "queue" if self.name else "name"
            raise ValueError(f"job {self.name or '?'}: {where} is empty; give one")
        for where, value in (("submit", self.submit), ("duration", self.duration), ("restart", self.restart)):
            if not value >= 0 or (math.isinf(value) and where != "duration"):
                raise ValueError(f"job {self.name}: {where} {value!r} is not valid; give 0 seconds or more")
        if self.gpu < 0 or (self.gpu > WHOLE and self.gpu % WHOLE):
            raise ValueError(f"job {self.name}: gpu {self.gpu!r} is not valid; give a share below 1000, or whole 1000s")
        if self.walltime is not None and not 0 < self.walltime < math.inf:
            raise ValueError(f"job {self.name}: walltime {self.walltime!r} is not valid; give more than 0 seconds")
        if self.cancel is not None and not self.submit <= self.cancel < math.inf:
            raise ValueError(f"job {self.name}: cancel {self.cancel!r} is not valid; give {self.submit:g} s or later")
        for model, speed in self.speeds:
            if not 0 < speed < math.inf or not self.gpu or (self.models and model not in self.models):
                remedy = "give more than 0, of models that it accepts, to a job with GPUs"
                raise ValueError(f"job {self.name}: speeds: {model}={speed!r} is not valid; {remedy}")
        if not 0 <= self.speedup < math.inf:
            raise ValueError(f"job {self.name}: speedup {self.speedup!r} is not valid; give 0 or more, 1 = evenly")
        if not 1 <= self.tasks <= _MOST_TASKS:
            raise ValueError(f"job {self.name}: tasks {self.tasks!r} is not valid; give 1 to {_MOST_TASKS}")
        if self.least is not None and not 1 <= self.least <= self.tasks:
            raise ValueError(f"job {self.name}: least {self.least!r} is not valid; give 1 to {self.tasks} tasks")
        if self.checkpoint is not None and not self.checkpoint > 0:
            raise ValueError(f"job {self.name}: checkpoint {self.checkpoint!r} is not valid; give more than 0 seconds")

    @property
    def gpus(self) -> float:
        """GPUs of all its tasks."""
        return self.gpus_of(self.tasks)

    def gpus_of(self, tasks: int) -> float:
        """GPUs of so many of its tasks; of a workload with several pod sets, of tasks as they are in the mean."""
        if self.told is None:
            return tasks * self.gpu / WHOLE
        return tasks / self.tasks * sum(len(pods.tasks) * pods.gpu for pods in self.told.pod_sets) / WHOLE

    def pod_set(self) -> PodSet:
        """Its tasks as the engine places them."""
        least = self.tasks if self.least is None else self.least
        return _pods(self.tasks, least, self.cpu, self.memory, self.gpu, self.models, self.speeds)

    def workload(
        self,
        *,
        strategy: str = "pack",
        queue: str | None = None,
        priority: int | None = None,
        created: float | None = None,
        walltime: float | None = None,
    ) -> WorkloadSpec:
        """It as a workload of the engine; where it was told, exactly that, whatever is asked for here.

        Args:
            strategy: how nodes are chosen.
            queue: where it waits; None = as it says.
            priority: likewise.
            created: where it stands among equals of its queue; None = when it arrives.
            walltime: what the engine is told of how long it runs; None = nothing.
        """
        if self.told is not None:
            return self.told
        return WorkloadSpec(
            self.name,
            self.queue if queue is None else queue,
            (self.pod_set(),),
            priority=self.priority if priority is None else priority,
            preemptible=self.preemptible,
            created=self.submit if created is None else created,
            strategy=strategy,
            walltime=walltime,
            user=self.user,
            topology_required=self.topology if self.required else None,
            topology_preferred=None if self.required else self.topology,
            movable=self.checkpoint is not None,
            saves_every=self.checkpoint,
        )


_NAMES = tuple(f"{at:05}" for at in range(1024))


@lru_cache(maxsize=4096)
def _pods(
    tasks: int,
    least: int,
    cpu: int,
    memory: int,
    gpu: int,
    models: tuple[str, ...],
    paces: tuple[tuple[str, float], ...],
) -> PodSet:
    """The pod set of jobs that ask for this: most jobs of a trace ask for what others did."""
    request = {name: amount for name, amount in ((CPU, cpu), (MEMORY, memory)) if amount}
    names = _NAMES[:tasks] if tasks <= len(_NAMES) else tuple(f"{at:05}" for at in range(tasks))
    if not paces:
        return PodSet("main", names, least, request, gpu, node_affinity=accepts(models))
    speeds = dict(paces)
    listed = tuple(sorted(models or speeds, key=lambda model: (-speeds.get(model, 1.0), model)))
    return PodSet("main", names, least, request, gpu, gpu_models=listed, gpu_speeds=speeds)


def accepts(models: tuple[str, ...]) -> tuple[Term, ...]:
    """What a node must be to have GPUs of one of some models (none = any)."""
    return ((LabelMatch(MODEL_LABEL, "In", models),),) if models else ()


@lru_cache(maxsize=4096)
def split(gpus: int, most: int) -> tuple[int, int]:
    """Tasks and GPUs of each for a job of which only the number of GPUs is known: as few equal tasks as fit on nodes
    of ``most`` GPUs."""
    if most < 1:
        raise ValueError(f"GPUs of a node: {most!r} is not valid; give 1 or more")
    if gpus <= 0:
        return 1, 0
    each = next(count for count in range(min(gpus, most), 0, -1) if gpus % count == 0)
    return gpus // each, each


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in the order in which they arrive, and what else a trace may tell.

    Attributes:
        name: for titles.
        jobs: sorted by arrival, equal ones as in the file.
        resources: what jobs ask for, in all: for titles and checks.
        left_out: rows that are no jobs to run, how many for which reason.
    """

    name: str
    jobs: tuple[Job, ...]
    resources: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, jobs: list[Job], left_out: Mapping[str, int] | None = None) -> Trace:
        """A trace of jobs in any order.

        Raises:
            ValueError: two have one name.
        """
        names = set[str]()
        for job in jobs:
            if job.name in names:
                raise ValueError(f"{name}: two jobs are called {job.name!r}; give each its own name")
            names.add(job.name)
        ordered = tuple(sorted(jobs, key=lambda job: job.submit))
        return cls(name, ordered, {GPU: sum(job.tasks * job.gpu for job in jobs) / WHOLE}, left_out or {})
