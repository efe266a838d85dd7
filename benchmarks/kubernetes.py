"""The scheduler on a real kube-apiserver: ``python benchmarks/kubernetes.py --case flood [--json]``.

Each case starts etcd, kube-apiserver and kwok of its own, makes nodes and pods, and only then starts heddle's
controller. Beside it stands, from the same run, how many bindings a second a bare client gets through the same API
server with the same kwok. With ``--kubeconfig`` the load goes to a cluster and a scheduler that are there
(``--scheduler``, ``--label``).

Cases: ``flood`` 4,000 single-GPU pods on 500 nodes; ``gangs`` 100 gangs of 40; ``big-gang`` 512 pods of 8 GPUs on 512
nodes; ``reclaim`` 4,000 pods of one queue run and another of equal quota takes 2,000 of their places (beside it what a
bare client takes to make as many pods, evict as many and bind the new ones); ``impossible`` how soon an 80-GPU gang
on a full cluster is told why it waits, and what; ``start`` how soon a controller binds on a cluster of 2,000 nodes and
10,000 running pods, and how soon a standby does after its leader was killed; ``raw`` the bare client alone.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tools")]

import controlplane  # noqa: E402 - the folder of tools is no package

from benchmarks.cluster_load import Cluster, Seen, pod, until  # noqa: E402
from heddle.api.crd import manifests  # noqa: E402

NAMESPACE = "load"
QUEUES = "/apis/heddle.dev/v1alpha1/queues"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/heddle-system/leases/heddle-controller"
PATIENCE = 120.0


@dataclass
class Bed:
    """What a case works with."""

    cluster: Cluster
    scheduler: str
    labels: dict[str, str]
    start: Callable[[], contextlib.AbstractContextManager["Running"]]
    scale: float

    def many(self, count: int) -> int:
        """A number of the case, made smaller by ``--scale``."""
        return max(1, round(count * self.scale))


class Running:
    """A scheduler's process while it is measured."""

    def __init__(self, process: subprocess.Popen[bytes] | None) -> None:
        self._process = psutil.Process(process.pid) if process else None
        self.started = time.monotonic()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()

    def cost(self) -> dict[str, float]:
        """CPU seconds and MiB so far; nothing of a scheduler that we did not start."""
        if self._process is None:
            return {}
        used = self._process.cpu_times()
        return {
            "cpu_seconds": round(used.user + used.system, 2),
            "rss_mib": round(self._process.memory_info().rss / 2**20, 1),
        }


async def raw(bed: Bed, count: int, nodes: int) -> dict[str, Any]:
    """Bindings a second of a bare client, with the same watch and the same kwok."""
    names = [f"raw-{i:05}" for i in range(count)]
    await bed.cluster.create(PODS, (pod(name, "nobody", labels=bed.labels) for name in names))
    async with bed.cluster.watching(NAMESPACE) as seen:
        took = await bed.cluster.bind(NAMESPACE, ((name, f"gpu-{i % nodes}") for i, name in enumerate(names)))
        await until(lambda: len(seen.bound) >= count, PATIENCE)
    await bed.cluster.clear(NAMESPACE)
    return {"raw_binds_per_second": round(count / took, 1), "raw_seconds": round(took, 3)}


async def raw_exchange(bed: Bed, count: int, nodes: int) -> dict[str, Any]:
    """How long a bare client takes to make so many pods, evict as many that run, and bind the new ones there."""
    old, new = ([f"raw-{word}-{i:05}" for i in range(count)] for word in ("old", "new"))
    await bed.cluster.create(PODS, (pod(name, "nobody", labels=bed.labels) for name in old))
    async with bed.cluster.watching(NAMESPACE) as seen:
        await bed.cluster.bind(NAMESPACE, ((name, f"gpu-{i % nodes}") for i, name in enumerate(old)))
        await until(lambda: len(seen.bound) >= count, PATIENCE)
        await asyncio.sleep(3)  # kwok lets them run

        async def exchange(at: int) -> None:
            await bed.cluster.call("POST", PODS, pod(new[at], "nobody", labels=bed.labels))
            await bed.cluster.call("POST", f"{PODS}/{old[at]}/eviction", _eviction(old[at]))
            await bed.cluster.bind(NAMESPACE, [(new[at], f"gpu-{at % nodes}")], connections=1)

        took = await bed.cluster.each(functools.partial(exchange, at) for at in range(count))
    await bed.cluster.clear(NAMESPACE)
    return {"raw_seconds": round(took, 3)}


