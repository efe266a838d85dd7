"""The policies that a simulation compares, as a table: all of them are settings of the one engine."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from heddle.simulator.jobs import Job


class Preempts(Enum):
    """Whom running work yields to within a policy, beside what queues and priorities of the jobs say."""

    AS_TOLD = "as told"
    """Queues and priorities decide."""
    SHORTEST = "shortest"
    """Whoever has least left to do goes first, and takes the place of those who have more."""
    ATTAINED = "attained"
    """Whoever got least service so far goes first, in steps of :data:`SERVICE`."""


SERVICE = (3_250.0, 7_200.0, 18_000.0)
"""GPU-seconds at which a job falls to the next level; those of the published code of Tiresias."""
_HAIR = 1e-3


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to schedule.

    Attributes:
        name: as it is asked for.
        title: what it does, in one line.
        source: where it was published; empty = heddle's own.
        strategy: how nodes are chosen (``WorkloadSpec.strategy``).
        ordering: of every queue: ``BestEffort`` or ``StrictFIFO``; None = as each queue says.
        order: where a job stands in its line, lowest first; None = by arrival.
        shadows: for how many claims room is kept ahead of time.
        estimates: walltimes are known: the durations where the trace has none.
        preempts: see :class:`Preempts`. Other than as told, all jobs share one queue.
    """

    name: str
    title: str
    source: str = ""
    strategy: str = "pack"
    ordering: str | None = None
    order: Callable[[Job], float] | None = None
    shadows: int = 1
    estimates: bool = False
    preempts: Preempts = Preempts.AS_TOLD

    @property
    def alone(self) -> bool:
        """Whether it knows neither queues nor priorities of jobs."""
        return self.preempts is not Preempts.AS_TOLD

    def walltime(self, job: Job) -> float | None:
        """What the engine is told of how long a job runs; None = nothing."""
        if job.walltime is not None:
            return job.walltime
        return job.duration if self.estimates and 0 < job.duration < math.inf else None

    def level(self, service: float) -> int:
        """The level of a job that got so many GPU-seconds; 0 goes first.

        A hair less than a bound is enough: what a job got is a sum of many spans, and a level that it is due for must
        come, or it is due for ever.
        """
        return bisect_right(SERVICE, service + _HAIR)


def _duration(job: Job) -> float:
    return job.duration if job.duration < math.inf else 1e14


_FGD = "Weng et al., Beware of Fragmentation, USENIX ATC 2023"

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("heddle", "heddle's default: fair share, backfill, fragmentation-aware", strategy="fragmentation"),
        Policy("heddle-pack", "the same, filling nodes up", strategy="pack"),
        Policy("heddle-spread", "the same, taking the emptiest nodes", strategy="spread"),
        Policy("fifo", "in order of arrival, nobody passes", ordering="StrictFIFO", shadows=0),
        Policy("best-effort", "in order of arrival; who fits may pass who does not", ordering="BestEffort", shadows=0),
        Policy(
            "sjf",
            "shortest job first, nobody passes; durations are known",
            ordering="StrictFIFO",
            order=_duration,
            shadows=0,
        ),
        Policy(
            "srtf",
            "shortest remaining time first, preemptive; durations are known",
            "Schrage, Operations Research 16(3), 1968",
            ordering="BestEffort",
            shadows=0,
            preempts=Preempts.SHORTEST,
        ),
        Policy(
            "easy",
            "in order of arrival; who ends before the first could start may pass it",
            "Lifka, The ANL/IBM SP Scheduling System, JSSPP 1995",
            ordering="BestEffort",
            estimates=True,
        ),
        Policy(
            "conservative",
            "the same, and nobody may delay anyone before him (the first hundred)",
            "Mu'alem and Feitelson, IEEE TPDS 12(6), 2001",
            ordering="BestEffort",
            shadows=100,
            estimates=True,
        ),
        Policy(
            "tiresias",
            "least attained service first (GPUs x time, discretised), preemptive; durations are not known",
            "Gu et al., Tiresias, NSDI 2019",
            ordering="BestEffort",
            shadows=0,
            preempts=Preempts.ATTAINED,
        ),
        Policy("random", "any node that has room", _FGD, strategy="random", shadows=0),
        Policy("dotprod", "dot product of what is asked and what is free", _FGD, strategy="dot-product", shadows=0),
        Policy("bestfit", "the node that is left fullest", _FGD, strategy="best-fit", shadows=0),
        Policy("gpupacking", "shared GPUs before idle ones, used nodes before empty", _FGD, "gpu-packing", shadows=0),
        Policy("gpuclustering", "like beside like", _FGD, "gpu-clustering", shadows=0),
        Policy("fgd", "fragmentation gradient descent as published", _FGD, strategy="fgd", shadows=0),
    )
}
"""By name. Their placement is packing unless the title says otherwise."""


def policy(name: str) -> Policy:
    """A policy by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in POLICIES:
        raise ValueError(f"policy: {name!r} is not known; use some of {', '.join(POLICIES)}")
    return POLICIES[name]
