"""How full each placement policy gets a cluster: ``python -m benchmarks.fgd --nodes FILE --pods FILE [--json]``.

The experiment of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), on lists of nodes and pods in the format of
Alibaba's cluster-trace-gpu-v2023; several ``--pods`` may be given. Every figure comes out of the engine's own cycle.
``heddle`` is heddle's default placement, which learns what usually arrives from what has arrived; the others are
described in :mod:`heddle.engine.rankings`, and ``fgd`` knows the mix of the list beforehand, as published.

``--bound`` adds what no placement can exceed, because pods accept some models of GPUs only: the largest flow of GPUs
from pods to models. It knows of no node, share or CPU, so that most of the time not even it can be reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from heddle.engine.model import WHOLE, NodeSpec
from heddle.simulator.jobs import Job
from heddle.simulator.packing import arrivals, fill, shuffled, typical
from heddle.simulator.tables import TableError
from heddle.simulator.traces import openb

POLICIES = {
    "random": "random",
    "dotprod": "dot-product",
    "gpuclustering": "gpu-clustering",
    "gpupacking": "gpu-packing",
    "bestfit": "best-fit",
    "fgd": "fgd",
    "heddle": "fragmentation",
}
BOUND = "bound"
CYCLE = 64
"""Arrivals of one cycle for `heddle`: it has learned from those before."""


def seeds(text: str) -> list[int]:
    """``42-51`` or ``42,43`` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def most(nodes: list[NodeSpec], coming: list[Job], percent: int) -> float:
    """Per cent of all GPUs that could be allocated when arrivals ask for so many per cent, were GPUs of a model fluid.

    By the theorem of max-flow and min-cut: the least, over all sets of models, of what those models have and what is
    asked for by pods that accept any other.
    """
    have = Counter(device.model for node in nodes for device in node.devices)
    capacity = have.total() * WHOLE
    wish, asked = Counter[frozenset[str]](), 0
    for job in coming:
        asked += job.gpu
        if round(asked * 100 / capacity) > percent:
            break
        wish[frozenset(job.models or have) & frozenset(have)] += job.gpu
    cuts = (frozenset(cut) for size in range(len(have) + 1) for cut in combinations(sorted(have), size))
    least = min(
        sum(have[model] for model in cut) * WHOLE + sum(count for models, count in wish.items() if not models <= cut)
        for cut in cuts
    )
    return least * 100 / capacity


def measure(
    nodes_file: Path, pods_file: Path, policies: list[str], draws: list[int], percent: int
) -> dict[str, object]:
    """Allocation of every policy on one list of pods."""
    nodes, jobs = openb.nodes(nodes_file), openb.pods(pods_file).jobs
    capacity = sum(len(node.devices) for node in nodes) * WHOLE
    found: dict[str, object] = {}
    for policy in policies:
        allocated, spent = [], []
        for seed in draws:
            coming, here = arrivals(jobs, capacity, seed), shuffled(nodes, seed)
            if policy == BOUND:
                allocated.append(most(here, coming, percent))
                spent.append(0.0)
                continue
            mix = typical(jobs) if policy == "fgd" else None
            begin = time.perf_counter()
            together = CYCLE if policy == "heddle" else None
            filling = fill(here, coming, POLICIES[policy], mix, together=together)
            spent.append(time.perf_counter() - begin)
            allocated.append(filling.at(percent))
        found[policy] = {
            "mean_allocation": round(statistics.fmean(allocated), 2),
            "stdev": round(statistics.stdev(allocated), 2) if len(allocated) > 1 else 0.0,
            "seconds_per_run": round(statistics.fmean(spent), 2),
        }
    return found


def main() -> int:
    """Prints the figures as lines, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=Path, required=True, help="list of nodes (CSV)")
    parser.add_argument("--pods", type=Path, required=True, action="append", help="list of pods (CSV); may be repeated")
    parser.add_argument("--policies", default=",".join(POLICIES), help="comma-separated (default: all)")
    parser.add_argument("--seeds", type=seeds, default=list(range(42, 52)), help="as 42-51 or 42,43 (default: 42-51)")
    parser.add_argument("--percent", type=int, default=100, help="arrivals, in per cent of all GPUs, at which to read")
    parser.add_argument("--bound", action="store_true", help="also what no placement can exceed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    policies = options.policies.split(",") if options.policies else []
    for policy in policies:
        if policy not in POLICIES:
            parser.error(f"--policies: {policy!r} is not known; use some of {','.join(POLICIES)}")
    policies += [BOUND] * options.bound
    results: dict[str, dict[str, object]] = {}
    try:
        for pods in options.pods:
            results[pods.name.split(".")[0]] = measure(options.nodes, pods, policies, options.seeds, options.percent)
    except (TableError, ValueError) as error:
        parser.error(str(error))
    if options.json:
        only = next(iter(results.values()))
        print(json.dumps({"policies": only} if len(results) == 1 else {"workloads": results}))
        return 0
    for name, found in results.items():
        print(name)
        for policy, figures in found.items():
            assert isinstance(figures, dict)
            print(
                f"  {policy:14} {figures['mean_allocation']:6.2f} % of all GPUs allocated (± {figures['stdev']:.2f}), "
                f"{figures['seconds_per_run']:.2f} s a run"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
