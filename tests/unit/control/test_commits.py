"""What becomes of binds and evictions when answers are lost or refused."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from machine import machine
from waiting import until, workload_with

from heddle.api.errors import InternalError, Unreachable
from heddle.api.meta import ObjectMeta
from heddle.api.pod import Affinity, Container, Pod, PodSpec
from heddle.api.queue import Queue
from heddle.api.registry import PODS, QUEUES, WORKLOADS
from heddle.api.workload import POD_GROUP_LABEL, POD_SET_LABEL, PodSet, Workload, WorkloadSpec
from heddle.control.scheduling.controller import SchedulingController
from heddle.control.scheduling.writes import Writes
from heddle.store.client import Client


class Faulty(Writes):
    """Writes of which some go wrong."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.answers = asyncio.Event()
        self.answers.set()
        self.lost = 0
        """So many answers get lost, after the write was made."""
        self.failing: set[str] = set()
        """Pods of which the bind fails, every time."""
        self.breaks = 0
        """So many promises break in a way that nobody thought of."""
        self.tried: list[str] = []

    async def bind(self, namespace: str, pod: str, *args: Any) -> None:
        self.tried.append(pod)
        if pod in self.failing:
            raise InternalError("a webhook is broken")
        await self.answers.wait()
        await super().bind(namespace, pod, *args)
        if self.lost:
            self.lost -= 1
            raise Unreachable("connection cut")

    async def promise(self, *args: Any) -> None:
        if self.breaks:
            self.breaks -= 1
            raise RuntimeError("a fault of ours")
        await super().promise(*args)


class Bench:
    """A scheduler with one node of eight GPUs."""

    def __init__(self, client: Client, scheduling: SchedulingController) -> None:
        self.client, self.scheduling = client, scheduling
        assert isinstance(scheduling._writes, Faulty)
        self.writes = scheduling._writes

    async def submit(self, name: str, queue: str = "q", gpus: int = 8, affinity: Any = None) -> None:
        pod_set = PodSet(name="nodes", count=1, resources={"nvidia.com/gpu": gpus})
        meta = ObjectMeta(name=name, namespace="default")
        await self.client.create(WORKLOADS, Workload(metadata=meta, spec=WorkloadSpec(queue=queue, pod_sets=[pod_set])))
        meta = ObjectMeta(name=f"{name}-0", namespace="default", labels={POD_GROUP_LABEL: name, POD_SET_LABEL: "nodes"})
        spec = PodSpec(containers=[Container(name="main", command=["true"])], scheduler_name="heddle")
        spec.affinity = msgspec.convert(affinity, Affinity | None)
        await self.client.create(PODS, Pod(metadata=meta, spec=spec))

    async def bound(self) -> set[str]:
        return {pod.metadata.name for pod in await self.client.list(PODS, "default") if pod.spec.node_name}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with machine(tmp_path, "1x8xH100", Faulty) as (client, scheduling):
        await client.create(QUEUES, Queue(metadata=ObjectMeta(name="q")))
        yield Bench(client, scheduling)


async def test_a_bind_of_which_the_answer_was_lost_is_found_done(bench: Bench) -> None:
    bench.writes.lost = 1
    await bench.submit("first")
    await workload_with(bench.client, "first", lambda w: w.status.phase == "Running")
    assert bench.writes.tried == ["first-0", "first-0"]
    assert bench.scheduling.metrics.failed_binds._value.get() == 0


async def test_while_it_is_not_known_whether_a_pod_is_bound_its_place_is_taken(bench: Bench) -> None:
    bench.writes.answers.clear()
    await bench.submit("first")
    await until(lambda: _tried(bench, 1))
    await bench.submit("second")
    await workload_with(bench.client, "second", lambda w: w.status.reasons)
    first = await bench.client.get(WORKLOADS, "first", "default")
    assert first.status.phase != "Running", "nobody is told before it is so"
    bench.writes.answers.set()
    await workload_with(bench.client, "first", lambda w: w.status.phase == "Running")
    assert await bench.bound() == {"first-0"}
    assert "second-0" not in bench.writes.tried


async def test_others_are_planned_while_one_is_being_written(bench: Bench) -> None:
    bench.writes.answers.clear()
    await bench.submit("first", gpus=4)
    await until(lambda: _tried(bench, 1))
    await bench.submit("second", gpus=4)
    await until(lambda: _tried(bench, 2))
    bench.writes.answers.set()
    for name in ("first", "second"):
        await workload_with(bench.client, name, lambda w: w.status.phase == "Running")


