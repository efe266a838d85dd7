"""Writes per second of the SQLite store and latency from write to watcher, beside bare sqlite3.

python -m benchmarks.store [--json] [--seconds 2]
"""

import argparse
import asyncio
import json
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from heddle.api.registry import CONFIGMAPS
from heddle.store.sqlite import SQLiteStore

BODY = {"x": "y" * 600}
WATCHERS, CHANGES = 50, 200


def bare(folder: Path, seconds: float, batch: int, synchronous: str) -> float:
    """Inserts per second of sqlite3 itself: `batch` rows a transaction."""
    blob = json.dumps({"metadata": {"name": "x"}, "data": BODY}).encode()
    connection = sqlite3.connect(folder / f"bare-{batch}-{synchronous}.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE t (name TEXT PRIMARY KEY, object BLOB)")
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        connection.execute("BEGIN")
        for _ in range(batch):
            connection.execute("INSERT INTO t VALUES (?, ?)", (str(done), blob))
            done += 1
        connection.execute("COMMIT")
    rate = done / (time.perf_counter() - started)
    connection.close()
    return rate


async def writes(folder: Path, seconds: float, writers: int, synchronous: str) -> float:
    """Creations per second by so many concurrent callers."""
    store = SQLiteStore.open(folder / f"store-{writers}-{synchronous}.db", synchronous=synchronous)
    deadline, done = time.perf_counter() + seconds, 0

    async def write(worker: int) -> None:
        nonlocal done
        while time.perf_counter() < deadline:
            await store.create(CONFIGMAPS, {"metadata": {"name": f"w{worker}-{done}"}, "data": BODY}, "default")
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(write(w) for w in range(writers)))
    rate = done / (time.perf_counter() - started)
    await store.close()
    return rate


async def fan_out(folder: Path) -> tuple[float, float]:
    """p50 and p99 of milliseconds from the start of a write until each of the watchers has its event."""
    store = SQLiteStore.open(folder / "watch.db")
    started: dict[str, float] = {}
    latencies: list[float] = []

    async def watch() -> None:
        seen = 0
        async for event in store.watch(CONFIGMAPS, resource_version="2", label_selector="watched=yes"):
            latencies.append(time.perf_counter() - started[json.loads(event.object)["metadata"]["name"]])
            seen += 1
            if seen == CHANGES:
                return

    watchers = [asyncio.create_task(watch()) for _ in range(WATCHERS)]
    await asyncio.sleep(0.05)
    for n in range(CHANGES):
        name = f"c{n}"
        started[name] = time.perf_counter()
        meta = {"name": name, "labels": {"watched": "yes"}}
        await store.create(CONFIGMAPS, {"metadata": meta, "data": BODY}, "default")
        await asyncio.sleep(0.005)
    await asyncio.gather(*watchers)
    await store.close()
    latencies.sort()
    return latencies[len(latencies) // 2] * 1e3, latencies[int(len(latencies) * 0.99)] * 1e3


def measure(seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for mode in ("FULL", "NORMAL"):
            for writers in (1, 64):
                rate = asyncio.run(writes(folder, seconds, writers, mode))
                base = bare(folder, seconds, writers, mode)
                found[f"{mode.lower()}_{writers}_writers"] = {
                    "writes_per_s": round(rate),
                    "bare_inserts_per_s": round(base),
                    "ratio": round(rate / base, 3),
                }
        p50, p99 = asyncio.run(fan_out(folder))
        found["watch"] = {"watchers": WATCHERS, "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    found = measure(arguments.seconds)
    if arguments.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(f"{name:20}", "  ".join(f"{k}={v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
