"""Where a pod may run: heddle and the real kube-scheduler must agree on random pods and nodes.

Of each pair there are two copies, far from all others: a pod pinned to a node by name for kube-scheduler, and the same
pod and node again for heddle. Each says of its own whether the pod may be there. A pair of a second kind is a pod and a
few nodes with other pods on them, whom it must or must not be beside; one of a third kind a pod with claims to volumes,
and a few nodes with disks; one of a fourth a pod with volumes, and nodes that can attach only so many.
"""

import asyncio
import contextlib
import copy
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from clusters import Cluster

from heddle.api.errors import ApiError
from heddle.api.registry import NAMESPACES, NODES, PODS
from heddle.api.volumes import SELECTED_NODE_ANNOTATION
from heddle.control.scheduling.claims import (
    CSINODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    STORAGECLASSES,
    VOLUMEATTACHMENTS,
)

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(240)]

PAIRS = int(os.environ.get("HEDDLE_PAIRS", "200"))
SEED = int(os.environ.get("HEDDLE_SEED", "7"))
KEYS, VALUES = ("zone", "disk", "gen"), ("a", "b", "3", "12")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


class Draw:
    """Random pods and nodes that are near the edge of fitting."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _maybe(self, chance: float) -> bool:
        return self._random.random() < chance

    def node(self) -> tuple[dict[str, str], dict[str, str], list[dict[str, str]], bool]:
        """Labels, allocatable resources, taints, whether it is cordoned."""
        pick = self._random
        labels = {key: pick.choice(VALUES) for key in KEYS if self._maybe(0.6)}
        size = {
            "cpu": pick.choice(["2", "4", "3500m"]),
            "memory": pick.choice(["4Gi", "8Gi", "6000Mi"]),
            "pods": pick.choice(["0", "1", "2", "110", "110", "110"]),
            "ephemeral-storage": "20Gi",
            "nvidia.com/gpu": str(pick.choice([0, 1, 4, 8])),
        }
        if self._maybe(0.3):
            size["example.com/fpga"] = str(pick.choice([1, 2]))
        taints = [
            {"key": pick.choice(KEYS), "value": pick.choice(VALUES), "effect": effect}
            for effect in EFFECTS
            if self._maybe(0.2)
        ]
        return labels, size, taints, self._maybe(0.08)

    def pod(self, node: str) -> dict[str, Any]:
        """The spec of a pod that is pinned to a node."""
        pick = self._random
        spec: dict[str, Any] = {
            "terminationGracePeriodSeconds": 0,
            "containers": [self._container(f"c{i}") for i in range(pick.choice([1, 1, 2]))],
            "initContainers": [
                self._container(f"i{i}", sidecar=self._maybe(0.4)) for i in range(pick.choice([0, 0, 1, 2]))
            ],
            "affinity": {"nodeAffinity": self._affinity(node)},
            "tolerations": [self._toleration() for _ in range(pick.choice([0, 1, 2]))],
        }
        seen: list[tuple[str, int]] = []
        for container in (*spec["containers"], *spec["initContainers"]):  # a pod may name a port once
            for port in container.get("ports", []):
                if (key := (port.get("protocol", "TCP"), port["hostPort"])) in seen:
                    del container["ports"]
                seen.append(key)
        if self._maybe(0.3):
            spec["nodeSelector"] = {pick.choice(KEYS): pick.choice(VALUES)}
        return spec

    def resident(self) -> dict[str, Any] | None:
        """The spec of a pod that is on the node already, or none."""
        if self._maybe(0.6):
            return None
        return {"containers": [self._container("there")], "terminationGracePeriodSeconds": 0}

    def _container(self, name: str, *, sidecar: bool = False) -> dict[str, Any]:
        pick = self._random
        asked: dict[str, str] = {}
        for resource, amounts in (
            ("cpu", ["500m", "1", "2"]), ("memory", ["1Gi", "3Gi", "2500M"]), ("ephemeral-storage", ["1Gi", "15Gi"]),
            ("nvidia.com/gpu", ["1", "4"]), ("example.com/fpga", ["1", "2"]),
        ):  # fmt: skip
            if self._maybe({"example.com/fpga": 0.1, "nvidia.com/gpu": 0.4}.get(resource, 0.6)):
                asked[resource] = pick.choice(amounts)
        limits = {name: amount for name, amount in asked.items() if "/" in name}
        found: dict[str, Any] = {
            "name": name, "image": "none", "resources": {"requests": asked, "limits": limits},
        }  # fmt: skip
        if self._maybe(0.25):
            port = {"containerPort": 80, "hostPort": pick.choice([8080, 8081])}
            found["ports"] = [port | ({"protocol": "UDP"} if self._maybe(0.3) else {})]
        return found | ({"restartPolicy": "Always"} if sidecar else {})

    def _toleration(self) -> dict[str, str]:
        pick = self._random
        if self._maybe(0.15):
            return {"operator": "Exists"}
        found = {"key": pick.choice(KEYS)}
        found |= {"operator": "Exists"} if self._maybe(0.5) else {"operator": "Equal", "value": pick.choice(VALUES)}
        return found | ({"effect": pick.choice(EFFECTS)} if self._maybe(0.5) else {})

    def _expression(self) -> dict[str, Any]:
        pick = self._random
        operator = pick.choice(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"])
        values: list[str] = []
        if operator in ("In", "NotIn"):
            values = pick.sample(VALUES, pick.choice([1, 2]))
        elif operator in ("Gt", "Lt"):
            values = [pick.choice(["2", "3", "10"])]
        return {"key": pick.choice(KEYS), "operator": operator} | ({"values": values} if values else {})

    def _affinity(self, node: str) -> dict[str, Any]:
        pinned = [{"key": "metadata.name", "operator": "In", "values": [node]}]
        terms = []
        for _ in range(self._random.choice([1, 1, 2])):
            expressions = [self._expression() for _ in range(self._random.choice([0, 0, 1, 2]))]
            terms.append({"matchFields": pinned} | ({"matchExpressions": expressions} if expressions else {}))
        if self._maybe(0.05):
            terms.append({})  # a term without demands: no node meets it
        return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


class Company(Draw):
    """Random pods that mind who is where, each with a few nodes of its own, called CELL, and the pods that are there.

    Whatever they say about pods names CELL, whatever they say about nodes has values of CELL's own: nobody else counts.
    """

    levels = ("zone", "rack", "kubernetes.io/hostname")

    def nodes(self) -> list[dict[str, Any]]:
        """One to four; most have a taint that keeps newcomers away, but not from counting."""
        pick = self._random
        size = {"cpu": "8", "memory": "32Gi", "pods": "110"}
        found = []
        for at in range(pick.choice([1, 2, 3, 3, 4])):
            labels = {"zone": pick.choice("ab"), "rack": pick.choice("ab"), "kubernetes.io/hostname": str(at)}
            labels = {level: f"CELL-{value}" for level, value in labels.items() if self._maybe(0.85)}
            taints = [{"key": "full", "value": "x", "effect": "NoSchedule"}] if at and self._maybe(0.7) else []
            found.append({
                "metadata": {"name": f"CELL-{at}", "labels": labels | {"cell": "CELL"}},
                "spec": {"taints": taints}, "status": {"allocatable": size, "capacity": size},
            })  # fmt: skip
        return found

    def residents(self, nodes: int) -> list[dict[str, Any]]:
        """Who is there."""
        pick = self._random
        found = []
        for at in range(pick.choice([0, 1, 2, 3, 5])):
            wish = {"podAntiAffinity": self._terms()} if self._maybe(0.3) else {}
            pod = self._pod(f"there-CELL-{at}", {"affinity": wish, "nodeName": f"CELL-{pick.randrange(nodes)}"})
            pod["metadata"]["namespace"] = pick.choice(["OWN", "OWN", "OTHER"])
            found.append(pod | {"spec": pod["spec"] | {"schedulerName": "nobody"}})
        return found

    def newcomer(self) -> dict[str, Any]:
        """Who is to be placed."""
        spec: dict[str, Any] = {"nodeSelector": {"cell": "CELL"}}
        kinds = {field: self._terms() for field in ("podAffinity", "podAntiAffinity") if self._maybe(0.4)}
        spec |= {"affinity": kinds} if kinds else {}
        if self._maybe(0.6):
            levels = self._random.sample(self.levels, self._random.choice([1, 1, 2]))
            spec["topologySpreadConstraints"] = [self._spread(level) for level in levels]
        if self._maybe(0.2):
            spec["tolerations"] = [{"key": "full", "operator": "Exists"}]
        pod = self._pod("CELL", spec)
        pod["metadata"]["namespace"] = "OWN"
        return pod

    def _pod(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        labels = {"cell": "CELL"} | {key: self._random.choice("ab") for key in ("app", "tier") if self._maybe(0.7)}
        container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}
        common = {"terminationGracePeriodSeconds": 0, "containers": [container]}
        return {"metadata": {"name": name, "labels": labels}, "spec": common | spec}

    def _terms(self) -> dict[str, Any]:
        terms = [self._term() for _ in range(self._random.choice([1, 1, 1, 2]))]
        return {"requiredDuringSchedulingIgnoredDuringExecution": terms}

    def _term(self) -> dict[str, Any]:
        pick = self._random
        found = {"topologyKey": pick.choice(self.levels), "labelSelector": self._selector()}
        if self._maybe(0.05):
            del found["labelSelector"]
            return found
        if self._maybe(0.2):
            found["namespaces"] = pick.sample(["OWN", "OTHER"], pick.choice([1, 2]))
        if self._maybe(0.2):
            found["namespaceSelector"] = pick.choice([{}, {"matchLabels": {"team": "other"}}])
        if self._maybe(0.2):
            found[pick.choice(["matchLabelKeys", "mismatchLabelKeys"])] = ["tier"]
        return found

    def _selector(self) -> dict[str, Any]:
        pick = self._random
        demand: dict[str, Any] = {
            "key": "app",
            "operator": pick.choice(["In", "In", "NotIn", "Exists", "DoesNotExist"]),
        }
        if demand["operator"].endswith("In"):
            demand["values"] = pick.sample("ab", pick.choice([1, 2]))
        return {"matchLabels": {"cell": "CELL"}} | ({"matchExpressions": [demand]} if self._maybe(0.7) else {})

    def _spread(self, level: str) -> dict[str, Any]:
        pick = self._random
        found = {
            "topologyKey": level, "maxSkew": pick.choice([1, 1, 2]), "labelSelector": self._selector(),
            "whenUnsatisfiable": "ScheduleAnyway" if self._maybe(0.1) else "DoNotSchedule",
        }  # fmt: skip
        if self._maybe(0.2) and found["whenUnsatisfiable"] == "DoNotSchedule":
            found["minDomains"] = pick.choice([1, 2, 3])
        for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if self._maybe(0.4):
                found[policy] = pick.choice(["Honor", "Ignore"])
        if self._maybe(0.2):
            found["matchLabelKeys"] = ["tier"]
        return found


class Disks(Draw):
    """Random pods with claims that wait for their pod's node, each with a few nodes of its own, called CELL, and the
    disks that are there, of a class of CELL's own."""

    def cell(self) -> dict[str, Any]:
        """Nodes, disks, claims, and the pod."""
        pick = self._random
        count = pick.choice([1, 2, 3])
        claims = [self._claim(at) for at in range(pick.choice([1, 1, 2]))]
        size = {"cpu": "8", "memory": "32Gi", "pods": "110"}
        nodes = [
            {
                "metadata": {"name": f"CELL-{at}", "labels": {"cell": "CELL", "zone": f"CELL-{pick.choice('ab')}"}},
                "spec": {}, "status": {"allocatable": size, "capacity": size},
            }
            for at in range(count)
        ]  # fmt: skip
        volumes = [
            {"name": f"v{at}", "persistentVolumeClaim": {"claimName": f"CELL-{at}"}} for at in range(len(claims))
        ]
        asked = {"requests": {"cpu": "100m", "memory": "1Mi"}}
        spec = {
            "nodeSelector": {"cell": "CELL"}, "terminationGracePeriodSeconds": 0, "volumes": volumes,
            "containers": [{"name": "main", "image": "none", "resources": asked}],
        }  # fmt: skip
        return {
            "nodes": nodes,
            "disks": [self._disk(at, pick.randrange(count)) for at in range(pick.choice([1, 2, 3]))],
            "claims": claims,
            "pod": {"metadata": {"name": "CELL"}, "spec": spec},
        }

    def _claim(self, at: int) -> dict[str, Any]:
        pick = self._random
        spec: dict[str, Any] = {
            "storageClassName": "CELL",
            "accessModes": [pick.choice(["ReadWriteOnce", "ReadWriteOnce", "ReadWriteMany"])],
            "resources": {"requests": {"storage": pick.choice(["1Gi", "2Gi", "1500Mi"])}},
        }  # fmt: skip
        if self._maybe(0.15):
            spec["volumeMode"] = "Block"
        if self._maybe(0.3):
            spec["selector"] = {"matchLabels": {"tier": pick.choice("ab")}}
        return {"metadata": {"name": f"CELL-{at}"}, "spec": spec}

    def _disk(self, at: int, node: int) -> dict[str, Any]:
        pick = self._random
        spec: dict[str, Any] = {
            "storageClassName": "CELL", "capacity": {"storage": pick.choice(["1Gi", "2Gi", "3Gi"])},
            "accessModes": pick.choice([["ReadWriteOnce"], ["ReadWriteOnce", "ReadWriteMany"]]),
            "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": "disks.example.com", "volumeHandle": "x"},
        }  # fmt: skip
        if self._maybe(0.15):
            spec["volumeMode"] = "Block"
        terms = [{"key": "cell", "operator": "In", "values": ["CELL"]}]
        if self._maybe(0.7):
            zone = {"key": "zone", "operator": pick.choice(["In", "NotIn"]), "values": [f"CELL-{pick.choice('ab')}"]}
            terms.append(zone)
        if self._maybe(0.9):
            spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": terms}]}}
        labels = {"tier": pick.choice("ab")} if self._maybe(0.7) else {}
        return {"metadata": {"name": f"CELL-{at}", "labels": labels}, "spec": spec}


