"""Whether the simulator tells the truth: ``python -m benchmarks.fidelity [--jobs 200] [--json]``.

The same work goes through embedded heddle, with real processes that sleep, and through the simulator. Compared are the
moments at which jobs start, as the processes themselves write them down, and their order. The workload is drawn from a
seed and takes some minutes of real time (``--pace`` squeezes or stretches it). To end one process and to start the next
takes time that no trace knows of; it is measured first, and the simulator told. Exit status 0 when starts differ by at
most 5 % of the makespan and nobody who starts more than a second before another in one does so after him in the other.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from heddle.sdk import Client
from heddle.simulator import clusters
from heddle.simulator.jobs import Job
from heddle.simulator.policies import policy
from heddle.simulator.world import World

CLUSTER = "2x8xH100"
CLOSE = 1.0
"""Seconds within which the order of two starts is of no account."""


def workload(count: int, pace: float, seed: int) -> list[Job]:
    """Jobs of 1 to 16 GPUs that arrive a little faster than they can be served."""
    draw = random.Random(seed)
    at, jobs = 0.0, []
    for number in range(count):
        gpus = draw.choices((1, 2, 4, 8, 16), (40, 25, 20, 12, 3))[0]
        duration = min(30.0, max(2.0, draw.lognormvariate(1.4, 0.7))) * pace
        tasks, each = (2, 8) if gpus == 16 else (1, gpus)
        jobs.append(Job(f"j{number:03}", round(at, 3), round(duration, 3), tasks, each * 1000, queue="default"))
        at += draw.expovariate(1.0) * pace
    return jobs


def handover(folder: Path) -> float:
    """Seconds from the end of a process to the start of the next one on its GPUs: the median of some."""
    with Client() as client:
        client.run(["true"], name="warm-up", gpus=1)
        client.wait("warm-up", timeout=60)
        names = [f"full-{at:02}" for at in range(16)]
        for name in names:
            client.run(["sh", "-c", f"date +%s.%N > {folder / name}; sleep 1.5"], name=name, gpus=8)
        for name in names:
            client.wait(name, timeout=120)
    starts = sorted(float((folder / name).read_text()) for name in names)
    return statistics.median(later - earlier - 1.5 for earlier, later in zip(starts, starts[2:], strict=False))


def really(jobs: list[Job], folder: Path) -> dict[str, float]:
    """When each job's last process started, in seconds after the first submission."""
    with Client() as client:
        begin = time.time() + 1.0
        threads = []
        for job in jobs:
            time.sleep(max(0.0, begin + job.submit - time.time()))
            mark = f"date +%s.%N >> {folder / job.name}; sleep {job.duration}"
            # submitting must not hold up the next one
            submit = {"name": job.name, "gpus": job.gpu // 1000, "nodes": job.tasks}
            thread = threading.Thread(target=client.run, args=(["sh", "-c", mark],), kwargs=submit)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
        for job in jobs:
            client.wait(job.name, timeout=1800)
    return {job.name: max(map(float, (folder / job.name).read_text().split())) - begin for job in jobs}


def simulated(jobs: list[Job], cost: float) -> dict[str, float]:
    """The same in virtual time; each job holds its GPUs for so many seconds more than it runs."""
    held = [replace(job, duration=job.duration + cost) for job in jobs]
    world = World(clusters.read(CLUSTER).nodes, held, policy("heddle"))
    world.run()
    return {name: record.first for name, record in world.records.items() if record.first is not None}


def swapped(one: dict[str, float], other: dict[str, float]) -> int:
    """Pairs of jobs whose order differs though they are more than a second apart in both."""
    names = sorted(one)
    return sum(
        (one[a] - one[b]) * (other[a] - other[b]) < 0 and min(abs(one[a] - one[b]), abs(other[a] - other[b])) > CLOSE
        for at, a in enumerate(names)
        for b in names[:at]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--pace", type=float, default=1.0, help="how much slower than drawn (default: 1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    jobs = workload(options.jobs, options.pace, options.seed)
    with tempfile.TemporaryDirectory() as home:
        os.environ["HEDDLE_HOME"] = home
        os.environ.pop("KUBECONFIG", None)
        heddle = [sys.executable, "-m", "heddle.cli"]
        subprocess.run([*heddle, "up", "--simulate", CLUSTER], check=True, capture_output=True)
        try:
            marks = Path(home) / "marks"
            marks.mkdir()
            cost = handover(marks)
            found = really(jobs, marks)
        finally:
            subprocess.run([*heddle, "down", "--yes"], check=True, capture_output=True)
    expected = simulated(jobs, cost)
    bare = simulated(jobs, 0.0)
    makespan = max(found[job.name] + job.duration for job in jobs)
    apart = [abs(found[job.name] - expected[job.name]) for job in jobs]
    waits = [found[job.name] - job.submit for job in jobs]
    figures = {
        "jobs": len(jobs),
        "makespan_s": round(makespan, 1),
        "mean_wait_s": round(statistics.fmean(waits), 2),
        "handover_s": round(cost, 3),
        "start_differs_mean_s": round(statistics.fmean(apart), 3),
        "start_differs_max_s": round(max(apart), 3),
        "start_differs_max_percent_of_makespan": round(max(apart) / makespan * 100, 2),
        "pairs_in_another_order": swapped(found, expected),
        "without_handover_max_percent": round(
            max(abs(found[job.name] - bare[job.name]) for job in jobs) / makespan * 100, 2
        ),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:40} {value}")
    return int(max(apart) > 0.05 * makespan or figures["pairs_in_another_order"] > 0)


if __name__ == "__main__":
    sys.exit(main())
