"""Claims are bound before their pods are: the scheduling controller over a store of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from heddle.api.admission import admit
from heddle.api.errors import NotFound
from heddle.api.meta import ObjectMeta
from heddle.api.pod import Pod
from heddle.api.queue import Queue, QueueSpec
from heddle.api.registry import NODES, PODS, QUEUES, WORKLOADS
from heddle.api.volumes import PersistentVolumeClaim
from heddle.api.workload import (
    POD_GROUP_LABEL,
    POD_SET_LABEL,
    PREEMPTIBLE_LABEL,
    WORKLOAD_SIZE_LABEL,
    PodSet,
    Workload,
    WorkloadSpec,
)
from heddle.control.grouping.groups import Groups
from heddle.control.grouping.kinds import known
from heddle.control.grouping.volumes import Volumes
from heddle.control.scheduling.claims import (
    CSINODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    STORAGECLASSES,
    VOLUMEATTACHMENTS,
    ClaimBinder,
)
from heddle.control.scheduling.controller import SchedulingController
from heddle.embedded.machine import simulated_nodes
from heddle.node.simulated import parse
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.sqlite import SQLiteStore

SIZE = {"storage": "1Gi"}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Client, SchedulingController]]:
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
    yield client, controller
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


@pytest.fixture
def client(running: tuple[Client, SchedulingController]) -> Client:
    return running[0]


@pytest.fixture
def controller(running: tuple[Client, SchedulingController]) -> SchedulingController:
    return running[1]


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


async def pod(
    client: Client, name: str, *claims: str, gpus: int = 1, labels: dict[str, str] | None = None, **more: Any
) -> None:
    volumes = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims]
    limits = {"nvidia.com/gpu": gpus}
    container = {"name": "main", "command": ["true"], "resources": {"limits": limits}}
    spec = {"schedulerName": "heddle", "containers": [container], "volumes": volumes, **more}
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


async def test_a_plan_counts_free_disks(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    monkeypatch.setattr(Volumes, "shun", lambda self, claim, nodes: refused.append(claim))
    for at in range(6):
        await disk(client, f"d-{at}", f"sim-{at // 4}")
    names = [f"p-{at}" for at in range(7)]
    for name in names:
        await claim(client, name, "local")
    for name in names:
        await pod(client, name, name)

    async def given() -> int:
        volumes = [await client.get(PERSISTENTVOLUMES, f"d-{at}") for at in range(6)]
        return sum(volume.spec.claim_ref is not None for volume in volumes)

    async def all_given() -> bool:
        return await given() == 6

    await until(all_given)
    for at in range(6):
        owner = (await client.get(PERSISTENTVOLUMES, f"d-{at}")).spec.claim_ref
        await bound(client, owner.name, f"d-{at}")

    async def six() -> bool:
        return sum([bool(await node_of(client, name)) for name in names]) == 6

    await until(six)
    assert not refused


async def block(client: Client, name: str) -> None:
    """A volume of a driver, and a claim of its name that has it."""
    csi = {"driver": "example.com/disk", "volumeHandle": name}
    await client.create(PERSISTENTVOLUMES, {"metadata": {"name": name}, "spec": {"csi": csi}})
    await claim(client, name, "made")
    await bound(client, name, name)


async def attaches(client: Client, node: str, count: int) -> None:
    drivers = [{"name": "example.com/disk", "allocatable": {"count": count}}]
    await client.create(CSINODES, {"metadata": {"name": node}, "spec": {"drivers": drivers}})


async def why(controller: SchedulingController, name: str, reason: str) -> None:
    """Wait until a workload is told this."""

    async def told() -> bool:
        with contextlib.suppress(NotFound):
            return any(
                each.message == reason for each in (await controller.inquiries.explain(f"default/{name}")).reasons
            )
        return False

    await until(told)


async def test_a_plan_counts_the_volumes_that_nodes_can_attach(client: Client) -> None:
    await attaches(client, "sim-0", 1)
    await attaches(client, "sim-1", 2)
    for name in "abcd":
        await block(client, name)
    for name in "abcd":
        await pod(client, name, name)

    async def three() -> bool:
        return sum([bool(await node_of(client, name)) for name in "abcd"]) == 3

    await until(three)
    await asyncio.sleep(0.3)
    nodes = sorted([await node_of(client, name) for name in "abcd"])
    assert nodes == ["", "sim-0", "sim-1", "sim-1"]
    (left,) = [name for name in "abcd" if not await node_of(client, name)]
    (gone,) = [name for name in "abcd" if await node_of(client, name) == "sim-0"]
    await client.delete(PODS, gone, "default", grace_period=0)
    assert await until(lambda: node_of(client, left)) == "sim-0"


async def test_a_gang_whose_volumes_no_nodes_can_attach_waits_and_is_told_why(
    client: Client, controller: SchedulingController
) -> None:
    for node in ("sim-0", "sim-1"):
        await attaches(client, node, 1)
    labels = {POD_GROUP_LABEL: "gang", WORKLOAD_SIZE_LABEL: "3"}
    for name in "abc":
        await block(client, name)
        await pod(client, name, name, labels=labels)
    total = "the nodes where they may go can attach 2 more volumes of example.com/disk, and they ask for 3"
    await why(controller, "gang", total)
    await block(client, "d")
    await pod(client, "one", "d")
    node = await until(lambda: node_of(client, "one"))
    told = f"node {node} can attach no more volumes of driver example.com/disk (limit 1)"
    await why(controller, "gang", f"{told}; {total.replace('2 more', '1 more')}")


async def test_a_volume_that_pods_share_is_attached_once_to_a_node(client: Client) -> None:
    await attaches(client, "sim-0", 1)
    await attaches(client, "sim-1", 1)
    await block(client, "a")
    await block(client, "b")
    labels = {POD_GROUP_LABEL: "gang", WORKLOAD_SIZE_LABEL: "8"}
    for at in range(8):
        await pod(client, f"gang-{at}", "a", labels=labels)
    first = await until(lambda: node_of(client, "gang-0"))
    assert {await node_of(client, f"gang-{at}") for at in range(8)} == {first}
    await pod(client, "other", "b")
    second = await until(lambda: node_of(client, "other"))
    assert second != first
    await pod(client, "late", "a", gpus=1)
    await pod(client, "lone", "b", gpus=1)
    assert await until(lambda: node_of(client, "lone")) == second
    await asyncio.sleep(0.3)
    assert not await node_of(client, "late")  # the other node has GPUs, but cannot attach its volume


async def test_pods_that_would_together_need_more_than_a_node_can_attach_are_planned_anew(
    client: Client, controller: SchedulingController, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(Volumes, "shun", lambda self, claim, nodes: refused.append((claim, nodes)))
    await attaches(client, "sim-0", 1)
    await client.patch(NODES, "sim-1", {"spec": {"unschedulable": True}})
    await client.patch(QUEUES, "default", {"spec": {"stopPolicy": "Hold"}})
    for name in "ab":
        await block(client, name)
        for at in range(2):
            labels = {POD_GROUP_LABEL: name, WORKLOAD_SIZE_LABEL: "2"}
            await pod(client, f"{name}-{at}", name, labels=labels)

    await why(controller, "b", "queue default is stopped: nothing new starts in it or below")
    await client.patch(QUEUES, "default", {"spec": {"stopPolicy": "None"}})  # all are in one plan by that

    async def bound_pods() -> int:
        return sum([bool(await node_of(client, f"{name}-{at}")) for name in "ab" for at in range(2)])

    async def one() -> bool:
        return await bound_pods() == 2

    await until(one)
    await asyncio.sleep(0.3)
    assert await bound_pods() == 2
    name = "b" if await node_of(client, "a-0") else "a"

    assert refused == [(f"default/{name}", ["sim-0"])]
    await why(controller, name, "node sim-0 can attach no more volumes of driver example.com/disk (limit 1)")


async def test_room_to_attach_is_made_as_any_other_room(client: Client) -> None:
    await attaches(client, "sim-0", 1)
    await client.patch(NODES, "sim-1", {"spec": {"unschedulable": True}})
    for name in "ab":
        await block(client, name)
    await pod(client, "low", "a", labels={PREEMPTIBLE_LABEL: "true"})
    assert await until(lambda: node_of(client, "low")) == "sim-0"
    await pod(client, "high", "b", priority=10)

    async def gone() -> bool:
        with contextlib.suppress(NotFound):
            found: Pod = await client.get(PODS, "low", "default")
            return found.metadata.deletion_timestamp is not None
        return True

    await until(gone)
    with contextlib.suppress(NotFound):
        await client.delete(PODS, "low", "default", grace_period=0)
    assert await until(lambda: node_of(client, "high")) == "sim-0"


async def test_what_is_attached_counts_until_it_is_detached(client: Client) -> None:
    await attaches(client, "sim-0", 1)
    await client.patch(NODES, "sim-1", {"spec": {"unschedulable": True}})
    for name in "ab":
        await block(client, name)
    spec = {"attacher": "example.com/disk", "nodeName": "sim-0", "source": {"persistentVolumeName": "a"}}
    await client.create(VOLUMEATTACHMENTS, {"metadata": {"name": "x"}, "spec": spec})
    await asyncio.sleep(0.1)
    await pod(client, "one", "b")
    await asyncio.sleep(0.3)
    assert not await node_of(client, "one")
    await client.delete(VOLUMEATTACHMENTS, "x")
    assert await until(lambda: node_of(client, "one")) == "sim-0"
