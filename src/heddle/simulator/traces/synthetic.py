"""Made-up work: Poisson arrivals, durations and sizes drawn from distributions, the same for the same seed anywhere.

Described in one string, ``synthetic:jobs=1000,gpus=1|2|4|8,load=0.9,duration=2h,seed=1``, or as :class:`Load`.
Training clusters see mostly small jobs and durations over several powers of ten, for which a log-normal or a Pareto
distribution is the usual stand-in (Jeon et al., USENIX ATC 2019; Hu et al., "Characterization and Prediction of Deep
Learning Workloads", SC 2021).

Only the raw numbers of PCG64 are used, which numpy keeps stable; what is made of them is rounded far above the last
bits in which one machine's logarithm differs from another's (arrivals to microseconds, all other times to seconds).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heddle.engine.model import WHOLE
from heddle.simulator.jobs import Job, Trace, split
from heddle.simulator.tables import span, whole
from heddle.simulator.traces.own import gpu_milli

PREFIX = "synthetic"
SHAPES = ("lognormal", "pareto", "exponential", "constant")

Weighted = tuple[tuple[str, float], ...]
Floats = NDArray[np.float64]


def weighted(text: str) -> Weighted:
    """Choices divided by ``|``, each with its weight behind a colon (1 where none is told): ``1:6|2:2|8``."""
    found = []
    for part in text.split("|"):
        name, _, weight = part.partition(":")
        value = float(weight or 1)
        if not name or not 0 < value < math.inf:
            raise ValueError("write choices as a|b, or with weights above 0 as a:3|b:1")
        found.append((name, value))
    return tuple(found)


def _factor(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError("give a number above 0")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError("give a number from 0 to 1")
    return value


def _stretch(text: str) -> float:
    value = float(text)
    if value != 0 and not 1 <= value < math.inf:
        raise ValueError("give a number from 1, or 0 for no walltimes")
    return value


@dataclass(frozen=True, slots=True)
class Load:
    """What to make up.

    Attributes:
        jobs: how many.
        gpus: sizes of jobs in GPUs, each with its weight; 0.5 is a share of one GPU.
        small: part of the jobs that have the first size, in place of its weight (None = as weighted).
        load: GPU-seconds that arrive in a second, as part of the cluster's GPUs; asks for ``capacity``.
        capacity: GPUs of the cluster (None = as the simulation's).
        interval: mean seconds between two arrivals, in place of ``load``.
        duration: mean seconds that a job runs.
        shape: of the distribution of durations, one of :data:`SHAPES`.
        sigma: of the logarithm, for lognormal.
        alpha: exponent above 1 for pareto: the smaller, the heavier the tail.
        longest: seconds that a job runs at most; cutting the tail lowers the mean, and the load with it.
        queues: names, each with its weight.
        users: how many; 0 = nobody known.
        walltime: a job's walltime is its duration times a number drawn between 1 and this (0 = not told).
        checkpoint: seconds between checkpoints (0 = none).
        restart: seconds that a restart costs.
        seed: other seeds give other jobs of the same kind.
    """

    jobs: int = 1000
    gpus: Weighted = (("1", 70.0), ("2", 12.0), ("4", 10.0), ("8", 8.0))
    small: float | None = None
    load: float | None = None
    capacity: int | None = None
    interval: float | None = None
    duration: float = 7200.0
    shape: str = "lognormal"
    sigma: float = 1.5
    alpha: float = 1.5
    longest: float | None = None
    queues: Weighted = (("default", 1.0),)
    users: int = 0
    walltime: float = 0.0
    checkpoint: float = 0.0
    restart: float = 0.0
    seed: int = 0


_PARSE: dict[str, Callable[[str], Any]] = {
    "jobs": whole,
    "gpus": weighted,
    "small": _share,
    "load": _factor,
    "capacity": whole,
    "interval": span,
    "duration": span,
    "shape": str,
    "sigma": _factor,
    "alpha": _factor,
    "longest": span,
    "queues": weighted,
    "users": whole,
    "walltime": _stretch,
    "checkpoint": span,
    "restart": span,
    "seed": whole,
}


def is_one(text: str) -> bool:
    """Whether a text describes made-up work."""
    return text.partition(":")[0] == PREFIX


def parse(text: str) -> Load:
    """What a description asks for.

    Raises:
        ValueError: it is none; the message names the part.
    """
    name, _, rest = text.partition(":")
    if name != PREFIX:
        raise ValueError(f"load: {text!r} is not valid; begin with {PREFIX}:")
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = part.partition("=")
        if not equals or key not in _PARSE:
            known = ", ".join(field.name for field in fields(Load))
            raise ValueError(f"{PREFIX}: {part!r} is not valid; write name=value with one of {known}")
        if key in values:
            raise ValueError(f"{PREFIX}: {key} is said twice; leave one out")
        try:
            values[key] = _PARSE[key](value)
        except ValueError as error:
            raise ValueError(f"{PREFIX}: {key}: {value!r} is not valid: {error}") from error
    return Load(**values)


def read(text: str, *, node_gpus: int = 8, capacity: int | None = None) -> Trace:
    """Jobs of a description; ``capacity`` counts where it names none."""
    return make(parse(text), node_gpus=node_gpus, capacity=capacity)


def make(load: Load, *, node_gpus: int = 8, capacity: int | None = None) -> Trace:
    """Made-up jobs.

    Args:
        load: what to make up.
        node_gpus: GPUs of a node; larger jobs become gangs.
        capacity: GPUs of the cluster, unless ``load`` says.

    Raises:
        ValueError: values do not go together.
    """
    sizes = _sizes(load)
    mean = sum(milli * weight for milli, weight in sizes) / WHOLE
    gap = _gap(load, mean, load.capacity or capacity)
    draw = _Draw(load.seed)
    # the gap before the first counts, too: arrivals are a stretch of an endless stream
    arrivals = np.cumsum(np.rint(-np.log1p(-draw.uniform(load.jobs)) * gap * 1e6).astype(np.int64)) / 1e6
    durations = _durations(load, draw)
    chosen = draw.choose([weight for _, weight in sizes], load.jobs)
    queues = draw.choose([weight for _, weight in load.queues], load.jobs)
    users = draw.choose([1.0] * load.users, load.jobs) if load.users else [-1] * load.jobs
    if load.walltime:
        factors = 1 + draw.uniform(load.jobs) * (load.walltime - 1)
        walltimes: list[float | None] = np.ceil(np.rint(durations * factors * 1e3) / 1e3).tolist()
    else:
        walltimes = [None] * load.jobs
    shapes = [(1, milli) if milli < WHOLE else _gang(milli // WHOLE, node_gpus) for milli, _ in sizes]
    width = len(str(max(0, load.jobs - 1)))
    jobs = [
        Job(
            f"{at:0{width}}",
            submit,
            duration,
            tasks=shapes[size][0],
            gpu=shapes[size][1],
            queue=load.queues[queue][0],
            user=f"user-{user}" if user >= 0 else "",
            walltime=walltime,
            checkpoint=load.checkpoint or None,
            restart=load.restart,
        )
        for at, (submit, duration, size, queue, user, walltime) in enumerate(
            zip(arrivals.tolist(), durations.tolist(), chosen, queues, users, walltimes, strict=True)
        )
    ]
    return Trace.of(PREFIX, jobs)


def _gang(gpus: int, node_gpus: int) -> tuple[int, int]:
    tasks, each = split(gpus, node_gpus)
    return tasks, each * WHOLE


def _sizes(load: Load) -> list[tuple[int, float]]:
    """Sizes in thousandths of GPUs, with weights that add up to 1."""
    found = []
    for text, weight in load.gpus:
        try:
            found.append((gpu_milli(text), weight))
        except ValueError as error:
            raise ValueError(f"{PREFIX}: gpus: {text!r} is not valid: {error}") from error
    if load.small is not None:
        rest = sum(weight for _, weight in found[1:])
        if not rest and load.small < 1:
            raise ValueError(f"{PREFIX}: small: {load.small:g} is not valid; give gpus at least two sizes")
        others = [(milli, weight / rest * (1 - load.small)) for milli, weight in found[1:]]
        return [(found[0][0], load.small), *others]
    total = sum(weight for _, weight in found)
    return [(milli, weight / total) for milli, weight in found]


def _gap(load: Load, mean: float, capacity: int | None) -> float:
    """Mean seconds between arrivals."""
    if load.interval is not None:
        if load.load is not None:
            raise ValueError(f"{PREFIX}: give load or interval, not both")
        return load.interval
    if not capacity:
        raise ValueError(f"{PREFIX}: the load needs capacity=GPUs of the cluster; or give interval=30s")
    if not mean:
        raise ValueError(f"{PREFIX}: jobs without GPUs make no load; give interval=30s")
    return mean * load.duration / ((1.0 if load.load is None else load.load) * capacity)


def _durations(load: Load, draw: _Draw) -> Floats:
    match load.shape:
        case "lognormal":
            found = np.exp(math.log(load.duration) - load.sigma**2 / 2 + load.sigma * draw.normal(load.jobs))
        case "pareto":
            if load.alpha <= 1:
                raise ValueError(f"{PREFIX}: alpha: {load.alpha:g} is not valid; above 1 there is a mean")
            least = load.duration * (load.alpha - 1) / load.alpha
            found = least * np.exp(-np.log1p(-draw.uniform(load.jobs)) / load.alpha)
        case "exponential":
            found = -np.log1p(-draw.uniform(load.jobs)) * load.duration
        case "constant":
            found = np.full(load.jobs, load.duration)
        case _:
            raise ValueError(f"{PREFIX}: shape: {load.shape!r} is not known; use one of {', '.join(SHAPES)}")
    if load.longest is not None:
        found = np.minimum(found, load.longest)
    return np.maximum(np.rint(found), 1.0)


class _Draw:
    """Random numbers that are the same everywhere."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.PCG64(seed)

    def uniform(self, count: int) -> Floats:
        """Numbers from 0 to below 1."""
        raw: NDArray[np.uint64] = np.asarray(self.bits.random_raw(count), dtype=np.uint64)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, count: int) -> Floats:
        """Standard normal numbers, by the method of Box and Muller."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(count)))
        found: Floats = radius * np.cos(2 * math.pi * self.uniform(count))
        return found

    def choose(self, weights: list[float], count: int) -> list[int]:
        """Which of several, by weight."""
        edges = np.cumsum(weights)
        places = np.searchsorted(edges, self.uniform(count) * edges[-1], side="right")
        found: list[int] = np.minimum(places, len(weights) - 1).tolist()
        return found
