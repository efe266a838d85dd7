"""What it costs to make room and to explain: ``python -m benchmarks.making_room [--claims 2000] [--json]``.

A cluster of 4,000 GPUs is full of single-GPU work of one queue. Measured are: reclaim by another queue of as many
claims as asked for; why an 80-GPU gang waits, with the smallest changes; and when it is expected to start. Beside
them stands what filling the same cluster takes in the same run: machines differ, the ratio less so.
"""

from __future__ import annotations

import argparse
import json
import time

from benchmarks.engine import cluster
from heddle.engine import PodSet, QueueSpec, State, WorkloadSpec, expect, explain, schedule

GPUS = 4000


def full(first: str, walltime: float | None = None) -> tuple[State, float]:
    """500 nodes of 8 GPUs, full of the work of one queue; and how long one placement took, in microseconds."""
    state = cluster(GPUS // 8)
    for name in ("a", "b"):
        state.set_queue(QueueSpec(name, quota={"gpu": GPUS * 500}))
    state.set_queue(QueueSpec("c", quota={"gpu": 0}, weight=0))
    for at in range(GPUS):
        state.set_workload(single(f"x/r{at:05}", first, at, None if walltime is None else walltime + at))
    begin = time.perf_counter()
    plan = schedule(state, 0.0)
    spent = time.perf_counter() - begin
    for action in plan.actions:
        state.apply(action, 0.0)
    return state, spent / GPUS * 1e6


def single(name: str, queue: str, created: float, walltime: float | None = None) -> WorkloadSpec:
    return WorkloadSpec(
        name, queue, (PodSet("main", ("t",), 1, {"cpu": 1000}, 1000),), created=created, walltime=walltime
    )


def reclaim(claims: int) -> dict[str, float]:
    state, each = full("a")
    for at in range(claims):
        state.set_workload(single(f"x/p{at:05}", "b", at))
    begin = time.perf_counter()
    plan = schedule(state, 1.0)
    spent = time.perf_counter() - begin
    gained = len(plan.actions) // 2
    return {"reclaimed": gained, "reclaim_s": spent, "reclaim_per_placement": spent / max(gained, 1) * 1e6 / each}


def foresight() -> dict[str, float]:
    state, _ = full("a", walltime=3600.0)
    gang = PodSet("main", tuple(f"t{at}" for at in range(10)), 10, {"cpu": 1000}, 8000)
    state.set_workload(WorkloadSpec("x/gang", "c", (gang,), created=9e5, walltime=100.0))
    found: dict[str, float] = {}
    for name, ask in (("cycle_ms", schedule), ("explain_ms", explain), ("expect_ms", expect)):
        begin = time.perf_counter()
        if name == "cycle_ms":
            schedule(state, 1.0)
        else:
            ask(state, 1.0, "x/gang")  # type: ignore[operator]
        found[name] = (time.perf_counter() - begin) * 1e3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--claims", type=int, default=500, help="claims that reclaim")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = reclaim(options.claims) | foresight()
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name:28}{value:14,.2f}")


if __name__ == "__main__":
    main()
