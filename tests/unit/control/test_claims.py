"""Claims are bound before their pods are: the scheduling controller over a store of its own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from heddle.api.admission import admit
from heddle.api.meta import ObjectMeta
from heddle.api.queue import Queue, QueueSpec
from heddle.api.registry import NODES, PODS, QUEUES, WORKLOADS
from heddle.api.volumes import PersistentVolumeClaim
from heddle.api.workload import POD_GROUP_LABEL, POD_SET_LABEL, PodSet, Workload, WorkloadSpec
from heddle.control.grouping.groups import Groups
from heddle.control.grouping.kinds import known
from heddle.control.scheduling.claims import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES, ClaimBinder
from heddle.control.scheduling.controller import SchedulingController
from heddle.embedded.machine import simulated_nodes
from heddle.node.simulated import parse
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.sqlite import SQLiteStore

SIZE = {"storage": "1Gi"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A store with two nodes of eight GPUs, a class of volumes for each way to have them, and a running scheduler."""
    store = SQLiteStore.open(tmp_path / "heddle.db", admit)
    client = Client(store)
    for node in simulated_nodes([parse("2x8xH100")]):
        await client.create(NODES, node)
        await client.patch_status(NODES, node.metadata.name, {"conditions": [{"type": "Ready", "status": "True"}]})
    await client.create(
        QUEUES, Queue(metadata=ObjectMeta(name="default"), spec=QueueSpec(quota={"nvidia.com/gpu": 16}))
    )
    for name, provisioner in (("made", "example.com/disk"), ("local", "kubernetes.io/no-provisioner")):
        body = {"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"}
        await client.create(STORAGECLASSES, body)
    informers = Informers(store)
    claims = ClaimBinder(informers)
    groups = Groups("heddle", known(), lambda kind, namespace, name: None, claims.volumes)
    controller = SchedulingController(informers, groups=groups, claims=claims)
    running = asyncio.gather(informers.run(), controller.run())
    yield client
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


async def claim(client: Client, name: str, kind: str, **spec: Any) -> None:
    body = {"storageClassName": kind, "accessModes": ["ReadWriteOnce"], "resources": {"requests": SIZE}, **spec}
    await client.create(PERSISTENTVOLUMECLAIMS, {"metadata": {"name": name}, "spec": body}, "default")


async def disk(client: Client, name: str, node: str) -> None:
    demand = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    spec = {
        "capacity": SIZE, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [demand]}]}},
    }  # fmt: skip
    await client.create(PERSISTENTVOLUMES, {"metadata": {"name": name}, "spec": spec})
    await client.patch_status(PERSISTENTVOLUMES, name, {"phase": "Available"})


async def bound(client: Client, name: str, volume: str) -> None:
    """As Kubernetes' volume controller."""
    await client.patch(PERSISTENTVOLUMECLAIMS, name, {"spec": {"volumeName": volume}}, "default")
    await client.patch_status(PERSISTENTVOLUMECLAIMS, name, {"phase": "Bound"}, "default")


async def pod(client: Client, name: str, *claims: str, gpus: int = 1, labels: dict[str, str] | None = None) -> None:
    volumes = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims]
    limits = {"nvidia.com/gpu": gpus}
    container = {"name": "main", "command": ["true"], "resources": {"limits": limits}}
    spec = {"schedulerName": "heddle", "containers": [container], "volumes": volumes}
    await client.create(PODS, {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}, "default")


async def node_of(client: Client, name: str) -> str:
    return str((await client.get(PODS, name, "default")).spec.node_name)


async def asked(client: Client, name: str) -> str:
    """The node for which a claim's volume is to be made, once that is asked for."""

    async def look() -> str:
        found: PersistentVolumeClaim = await client.get(PERSISTENTVOLUMECLAIMS, name, "default")
        return found.selected_node

    return str(await until(look))


