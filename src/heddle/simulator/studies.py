"""Several simulations side by side: policies, sizes of a cluster, and the smallest one that will do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as first_of
from dataclasses import dataclass, replace
from typing import Any

from heddle import collector
from heddle.engine.model import WHOLE
from heddle.simulator.clusters import Cluster
from heddle.simulator.events import Event, failures
from heddle.simulator.jobs import Job, Trace
from heddle.simulator.measures import figures
from heddle.simulator.policies import POLICIES, policy
from heddle.simulator.world import World

Figures = dict[str, Any]
Progress = Callable[[int, int], None]
"""Is told of a run: its place, jobs that are over."""


@dataclass(frozen=True, slots=True)
class Case:
    """What one simulation is given.

    Attributes:
        policy: name of a policy.
        cluster: machines, topology and queues.
        trace: what arrives.
        events: what happens beside.
        interval: seconds between two cycles at least (see :class:`World`).
        failing: (seconds between failures of a node, seconds of a repair, seed) drawn at random; None = none.
        until: seconds at which to stop; None = when nothing is left to happen.
    """

    policy: str
    cluster: Cluster
    trace: Trace
    events: tuple[Event, ...] = ()
    interval: float = 0.0
    failing: tuple[float, float, int] | None = None
    until: float | None = None

    def world(self) -> World:
        """It, ready to run.

        Raises:
            ValueError: the policy is not known.
        """
        events = list(self.events)
        jobs = self.trace.jobs
        if self.failing is not None and jobs:
            between, repair, seed = self.failing
            last = max(job.submit + (job.duration if job.duration < math.inf else 0) for job in jobs)
            events += failures(self.cluster.nodes, last * 2, mean_between=between, mean_repair=repair, seed=seed)
        return World(
            self.cluster.nodes,
            jobs,
            policy(self.policy),
            topology=self.cluster.topology,
            queues=self.cluster.queues_of(self.trace),
            events=events,
            interval=self.interval,
        )


def impossible(case: Case) -> list[Job]:
    """Jobs that ask for more GPUs than the whole cluster has, or one node: they would wait for ever."""
    most = case.cluster.gpus * WHOLE
    largest = max(len(node.devices) for node in case.cluster.nodes) * WHOLE
    return [
        job
        for job in case.trace.jobs
        if (job.tasks if job.least is None else job.least) * job.gpu > most or job.gpu > largest
    ]


def run(case: Case, watch: Callable[[World], bool] | None = None) -> Figures:
    """One simulation, as an entry of ``runs``; ``watch`` as of :meth:`World.run`."""
    world = case.world()
    went_on = world.run(watch, until=math.inf if case.until is None else case.until)
    chosen, cluster = POLICIES[case.policy], case.cluster
    return {
        "policy": chosen.name,
        "title": chosen.title,
        "source": chosen.source,
        "cluster": {"name": cluster.name, "nodes": len(cluster.nodes), "gpus": cluster.gpus},
        "label": f"{chosen.name}, {len(cluster.nodes)} nodes",
        "complete": went_on and world.arrived == len(world.jobs),
        "figures": figures(world),
    }


def run_all(
    cases: Sequence[Case], processes: int = 1, progress: Progress | None = None
) -> Iterator[tuple[int, Figures]]:
    """All simulations: (place, entry), as they are done. The figures do not depend on the number of processes."""
    if processes <= 1 or len(cases) <= 1:
        for at, case in enumerate(cases):
            yield at, run(case, _teller(at, case, progress))
        return
    with ProcessPoolExecutor(min(processes, len(cases)), initializer=collector.relax) as pool:
        places: dict[Future[Figures], int] = {pool.submit(run, case): at for at, case in enumerate(cases)}
        open_ones = set(places)
        try:
            while open_ones:
                done, open_ones = first_of(open_ones, return_when="FIRST_COMPLETED")
                for future in done:
                    at = places[future]
                    if progress is not None:
                        progress(at, len(cases[at].trace.jobs))
                    yield at, future.result()
        finally:
            for future in open_ones:
                future.cancel()


def _teller(at: int, case: Case, progress: Progress | None) -> Callable[[World], bool] | None:
    if progress is None:
        return None

    def tell(world: World) -> bool:
        progress(at, world.ended)
        return True

    return tell


def sizes(text: str) -> tuple[int, ...]:
    """``64..256`` (5 sizes, evenly), ``64..256:32`` (each step) or ``64,96,128`` as numbers of nodes.

    Raises:
        ValueError: it is none of these.
    """
    span = re.fullmatch(r"(\d+)\.\.(\d+)(?::(\d+))?", text)
    if span:
        low, high = int(span[1]), int(span[2])
        if not 1 <= low <= high:
            raise ValueError(f"{text!r}: give two numbers from 1, the smaller first")
        if span[3]:
            if int(span[3]) < 1:
                raise ValueError(f"{text!r}: give a step of 1 or more")
            return (*range(low, high, int(span[3])), high)
        return tuple(sorted({low + (high - low) * at // 4 for at in range(5)}))
    if re.fullmatch(r"\d+(,\d+)*", text):
        found = tuple(sorted({int(part) for part in text.split(",")}))
        if found[0] >= 1:
            return found
    raise ValueError(f"{text!r}: give nodes as 64..256, 64..256:32 or 64,96,128")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a cluster should keep to.

    Attributes:
        measure: ``wait`` or ``turnaround``.
        statistic: ``mean``, ``p50``, ``p95``, ``p99`` or ``max``.
        most: seconds.
    """

    measure: str
    statistic: str
    most: float

    @classmethod
    def of(cls, text: str) -> Goal:
        """From ``p95 wait < 10m``; times as 90s, 10m, 2h, 1d.

        Raises:
            ValueError: it is no such goal.
        """
        found = re.fullmatch(
            r"\s*(mean|p50|p95|p99|max)[ -](wait|turnaround)\s*<=?\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\s*", text
        )
        if found is None:
            raise ValueError(
                f"{text!r}: give a goal as 'p95 wait < 10m' (mean, p50, p95, p99 or max; wait or turnaround)"
            )
        return cls(found[2], found[1], float(found[3]) * _SECONDS[found[4] or "s"])

    def kept(self, entry: Mapping[str, Any]) -> bool:
        """Whether a run keeps to it: everybody was served, and soon enough."""
        found = entry["figures"][self.measure]
        left = entry["figures"]["jobs"]["waiting"]
        return bool(entry["complete"]) and not left and (found is None or found[self.statistic] <= self.most)

    def __str__(self) -> str:
        return f"{self.statistic} {self.measure} of at most {self.most:g} s"


_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def smallest(case: Case, goal: Goal, low: int, high: int) -> tuple[int | None, list[Figures]]:
    """The fewest nodes with which a goal is kept, and every run that was tried, smallest first; None = not even with
    ``high``. More nodes are taken to be no worse: sizes are halved, not tried one by one."""
    tried: dict[int, Figures] = {}

    def kept(count: int) -> bool:
        other = replace(case, cluster=case.cluster.resized(count))
        if impossible(other):
            return False
        tried[count] = run(other)
        return goal.kept(tried[count])

    found = None
    if kept(high):
        found = high
        while low < found:
            middle = (low + found) // 2
            if kept(middle):
                found = middle
            else:
                low = middle + 1
    return found, [tried[count] for count in sorted(tried)]
