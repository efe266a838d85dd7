"""What a cycle costs when little changed: ``python -m benchmarks.changes [--nodes 1000,10000] [--json] [--dots FILE]``.

Placements are measured while there is room. Then comes a world at rest: 30 queues in a tree with decayed use and
ageing, every GPU taken, about as many claims waiting as run. The clock moves on by a second and nothing else happens;
somebody comes; somebody is done. What is timed is all of it: the change, the cycle, and carrying its plan out; and then
how long it takes to say why who came waits (a cycle with one verdict). Beside each size stands what one placement costs
a plain numpy loop over the same nodes in the same run.

``--dots`` writes figures for ``python -m benchmarks.dots``.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine import DEVICES, classes, plain_loop
from heddle.engine import Ageing, NodeSpec, PodSet, QueueSpec, State, WorkloadSpec, schedule
from heddle.engine.scheduler import advance, decide

_DEPARTMENTS, _TEAMS = 5, 6
"""Queues above, and queues below each."""
_ROUNDS = 400
_NEARLY = 0.85
"""Of the GPUs this part is taken when placements are measured that find room."""
_LARGE = 30_000
"""On so many nodes only work of 4 and 8 GPUs runs, so that it fits into memory."""


class World:
    """A cluster and those who want it."""

    def __init__(self, nodes: int) -> None:
        """Nodes of 8 GPUs, 128 CPUs, 1 TiB in racks of 16 and blocks of 8 racks."""
        self.now = 0.0
        self.made = 0
        large = [kind for kind in classes(600) if kind[0] >= 4000]
        self.kinds = classes(150) if nodes < _LARGE else large[:150]
        self.draw = np.random.default_rng(1)
        self.state = state = State()
        state.set_topology(["block", "rack"])
        for at in range(nodes):
            labels = {"block": f"b{at // 128:04}", "rack": f"r{at // 16:05}"}
            state.set_node(NodeSpec(f"n{at:06}", {"cpu": 128_000, "memory": 2**40}, DEVICES, labels))
        self.queues = [f"d{up}-t{low}" for up in range(_DEPARTMENTS) for low in range(_TEAMS)]
        for up in range(_DEPARTMENTS):
            state.set_queue(QueueSpec(f"d{up}", quota={"gpu": nodes * 8000 // _DEPARTMENTS}))
        for name in self.queues:
            quota = nodes * 8000 // len(self.queues)
            policy: dict[str, Any] = {"usage_half_life": 86400.0, "ageing": Ageing(3600.0, 24)}
            state.set_queue(QueueSpec(name, name.partition("-")[0], {"gpu": quota}, **policy))

    def submit(self) -> None:
        """One more claim."""
        gpu, cpu, memory = self.kinds[self.made % len(self.kinds)]
        pods = PodSet("main", ("t",), 1, {"cpu": cpu, "memory": memory}, gpu)
        queue = self.queues[self.made % len(self.queues)]
        self.state.set_workload(WorkloadSpec(f"x/w{self.made:07}", queue, (pods,), created=self.now))
        self.made += 1

    @property
    def last(self) -> str:
        """The name of the claim that came last."""
        return f"x/w{self.made - 1:07}"

    def settle(self) -> None:
        """Cycle after cycle until nothing is left to do."""
        while True:
            done = advance(self.state, self.now)
            for workload, task in done.evicted:
                self.state.release_task(workload, task)
            if not done.changed:
                return

    def fill_to(self, part: float) -> None:
        """Claims at once that ask for this part of all GPUs."""
        asked, most = 0, part * 8000 * len(self.state.nodes.row)
        while asked < most:
            asked += self.kinds[self.made % len(self.kinds)][0]
            self.submit()
        self.settle()

    def fill(self, each: int, waiting: int) -> None:
        """So many claims per node in all, of which so many stay in line that found no room."""
        nodes = len(self.state.nodes.row)
        for _ in range(each * nodes - self.made):
            self.submit()
        self.settle()
        for name in self.state.waiting()[waiting * nodes :]:
            if not any(self.state.works[name].bound):
                self.state.remove_workload(name)
        self.settle()

    def running(self) -> list[str]:
        """What has a place."""
        return [name for name, work in self.state.works.items() if any(work.bound)]


def timed(change: Callable[[], object], world: World) -> tuple[float, int, int]:
    """Milliseconds of a change with the cycle after it, what the plan did, and how many were evicted."""
    begin = time.perf_counter()
    change()
    done = advance(world.state, world.now)
    spent = time.perf_counter() - begin
    for workload, task in done.evicted:
        world.state.release_task(workload, task)
    return spent * 1e3, len(done.changed), len(done.evicted)


def figures_of(values: list[float]) -> dict[str, float]:
    return {
        "median_ms": round(float(np.median(values)), 3),
        "p99_ms": round(float(np.percentile(values, 99)), 3),
        "max_ms": round(max(values), 3),
        "count": len(values),
    }


def placements(nodes: int) -> list[float]:
    """Milliseconds of each placement in a cluster that is nearly full."""
    world = World(nodes)
    world.fill_to(_NEARLY)
    gc.collect()
    gc.freeze()
    placed = [timed(world.submit, world) for _ in range(_ROUNDS)]
    gc.unfreeze()
    return [took for took, changed, _ in placed if changed]


def measure(nodes: int) -> dict[str, Any]:
    """All figures for one size of cluster."""
    placed = placements(nodes)
    world = World(nodes)
    begin = time.perf_counter()
    world.fill(*((16, 5) if nodes < _LARGE else (3, 1)))
    filled = time.perf_counter() - begin
    state = world.state
    gc.collect()
    gc.freeze()
    found: dict[str, Any] = {
        "nodes": nodes,
        f"placement_at_{_NEARLY:.0%}": figures_of(placed),
        "running": len(world.running()),
        "waiting": len(state.waiting()),
        "filled_s": round(filled, 1),
        "gpus_taken": round(1 - float(state.nodes.idle(land=False)[0]) / (nodes * 8000), 3),
    }
    idle: list[float] = []
    for _ in range(50):
        world.now += 1
        begin = time.perf_counter()
        decide(state, world.now)
        idle.append((time.perf_counter() - begin) * 1e3)
    found["idle"] = figures_of(idle)
    kinds = ("arrival", "arrival_evicting", "arrival_told", "completion", "completion_evicting")
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    running = world.running()
    for _ in range(_ROUNDS):
        took, _, evicted = timed(world.submit, world)
        spent["arrival_evicting" if evicted else "arrival"].append(took)
        world.settle()
        if not any(state.works[world.last].bound):
            begin = time.perf_counter()
            schedule(state, world.now, verdicts_of={world.last})
            spent["arrival_told"].append((time.perf_counter() - begin) * 1e3)
        name = running.pop(int(world.draw.integers(len(running))))
        if name in state.works:
            took, _, evicted = timed(lambda name=name: state.remove_workload(name), world)  # type: ignore[misc]
            spent["completion_evicting" if evicted else "completion"].append(took)
            world.settle()
        world.now += 0.1
    found.update({name: figures_of(values) for name, values in spent.items() if values})
    found["plain_placement_ms"] = round(1e3 / plain_loop(nodes, min(20_000, nodes * 4), world.kinds), 3)
    found["memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    gc.unfreeze()
    return found


def main() -> None:
    """Prints the figures as lines, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="1000,10000", help="sizes, comma-separated")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dots", type=Path, help="write figures for benchmarks.dots here")
    options = parser.parse_args()
    results = [measure(int(size)) for size in options.nodes.split(",")]
    if options.dots:
        rows = {
            f"{found['nodes']:,} nodes": {
                "nothing but time": found["idle"]["median_ms"] * 1e3,
                "an arrival": found["arrival"]["median_ms"] * 1e3,
                "a completion": found["completion"]["median_ms"] * 1e3,
            }
            for found in results
        }
        title = "A cycle after a change, median, microseconds"
        options.dots.write_text(json.dumps({"title": title, "rows": rows, "log": True}))
    if options.json:
        print(json.dumps(results))
        return
    for found in results:
        for name, value in found.items():
            if isinstance(value, dict):
                value = "  ".join(f"{key} {number:g}" for key, number in value.items())
            print(f"{name:22} {value}")
        print()


if __name__ == "__main__":
    main()
