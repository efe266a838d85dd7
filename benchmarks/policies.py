"""Orders of policies on real traces: ``python -m benchmarks.policies --itp FILE [--philly FILE] [--json]``.

The first jobs of each trace (``--jobs``, 6,000) go through FIFO, shortest job first, backfill and heddle's default on
three sizes of cluster. Published comparisons find FIFO to wait longest by far, shortest job first least, and backfill
in between; the exit status is 0 where that order holds for the mean wait at every size at which FIFO waits a minute or
more. Traces: docs/traces.md.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from heddle.simulator import clusters, sources
from heddle.simulator.studies import Case, run_all

POLICIES = ("fifo", "easy", "sjf", "heddle")


def cases(path: Path, nodes: list[int], jobs: int | None) -> list[Case]:
    """Every policy at every size."""
    there = clusters.parse(f"{max(nodes)}x8xV100")
    trace = sources.read(path, node_gpus=8)
    trace = replace(trace, jobs=tuple(replace(job, queue="all") for job in trace.jobs[:jobs]))
    return [Case(name, there.resized(count), trace) for count in nodes for name in POLICIES]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--itp", type=Path, help="a cluster of Microsoft's ITP")
    parser.add_argument("--itp-nodes", default="64,80,96")
    parser.add_argument("--philly", type=Path)
    parser.add_argument("--philly-nodes", default="72,96,112")
    parser.add_argument("--jobs", type=int, default=6000, help="only so many jobs of each (default: 6000; 0 = all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found, wrong = [], 0
    for path, nodes in ((options.itp, options.itp_nodes), (options.philly, options.philly_nodes)):
        if path is None:
            continue
        counts = [int(count) for count in nodes.split(",")]
        begin = time.perf_counter()
        runs = dict(run_all(cases(path, counts, options.jobs or None), options.processes))
        spent = time.perf_counter() - begin
        for place, count in enumerate(counts):
            waits = {
                name: runs[place * len(POLICIES) + at]["figures"]["wait"]["mean"] for at, name in enumerate(POLICIES)
            }
            use = runs[place * len(POLICIES)]["figures"]["utilisation"]
            right = waits["fifo"] < 60 or waits["fifo"] > waits["easy"] > waits["sjf"]
            wrong += not right
            found.append(
                {
                    "trace": path.stem,
                    "jobs": runs[place * len(POLICIES)]["figures"]["jobs"]["arrived"],
                    "nodes": count,
                    "mean_wait_s": waits,
                    "use_fifo": use,
                    "as_published": right,
                }
            )
        found[-1]["seconds_per_run"] = round(spent * options.processes / len(runs), 1)
    if options.json:
        print(json.dumps(found))
    else:
        for row in found:
            means = row["mean_wait_s"].items()
            waits = "  ".join(f"{name} {seconds:10,.0f} s" for name, seconds in means)
            note = "" if row["as_published"] else "not as published"
            print(f"{row['trace']:12} {row['jobs']:6,} jobs {row['nodes']:4} nodes  {waits}  {note}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
