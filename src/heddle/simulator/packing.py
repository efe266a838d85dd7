"""How full a cluster gets: pods arrive one after the other, none leaves, and what finds no room is dropped.

The experiment of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023). Arrivals are the pods of a list in random
order, then random ones of them again, until they ask for 1.3 times the GPUs that there are. Where nodes are equally
good the first one by name is taken, and names are dealt out at random: without that the order of the list decides where
pods without GPUs go, which is worth up to two points.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from heddle.engine.model import WHOLE, NodeSpec, QueueSpec, TaskMix, TypicalTask
from heddle.engine.plan import Bind
from heddle.engine.scheduler import decide
from heddle.engine.state import State
from heddle.simulator.jobs import Job, accepts

_QUEUE = "all"


@dataclass(frozen=True, slots=True)
class Filling:
    """How full a cluster became.

    Attributes:
        capacity: thousandths of GPUs that there are.
        asked: after each arrival, thousandths of GPUs that all so far asked for.
        given: and those that are allocated.
    """

    capacity: int
    asked: tuple[int, ...]
    given: tuple[int, ...]

    def at(self, percent: int) -> float:
        """Per cent of all GPUs that are allocated when arrivals ask for so many per cent of them: the mean over the
        arrivals for which that holds, rounded to whole per cents; in a cluster so small that there is none, the last
        before that.

        Raises:
            ValueError: arrivals never ask for as much.
        """
        both = list(zip(self.asked, self.given, strict=True))
        found = [given for asked, given in both if round(asked * 100 / self.capacity) == percent]
        if not found and both and both[-1][0] * 100 >= percent * self.capacity:
            found = [given for asked, given in both if asked * 100 < percent * self.capacity][-1:] or [0]
        if not found:
            raise ValueError(f"percent: {percent!r} is not valid; arrivals do not come to that")
        return sum(found) / len(found) * 100 / self.capacity


def arrivals(jobs: Sequence[Job], capacity: int, seed: int, ratio: float = 1.3) -> list[Job]:
    """Jobs in random order, then random ones again, until they ask for ``ratio`` times the capacity (thousandths)."""
    draw = random.Random(seed)
    found = sorted(jobs, key=lambda job: job.name)
    draw.shuffle(found)
    asked = sum(job.gpu for job in found)
    if not any(job.gpu for job in jobs):
        raise ValueError("jobs: none asks for a GPU; give a list in which some do")
    while True:
        again = draw.choice(jobs)
        if asked + min(again.gpu, WHOLE) > ratio * capacity:
            break
        asked += again.gpu
        found.append(again)
    return [replace(job, name=f"{at:07}", submit=float(at), queue=_QUEUE) for at, job in enumerate(found)]


def shuffled(nodes: Sequence[NodeSpec], seed: int) -> list[NodeSpec]:
    """The nodes with a number before each name, dealt out at random."""
    numbers = list(range(len(nodes)))
    random.Random(seed).shuffle(numbers)
    ordered = sorted(nodes, key=lambda node: node.name)
    return [replace(node, name=f"{at:06}-{node.name}") for at, node in zip(numbers, ordered, strict=True)]


def typical(jobs: Sequence[Job], coverage: float = 0.95) -> TaskMix:
    """The most frequent requests that make up this part of all jobs, each with its number."""
    counts = Counter(TypicalTask(job.gpu, job.cpu, node_affinity=accepts(job.models)) for job in jobs)
    chosen: list[tuple[TypicalTask, int]] = []
    for task, count in sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))):
        if sum(count for _, count in chosen) >= coverage * len(jobs):
            break
        chosen.append((task, count))
    return TaskMix(tuple(chosen))


def fill(
    nodes: Sequence[NodeSpec],
    coming: Sequence[Job],
    strategy: str,
    mix: TaskMix | None = None,
    *,
    together: int | None = None,
) -> Filling:
    """Places arrivals in their order.

    Args:
        nodes: the cluster.
        coming: what arrives; see :func:`arrivals`.
        strategy: how nodes are chosen (``WorkloadSpec.strategy``).
        mix: what typically arrives, for those strategies that ask; None = learned from what did.
        together: so many arrivals share a cycle, in which they are heard in their order; None = all. What is learned
            is learned from cycle to cycle.
    """
    state = State()
    for node in nodes:
        state.set_node(node)
    state.set_queue(QueueSpec(_QUEUE))
    state.set_task_mix(mix)
    capacity = sum(len(node.devices) for node in nodes) * WHOLE
    size = together or len(coming)
    got = set[str]()
    for begin in range(0, len(coming), size):
        for job in coming[begin : begin + size]:
            state.set_workload(job.workload(strategy=strategy))
        for action in decide(state, float(begin)).actions:
            state.apply(action, float(begin))
            if isinstance(action, Bind):
                got.add(action.placement.workload)
        for job in coming[begin : begin + size]:
            if job.name not in got:
                state.remove_workload(job.name)
    asked = given = 0
    curve = []
    for job in coming:
        asked += job.gpu
        given += job.gpu if job.name in got else 0
        curve.append((asked, given))
    return Filling(capacity, tuple(a for a, _ in curve), tuple(g for _, g in curve))
