"""What is expected to become of a live heddle's work: who starts when, if nothing but what is known happens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from heddle.simulator.clusters import Cluster
from heddle.simulator.jobs import Job, Trace
from heddle.simulator.policies import policy
from heddle.simulator.present import Present
from heddle.simulator.records import Record
from heddle.simulator.world import World

Figures = dict[str, Any]
POLICY = "heddle"
"""A live heddle goes on as its own queues and jobs say."""


def outlook(
    cluster: Cluster,
    present: Present,
    jobs: Iterable[Job] = (),
    *,
    until: float = math.inf,
    watch: Callable[[World], bool] | None = None,
) -> Figures:
    """Runs a live heddle's world forward.

    Args:
        cluster: nodes and queues: those of the snapshot, or others to try.
        present: what runs and waits.
        jobs: what comes on top.
        until: seconds at which to stop.
        watch: as of :meth:`World.run`.

    Returns:
        ``at``: the moment of the snapshot, in its seconds. ``jobs``: for each, in the order in which they start, what
        it was then (``state``: ``running``, ``waiting`` or ``new``), and ``start`` and ``end`` in seconds after that
        moment, None = nobody can say. ``complete``: whether it was not cut short. ``until``: how far it looked, in
        seconds after that moment; None = as far as anything is known to happen.
    """
    more = tuple(jobs)
    world = World(
        cluster.nodes,
        more,
        policy(POLICY),
        topology=cluster.topology,
        queues=cluster.queues_of(Trace("", tuple(job for job in more if not job.told))),
        present=present,
    )
    complete = world.run(watch, until=until)
    there = {job.name for job in present.jobs}
    rows = [
        _row(record, present.at, "new" if name not in there else "running" if name in present.since else "waiting")
        for name, record in world.records.items()
    ]
    rows.sort(key=lambda row: (math.inf if row["start"] is None else row["start"], row["name"]))
    return {
        "at": present.at,
        "cluster": {"nodes": len(cluster.nodes), "gpus": cluster.gpus},
        "complete": complete,
        "until": None if until == math.inf else round(until - present.at, 3),
        "jobs": rows,
    }


def _row(record: Record, at: float, state: str) -> Figures:
    job = record.job
    return {
        "name": job.name,
        "queue": job.queue,
        "gpus": round(job.gpus, 3),
        "state": state,
        "start": None if record.first is None else round(record.first - at, 3),
        "end": None if record.end is None else round(record.end - at, 3),
        "outcome": record.outcome,
        "evictions": record.evictions,
    }
