"""Volumes that wait for their pod's node, on a real kube-apiserver with Kubernetes' own volume controller."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from clusters import Cluster, Questions, address

from heddle.api.registry import PODS
from heddle.api.volumes import NO_PROVISIONER, SELECTED_NODE_ANNOTATION
from heddle.control.scheduling.claims import CSINODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

SIZE = {"storage": "1Gi"}
MODES = ["ReadWriteOnce"]


@pytest.fixture(scope="module")
def plane(bed: Any) -> Iterator[Any]:
    plane = bed.start(
        controllers="garbage-collector-controller,namespace-controller,persistentvolume-binder-controller"
    )
    try:
        plane.start_kwok()
        yield plane
    finally:
        plane.stop()


class Storage:
    """Classes, volumes and claims of a test."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.store = cluster, cluster.store
        self._made: list[tuple[Any, str]] = []

    def named(self, name: str) -> str:
        """A name of the whole cluster's that no other test has."""
        return f"{self.cluster.namespace}-{name}"

    async def kind(self, name: str, provisioner: str, **more: Any) -> None:
        """A class whose claims wait for their pod's node."""
        mode = {"volumeBindingMode": "WaitForFirstConsumer"} | more
        meta = {"name": self.named(name)}
        await self.store.create(STORAGECLASSES, {"metadata": meta, "provisioner": provisioner, **mode})
        self._made.append((STORAGECLASSES, meta["name"]))

    async def volume(self, name: str, kind: str, node: str, **more: Any) -> None:
        """A volume on the disk of a node."""
        demand = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        spec = {
            "capacity": SIZE, "accessModes": MODES, "storageClassName": self.named(kind), "local": {"path": "/tmp"},
            "persistentVolumeReclaimPolicy": "Retain",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [demand]}]}}, **more,
        }  # fmt: skip
        await self.store.create(PERSISTENTVOLUMES, {"metadata": {"name": self.named(name)}, "spec": spec})
        self._made.append((PERSISTENTVOLUMES, self.named(name)))

    async def attached(self, name: str, driver: str) -> None:
        """A volume of a driver's, and a claim of the same name that is bound to it."""
        owner = {"namespace": self.cluster.namespace, "name": name}
        spec = {
            "capacity": SIZE, "accessModes": MODES, "csi": {"driver": driver, "volumeHandle": self.named(name)},
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": owner, "storageClassName": "",
        }  # fmt: skip
        await self.store.create(PERSISTENTVOLUMES, {"metadata": {"name": self.named(name)}, "spec": spec})
        self._made.append((PERSISTENTVOLUMES, self.named(name)))
        wish = {"storageClassName": "", "volumeName": self.named(name), "accessModes": MODES}
        body = {"metadata": {"name": name}, "spec": wish | {"resources": {"requests": SIZE}}}
        await self.store.create(PERSISTENTVOLUMECLAIMS, body, self.cluster.namespace)

        async def bound() -> bool:
            return bool((await self.claims())[name]["status"].get("phase") == "Bound")

        await self.cluster.until(bound)

    async def limit(self, node: str, driver: str, count: int) -> None:
        """A node can attach only so many volumes of a driver; without one it has no drivers at all."""
        drivers = [{"name": driver, "nodeID": node, "allocatable": {"count": count}}] if driver else []
        await self.store.create(CSINODES, {"metadata": {"name": node}, "spec": {"drivers": drivers}})
        self._made.append((CSINODES, node))

    async def claim(self, name: str, kind: str) -> None:
        spec = {"accessModes": MODES, "storageClassName": self.named(kind), "resources": {"requests": SIZE}}
        await self.store.create(
            PERSISTENTVOLUMECLAIMS, {"metadata": {"name": name}, "spec": spec}, self.cluster.namespace
        )

    async def claims(self) -> dict[str, dict[str, Any]]:
        page = await self.store.list(PERSISTENTVOLUMECLAIMS, self.cluster.namespace)
        return {found["metadata"]["name"]: found for found in map(json.loads, page.items)}

    async def available(self) -> None:
        """Wait until the volume controller has looked at all volumes."""

        async def looked() -> bool:
            page = await self.store.list(PERSISTENTVOLUMES)
            return all(json.loads(blob)["status"].get("phase") != "Pending" for blob in page.items)

        await self.cluster.until(looked)

    async def clear(self) -> None:
        for resource, name in self._made:
            await self.store.delete(resource, name)

    async def chosen(self, claim: str) -> str:
        """The node for which a claim's volume is to be made."""
        found = (await self.claims())[claim]
        return str(found["metadata"].get("annotations", {}).get(SELECTED_NODE_ANNOTATION, ""))

    async def refuse(self, claim: str) -> None:
        """As a provisioner that cannot make the volume on that node."""
        patch = {"metadata": {"annotations": {SELECTED_NODE_ANNOTATION: None}}}
        await self.store.patch(PERSISTENTVOLUMECLAIMS, claim, patch, namespace=self.cluster.namespace)

    async def provide(self, claim: str, kind: str) -> None:
        """As a provisioner that can."""
        owner = {"namespace": self.cluster.namespace, "name": claim}
        owner["uid"] = (await self.claims())[claim]["metadata"]["uid"]
        await self.volume(f"made-{claim}", kind, await self.chosen(claim), claimRef=owner)


