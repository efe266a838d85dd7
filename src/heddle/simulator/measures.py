"""What a simulation comes to, as plain figures: for tables, JSON and reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from heddle.simulator.records import Record
from heddle.simulator.world import World

Figures = dict[str, Any]

SIZES = (
    (0.0, "no GPU"),
    (0.999, "share"),
    (1.0, "1 GPU"),
    (8.0, "2-8 GPUs"),
    (64.0, "9-64 GPUs"),
    (math.inf, "over 64"),
)
"""Classes of jobs by GPUs: (most, name)."""


def spread(values: Iterable[float]) -> Figures | None:
    """Mean, median, 95th and 99th percentile (nearest rank) and largest of some values; None = there are none."""
    found = sorted(values)
    if not found:
        return None
    return {
        "mean": _round(math.fsum(found) / len(found)),
        "p50": _round(rank(found, 50)),
        "p95": _round(rank(found, 95)),
        "p99": _round(rank(found, 99)),
        "max": _round(found[-1]),
    }


def rank(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values in ascending order."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def jain(values: Sequence[float]) -> float | None:
    """Jain's index of fairness: 1 = all alike, 1/n = one has all. None = nobody has anything.

    Source: Jain, Chiu, Hawe, DEC TR-301, 1984.
    """
    squares = math.fsum(value * value for value in values)
    return math.fsum(values) ** 2 / (len(values) * squares) if squares else None


def size_of(gpus: float) -> str:
    """The class of a job by its GPUs."""
    return next(name for most, name in SIZES if gpus <= most)


def figures(world: World) -> Figures:
    """All figures of a simulation as it stands: times in seconds, work in GPU-hours.

    ``jobs``: how many arrived, and what became of them. ``wait``: from arrival to first start, of those that started.
    ``turnaround``: from arrival to the end, of those that ended. ``slowdown``: turnaround over duration, both of at
    least 10 s. ``by_size``, ``by_queue``: the same for parts. ``utilisation``: GPUs in use of those that were there.
    ``fairness``: Jain's index over the mean slowdown of queues. ``course``: the curves, see
    :class:`heddle.simulator.course.Course`.
    """
    records = [world.records[job.name] for job in world.jobs[: world.arrived]]
    course = world.course
    outcomes = dict.fromkeys(("done", "timed out", "cancelled", "running", "waiting"), 0)
    for record in records:
        outcomes[record.outcome] += 1
    begin = world.jobs[0].submit if world.jobs else 0.0
    ends = [record.end for record in records if record.end is not None]
    by_size = _grouped(records, lambda record: size_of(record.job.gpus))
    by_queue = _grouped(records, lambda record: record.job.queue)
    slow = [values for _, part in sorted(by_queue.items()) if (values := _slowdowns(part))]
    means = [math.fsum(values) / len(values) for values in slow]
    return {
        "jobs": {"arrived": len(records), **outcomes},
        "wait": spread(_waits(records)),
        "turnaround": spread(_turnarounds(records)),
        "slowdown": spread(_slowdowns(records)),
        "by_size": {name: _part(by_size[name]) for _, name in SIZES if name in by_size},
        "by_queue": {
            queue: {**_part(part), "gpu_hours": _hours(course.by_queue.get(queue, 0.0))}
            for queue, part in sorted(by_queue.items())
        },
        "makespan": _round(max(ends) - begin) if ends else None,
        "utilisation": _round(course.used / course.there) if course.there else None,
        "gpu_hours": {
            "used": _hours(course.used),
            "there": _hours(course.there),
            "lost": _hours(math.fsum(record.lost for record in records)),
        },
        "evictions": sum(record.evictions for record in records),
        "fairness": None if (index := jain(means)) is None else _round(index),
        "cycles": world.cycles,
        "course": {
            "columns": ["time", "gpus", "used", "wanted", "running", "waiting"],
            "rows": [[_round(value) for value in point] for point in course.points],
            "broken": [[_round(at), _round(part)] for at, part in course.broken],
        },
    }


def _grouped(records: Iterable[Record], key: Callable[[Record], str]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return found


def _part(records: list[Record]) -> Figures:
    return {"jobs": len(records), "wait": spread(_waits(records)), "turnaround": spread(_turnarounds(records))}


def _waits(records: Iterable[Record]) -> list[float]:
    return [record.wait for record in records if record.wait is not None]


def _turnarounds(records: Iterable[Record]) -> list[float]:
    return [record.turnaround for record in records if record.turnaround is not None]


def _slowdowns(records: Iterable[Record]) -> list[float]:
    return [
        max(1.0, record.turnaround / max(record.job.duration, 10.0))
        for record in records
        if record.turnaround is not None and record.outcome == "done"
    ]


def _hours(gpu_seconds: float) -> float:
    return _round(gpu_seconds / 3600)


def _round(value: float) -> float:
    """Six significant places after the point: enough for anybody, and the same on every machine."""
    found = round(value, 6)
    return int(found) if found == int(found) and abs(found) < 1e15 else found
