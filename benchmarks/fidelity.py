"""Whether the simulator tells the truth: ``python -m benchmarks.fidelity [--jobs 200] [--json]``.

The same work goes through embedded heddle, with real processes that sleep, and through the simulator. Compared are the
moments at which jobs start, as the processes themselves write them down, and their order. The workload is drawn from a
seed and takes some minutes of real time (``--pace`` squeezes or stretches it). To end one process and to start the next
takes time that no trace knows of; its median is measured first, and the simulator told.

What that median leaves out differs from job to job, and where two jobs end within such a time of each other the first
to end decides who goes where, and so all that comes after. Whether latency is all that differs is seen by telling the
simulator, instead of the trace, when the live scheduler heard of each job and for how long it saw its GPUs held
(:mod:`benchmarks.witness`): equal engines then start everybody at the very moment, and on the node, that the live one
chose. ``decisions_that_differ`` counts those of which that is not so (a gang is told as held until the last of its pods
has ended: where somebody starts between two of its ends, that counts too); ``pairs_by_latency`` are the pairs of jobs
whose order is another for the trace and the same once told.

Exit status 0 when starts differ by at most 5 % of the makespan, no decision differs, and nobody who starts more than a
second before another does so after him for any reason but latency.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.witness import notes
from heddle.embedded.places import Places
from heddle.sdk import Client
from heddle.simulator import clusters
from heddle.simulator.jobs import Job
from heddle.simulator.policies import policy
from heddle.simulator.world import World

CLUSTER = "2x8xH100"
CLOSE = 1.0
"""Seconds within which the order of two starts is of no account."""
_MOMENT = 1e-6
"""Seconds that sums of moments may be off by."""


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


Nodes = dict[str, list[str]]


def simulated(jobs: list[Job], cost: float = 0.0) -> tuple[dict[str, float], Nodes]:
    """The same in virtual time, each job holding its GPUs for so many seconds more than it runs: when each starts, and
    the nodes of its tasks."""
    held = [replace(job, duration=job.duration + cost) for job in jobs]
    world = World(clusters.read(CLUSTER).nodes, held, policy("heddle"))
    nodes: Nodes = {}

    def watch(world: World) -> bool:
        for name in world.running.keys() - nodes.keys():
            rows = [task.row for task in world.state.works[name].tasks.values()]
            nodes[name] = sorted(world.state.nodes.names[row] for row in rows)
        return True

    world.run(watch)
    return {name: record.first for name, record in world.records.items() if record.first is not None}, nodes


def as_told(jobs: list[Job], wrote: list[dict[str, Any]]) -> tuple[list[Job], dict[str, float], Nodes]:
    """The jobs as the live scheduler saw them, when it started each, and where.

    They arrive when it heard of all their pods and last until it heard that the last of them had ended.
    """
    known = {f"default/{job.name}": job for job in jobs}
    heard: dict[str, float] = {}
    started: dict[str, float] = {}
    ended: dict[str, float] = {}
    nodes: Nodes = {}
    for note in wrote:
        for moments, names in ((heard, note["heard"]), (ended, note["ended"])):
            moments.update((name, note["at"]) for name in names if name in known)
        for name, node in note["bound"]:
            if name in known:
                started[name] = note["at"]
                nodes.setdefault(name, []).append(node)
    begin = min(heard.values())
    told = [
        replace(job, submit=heard[name] - begin, duration=ended[name] - started[name]) for name, job in known.items()
    ]
    shown = {f"sim-{at}": node.name for at, node in enumerate(clusters.read(CLUSTER).nodes)}
    return (
        told,
        {known[name].name: at - begin for name, at in started.items()},
        {known[name].name: sorted(shown[node] for node in there) for name, there in nodes.items()},
    )


def swapped(one: dict[str, float], other: dict[str, float]) -> set[tuple[str, str]]:
    """Pairs of jobs whose order differs though they are more than a second apart in both."""
    names = sorted(one)
    return {
        (a, b)
        for at, a in enumerate(names)
        for b in names[:at]
        if (one[a] - one[b]) * (other[a] - other[b]) < 0 and min(abs(one[a] - one[b]), abs(other[a] - other[b])) > CLOSE
    }


@contextmanager
def embedded(home: Path, wrote: Path) -> Iterator[None]:
    """An embedded heddle in a home, with a witness."""
    os.environ["HEDDLE_HOME"] = str(home)
    os.environ.pop("KUBECONFIG", None)
    with (home / "up.log").open("w") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.witness", wrote, CLUSTER], stdout=log, stderr=log, start_new_session=True
        )
    try:
        limit = time.monotonic() + 30
        while Places.default().find() is None:
            if up.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"heddle is not up: {(home / 'up.log').read_text()}")
            time.sleep(0.05)
        yield
    finally:
        subprocess.run([sys.executable, "-m", "heddle.cli", "down", "--yes"], check=False, capture_output=True)
        up.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--pace", type=float, default=1.0, help="how much slower than drawn (default: 1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    jobs = workload(options.jobs, options.pace, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with embedded(home, home / "notes"):
            marks = home / "marks"
            marks.mkdir()
            cost = handover(marks)
            found = really(jobs, marks)
        wrote = notes(home / "notes")
    expected, _ = simulated(jobs, cost)
    bare, _ = simulated(jobs)
    told, started, places = as_told(jobs, wrote)
    again, nodes = simulated(told)
    makespan = max(found[job.name] + job.duration for job in jobs)
    apart = [abs(found[job.name] - expected[job.name]) for job in jobs]
    waits = [found[job.name] - job.submit for job in jobs]
    over = sorted(seen.duration - job.duration for seen, job in zip(told, jobs, strict=True))
    pairs, left = swapped(found, expected), swapped(started, again)
    figures = {
        "jobs": len(jobs),
        "makespan_s": round(makespan, 1),
        "mean_wait_s": round(statistics.fmean(waits), 2),
        "handover_s": round(cost, 3),
        "held_longer_p50_s": round(statistics.median(over), 3),
        "held_longer_p90_s": round(over[len(over) * 9 // 10], 3),
        "held_longer_max_s": round(over[-1], 3),
        "start_differs_mean_s": round(statistics.fmean(apart), 3),
        "start_differs_max_s": round(max(apart), 3),
        "start_differs_max_percent_of_makespan": round(max(apart) / makespan * 100, 2),
        "without_handover_max_percent": round(
            max(abs(found[job.name] - bare[job.name]) for job in jobs) / makespan * 100, 2
        ),
        "pairs_in_another_order": len(pairs),
        "pairs_by_latency": len(pairs - left),
        "decisions": sum(map(len, places.values())),
        "decisions_that_differ": sum(
            abs(started[name] - again[name]) > _MOMENT or places[name] != nodes[name] for name in started
        ),
        "told_start_differs_max_s": round(max(abs(started[name] - again[name]) for name in started), 6),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:40} {value}")
    wrong = max(apart) > 0.05 * makespan or figures["decisions_that_differ"] or pairs & left
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