@pytest.fixture
async def storage(cluster: Cluster) -> AsyncIterator[Storage]:
    found = Storage(cluster)
    yield found
    await cluster.stop()
    await found.clear()


def using(claim: str) -> list[dict[str, Any]]:
    return [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]


async def test_a_pod_goes_where_a_volume_is_that_its_claim_can_have(
    cluster: Cluster, storage: Storage, bed: Any
) -> None:
    await cluster.nodes(bed.gpu_nodes(3))
    await cluster.queue("default", 24)
    await storage.kind("disks", NO_PROVISIONER)
    await storage.volume("small", "disks", "gpu-0", capacity={"storage": "1Mi"})
    await storage.volume("fits", "disks", "gpu-2")
    await storage.available()
    for name in ("first", "second"):
        await storage.claim(name, "disks")
    cluster.start()
    await cluster.pod("first", volumes=using("first"))
    await cluster.until_bound(1)
    assert await cluster.bound() == {"first": "gpu-2"}
    claim = (await storage.claims())["first"]
    assert (claim["status"]["phase"], claim["spec"]["volumeName"]) == ("Bound", storage.named("fits"))
    await cluster.pod("second", volumes=using("second"))

    async def told() -> bool:
        return "claim second fits no volume of class" in await cluster.told("second")

    await cluster.until(told)
    await storage.volume("late", "disks", "gpu-1")
    await cluster.until_bound(2)
    assert (await cluster.bound())["second"] == "gpu-1"


async def test_a_gang_gets_all_its_volumes_or_takes_none(cluster: Cluster, storage: Storage, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(2))
    await cluster.queue("default", 16)
    await storage.kind("disks", NO_PROVISIONER)
    for at in range(3):
        await storage.volume(f"disk-{at}", "disks", f"gpu-{at % 2}")
    await storage.available()
    cluster.start()
    own = {"heddle.dev/workload": "gang", "heddle.dev/workload-size": "4"}
    for at in range(4):
        await storage.claim(f"data-{at}", "disks")
        await cluster.pod(f"gang-{at}", own, volumes=using(f"data-{at}"))

    async def told() -> bool:
        return all([await cluster.told(f"gang-{at}") for at in range(4)])

    await cluster.until(told)
    assert not await cluster.bound()
    assert not any(claim["spec"].get("volumeName") for claim in (await storage.claims()).values())
    await storage.volume("disk-3", "disks", "gpu-1")
    await cluster.until_bound(4)
    assert sorted((await cluster.bound()).values()) == ["gpu-0", "gpu-0", "gpu-1", "gpu-1"]


async def test_a_volume_is_made_for_the_node_that_was_chosen_and_another_node_is_tried_where_it_cannot(
    cluster: Cluster, storage: Storage, bed: Any
) -> None:
    nodes = bed.gpu_nodes(3)
    for node, zone in zip(nodes, "abb", strict=True):
        node["metadata"]["labels"]["zone"] = zone
    await cluster.nodes(nodes)
    await cluster.queue("default", 24)
    allowed = [{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}]
    await storage.kind("made", "example.com/disk", allowedTopologies=allowed)
    await storage.claim("data", "made")
    cluster.start()
    await cluster.pod("one", volumes=using("data"))

    async def asked() -> bool:
        return bool(await storage.chosen("data"))

    await cluster.until(asked)
    first = await storage.chosen("data")
    assert first in ("gpu-1", "gpu-2")
    assert not await cluster.bound()

    async def told() -> bool:
        return f"claim data on node {first} (provisioner example.com/disk)" in await cluster.told("one")

    await cluster.until(told)
    await storage.refuse("data")

    async def elsewhere() -> bool:
        return await storage.chosen("data") not in ("", first)

    await cluster.until(elsewhere)
    second = await storage.chosen("data")
    assert second in ("gpu-1", "gpu-2")
    await storage.provide("data", "made")
    await cluster.until_bound(1)
    assert await cluster.bound() == {"one": second}


async def test_who_leads_next_waits_for_the_same_volume_and_keeps_its_room(
    cluster: Cluster, storage: Storage, bed: Any
) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)
    await storage.kind("made", "example.com/disk")
    for at in range(2):
        await storage.claim(f"data-{at}", "made")
    first = cluster.start()
    own = {"heddle.dev/workload": "gang", "heddle.dev/workload-size": "2"}
    for at in range(2):
        await cluster.pod(f"gang-{at}", own, gpus=3, volumes=using(f"data-{at}"))

    async def asked() -> bool:
        return all([await storage.chosen(f"data-{at}") for at in range(2)])

    await cluster.until(asked)
    await storage.provide("data-0", "made")
    cluster.kill(first)
    await cluster.pod("other", gpus=4)
    second = cluster.start()
    await cluster.leading(second)

    async def told() -> bool:
        return bool(await cluster.told("other"))

    await cluster.until(told)
    assert not await cluster.bound()
    await storage.provide("data-1", "made")
    await cluster.until_bound(2, "gang")
    assert "other" not in await cluster.bound()