async def test_what_cannot_be_bound_is_told_and_tried_seldom_and_its_place_goes_to_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heddle.control.scheduling.insistence._PAUSE", 0.001)
    bench.writes.failing.add("first-0")
    await bench.submit("first")
    waiting = await workload_with(bench.client, "first", lambda w: w.status.reasons)
    (reason,) = waiting.status.reasons
    assert (reason.code, reason.message) == (
        "Refused", "pod first-0 cannot be bound to node sim-0: a webhook is broken",
    )  # fmt: skip
    tried = len(bench.writes.tried)
    await bench.submit("second")
    await workload_with(bench.client, "second", lambda w: w.status.phase == "Running")
    assert await bench.bound() == {"second-0"}
    assert len(bench.writes.tried) == tried + 1


async def test_what_could_not_be_bound_for_a_while_is_bound_in_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heddle.control.scheduling.insistence._PAUSE", 0.001)
    bench.writes.failing.add("first-0")
    await bench.submit("first")
    await workload_with(bench.client, "first", lambda w: w.status.reasons)
    bench.writes.failing.clear()
    running = await workload_with(bench.client, "first", lambda w: w.status.phase == "Running")
    assert not running.status.reasons


async def test_a_fault_of_ours_ends_in_the_same_places(bench: Bench) -> None:
    for name in ("a", "b"):
        spec = {"quota": {"nvidia.com/gpu": 4}}
        await bench.client.create(QUEUES, {"metadata": {"name": name}, "spec": spec})
    await bench.submit("holds", queue="a", gpus=4)
    await bench.submit("borrows", queue="a", gpus=4)
    for name in ("holds", "borrows"):
        await workload_with(bench.client, name, lambda w: w.status.phase == "Running")
    bench.writes.breaks = 1
    await bench.submit("owed", queue="b", gpus=4)
    await until(lambda: _leaving(bench))
    assert bench.writes.breaks == 0
    (leaving,) = [p for p in await bench.client.list(PODS, "default") if p.metadata.deletion_timestamp]
    await bench.client.patch_status(PODS, leaving.metadata.name, {"phase": "Succeeded"}, "default")
    await workload_with(bench.client, "owed", lambda w: w.status.phase == "Running")


async def _tried(bench: Bench, times: int) -> bool:
    return len(bench.writes.tried) >= times


async def _leaving(bench: Bench) -> bool:
    return any(pod.metadata.deletion_timestamp for pod in await bench.client.list(PODS, "default"))


def listen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The workloads that the engine is told of from now on."""
    told: list[str] = []
    mirror = bench.scheduling.world.mirror
    tell = mirror.workload

    def heard(key: str, *args: Any, **options: Any) -> None:
        told.append(key)
        tell(key, *args, **options)

    monkeypatch.setattr(mirror, "workload", heard)
    return told


async def test_news_on_which_no_place_depends_is_not_told_to_the_engine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = listen(bench, monkeypatch)
    await bench.submit("first", gpus=2)
    await bench.submit("second", gpus=2)
    for name in ("first", "second"):
        await workload_with(bench.client, name, lambda w: w.status.phase == "Running")
    told.clear()
    # as the API server does it at a bind, and then a kubelet
    labels = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"}
    await bench.client.patch(PODS, "first-0", {"metadata": {"labels": labels}}, namespace="default")
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await bench.client.patch_status(PODS, "first-0", ready, "default")
    await bench.submit("third", gpus=2)
    await workload_with(bench.client, "third", lambda w: w.status.phase == "Running")
    assert "default/third" in told
    assert "default/first" not in told
    await bench.client.patch(PODS, "first-0", {"metadata": {"labels": {"team": "a"}}}, namespace="default")
    await until(lambda: _has(told, "default/first"))


async def test_a_label_by_which_others_choose_their_company_is_news(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = "topology.kubernetes.io/zone"
    term = {"labelSelector": {"matchLabels": {zone: "z"}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    await bench.submit("first", gpus=2)
    await bench.submit("shy", gpus=2, affinity=affinity)
    for name in ("first", "shy"):
        await workload_with(bench.client, name, lambda w: w.status.phase == "Running")
    told = listen(bench, monkeypatch)
    await bench.client.patch(PODS, "first-0", {"metadata": {"labels": {zone: "z"}}}, namespace="default")
    await until(lambda: _has(told, "default/first"))


async def _has(told: list[str], key: str) -> bool:
    return key in told
