"""MIG instances of listed nodes: one a pod, by id, and the same after everything is told anew."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from waiting import until, workload_with

from heddle.api.admission import admit
from heddle.api.core import GPU_PRODUCT_LABEL
from heddle.api.errors import Invalid
from heddle.api.meta import ObjectMeta
from heddle.api.mig import PROFILES, profile_of, resource_of
from heddle.api.pod import Container, Pod, PodSpec, ResourceRequirements
from heddle.api.queue import Queue, QueueSpec
from heddle.api.registry import NODES, PODS, QUEUES, TRAININGJOBS, WORKLOADS
from heddle.api.workload import DEVICES_ANNOTATION, POD_GROUP_LABEL, POD_SET_LABEL, PodSet, Workload, WorkloadSpec
from heddle.control.scheduling.controller import SchedulingController
from heddle.control.scheduling.instances import not_offered
from heddle.control.scheduling.mirror import Mirror
from heddle.embedded.machine import simulated_nodes
from heddle.engine import schedule
from heddle.engine.mig import GEOMETRIES
from heddle.node.simulated import parse
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.sqlite import SQLiteStore

HALF = "nvidia.com/mig-3g.40gb"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A store with a node of two GPUs, each cut into two, and a running scheduler."""
    store = SQLiteStore.open(tmp_path / "heddle.db", admit)
    client = Client(store)
    (node,) = simulated_nodes([parse("1x2xH100:3g.40gb,4g.40gb")])
    await client.create(NODES, node)
    await client.patch_status(NODES, "sim-0", {"conditions": [{"type": "Ready", "status": "True"}]})
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=QueueSpec(quota={"nvidia.com/gpu": 2})))
    informers = Informers(store)
    running = asyncio.gather(informers.run(), SchedulingController(informers).run())
    yield client
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


def made(name: str, count: int, profile: str = HALF) -> tuple[Workload, list[Pod]]:
    resources: dict[str, int | str] = {profile: 1}
    pod_set = PodSet(name="nodes", count=count, resources=resources)
    workload = Workload(
        metadata=ObjectMeta(name=name, namespace="default"), spec=WorkloadSpec(queue="team", pod_sets=[pod_set])
    )
    labels = {POD_GROUP_LABEL: name, POD_SET_LABEL: "nodes"}
    asked = ResourceRequirements(requests=resources, limits=resources)
    spec = PodSpec(containers=[Container(name="main", command=["true"], resources=asked)], scheduler_name="heddle")
    pods = [
        Pod(metadata=ObjectMeta(name=f"{name}-{at}", namespace="default", labels=labels), spec=spec)
        for at in range(count)
    ]
    return workload, pods


async def submit(client: Client, name: str, count: int, profile: str = HALF) -> None:
    workload, pods = made(name, count, profile)
    await client.create(WORKLOADS, workload)
    for pod in pods:
        await client.create(PODS, pod)


async def test_each_pod_gets_an_instance_by_its_id_and_no_other_fits(client: Client) -> None:
    await submit(client, "two", 2)
    await workload_with(client, "two", lambda w: w.status.phase == "Running")
    ids = [pod.metadata.annotations[DEVICES_ANNOTATION] for pod in await client.list(PODS, "default")]
    assert len(set(ids)) == 2
    assert all(one.startswith("MIG-") for one in ids)
    await submit(client, "third", 1)
    waits = await workload_with(client, "third", lambda w: w.status.reasons)
    assert waits.status.reasons[0].code == "NoRoom"
    assert waits.status.reasons[0].message == "0 of 1 tasks fit now; each asks for a MIG instance 3g.40gb"
    await submit(client, "none", 1, "nvidia.com/mig-7g.80gb")
    assert (await workload_with(client, "none", lambda w: w.status.reasons)).status.reasons[0].code == "NoGpuMatches"
    with pytest.raises(
        Invalid, match=r"spec.podSets\[0\].resources\[nvidia.com/mig-3g.40g\]: '3g.40g' is not valid; no GPU that"
    ):
        await submit(client, "slip", 1, "nvidia.com/mig-3g.40g")
    await submit(client, "whole", 1, "nvidia.com/gpu")
    assert (await workload_with(client, "whole", lambda w: w.status.reasons)).status.reasons[0].code == "Impossible"

    async def counted() -> bool:
        usage = (await client.get(QUEUES, "team")).status.usage
        return [str(usage.get(name)) for name in ("nvidia.com/gpu", HALF)] == ["1", "2"]

    await until(counted)  # halves of two GPUs


async def test_what_runs_is_on_the_same_instances_for_the_next_scheduler(client: Client) -> None:
    await submit(client, "one", 1)
    await workload_with(client, "one", lambda w: w.status.phase == "Running")
    mirror = Mirror()
    mirror.queue("team", await client.get(QUEUES, "team"))
    mirror.node("sim-0", await client.get(NODES, "sim-0"))
    pods = await client.list(PODS, "default")
    mirror.workload("default/one", await client.get(WORKLOADS, "one", "default"), pods)
    mirror.workload("default/orphan", None, [])
    (fact,) = mirror.state.snapshot().tasks
    assert fact.placement.instance is not None
    assert fact.placement.instance[0] == "3g.40gb"
    workload, more = made("more", 2)
    mirror.workload("default/more", workload, more)
    assert not schedule(mirror.state, 0.0).actions, "one is left, two are asked for"
    mirror.workload("default/one", None, pods)  # its pod holds it still
    assert [fact.placement.instance for fact in mirror.state.snapshot().tasks] == [fact.placement.instance]