async def flood(bed: Bed) -> dict[str, Any]:
    """4,000 single-GPU pods on 500 nodes."""
    nodes, count = bed.many(500), bed.many(4000)
    bare = await raw(bed, count, nodes)
    await _queue(bed, "load", nodes * 8)
    labels = {**bed.labels, "heddle.dev/queue": "load"}
    await bed.cluster.create(PODS, (pod(f"p-{i:05}", bed.scheduler, labels=labels) for i in range(count)))
    async with bed.cluster.watching(NAMESPACE) as seen:
        with bed.start() as running:
            await until(lambda: len(seen.bound) >= count, PATIENCE)
            found = _binding(seen, running, count)
    return bare | found | _share(bare, found)


async def gangs(bed: Bed) -> dict[str, Any]:
    """100 gangs of 40 single-GPU pods, an exact fit."""
    nodes, number, size = bed.many(500), bed.many(100), 40
    count = number * size
    bare = await raw(bed, count, nodes)
    await _queue(bed, "load", nodes * 8)
    pods = []
    for gang in range(number):
        labels = {**bed.labels, "heddle.dev/queue": "load", "heddle.dev/workload": f"gang-{gang:03}",
                  "heddle.dev/workload-size": str(size)}  # fmt: skip
        pods += [pod(f"gang-{gang:03}-{i:02}", bed.scheduler, labels=labels) for i in range(size)]
    await bed.cluster.create(PODS, pods)
    async with bed.cluster.watching(NAMESPACE) as seen:
        with bed.start() as running:
            await until(lambda: len(seen.bound) >= count, PATIENCE)
            found = _binding(seen, running, count) | _spread(seen, size)
    return bare | found | _share(bare, found)


async def big_gang(bed: Bed) -> dict[str, Any]:
    """One gang of 512 pods of 8 GPUs on 512 nodes."""
    count = bed.many(512)
    await _queue(bed, "load", count * 8)
    labels = {**bed.labels, "heddle.dev/queue": "load", "heddle.dev/workload": "big",
              "heddle.dev/workload-size": str(count)}  # fmt: skip
    pods = [pod(f"big-{i:04}", bed.scheduler, gpus=8, labels=labels) for i in range(count)]
    await bed.cluster.create(PODS, pods)
    async with bed.cluster.watching(NAMESPACE) as seen:
        with bed.start() as running:
            await until(lambda: len(seen.bound) >= count, PATIENCE)
            return _binding(seen, running, count) | _spread(seen, count)


async def reclaim(bed: Bed) -> dict[str, Any]:
    """4,000 pods of queue a run on 500 nodes; queue b, of equal quota, takes back 2,000 GPUs."""
    nodes, count = bed.many(500), bed.many(4000)
    half = count // 2
    bare = await raw_exchange(bed, half, nodes)
    for queue in ("a", "b"):
        await _queue(bed, queue, nodes * 4)

    def work(name: str, queue: str) -> dict[str, Any]:
        labels = {**bed.labels, "heddle.dev/queue": queue, "heddle.dev/preemptible": "true"}
        return pod(name, bed.scheduler, labels=labels)

    await bed.cluster.create(PODS, (work(f"a-{i:05}", "a") for i in range(count)))
    async with bed.cluster.watching(NAMESPACE) as seen:
        with bed.start() as running:
            await until(lambda: len(seen.bound) >= count, PATIENCE)
            await asyncio.sleep(3)  # conditions and Events of the first half follow
            before = running.cost()
            begun = time.monotonic()
            await bed.cluster.create(PODS, (work(f"b-{i:05}", "b") for i in range(half)))
            made = time.monotonic()

            def bound() -> list[float]:
                return sorted(at for name, at in seen.bound.items() if name.startswith("b-"))

            whole = await until(lambda: len(bound()) >= half, PATIENCE)
            evicted = [at for name, at in seen.gone.items() if name.startswith("a-")]
            cost = running.cost()
            took = bound()[-1] - begun if whole else None
            return {
                **bare,
                "complete": whole,
                "pods": half,
                "evicted": len(evicted),
                "created_seconds": round(made - begun, 3),
                "first_bind_seconds": round(bound()[0] - begun, 3) if bound() else None,
                "all_bound_seconds": round(took, 3) if took else None,
                "share_of_raw": round(bare["raw_seconds"] / took, 3) if took else None,
                **cost,
                **({"cpu_seconds": round(cost["cpu_seconds"] - before["cpu_seconds"], 2)} if cost else {}),
            }