class Attached(Draw):
    """Random pods with volumes of two drivers, each with one or two nodes of its own, called CELL, that can attach only
    so many, the pods that are there, and what is attached still or already."""

    drivers = ("left.example.com", "right.example.com")

    def cell(self) -> dict[str, Any]:
        """Nodes and what their drivers say, volumes with their claims, attachments, residents and the newcomer."""
        pick = self._random
        count = pick.choice([1, 1, 2])
        size = {"cpu": "8", "memory": "32Gi", "pods": "110"}
        nodes = [
            {
                "metadata": {"name": f"CELL-{at}", "labels": {"cell": "CELL"}},
                "spec": {}, "status": {"allocatable": size, "capacity": size},
            }
            for at in range(count)
        ]  # fmt: skip
        volumes = [self._volume(at) for at in range(4)]
        names = [volume["metadata"]["name"] for volume in volumes]
        late = [{"metadata": {"name": f"CELL-late-{at}"}, "spec": {"storageClassName": "late"}} for at in range(2)]
        residents = []
        for at in range(pick.choice([0, 1, 2, 3])):
            claims = pick.sample([*names, *(one["metadata"]["name"] for one in late)], pick.choice([1, 1, 2]))
            pod = self._pod(f"there-CELL-{at}", claims, {"nodeName": f"CELL-{pick.randrange(count)}"})
            residents.append(pod | {"spec": pod["spec"] | {"schedulerName": "nobody"}})
        wanted = [*names, *(one["metadata"]["name"] for one in late if self._maybe(0.3))]
        newcomer = self._pod("CELL", pick.sample(wanted, pick.choice([1, 1, 2, 3])), {"nodeSelector": {"cell": "CELL"}})
        attachments = [self._attachment(at, pick.randrange(count)) for at in range(len(names)) if self._maybe(0.25)]
        # to bind a claim takes Kubernetes' volume controller a moment: only those that count are made
        text = json.dumps([residents, newcomer, attachments])
        volumes = [volume for volume in volumes if f'"{volume["metadata"]["name"]}"' in text]
        return {
            "nodes": nodes,
            "csi": [{"metadata": {"name": f"CELL-{at}"}, "spec": self._csi()} for at in range(count)],
            "volumes": volumes,
            "claims": [self._claim(volume["metadata"]["name"]) for volume in volumes],
            "late": late,
            "attachments": attachments,
            "there": residents,
            "pod": newcomer,
        }

    def _csi(self) -> dict[str, Any]:
        drivers = []
        for name in self.drivers:
            if self._maybe(0.9):
                limit = self._random.choice([0, 1, 1, 2, 2, 3])
                drivers.append({"name": name, "nodeID": "x"} | ({"allocatable": {"count": limit}} if limit else {}))
        return {"drivers": drivers}

    def _volume(self, at: int) -> dict[str, Any]:
        # two volumes may be one and the same to their driver
        csi = {"driver": self.drivers[at % 2], "volumeHandle": f"CELL-{self._random.randrange(5)}"}
        spec = {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "csi": csi, "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "OWN", "name": f"shared-CELL-{at}"},
        }  # fmt: skip
        return {"metadata": {"name": f"shared-CELL-{at}"}, "spec": spec}

    def _claim(self, name: str) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"storageClassName": "", "volumeName": name}}

    def _attachment(self, at: int, node: int) -> dict[str, Any]:
        source = {"persistentVolumeName": f"shared-CELL-{at}"}
        spec = {"attacher": self.drivers[at % 2], "nodeName": f"CELL-{node}", "source": source}
        return {"metadata": {"name": f"CELL-{at}"}, "spec": spec}

    def _pod(self, name: str, claims: list[str], spec: dict[str, Any]) -> dict[str, Any]:
        volumes = [{"name": f"v{at}", "persistentVolumeClaim": {"claimName": one}} for at, one in enumerate(claims)]
        container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}
        common = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}
        return {"metadata": {"name": name}, "spec": common | spec}


