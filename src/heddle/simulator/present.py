"""Where a simulation takes a live heddle up: what runs and what waits there, as jobs that go on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from heddle.engine.model import WorkloadSpec
from heddle.engine.snapshot import Snapshot
from heddle.simulator.jobs import Job
from heddle.simulator.snapshot import Recorded


@dataclass(frozen=True, slots=True)
class Present:
    """A moment from which a simulation goes on.

    Attributes:
        snapshot: the world then. What was leaving has left, what was about to come back is there.
        at: seconds.
        jobs: its workloads. Their tasks may have places already.
        since: when those began that run, seconds by name.
    """

    snapshot: Snapshot
    at: float
    jobs: tuple[Job, ...]
    since: Mapping[str, float]


def of(recorded: Recorded, assumed: float | None = None) -> Present:
    """The moment that a snapshot tells of.

    Args:
        recorded: what was written down.
        assumed: seconds that work without a walltime is taken to run: from the moment on what runs already, from its
            start what waits. None = it never ends, so that nobody can say when what waits for it will start.
    """
    told = recorded.snapshot
    tasks = tuple(fact for fact in told.tasks if not fact.releasing)
    works = tuple(replace(spec, awaited=frozenset()) for spec in told.workloads if any(s.tasks for s in spec.pod_sets))
    known = {spec.name for spec in works}
    since: dict[str, float] = {}
    for fact in tasks:
        name = fact.placement.workload
        since[name] = min(fact.since, since.get(name, math.inf))
    return Present(
        replace(
            told,
            workloads=works,
            tasks=tasks,
            reservations={name: places for name, places in told.reservations.items() if name in known},
        ),
        recorded.at,
        tuple(job_of(spec, recorded.at, assumed, since.get(spec.name)) for spec in works),
        since,
    )


def job_of(spec: WorkloadSpec, at: float, assumed: float | None = None, since: float | None = None) -> Job:
    """A workload as a job of a simulation.

    Args:
        spec: what it is.
        at: the moment from which the simulation goes on, seconds.
        assumed: see :func:`of`.
        since: since when it runs; None = it does not.
    """
    duration = math.inf
    if spec.walltime is None and assumed is not None:
        duration = assumed + (max(0.0, at - since) if since is not None else 0.0)
    return Job(
        spec.name,
        max(0.0, min(spec.created, at)),
        duration,
        tasks=sum(len(pods.tasks) for pods in spec.pod_sets),
        queue=spec.queue,
        user=spec.user,
        priority=spec.priority,
        preemptible=spec.preemptible,
        walltime=spec.walltime,
        told=spec,
    )