async def test_a_claim_that_does_not_wait_for_pods_is_waited_for(cluster: Cluster, storage: Storage, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)
    await storage.kind("at-once", "example.com/disk", volumeBindingMode="Immediate")
    await storage.claim("data", "at-once")
    cluster.start()
    await cluster.pod("one", volumes=using("data"))

    async def told() -> bool:
        return "spec.volumes[data]: claim data is not bound to a volume yet" in await cluster.told("one")

    await cluster.until(told)
    assert not await storage.chosen("data")
    assert not await cluster.bound()


async def test_pods_go_where_a_node_can_still_attach_their_volumes_and_are_told_where_none_can(
    cluster: Cluster, storage: Storage, bed: Any
) -> None:
    await cluster.nodes(bed.gpu_nodes(2))
    await cluster.queue("default", 16)
    driver = "disks.example.com"
    for node in ("gpu-0", "gpu-1"):
        await storage.limit(node, driver, 1)
    await storage.limit("bare", "", 0)
    for at in range(3):
        await storage.attached(f"data-{at}", driver)
    cluster.start()
    for at in range(3):
        await cluster.pod(f"one-{at}", volumes=using(f"data-{at}"))
    await cluster.until_bound(2)
    (left,) = {f"one-{at}" for at in range(3)} - set(await cluster.bound())

    async def told() -> bool:
        text = await cluster.told(left)
        full = [f"node gpu-{at} can attach no more volumes of driver {driver} (limit 1)" for at in range(2)]
        return all(one in text for one in full)

    await cluster.until(told)
    (gone,) = [name for name, node in (await cluster.bound()).items() if node == "gpu-1"]
    await cluster.store.delete(PODS, gone, cluster.namespace, grace_period=0)
    await cluster.until_bound(1, left)
    assert (await cluster.bound())[left] == "gpu-1"


async def test_dry_runs_look_at_volumes(cluster: Cluster, storage: Storage, bed: Any) -> None:
    nodes = bed.gpu_nodes(3)
    for node, zone in zip(nodes, "aab", strict=True):
        node["metadata"]["labels"]["zone"] = zone
    await cluster.nodes(nodes)
    await cluster.queue("default", 24)
    driver = "disks.example.com"
    allowed = [{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}]
    await storage.kind("made", "example.com/disk", allowedTopologies=allowed)
    await storage.kind("disks", NO_PROVISIONER)
    await storage.kind("at-once", "example.com/disk", volumeBindingMode="Immediate")
    await storage.claim("to-come", "made")
    await storage.claim("unbound", "at-once")
    await storage.volume("here", "disks", "gpu-1", claimRef={"namespace": cluster.namespace, "name": "local"})
    await storage.claim("local", "disks")
    for name in ("block", "other"):
        await storage.attached(name, driver)
    for at, limit in enumerate((1, 0, 0)):
        await storage.limit(f"gpu-{at}", driver, limit)
    process = cluster.start(host=address())
    await cluster.leading(process)
    questions = Questions.of(cluster)

    async def preview(claim: str, nodes: int = 1) -> tuple[Any, dict[str, int]]:
        volumes = [{"claim": claim, "mountPath": "/data"}]
        spec = {"command": ["true"], "queue": "default", "nodes": nodes, "volumes": volumes, "image": "none"}
        spec["resourcesPerNode"] = {"nvidia.com/gpu": 4}
        meta = {"name": "try", "namespace": cluster.namespace}
        job = {"apiVersion": "heddle.dev/v1alpha1", "kind": "TrainingJob", "metadata": meta, "spec": spec}
        status, found = await questions("preview", cluster.plane.token, object=job)
        assert status == 200, found
        return found["answer"], found["nodes"]

    def told(answer: Any) -> str:
        return "; ".join(reason["message"] for reason in answer["reasons"])

    answer, places = await preview("local", nodes=2)
    assert (answer["admitted"], places) == (True, {"gpu-1": 2})
    answer, places = await preview("local", nodes=3)
    assert (answer["admitted"], places) == (False, {})
    answer, places = await preview("to-come")
    assert (answer["admitted"], places) == (True, {"gpu-2": 1})
    assert answer["assumptions"][0]["message"] == (
        "claim to-come gets a volume there first, from provisioner example.com/disk"
    )
    answer, places = await preview("missing")
    assert (answer["admitted"], places) == (False, {})
    assert told(answer) == "spec.volumes[volume-0]: claim missing does not exist"
    answer, _ = await preview("unbound")
    assert "claim unbound is not bound to a volume yet" in told(answer)

    answer, places = await preview("block", nodes=2)  # attached once for both
    assert (answer["admitted"], places) == (True, {"gpu-0": 2})
    await cluster.pod("one", volumes=using("other"), gpus=0)
    await cluster.until_bound(1)
    answer, places = await preview("block")
    assert (answer["admitted"], places) == (False, {})
    assert f"node gpu-0 can attach no more volumes of driver {driver} (limit 1)" in told(answer)
    assert not await cluster.bound("try")
