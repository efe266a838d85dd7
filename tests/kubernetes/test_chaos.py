"""Faults under a load of gangs: afterwards every gang is whole or not there, and no GPU has two users.

Pods that are deleted are made anew by the test, as their owners would. HEDDLE_FAULTS says how many faults there are.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster
from proxy import Line

from heddle.api.clock import to_seconds, to_text
from heddle.api.errors import ApiError, NotFound
from heddle.api.registry import LEASES, NODES, PODS
from heddle.store.port import PatchType

FAULTS = int(os.environ.get("HEDDLE_FAULTS", "25"))
SEED = int(os.environ.get("HEDDLE_SEED", "1"))
NODE_COUNT, GPUS = 12, 8
KINDS = (
    "leader killed", "leader stands still", "server killed", "server stands still", "connections cut",
    "answers held up", "answers slow", "pods deleted", "node gone", "lease skewed", "heartbeats skewed",
)  # fmt: skip
SETTLES = 10.0
"""Seconds after the last fault within which all must be well."""

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120 + 6 * FAULTS)]


@pytest.fixture(scope="module")
def plane(bed: Any) -> Iterator[Any]:
    plane = bed.start(controllers="garbage-collector-controller,namespace-controller,pod-garbage-collector-controller")
    try:
        plane.start_kwok()
        yield plane
    finally:
        plane.stop()


class Chaos:
    """The load, the faults, and what must hold."""

    def __init__(self, cluster: Cluster, line: Line, form: dict[str, Any], seed: int) -> None:
        self.cluster, self.line, self._form, self._random = cluster, line, form, random.Random(seed)
        self.gangs: dict[str, int] = {}
        self._number = 0
        self.leaders: list[subprocess.Popen[bytes]] = []
        self.done: Counter[str] = Counter()

    # load

    async def tend(self) -> None:
        """Make new gangs while there are few, end some, and make lost pods anew."""
        present = {pod["metadata"]["name"] for pod in await self.cluster.pods()}
        whole = [name for name in self.gangs if len(await self.cluster.bound(f"{name}-")) == self.gangs[name]]
        for name in whole[:1] if self._random.random() < 0.5 else []:
            size = self.gangs.pop(name)
            await asyncio.gather(*(self._delete(f"{name}-{i}") for i in range(size)))
        while sum(self.gangs.values()) < NODE_COUNT * GPUS * 5 // 4:
            self._number += 1
            self.gangs[f"g{self._number}"] = self._random.choice([1, 3, 8, 20, 33])
        for name, size in self.gangs.items():
            for i in range(size):
                if f"{name}-{i}" not in present:
                    labels = {"heddle.dev/workload": name, "heddle.dev/workload-size": str(size)}
                    await self.cluster.ensure_pod(f"{name}-{i}", labels)

    async def _delete(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            await self.cluster.store.delete(PODS, name, self.cluster.namespace, grace_period=0)

    # faults

    async def fault(self) -> None:
        """One of them."""
        kind = self._random.choice(KINDS)
        self.done[kind] += 1
        match kind:
            case "leader killed":
                self.cluster.kill(self.leaders.pop(0))
                self.leaders.append(self.cluster.start())
            case "server stands still":
                await self._pause(self.cluster.plane.pid("kube-apiserver"), self._random.uniform(0.2, 2))
            case "leader stands still":  # longer than its Lease: it must not write when it wakes
                await self._pause(self.leaders[0].pid, self._random.uniform(1, 7))
            case "pods deleted":
                names = sorted(pod["metadata"]["name"] for pod in await self.cluster.pods())
                for name in self._random.sample(names, min(3, len(names))):
                    await self._delete(name)
            case "node gone":
                name = f"gpu-{self._random.randrange(NODE_COUNT)}"
                await self.cluster.store.delete(NODES, name)
                await asyncio.sleep(self._random.uniform(0, 1))
                meta = {**self._form["metadata"], "name": name}
                await self.cluster.store.create(NODES, {**self._form, "metadata": meta})
            case "lease skewed":
                await self._skew()
            case "server killed":
                self.cluster.plane.kill("kube-apiserver")
                await asyncio.sleep(self._random.uniform(0, 1.5))
                self.cluster.plane.again("kube-apiserver")
                await self._serves()
            case "connections cut":
                self.line.cut()
            case "answers held up":
                await self.line.hold(self._random.uniform(0.5, 6))
            case "answers slow":
                await self.line.slow(self._random.uniform(1, 3), 0.3)
            case "heartbeats skewed":
                await self._skew_heartbeats()

    async def _serves(self) -> None:
        async def answers() -> bool:
            try:
                return await self.cluster.store.read("/readyz") == b"ok"
            except ApiError:
                return False

        await self.cluster.until(answers, 60)

    async def _skew_heartbeats(self) -> None:
        by = self._random.choice([-300, 300])
        for name in self._random.sample(range(NODE_COUNT), 3):
            node = json.loads(await self.cluster.store.get(NODES, f"gpu-{name}"))
            conditions = [
                c | {"lastHeartbeatTime": to_text(to_seconds(c["lastHeartbeatTime"]) + by)}
                for c in node.get("status", {}).get("conditions", [])  # none yet, where it was just made anew
                if c.get("lastHeartbeatTime")
            ]
            await self.cluster.store.patch(
                NODES, f"gpu-{name}", {"status": {"conditions": conditions}}, type=PatchType.STRATEGIC,
                subresource="status",
            )  # fmt: skip

    async def _pause(self, pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _skew(self) -> None:
        try:
            lease = json.loads(await self.cluster.store.get(LEASES, "heddle-controller", "heddle-system"))
        except NotFound:
            return
        renewed = to_seconds(lease["spec"]["renewTime"]) + self._random.choice([-300, 300])
        patch = {"spec": {"renewTime": to_text(renewed, micro=True)}}
        await self.cluster.store.patch(
            LEASES, "heddle-controller", patch, namespace="heddle-system", type=PatchType.MERGE
        )

    # what must hold

    async def overbooked(self) -> dict[str, int]:
        """Nodes on which more GPUs are in use than they have."""
        users = Counter((await self.cluster.bound()).values())
        return {node: count for node, count in users.items() if count > GPUS}

    async def torn(self) -> dict[str, str]:
        """Gangs of which some have a node and others have not."""
        bound = await self.cluster.bound()
        found = {}
        for name, size in self.gangs.items():
            have = sum(pod.startswith(f"{name}-") for pod in bound)
            if have not in (0, size):
                found[name] = f"{have} of {size}"
        return found


async def test_faults_leave_no_gang_torn_and_no_gpu_booked_twice(cluster: Cluster, bed: Any, tmp_path: Path) -> None:
    async with Line(cluster.plane.url) as line:
        cluster.kubeconfig = line.kubeconfig(cluster.kubeconfig, tmp_path)
        await _withstand(cluster, line, bed)
        await cluster.stop()


async def _withstand(cluster: Cluster, line: Line, bed: Any) -> None:
    nodes = bed.gpu_nodes(NODE_COUNT)
    await cluster.nodes(nodes)
    await cluster.queue("default", NODE_COUNT * GPUS)
    chaos = Chaos(cluster, line, nodes[0], SEED)
    chaos.leaders = [cluster.start(), cluster.start()]
    await cluster.until(lambda: _leads(cluster), 30)
    for _ in range(FAULTS):
        try:
            await chaos.tend()
            await chaos.fault()
        except ApiError as error:  # the server stood still: the next round tries again
            chaos.done[type(error).__name__] += 1
        await asyncio.sleep(chaos._random.uniform(0, 0.6))
        assert not await chaos.overbooked()
    await cluster.until(lambda: _leads(cluster), 30)

    async def well() -> bool:
        present = {pod["metadata"]["name"] for pod in await cluster.pods()}
        for name, size in chaos.gangs.items():  # what the last faults took is made anew, no new gangs
            for i in range(size):
                if f"{name}-{i}" not in present:
                    labels = {"heddle.dev/workload": name, "heddle.dev/workload-size": str(size)}
                    await cluster.ensure_pod(f"{name}-{i}", labels)
        return not await chaos.torn()

    try:
        await cluster.until(well, SETTLES + 10)  # a Lease may have to run out first
    except AssertionError:
        raise AssertionError(
            f"torn: {await chaos.torn()}; after {dict(chaos.done)}; {cluster.logs()[-3000:]}"
        ) from None
    assert not await chaos.overbooked()
    await cluster.until(lambda: _used(cluster, chaos), 20)


async def _leads(cluster: Cluster) -> bool:
    with contextlib.suppress(NotFound):
        lease = json.loads(await cluster.store.get(LEASES, "heddle-controller", "heddle-system"))
        return bool(lease["spec"].get("holderIdentity"))
    return False


async def _used(cluster: Cluster, chaos: Chaos) -> bool:
    """All that fits runs: no waiting gang would find room."""
    bound = await cluster.bound()
    free = NODE_COUNT * GPUS - len(bound)
    return all(size > free or any(pod.startswith(f"{name}-") for pod in bound) for name, size in chaos.gangs.items())