def renamed(value: Any, old: str, new: str) -> Any:
    """A copy with one name in place of another."""
    if isinstance(value, dict):
        return {key: renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, old, new) for item in value]
    return new if value == old else copy.copy(value)


@pytest.fixture(scope="module")
def plane(bed: Any) -> Iterator[Any]:
    controllers = (
        "garbage-collector-controller", "namespace-controller", "persistentvolume-binder-controller",
        "node-lifecycle-controller",  # takes the taint of nodes that were not ready yet
    )  # fmt: skip
    plane = bed.start(controllers=",".join(controllers))
    try:
        plane.start_kwok()
        plane.start_scheduler()
        yield plane
    finally:
        plane.stop()


async def test_heddle_and_kube_scheduler_agree(cluster: Cluster, bed: Any) -> None:
    draw = Draw(SEED)
    (form,) = bed.gpu_nodes(1)
    nodes: list[dict[str, Any]] = []
    pods: dict[str, dict[str, Any]] = {}
    residents: dict[str, dict[str, Any]] = {}
    for number in range(PAIRS):
        labels, size, taints, cordoned = draw.node()
        theirs, resident = draw.pod(f"k-{number}"), draw.resident()
        # heddle puts nothing on a cordoned node, even what tolerates everything (docs/kubernetes.md)
        cordoned = cordoned and all("key" in toleration for toleration in theirs["tolerations"])
        for side in "kh":
            name = f"{side}-{number}"
            node = copy.deepcopy(form)
            node["metadata"] |= {"name": name, "labels": labels}
            node["spec"] = {"taints": taints, "unschedulable": cordoned}
            node["status"] = {"allocatable": size, "capacity": size}
            nodes.append(node)
            spec = renamed(theirs, f"k-{number}", name)
            if resident:
                residents[f"there-{name}"] = {**resident, "nodeName": name, "schedulerName": "nobody"}
            pods[name] = spec | {"schedulerName": "heddle" if side == "h" else "default-scheduler"}
    await cluster.nodes(nodes)
    await settled(cluster)
    await cluster.queue("default", 10_000)
    for part in (residents, pods):
        await asyncio.gather(
            *(
                cluster.store.create(PODS, {"metadata": {"name": name}, "spec": spec}, cluster.namespace)
                for name, spec in part.items()
            )
        )
    cluster.start()
    await agree(cluster, sorted(pods), PAIRS)


