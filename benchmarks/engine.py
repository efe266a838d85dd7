"""How fast the engine decides: ``python -m benchmarks.engine [--nodes 1000,10000] [--json]``.

Every figure of :func:`heddle.engine.schedule` stands beside a plain numpy loop that keeps the same class
x node scores but has no queues, reasons, undo or plan: what the engine adds is the ratio between them.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from heddle.engine import Device, NodeSpec, PodSet, QueueSpec, Slices, Spread, State, WorkloadSpec, schedule

GANGS: dict[str, dict[str, Any]] = {
    "_one_block": {},
    "_slices_of_8": {"slices": Slices("rack", 8)},
    "_balanced": {"slices": Slices("rack", 8, balanced=True)},
    "_skew_1": {"spread": Spread("rack", skew=1)},
}
DEVICES = tuple(Device(f"g{at}", at) for at in range(8))


def cluster(nodes: int) -> State:
    """Nodes of 8 GPUs, 128 CPUs, 1 TiB in racks of 16 and blocks of 8 racks, and three queues."""
    state = State()
    state.set_topology(["block", "rack"])
    for at in range(nodes):
        resources = {"cpu": 128_000, "memory": 2**40}
        labels = {"block": f"b{at // 128:04}", "rack": f"r{at // 16:05}"}
        state.set_node(NodeSpec(f"n{at:06}", resources, DEVICES, labels))
    for name in ("a", "b", "c"):
        state.set_queue(QueueSpec(name, quota={"gpu": nodes * 8000 // 3}))
    return state


def classes(count: int) -> list[tuple[int, int, int]]:
    """(gpu, cpu, memory) of a mix like that of production traces: shares, single GPUs, few large."""
    draw = np.random.default_rng(7)
    gpus = draw.choice([0, 250, 500, 1000, 1000, 1000, 2000, 4000, 8000], count)
    return [(int(g), int(draw.integers(1, 13)) * 1000, int(draw.integers(1, 65)) * 2**30) for g in gpus]


def submit(state: State, count: int, kinds: list[tuple[int, int, int]], strategy: str = "pack") -> None:
    for at in range(count):
        gpu, cpu, memory = kinds[at % len(kinds)]
        pods = PodSet("main", ("t",), 1, {"cpu": cpu, "memory": memory}, gpu)
        state.set_workload(WorkloadSpec(f"x/w{at:06}", "abc"[at % 3], (pods,), created=float(at), strategy=strategy))


def timed(state: State) -> tuple[float, int]:
    begin = time.perf_counter()
    plan = schedule(state, 0.0)
    return time.perf_counter() - begin, len(plan.actions)


def plain_loop(nodes: int, count: int, kinds: list[tuple[int, int, int]]) -> float:
    """Placements per second of a bare best-fit loop over cached class x node scores."""
    free = np.tile(np.array([128_000, 2**40], np.int64), (nodes, 1))
    devices = np.full((nodes, 8), 1000, np.int64)
    scores: list[np.ndarray | None] = [None] * len(kinds)
    seen = [0] * len(kinds)
    log: list[int] = []

    def rescore(kind: tuple[int, int, int], rows: np.ndarray | slice) -> np.ndarray:
        gpu, cpu, memory = kind
        here, devs = free[rows], devices[rows]
        ok = (here[:, 0] >= cpu) & (here[:, 1] >= memory)
        if gpu >= 1000:
            ok &= (devs >= 1000).sum(axis=1) >= gpu // 1000
        elif gpu:
            ok &= devs.max(axis=1) >= gpu
        return np.where(ok, 1_000_000 - devs.sum(axis=1), -1)

    begin = time.perf_counter()
    for at in range(count):
        which = at % len(kinds)
        kind = kinds[which]
        known = scores[which]
        if known is None:
            known = scores[which] = rescore(kind, slice(None))
        else:
            rows = np.fromiter(set(log[seen[which] :]), np.int64)
            known[rows] = rescore(kind, rows)
        seen[which] = len(log)
        row = int(known.argmax())
        if known[row] < 0:
            continue
        free[row] -= kind[1:]
        if kind[0] >= 1000:
            devices[row, np.flatnonzero(devices[row] >= 1000)[: kind[0] // 1000]] = 0
        elif kind[0]:
            fits = np.where(devices[row] >= kind[0], devices[row], 9999)
            devices[row, fits.argmin()] -= kind[0]
        log.append(row)
    return count / (time.perf_counter() - begin)


def measure(nodes: int) -> dict[str, float]:
    """All figures for one size of cluster."""
    figures: dict[str, float] = {"nodes": nodes}
    count = min(20_000, nodes * 4)
    one, mix = [(1000, 4000, 2**33)], classes(150)
    for name, kinds, strategy in (
        ("identical", one, "pack"),
        ("mixed_150", mix, "pack"),
        ("fragmentation_150", mix, "fragmentation"),
    ):
        state = cluster(nodes)
        submit(state, count, kinds, strategy)
        schedule(State.rebuild(cluster(4).snapshot()), 0.0)
        spent, placed = timed(state)
        again, _ = timed(state)
        bare = plain_loop(nodes, count, kinds)
        figures[f"{name}_per_s"] = round(placed / spent)
        figures[f"{name}_per_s_warm"] = round(placed / again)
        figures[f"{name}_plain_per_s"] = round(bare)
        figures[f"{name}_ratio"] = round(placed / again / bare, 2)
    state = cluster(nodes)
    pods = PodSet("main", tuple(f"t{at}" for at in range(128)), 128, {"cpu": 4000}, 1000)
    state.set_workload(WorkloadSpec("x/gang", "a", (pods,), topology_required="rack"))
    figures["gang_128_one_rack_ms"] = round(timed(state)[0] * 1e3, 2)
    for name, rule in GANGS.items():
        state = cluster(nodes)
        pods = PodSet("main", tuple(f"t{at:03}" for at in range(512)), 512, {"cpu": 4000}, 1000, **rule)
        required = None if name == "_skew_1" else "block"
        state.set_workload(WorkloadSpec("x/gang", "a", (pods,), topology_required=required))
        figures[f"gang_512{name}_first_ms"] = round(timed(state)[0] * 1e3, 2)
        figures[f"gang_512{name}_ms"] = round(min(timed(state)[0] for _ in range(5)) * 1e3, 2)
    # what one more arrival costs once much runs: it must not grow with the cluster
    state = cluster(nodes)
    submit(state, count, classes(150))
    for action in schedule(state, 0.0).actions:
        state.apply(action)
    for name in [name for name, work in state.works.items() if any(work.pending)]:
        state.remove_workload(name)
    schedule(state, 0.0)
    spends = []
    for at in range(50):
        pods = PodSet("main", ("t",), 1, {"cpu": 4000, "memory": 2**33}, 1000)
        begin = time.perf_counter()
        state.set_workload(WorkloadSpec(f"y/w{at}", "a", (pods,)))
        plan = schedule(state, 0.0)
        for action in plan.actions:
            state.apply(action)
        spends.append(time.perf_counter() - begin)
    figures["arrival_ms_median"] = round(float(np.median(spends)) * 1e3, 3)
    figures["arrival_ms_max"] = round(max(spends) * 1e3, 3)
    return figures


def main() -> None:
    """Prints the figures as lines, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="1000,10000", help="sizes, comma-separated (100000 works too)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [measure(int(size)) for size in options.nodes.split(",")]
    if options.json:
        print(json.dumps(results))
        return
    for figures in results:
        for name, value in figures.items():
            print(f"{name:28} {value:>12,}")
        print()


if __name__ == "__main__":
    main()