async def impossible(bed: Bed) -> dict[str, Any]:
    """An 80-GPU gang on a full cluster: how soon it is told why it waits, and what."""
    nodes = bed.many(512)
    await _queue(bed, "load", nodes * 8)
    labels = {**bed.labels, "heddle.dev/queue": "load", "heddle.dev/preemptible": "true"}
    fill = [pod(f"fill-{i:05}", bed.scheduler, gpus=8, labels=labels) for i in range(nodes)]
    await bed.cluster.create(PODS, fill)
    async with bed.cluster.watching(NAMESPACE) as seen:
        with bed.start() as running:
            await until(lambda: len(seen.bound) >= nodes, PATIENCE)
            await asyncio.sleep(3)
            gang = {**labels, "heddle.dev/workload": "late", "heddle.dev/workload-size": "10"}
            begun = time.monotonic()
            pods = (pod(f"late-{i}", bed.scheduler, gpus=8, labels=gang) for i in range(10))
            await bed.cluster.create(PODS, pods)
            made = time.monotonic()
            await asyncio.sleep(4)  # before the last pod was there it was told that others are missing
            told = [said for name, said in seen.told.items() if name.startswith("late-")]
            first = min(told, default=None)
            return {
                "told_seconds": round(first[0] - made, 3) if first else None,
                "told_seconds_from_first_create": round(first[0] - begun, 3) if first else None,
                "says": first[1] if first else None,
                **running.cost(),
            }


async def only_raw(bed: Bed) -> dict[str, Any]:
    """The bare client alone."""
    return await raw(bed, bed.many(4000), bed.many(500))


async def start(bed: Bed) -> dict[str, Any]:
    """10,000 pods run on 2,000 nodes: a controller starts, and later a standby takes over from one that is killed.

    In each case a pod waits, or is made as the leader dies; the clock stops when it is bound.
    """
    nodes, count = bed.many(2000), bed.many(10000)
    await _queue(bed, "load", nodes * 8)
    labels = {**bed.labels, "heddle.dev/queue": "load"}

    def running_pod(at: int) -> dict[str, Any]:
        made = pod(f"old-{at:05}", bed.scheduler, labels=labels)
        return {**made, "spec": {**made["spec"], "nodeName": f"gpu-{at % nodes}"}}

    await bed.cluster.create(PODS, (running_pod(at) for at in range(count)))
    await _all_run(bed)
    async with bed.cluster.watching(NAMESPACE) as seen:
        await bed.cluster.create(PODS, [pod("first", bed.scheduler, labels=labels)])
        with bed.start() as leader:
            await until(lambda: "first" in seen.bound, PATIENCE)
            cold = seen.bound["first"] - leader.started
            with bed.start() as standby:
                await asyncio.sleep(max(10.0, 3 * cold))  # it knows the cluster
                await bed.cluster.create(PODS, [pod("before", bed.scheduler, labels=labels)])
                await until(lambda: "before" in seen.bound, PATIENCE)
                cost = leader.cost()
                leader.kill()
                killed = time.monotonic()
                await bed.cluster.create(PODS, [pod("after", bed.scheduler, labels=labels)])
                taken: float | None = None
                while "after" not in seen.bound and time.monotonic() < killed + PATIENCE:
                    taken = taken or await _taken(bed, killed)
                    await asyncio.sleep(0.005)
                both = standby.cost()
    bound = seen.bound["after"]
    return {
        "nodes": nodes,
        "pods": count,
        "exec_to_first_bind_seconds": round(cold, 3),
        "killed_to_bind_seconds": round(bound - killed, 3),
        "acquired_to_bind_seconds": round(bound - taken, 3) if taken else None,
        "standby_rss_mib": both.get("rss_mib"),
        **cost,
    }


async def _all_run(bed: Bed) -> None:
    """Waits until kwok lets all pods run; until then it, too, keeps the API server busy."""
    path, end = f"{PODS}?fieldSelector=status.phase%3DPending&limit=1", time.monotonic() + PATIENCE
    while json.loads(await bed.cluster.call("GET", path))["items"] and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(1)


async def _taken(bed: Bed, killed: float) -> float | None:
    """When the Lease was taken after this moment, on our clock; None = it is not yet."""
    found = json.loads(await bed.cluster.call("GET", LEASE))["spec"]
    at = datetime.fromisoformat(found["acquireTime"]).timestamp() - time.time() + time.monotonic()
    return at if at > killed else None


CASES: dict[str, Callable[[Bed], Awaitable[dict[str, Any]]]] = {
    "flood": flood, "gangs": gangs, "big-gang": big_gang, "reclaim": reclaim, "impossible": impossible,
    "start": start, "raw": only_raw,
}  # fmt: skip
NODES = {"big-gang": 512, "impossible": 512, "start": 2000}


def _eviction(name: str) -> dict[str, Any]:
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}