async def test_they_agree_about_neighbours(cluster: Cluster, bed: Any) -> None:
    draw, other, count = Company(SEED), f"{cluster.namespace}-other", max(PAIRS * 2 // 5, 20)
    (form,) = bed.gpu_nodes(1)
    nodes, residents, newcomers = [], [], []
    for number in range(count):
        own = draw.nodes()
        cell = {"nodes": own, "there": draw.residents(len(own)), "pod": draw.newcomer()}
        for side in "kh":
            text = json.dumps(cell).replace("OWN", cluster.namespace).replace("OTHER", other)
            mine = json.loads(text.replace("CELL", f"{side}-{number}"))
            nodes += [{**form, **node, "metadata": {**form["metadata"], **node["metadata"]}} for node in mine["nodes"]]
            residents += mine["there"]
            mine["pod"]["spec"]["schedulerName"] = "heddle" if side == "h" else "default-scheduler"
            newcomers.append(mine["pod"])
    await cluster.store.create(NAMESPACES, {"metadata": {"name": other, "labels": {"team": "other"}}})
    try:
        await cluster.nodes(nodes)
        await settled(cluster)
        await cluster.queue("default", 0)
        for part in (residents, newcomers):
            await asyncio.gather(*(cluster.store.create(PODS, pod, pod["metadata"]["namespace"]) for pod in part))
        cluster.start()
        await agree(cluster, [pod["metadata"]["name"] for pod in newcomers], count)
    finally:
        await cluster.store.delete(NAMESPACES, other)


async def test_they_agree_about_volumes(cluster: Cluster, bed: Any) -> None:
    draw, count = Disks(SEED), max(PAIRS // 4, 20)
    (form,) = bed.gpu_nodes(1)
    made: dict[Any, list[dict[str, Any]]] = {
        kind: [] for kind in (NODES, STORAGECLASSES, PERSISTENTVOLUMES, PERSISTENTVOLUMECLAIMS, PODS)
    }
    late = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
    for number in range(count):
        text = json.dumps(draw.cell())
        for side in "kh":
            cell = json.loads(text.replace("CELL", f"{side}-{number}"))
            made[NODES] += [{**form, **n, "metadata": {**form["metadata"], **n["metadata"]}} for n in cell["nodes"]]
            made[STORAGECLASSES].append({"metadata": {"name": f"{side}-{number}"}, **late})
            made[PERSISTENTVOLUMES] += cell["disks"]
            made[PERSISTENTVOLUMECLAIMS] += cell["claims"]
            cell["pod"]["spec"]["schedulerName"] = "heddle" if side == "h" else "default-scheduler"
            made[PODS].append(cell["pod"])
    await cluster.nodes(made[NODES])
    await settled(cluster)
    await cluster.queue("default", 0)

    async def looked_at() -> bool:
        page = await cluster.store.list(PERSISTENTVOLUMES)
        return all(json.loads(blob)["status"].get("phase") == "Available" for blob in page.items)

    for kind in (STORAGECLASSES, PERSISTENTVOLUMES, PERSISTENTVOLUMECLAIMS):
        await asyncio.gather(*(cluster.store.create(kind, obj, cluster.namespace) for obj in made[kind]))
    await cluster.until(looked_at)
    cluster.start()
    await asyncio.gather(*(cluster.store.create(PODS, pod, cluster.namespace) for pod in made[PODS]))
    await agree(cluster, [pod["metadata"]["name"] for pod in made[PODS]], count)


async def test_they_agree_about_what_nodes_can_attach(cluster: Cluster, bed: Any) -> None:
    draw, count = Attached(SEED), max(PAIRS // 8, 20)
    (form,) = bed.gpu_nodes(1)
    late = {"provisioner": Attached.drivers[0], "volumeBindingMode": "WaitForFirstConsumer"}
    made: dict[Any, list[dict[str, Any]]] = {STORAGECLASSES: [{"metadata": {"name": "late"}, **late}]}
    nodes: list[dict[str, Any]] = []
    pods: list[dict[str, Any]] = []
    wish = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    for number in range(count):
        text = json.dumps(draw.cell()).replace("OWN", cluster.namespace)
        for side in "kh":
            cell = json.loads(text.replace("CELL", f"{side}-{number}"))
            nodes += [{**form, **n, "metadata": {**form["metadata"], **n["metadata"]}} for n in cell["nodes"]]
            claims = [{**one, "spec": one["spec"] | wish} for one in (*cell["claims"], *cell["late"])]
            for kind, objects in (
                (CSINODES, cell["csi"]), (PERSISTENTVOLUMECLAIMS, claims), (PERSISTENTVOLUMES, cell["volumes"]),
                (VOLUMEATTACHMENTS, cell["attachments"]), (PODS, cell["there"]),
            ):  # fmt: skip
                made.setdefault(kind, []).extend(objects)
            cell["pod"]["spec"]["schedulerName"] = "heddle" if side == "h" else "default-scheduler"
            pods.append(cell["pod"])
    await cluster.nodes(nodes)
    await settled(cluster)
    await cluster.queue("default", 0)

    async def together() -> bool:
        page = await cluster.store.list(PERSISTENTVOLUMECLAIMS, cluster.namespace)
        phases = [json.loads(blob)["status"].get("phase") for blob in page.items]
        return phases.count("Bound") == len(made[PERSISTENTVOLUMES])

    try:
        for kind, objects in made.items():
            await asyncio.gather(*(cluster.store.create(kind, obj, cluster.namespace) for obj in objects))
        await cluster.until(together, 120)
        cluster.start()
        await asyncio.gather(*(cluster.store.create(PODS, pod, cluster.namespace) for pod in pods))
        await agree(cluster, [pod["metadata"]["name"] for pod in pods], count)
    finally:
        for kind in (CSINODES, VOLUMEATTACHMENTS, PERSISTENTVOLUMES, STORAGECLASSES):
            for obj in made.get(kind, ()):
                with contextlib.suppress(ApiError):
                    await cluster.store.delete(kind, obj["metadata"]["name"])


async def settled(cluster: Cluster) -> None:
    """Nodes lose the taint of those that were not ready yet."""

    async def taken() -> bool:
        page = await cluster.store.list(NODES)
        return not any(b"node.kubernetes.io/not-ready" in blob for blob in page.items)

    await cluster.until(taken, 120)


async def agree(cluster: Cluster, names: list[str], pairs: int) -> None:
    """Wait until both have decided about each pod `k-N` and `h-N`, and compare.

    Where a claim `k-N-late-…` is to get a volume that nobody makes, to choose a node for it is to decide.
    """
    verdicts: dict[str, bool] = {}
    told: dict[str, str] = {}

    async def decided() -> bool:
        page = await cluster.store.list(PERSISTENTVOLUMECLAIMS, cluster.namespace)
        for meta in (json.loads(blob)["metadata"] for blob in page.items):
            if SELECTED_NODE_ANNOTATION in meta.get("annotations", {}):
                name = meta["name"].partition("-late-")[0]
                if name in names:
                    verdicts[name] = True
        for pod in await cluster.pods():
            conditions = {c["type"]: c for c in pod["status"].get("conditions", [])}
            name, scheduled = pod["metadata"]["name"], conditions.get("PodScheduled", {})
            if name not in names:
                continue
            if pod["spec"].get("nodeName"):
                assert name in (pod["spec"]["nodeName"], pod["spec"]["nodeName"].rpartition("-")[0])
                verdicts[name] = True
            elif scheduled.get("message") and "until its volumes are there" not in scheduled["message"]:
                verdicts[name], told[name] = False, scheduled["message"]
        return len(verdicts) == len(names)

    await cluster.until(decided, 120)
    wrong = [
        f"pair {n}: kube-scheduler {told.get(f'k-{n}', 'bound it')}; heddle {told.get(f'h-{n}', 'bound it')}"
        for n in range(pairs)
        if verdicts[f"k-{n}"] != verdicts[f"h-{n}"]
    ]
    assert not wrong, "\n".join(wrong)
    fits = sum(verdicts[f"k-{n}"] for n in range(pairs))
    assert pairs // 10 < fits < pairs * 9 // 10, f"{fits} of {pairs} fit: the draw says little"