def test_where_kubelets_pick_instances_they_are_a_count_like_any_other() -> None:
    mirror = Mirror(picks=False)
    (node,) = simulated_nodes([parse("1x2xH100:3g.40gb,4g.40gb")])
    node.metadata.annotations.clear()
    mirror.queue("team", Queue(metadata=ObjectMeta(name="team"), spec=QueueSpec()))
    mirror.node("sim-0", node)
    workload, pods = made("w", 2)
    mirror.workload("default/w", workload, pods)
    assert len(schedule(mirror.state, 0.0).actions) == 2
    workload, pods = made("w", 3)
    mirror.workload("default/w", workload, pods)
    assert not schedule(mirror.state, 0.0).actions


@pytest.mark.parametrize(
    "resources", [{HALF: 2}, {HALF: 1, "nvidia.com/mig-1g.10gb": 1}, {HALF: 1, "nvidia.com/gpu": 1}]
)
async def test_embedded_heddle_gives_a_pod_one_instance_alone(client: Client, resources: dict[str, int]) -> None:
    job = {"metadata": {"name": "j", "namespace": "default"}, "spec": {"command": ["x"], "resourcesPerNode": resources}}
    with pytest.raises(Invalid, match=r"spec.resourcesPerNode\[nvidia.com/mig-3g.40gb\]: a pod uses one MIG instance"):
        admit(TRAININGJOBS, None, job, "CREATE")
    sets = [{"name": "a", "count": 1, "resources": resources}]
    work = {"metadata": {"name": "w", "namespace": "default"}, "spec": {"queue": "team", "podSets": sets}}
    with pytest.raises(Invalid, match=r"spec.podSets\[0\].resources\[nvidia.com/mig-3g.40gb\]"):
        admit(WORKLOADS, None, work, "CREATE")


def test_profiles_are_named_as_nvidia_does_in_both_places() -> None:
    for profile, resource in (("3g.40gb", HALF), ("1g.10gb+me", "nvidia.com/mig-1g.10gb.me")):
        assert (resource_of(profile), profile_of(resource)) == (resource, profile)


def test_a_profile_that_no_gpu_has_is_refused_with_the_nearest_and_the_list() -> None:
    spec = {"command": ["x"], "resourcesPerNode": {"nvidia.com/mig-3g.40g": 1}}
    with pytest.raises(Invalid) as refused:
        admit(TRAININGJOBS, None, {"metadata": {"name": "j", "namespace": "default"}, "spec": spec}, "CREATE")
    text = str(refused.value)
    assert "spec.resourcesPerNode[nvidia.com/mig-3g.40g]: '3g.40g' is not valid; no GPU that heddle knows has" in text
    assert "did you mean nvidia.com/mig-3g.40gb? profiles: 1g.5gb, " in text
    roles = [{"name": "a", "command": ["x"], "resourcesPerNode": {"nvidia.com/mig-half": 1}}]
    job = {"metadata": {"name": "j", "namespace": "default"}, "spec": {"roles": roles}}
    with pytest.raises(
        Invalid, match=r"spec.roles\[0\].resourcesPerNode\[nvidia.com/mig-half\].*knows.*profile; profiles"
    ):
        admit(TRAININGJOBS, None, job, "CREATE")


def test_the_profiles_are_those_of_the_placement_tables() -> None:
    tables = {profile.name for geometry in GEOMETRIES.values() for profile in geometry.profiles}
    assert set(PROFILES) == tables
    assert len(PROFILES) == len(tables)


async def test_an_instance_is_of_the_best_model_that_has_one_of_those_that_the_work_names(client: Client) -> None:
    (other,) = simulated_nodes([parse("1x1xA100-80GB:3g.40gb,4g.40gb")])
    other.metadata.name = "sim-1"
    await client.create(NODES, other)
    await client.patch_status(NODES, "sim-1", {"conditions": [{"type": "Ready", "status": "True"}]})
    h100, a100 = (node.metadata.labels[GPU_PRODUCT_LABEL] for node in await client.list(NODES))
    for name, models, node in (("one", [a100, h100], "sim-1"), ("two", [a100, h100], "sim-0"), ("three", [a100], "")):
        workload, pods = made(name, 1)
        workload.spec.pod_sets[0].gpu_models = models
        await client.create(WORKLOADS, workload)
        await client.create(PODS, pods[0])
        await workload_with(
            client, name, lambda w, node=node: w.status.phase == "Running" if node else w.status.reasons
        )
        assert (await client.get(PODS, f"{name}-0", "default")).spec.node_name == node


def test_where_instances_are_counts_it_is_told_which_are_offered_in_place_of_what_no_node_has() -> None:
    offered = [
        "nvidia.com/mig-1g.10gb",
        "nvidia.com/mig-1g.10gb.me",
        "nvidia.com/mig-3g.40gb",
        "nvidia.com/mig-7g.80gb",
    ]
    (told,) = not_offered(["nvidia.com/mig-3g.41gb", HALF], offered)
    assert told.startswith(
        "no node offers nvidia.com/mig-3g.41gb; the nearest that some offer: nvidia.com/mig-3g.40gb, "
    )
    assert told.count("nvidia.com") == 4
    assert not_offered([HALF], offered) == not_offered([], []) == []
    (none,) = not_offered([HALF], [])
    assert none.startswith("no node offers MIG instances (")
