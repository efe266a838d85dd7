"""heddle's controller on a real kube-apiserver, with nodes and pods that kwok plays."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from clusters import BUDGETS, JOBS, Cluster, answer

from heddle.api.clock import to_seconds
from heddle.api.errors import ApiError
from heddle.api.registry import EVENTS, NAMESPACES, PODS, WORKLOADS, Resource
from heddle.control.scheduling.claims import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES
from heddle.store.port import PatchType

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

_ADMISSION = "admissionregistration.k8s.io"
ADMISSION = Resource(_ADMISSION, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False)
ADMISSION_BINDINGS = Resource(
    _ADMISSION, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", False
)


@pytest.fixture(scope="module")
def plane(bed: Any) -> Iterator[Any]:
    plane = bed.start(
        controllers="garbage-collector-controller,namespace-controller,job-controller,disruption-controller"
    )
    try:
        plane.start_kwok()
        yield plane
    finally:
        plane.stop()


async def test_pods_start_where_there_is_room_and_gangs_whole_or_not_at_all(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(2))
    await cluster.queue("default", 16)
    await cluster.gang("big", 3, gpus=8)
    await cluster.gang("small", 2, gpus=4)
    await cluster.pod("one")
    cluster.start()
    await cluster.until_bound(3)
    assert set(await cluster.bound()) == {"small-0", "small-1", "one"}

    async def told() -> bool:
        return bool(await cluster.told("big-2"))

    await cluster.until(told)
    assert "2 of 3 tasks would fit" in await cluster.told("big-2")
    workload: dict[str, Any] = {}

    async def kept() -> bool:
        page = await cluster.store.list(WORKLOADS, cluster.namespace)
        found = {w["metadata"]["name"]: w for w in map(json.loads, page.items)}
        workload.update(found.get("big", {}))
        return "status" in workload

    await cluster.until(kept)
    assert (workload["status"]["phase"], workload["metadata"]["labels"]) == ("Pending", {"heddle.dev/derived": "true"})


async def test_what_heddle_does_not_support_makes_a_pod_wait_and_names_the_field(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)
    await cluster.pod("picky", resourceClaims=[{"name": "gpu", "resourceClaimName": "gpu"}])
    await cluster.pod("plain")
    cluster.start()
    await cluster.until_bound(1)

    async def told() -> bool:
        return "spec.resourceClaims" in await cluster.told("picky")

    await cluster.until(told)
    assert list(await cluster.bound()) == ["plain"]


async def test_pods_that_shun_each_other_have_a_node_each_and_the_others_learn_why(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(2))
    await cluster.queue("default", 8)
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}
    shy = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    for name in ("db-0", "db-1", "db-2"):
        await cluster.pod(name, {"app": "db"}, affinity=shy)
    cluster.start()
    await cluster.until_bound(2)

    async def told() -> bool:
        waiting = {"db-0", "db-1", "db-2"} - set(await cluster.bound())
        return "may not share its kubernetes.io/hostname with pods with app=db" in await cluster.told(waiting.pop())

    await cluster.until(told)
    assert len(set((await cluster.bound()).values())) == 2
    leaver = next(iter(await cluster.bound()))
    await cluster.store.delete(PODS, leaver, cluster.namespace, grace_period=0)

    async def followed() -> bool:
        return len(set(await cluster.bound()) - {leaver}) == 2

    await cluster.until(followed)


async def test_pods_that_would_rather_be_apart_are_while_there_is_room_and_start_all_the_same(
    cluster: Cluster, bed: Any
) -> None:
    await cluster.nodes(bed.gpu_nodes(3))
    await cluster.queue("default", 24)
    like = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
    wishes = [
        {"topologySpreadConstraints": [{**like, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}]},
        {"affinity": {"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": like}]
        }}},
    ]  # fmt: skip
    cluster.start()
    for at in range(6):
        await cluster.pod(f"web-{at}", {"app": "web"}, gpus=3, **wishes[at % 2])
        await cluster.until_bound(at + 1)
        nodes = list((await cluster.bound()).values())
        assert len(set(nodes)) == min(at + 1, 3), "no node has a second one while another has none"


async def test_a_waiting_pod_says_its_place_and_when_it_is_expected_to_start(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)
    begun = time.time()
    await cluster.pod("long", gpus=8, activeDeadlineSeconds=600)
    cluster.start()
    await cluster.until_bound(1)
    await cluster.pod("second", gpus=8, activeDeadlineSeconds=300)
    await asyncio.sleep(1.1)  # objects hold whole seconds: who came first must be seen
    await cluster.pod("third", gpus=8)

    def expected(text: str) -> float:
        return to_seconds(found[1]) - begun if (found := re.search(r"expected to start at (\S+) if", text)) else 0.0

    async def told() -> bool:
        second, third = await cluster.told("second"), await cluster.told("third")
        return bool(expected(second)) and bool(expected(third)) and "place 2 in the line of queue default" in third

    await cluster.until(told, 10)
    assert "place 1 in the line of queue default" in await cluster.told("second")
    assert 599 <= expected(await cluster.told("second")) < 640
    assert 899 <= expected(await cluster.told("third")) < 940
    await cluster.store.delete(PODS, "long", cluster.namespace)
    await cluster.until_bound(1, "second")

    async def sooner() -> bool:
        return expected(await cluster.told("third")) < 400

    await cluster.until(sooner, 10)


async def test_a_refused_eviction_is_left_alone_for_a_while_until_its_budget_says_otherwise(
    cluster: Cluster, bed: Any, plane: Any
) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    for name in ("a", "b"):
        await cluster.queue(name, 4)
    lent = {"heddle.dev/queue": "a", "heddle.dev/preemptible": "true"}
    for number in range(8):
        await cluster.pod(f"a-{number}", lent)
    cluster.start()
    await cluster.until_bound(8)
    controllers = plane.pid("kube-controller-manager")
    os.kill(controllers, signal.SIGSTOP)  # until it has counted, the API server refuses every eviction
    try:
        budget = {"metadata": {"name": "kept"}, "spec": {"minAvailable": 4, "selector": {"matchLabels": lent}}}
        await cluster.store.create(BUDGETS, budget, cluster.namespace)
        await cluster.pod("b-0", {"heddle.dev/queue": "b"})
        await asyncio.sleep(5)
        tried = cluster.logs().count("eviction of ")
        assert 1 <= tried <= 3, cluster.logs()
    finally:
        os.kill(controllers, signal.SIGCONT)
    await cluster.until_bound(1, "b-", 15)


async def test_what_stands_in_a_namespace_names_no_workload_of_another(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("a", 4)
    await cluster.queue("b", 8)
    other = f"{cluster.namespace}-other"
    await cluster.ensure(NAMESPACES, {"metadata": {"name": other}})
    lent = {"heddle.dev/queue": "a", "heddle.dev/preemptible": "true"}
    await cluster.pod("secret", lent, gpus=8, activeDeadlineSeconds=600)
    cluster.start()
    await cluster.until_bound(1)
    own, cluster.namespace = cluster.namespace, other
    try:
        await cluster.pod("curious", {"heddle.dev/queue": "a", "heddle.dev/preemptible": "true"}, gpus=8)

        async def told() -> bool:
            return "a workload of another namespace" in await cluster.told("curious")

        await cluster.until(told)
        assert "secret" not in await cluster.told("curious")
        page = await cluster.store.list(EVENTS, other)
        assert page.items
        assert not any(b"secret" in blob for blob in page.items)
    finally:
        for pod in await cluster.pods():
            await cluster.store.delete(PODS, pod["metadata"]["name"], other, grace_period=0)
        await cluster.store.delete(NAMESPACES, other)
        cluster.namespace = own


async def test_the_taint_of_heddle_keeps_other_schedulers_off_its_nodes_and_not_heddle(
    cluster: Cluster, bed: Any, plane: Any
) -> None:
    mine, free = bed.gpu_nodes(2)
    mine["spec"] = {**mine.get("spec", {}), "taints": [
        {"key": "heddle.dev/scheduler", "value": "heddle", "effect": "NoSchedule"}
    ]}  # fmt: skip
    other = {"key": "heddle.dev/scheduler", "value": "somebody", "effect": "NoSchedule"}
    free["spec"] = {**free.get("spec", {}), "taints": [other]}
    await cluster.nodes([mine, free])
    await cluster.queue("default", 16)
    plane.start_scheduler()
    cluster.start()
    await asyncio.gather(*(cluster.pod(f"ours-{n}", gpus=4) for n in range(3)))
    await cluster.pod("theirs", gpus=1, schedulerName="default-scheduler")
    await cluster.until_bound(2, "ours-")

    async def refused() -> bool:
        return "untolerated taint" in await cluster.told("theirs")

    await cluster.until(refused)
    assert set((await cluster.bound()).values()) == {mine["metadata"]["name"]}  # not on somebody else's either
    assert len(await cluster.bound()) == 2


async def test_a_volume_for_one_pod_at_a_time_has_one(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(2))
    await cluster.queue("default", 8)
    volume, size = f"{cluster.namespace}-disk", {"storage": "1Gi"}
    common = {"accessModes": ["ReadWriteOncePod"], "storageClassName": ""}
    claim = {"metadata": {"name": "one"}, "spec": {**common, "volumeName": volume, "resources": {"requests": size}}}
    disk = {**common, "capacity": size, "hostPath": {"path": "/tmp"}}
    disk["claimRef"] = {"name": "one", "namespace": cluster.namespace}
    await cluster.store.create(PERSISTENTVOLUMES, {"metadata": {"name": volume}, "spec": disk})
    await cluster.store.create(PERSISTENTVOLUMECLAIMS, claim, cluster.namespace)
    bound = {"status": {"phase": "Bound"}}  # as the volume controller would say
    await cluster.store.patch(PERSISTENTVOLUMECLAIMS, "one", bound, namespace=cluster.namespace, subresource="status")
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "one"}}]
    for name in ("a", "b"):
        await cluster.pod(name, volumes=volumes)
    cluster.start()
    await cluster.until_bound(1)
    (first,) = await cluster.bound()
    (other,) = {"a", "b"} - {first}

    async def told() -> bool:
        return "may not run at the same time with pods that use claim one" in await cluster.told(other)

    await cluster.until(told)
    await cluster.store.delete(PODS, first, cluster.namespace, grace_period=0)

    async def followed() -> bool:
        return other in await cluster.bound()

    await cluster.until(followed)


async def test_an_indexed_job_is_a_gang(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)
    cluster.start()

    def job(name: str, size: int) -> dict[str, Any]:
        limits = {"nvidia.com/gpu": "2"}
        container = {"name": "main", "image": "none", "resources": {"limits": limits}}
        spec = {"schedulerName": "heddle", "restartPolicy": "Never", "containers": [container]}
        return {
            "metadata": {"name": name},
            "spec": {
                "completionMode": "Indexed", "completions": size, "parallelism": size, "template": {"spec": spec}
            },
        }  # fmt: skip

    await cluster.store.create(JOBS, job("wide", 5), cluster.namespace)
    await cluster.store.create(JOBS, job("fits", 4), cluster.namespace)
    await cluster.until_bound(4)
    await asyncio.sleep(0.5)
    assert all(name.startswith("fits-") for name in await cluster.bound())


async def test_another_queue_takes_back_what_it_is_owed_and_budgets_are_kept(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    for name in ("a", "b"):
        await cluster.queue(name, 4)
    lent = {"heddle.dev/queue": "a", "heddle.dev/preemptible": "true"}
    for number in range(8):
        await cluster.pod(f"a-{number}", {**lent, "kept": str(number < 4).lower()})
    budget = {"metadata": {"name": "kept"}, "spec": {"minAvailable": 4, "selector": {"matchLabels": {"kept": "true"}}}}
    await cluster.store.create(BUDGETS, budget, cluster.namespace)
    cluster.start()
    await cluster.until_bound(8)
    await asyncio.gather(*(cluster.pod(f"b-{number}", {"heddle.dev/queue": "b"}) for number in range(4)))
    await cluster.until_bound(4, "b-")
    assert len(await cluster.bound("a-")) == 4


async def test_nobodys_pod_is_evicted_unasked(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("a", 8)
    await cluster.queue("b", 8)
    await asyncio.gather(*(cluster.pod(f"a-{number}", {"heddle.dev/queue": "a"}) for number in range(8)))
    cluster.start()
    await cluster.until_bound(8)
    await cluster.pod("b-0", {"heddle.dev/queue": "b"}, gpus=8)

    async def told() -> bool:
        return bool(await cluster.told("b-0"))

    await cluster.until(told)
    assert len(await cluster.bound("a-")) == 8


async def test_pods_of_other_schedulers_are_counted(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)
    await cluster.pod("theirs", gpus=5, schedulerName="other", nodeName="gpu-0")
    await cluster.pod("large", gpus=4)
    await cluster.pod("small", gpus=3)
    cluster.start()
    await cluster.until_bound(2)
    assert set(await cluster.bound()) == {"theirs", "small"}


async def test_the_next_in_line_takes_over_and_finishes_a_gang(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(40))
    await cluster.queue("default", 320)
    first = cluster.start()
    await cluster.leading(first)
    second = cluster.start()
    await cluster.until(lambda: _logged(cluster, "standing by", 2))
    await cluster.gang("gang", 150)
    await cluster.until_bound(1, seconds=30)
    cluster.kill(first)
    await cluster.leading(second)
    await cluster.until_bound(150)
    nodes = list((await cluster.bound()).values())
    assert max(nodes.count(node) for node in nodes) <= 8


async def _logged(cluster: Cluster, text: str, times: int) -> bool:
    return cluster.logs().count(text) >= times


async def test_a_gang_that_lost_a_pod_is_completed(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(2))
    await cluster.queue("default", 16)
    cluster.start()
    await cluster.gang("gang", 4, gpus=2)
    await cluster.until_bound(4)
    await cluster.store.delete(PODS, "gang-1", cluster.namespace, grace_period=0)
    own = {"heddle.dev/workload": "gang", "heddle.dev/workload-size": "4"}

    async def whole() -> bool:  # kwok, which knows pods by name, may delete the new one for the old one
        await cluster.ensure_pod("gang-1", own, gpus=2)
        return len(await cluster.bound()) == 4

    await cluster.until(whole)


async def test_health_and_metrics(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)
    process = cluster.start()
    await cluster.leading(process)
    await cluster.pod("one")
    await cluster.until_bound(1)
    found = re.search(r"health and metrics at port (\d+)", cluster.logs())
    assert found is not None
    url = f"http://127.0.0.1:{found[1]}"
    assert await answer(f"{url}/readyz") == (200, "ok")
    status, text = await answer(f"{url}/metrics")
    assert status == 200
    assert "heddle_binds_total 1.0" in text
    assert "heddle_leader 1.0" in text


async def test_who_may_not_be_bound_is_told_and_his_place_goes_to_others(cluster: Cluster, bed: Any) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods/binding"]}
    name = f"no-binds-of-first-{cluster.namespace}"
    mine = f"object.metadata.namespace != '{cluster.namespace}' || object.metadata.name != 'first'"
    await cluster.store.create(ADMISSION, {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": mine, "message": "not before its audit"}],
        },
    })  # fmt: skip
    spec = {"policyName": name, "validationActions": ["Deny"]}
    await cluster.store.create(ADMISSION_BINDINGS, {"metadata": {"name": name}, "spec": spec})
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)

    async def in_force() -> bool:
        binding = {"metadata": {"name": "first"}, "target": {"kind": "Node", "name": "gpu-0"}}
        try:
            await cluster.store.create(PODS, binding, cluster.namespace, subresource="binding", dry_run=True)
        except ApiError as error:
            return "audit" in str(error)
        return False

    await cluster.pod("first", gpus=8)
    await cluster.until(in_force)
    cluster.start()

    async def told() -> bool:
        return "cannot be bound to node gpu-0" in await cluster.told("first")

    await cluster.until(told)
    assert "not before its audit" in await cluster.told("first")
    await cluster.pod("second", gpus=8)
    await cluster.until_bound(1)
    assert set(await cluster.bound()) == {"second"}
    await cluster.store.delete(ADMISSION_BINDINGS, name)
    await cluster.store.delete(ADMISSION, name)
    await cluster.store.delete(PODS, "second", cluster.namespace, grace_period=0)
    await cluster.until_bound(1, "first")


async def test_a_gate_keeps_a_pod_back(cluster: Cluster, bed: Any) -> None:
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)
    cluster.start()
    await cluster.pod("gated", schedulingGates=[{"name": "example.com/wait"}])
    await cluster.pod("free")
    await cluster.until_bound(1)
    assert list(await cluster.bound()) == ["free"]
    patch = [{"op": "remove", "path": "/spec/schedulingGates"}]
    await cluster.store.patch(PODS, "gated", patch, namespace=cluster.namespace, type=PatchType.JSON)
    await cluster.until_bound(2)


async def test_who_asks_for_a_mig_profile_that_no_node_has_is_told_which_there_are(cluster: Cluster, bed: Any) -> None:
    (node,) = bed.gpu_nodes(1)
    for amounts in (node["status"]["allocatable"], node["status"]["capacity"]):
        amounts |= {"nvidia.com/mig-1g.10gb": "2", "nvidia.com/mig-3g.40gb": "2"}
    await cluster.nodes([node])
    await cluster.queue("default", 8)
    cluster.start()
    for name, profile in (("there", "3g.40gb"), ("slip", "3g.45gb")):
        asked = {f"nvidia.com/mig-{profile}": "1"}
        container = {"name": "main", "image": "none", "resources": {"requests": asked, "limits": asked}}
        await cluster.pod(name, containers=[container])
    await cluster.until_bound(1)
    assert list(await cluster.bound()) == ["there"]

    async def told() -> bool:
        wanted = "no node offers nvidia.com/mig-3g.45gb; the nearest that some offer: nvidia.com/mig-3g.40gb, "
        return wanted in await cluster.told("slip")

    await cluster.until(told)
