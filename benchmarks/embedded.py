"""Embedded heddle as users feel it: ``python -m benchmarks.embedded [--jobs N] [--json]``.

Start-up and memory of `heddle up`, and the time from submitting a job until its process runs (as the process itself
says it: it writes the clock to a file). The baseline of the same run is starting the same program bare.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from heddle.embedded.places import Places
from heddle.sdk import Client


def bare(folder: Path, count: int) -> list[float]:
    """Seconds from starting a shell until it has written a file."""
    times = []
    for i in range(count):
        mark = folder / f"bare-{i}"
        begun = time.time()
        subprocess.run(["sh", "-c", f"date +%s.%N > {mark}"], check=True)
        times.append(float(mark.read_text()) - begun)
    return times


def submitted(client: Client, folder: Path, count: int) -> list[float]:
    """Seconds from submitting a job until its process has written a file; one job at a time."""
    times = []
    for i in range(count):
        mark = folder / f"job-{i}"
        begun = time.time()
        job = client.run(["sh", "-c", f"date +%s.%N > {mark}"], name=f"bench-{i}", gpus=1)
        client.wait(job.metadata.name, timeout=60)
        times.append(float(mark.read_text()) - begun)
    return times


def drained(client: Client, count: int) -> float:
    """Seconds in which so many queued one-GPU jobs that do nothing are run."""
    begun = time.time()
    for i in range(count):
        client.run(["true"], name=f"drain-{i}", gpus=1)
    for i in range(count):
        client.wait(f"drain-{i}", timeout=600)
    return time.time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--drain", type=int, default=100, help="queued jobs to drain; 0 leaves it out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["HEDDLE_HOME"] = home
        os.environ.pop("KUBECONFIG", None)
        heddle = [sys.executable, "-m", "heddle.cli"]
        begun = time.perf_counter()
        subprocess.run([*heddle, "up", "--simulate", "2x8xH100"], check=True, capture_output=True)
        up = time.perf_counter() - begun
        try:
            running = Places.default().find()
            assert running is not None
            with Client() as client:
                client.run(["true"], name="warm-up", gpus=1)
                client.wait("warm-up", timeout=60)
                folder = Path(home)
                base = bare(folder, options.jobs)
                times = submitted(client, folder, options.jobs)
                drain = drained(client, options.drain) if options.drain else 0.0
            memory = psutil.Process(running.pid).memory_info().rss / 2**20
        finally:
            subprocess.run([*heddle, "down", "--yes"], check=True, capture_output=True)
    p50, p99 = statistics.median(times), sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]
    figures = {
        "up_seconds": round(up, 2),
        "memory_mib": round(memory),
        "submit_to_process_p50_ms": round(p50 * 1000, 1),
        "submit_to_process_p99_ms": round(p99 * 1000, 1),
        "bare_process_p50_ms": round(statistics.median(base) * 1000, 1),
        "ratio_p50": round(p50 / statistics.median(base), 1),
        "drained_jobs_per_second": round(options.drain / drain, 1) if drain else None,
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