async def _queue(bed: Bed, name: str, gpus: int) -> None:
    if bed.scheduler == "heddle":
        body = {"apiVersion": "heddle.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name},
                "spec": {"quota": {"nvidia.com/gpu": gpus}}}  # fmt: skip
        await bed.cluster.call("POST", QUEUES, body, fine=(409,))


def _binding(seen: Seen, running: Running, count: int) -> dict[str, Any]:
    times = sorted(seen.bound.values())
    per_node: dict[str, int] = defaultdict(int)
    for node in seen.node.values():
        per_node[node] += 1
    span = times[-1] - times[0] if len(times) > 1 else 0.0
    cost = running.cost()
    return {
        "complete": len(times) >= count,
        "pods": len(times),
        "most_pods_on_a_node": max(per_node.values(), default=0),
        "first_to_last_seconds": round(span, 3),
        "start_to_first_seconds": round(times[0] - running.started, 3) if times else None,
        "start_to_last_seconds": round(times[-1] - running.started, 3) if times else None,
        "pods_per_second": round(len(times) / span, 1) if span else None,
        **cost,
        **({"cpu_seconds_per_1000": round(cost["cpu_seconds"] / len(times) * 1000, 2)} if cost and times else {}),
    }


def _spread(seen: Seen, size: int) -> dict[str, Any]:
    by_gang: dict[str, list[float]] = defaultdict(list)
    for name, at in seen.bound.items():
        by_gang[name.rpartition("-")[0]].append(at)
    spans = sorted(max(times) - min(times) for times in by_gang.values() if len(times) == size)
    return {
        "whole_gangs": len(spans),
        "partly_bound_p50_seconds": round(spans[len(spans) // 2], 3) if spans else None,
        "partly_bound_max_seconds": round(spans[-1], 3) if spans else None,
    }


def _share(bare: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    rate = found.get("pods_per_second")
    return {"share_of_raw": round(rate / bare["raw_binds_per_second"], 3) if rate else None}


@contextlib.contextmanager
def _controller(kubeconfig: Path, log: Path) -> Iterator[Running]:
    command = [sys.executable, "-m", "heddle.cli", "--kubeconfig", str(kubeconfig), "controller",
               "--listen", "127.0.0.1:0", "--log-level", "info"]  # fmt: skip
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield Running(process)
    finally:
        controlplane.end(process)


@contextlib.contextmanager
def _there() -> Iterator[Running]:
    yield Running(None)


@contextlib.asynccontextmanager
async def _bed(arguments: argparse.Namespace) -> AsyncIterator[Bed]:
    labels = dict(label.split("=", 1) for label in arguments.label)
    with contextlib.ExitStack() as stack:
        if arguments.kubeconfig:
            kubeconfig, log = arguments.kubeconfig, None
        else:
            plane = stack.enter_context(controlplane.running())
            nodes = max(1, round(NODES.get(arguments.case, 500) * arguments.scale))
            plane.start_kwok(controlplane.gpu_nodes(nodes))
            kubeconfig, log = plane.kubeconfig, plane.folder / "heddle.log"
        cluster = Cluster(kubeconfig)
        try:
            if log:
                await _prepare(cluster)
            start = (lambda: _controller(kubeconfig, log)) if log else _there
            yield Bed(cluster, arguments.scheduler, labels, start, arguments.scale)
        finally:
            await cluster.close()
            if log and arguments.keep_log:
                arguments.keep_log.write_bytes(log.read_bytes() if log.exists() else b"")


async def _prepare(cluster: Cluster) -> None:
    for definition in manifests():
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        await cluster.call("POST", path, definition, fine=(409,))
    for name in (NAMESPACE, "heddle-system"):
        await cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}}, fine=(409,))
    for _ in range(100):
        with contextlib.suppress(RuntimeError):
            await cluster.call("GET", QUEUES)
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)  # kwok makes the nodes Ready


async def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    async with _bed(arguments) as bed:
        return {"case": arguments.case, "scale": arguments.scale, **await CASES[arguments.case](bed)}


def main() -> int:
    """Run one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), default="flood")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the nodes and pods of the case")
    parser.add_argument("--kubeconfig", type=Path, help="a cluster that is there, with its nodes and its scheduler")
    parser.add_argument("--scheduler", default="heddle", help="spec.schedulerName of the pods")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="further label of the pods")
    parser.add_argument("--keep-log", type=Path, metavar="FILE", help="where the controller's log goes")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        found = asyncio.run(_run(arguments))
    except controlplane.Unavailable as why:
        print(why, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(found))
    else:
        width = max(map(len, found))
        print("\n".join(f"{name:{width}}  {value}" for name, value in found.items()))
    return 0 if found.get("complete", True) else 1


if __name__ == "__main__":
    sys.exit(main())