async def owner_of(client: Client, name: str) -> str:
    """The claim that a volume was given to, once it was."""

    async def look() -> str:
        reference = (await client.get(PERSISTENTVOLUMES, name)).spec.claim_ref
        return reference.name if reference else ""

    return str(await until(look))


async def test_a_volume_is_given_to_a_claim_before_the_pod_is_bound(client: Client) -> None:
    await disk(client, "d", "sim-1")
    await claim(client, "data", "local")
    await pod(client, "one", "data")
    assert await owner_of(client, "d") == "data"
    assert not await node_of(client, "one")
    volume = await client.store.get(PERSISTENTVOLUMES, "d")
    assert b'"pv.kubernetes.io/bound-by-controller":"yes"' in volume
    await bound(client, "data", "d")
    assert await until(lambda: node_of(client, "one")) == "sim-1"


async def test_two_claims_of_a_pod_have_volumes_on_one_node(client: Client) -> None:
    for name, node in (("a", "sim-0"), ("b", "sim-1"), ("c", "sim-1")):
        await disk(client, name, node)
    for name in ("left", "right"):
        await claim(client, name, "local")
    await pod(client, "one", "left", "right")
    assert {await owner_of(client, "b"), await owner_of(client, "c")} == {"left", "right"}
    assert (await client.get(PERSISTENTVOLUMES, "a")).spec.claim_ref is None


async def test_room_is_held_while_a_volume_is_made_but_not_for_ever(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heddle.control.scheduling.claims._PATIENCE", 1.0)
    await claim(client, "data", "made")
    await pod(client, "waits", "data", gpus=8)
    node = await asked(client, "data")
    await pod(client, "large", gpus=8)
    other = await until(lambda: node_of(client, "large"))
    assert other != node
    await pod(client, "next", gpus=8)
    await asyncio.sleep(0.3)
    assert not await node_of(client, "next")
    assert await until(lambda: node_of(client, "next")) == node
    assert not await node_of(client, "waits")


async def test_pods_of_a_workload_object_go_where_their_volumes_are(client: Client) -> None:
    await disk(client, "d", "sim-1")
    await claim(client, "data", "local")
    pod_set = PodSet(name="nodes", count=2, resources={"nvidia.com/gpu": 1})
    meta = ObjectMeta(name="job", namespace="default")
    await client.create(WORKLOADS, Workload(metadata=meta, spec=WorkloadSpec(queue="default", pod_sets=[pod_set])))
    for at in range(2):
        await pod(client, f"job-{at}", "data", labels={POD_GROUP_LABEL: "job", POD_SET_LABEL: "nodes"})
    assert await owner_of(client, "d") == "data"

    async def told() -> bool:
        found: Workload = await client.get(WORKLOADS, "job", "default")
        return [reason.code for reason in found.status.reasons] == ["VolumesPending"]

    await until(told)
    await bound(client, "data", "d")
    for at in range(2):
        assert await until(lambda at=at: node_of(client, f"job-{at}")) == "sim-1"


async def test_pods_that_share_a_claim_go_where_one_volume_reaches(client: Client) -> None:
    for name, node in (("a", "sim-0"), ("b", "sim-1")):
        await disk(client, name, node)
    await claim(client, "data", "local")
    gang = {"heddle.dev/workload": "gang", "heddle.dev/workload-size": "2"}
    for at in range(2):
        await pod(client, f"gang-{at}", "data", gpus=4, labels=gang)
    await pod(client, "first", gpus=1)
    await until(lambda: node_of(client, "first"))

    async def given() -> str:
        found = [await client.get(PERSISTENTVOLUMES, name) for name in "ab"]
        return " ".join(v.metadata.name for v in found if v.spec.claim_ref)

    volume = await until(given)
    assert volume in ("a", "b")
    await bound(client, "data", volume)
    nodes = [await until(lambda at=at: node_of(client, f"gang-{at}")) for at in range(2)]
    assert nodes == ["sim-0" if volume == "a" else "sim-1"] * 2
