"""Workloads made of pods that have none."""

from typing import Any

import msgspec
import pytest

from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.workload import Workload, WorkloadStatus
from heddle.control.grouping.groups import Group, Groups
from heddle.control.grouping.kinds import Owner, OwnerKind, known
from heddle.control.scheduling.works import Works

JOB = "batch.kubernetes.io/job-name"


def pod(name: str, labels: dict[str, str] | None = None, *, status: Any = None, meta: Any = None, **spec: Any) -> Pod:
    gpus = {"limits": {"nvidia.com/gpu": spec.pop("gpus", 1)}}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": "u", "controller": True}
    return msgspec.convert(
        {
            "metadata": {
                "name": name, "namespace": "ns", "uid": name, "labels": labels or {},
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [owner] if labels and JOB in labels else [], **(meta or {}),
            },
            "spec": {"schedulerName": "heddle", "containers": [{"name": "c", "resources": gpus}], **spec},
            "status": status or {},
        },
        Pod,
    )  # fmt: skip


class World:
    """Groups over some owners and queues."""

    def __init__(self, owners: dict[str, Owner] | None = None, queues: dict[str, Queue] | None = None) -> None:
        self.owners = owners or {}
        self.queues = queues or {}
        self.groups = Groups("heddle", known(), self._owner)

    def _owner(self, kind: OwnerKind, namespace: str, name: str) -> Owner | None:
        return self.owners.get(f"{kind.kind}/{namespace}/{name}")

    def of(self, *pods: Pod, status: WorkloadStatus | None = None) -> Group:
        found = self.groups.group(f"ns/{self.groups.name(pods[0])}", pods, self.queues, status)
        assert found is not None
        return found


def indexed(parallelism: int) -> dict[str, Owner]:
    spec = {"completionMode": "Indexed", "parallelism": parallelism, "completions": parallelism}
    return {"Job/ns/train": {"metadata": {"uid": "0123456789"}, "spec": spec}}


def test_a_pod_by_itself() -> None:
    group = World().of(pod("one", gpus=2, priority=7))
    spec = group.workload.spec
    assert group.workload.key == "ns/(pod) one"
    assert (spec.queue, spec.priority, spec.preemptible) == ("default", 7, False)
    assert [(s.name, s.count, s.minimum) for s in spec.pod_sets] == [("pods", 1, 1)]
    assert spec.pod_sets[0].resources == {"nvidia.com/gpu": 2, "pods": 1}


def test_pods_of_another_scheduler_are_strangers() -> None:
    world = World()
    stranger = pod("other", {"heddle.dev/workload": "gang"}, schedulerName="default-scheduler")
    assert world.groups.name(stranger) == "(pod) other"
    assert world.groups.group("ns/(pod) other", [stranger], {}, None) is None


def test_a_label_gathers_pods_and_says_how_many_there_will_be() -> None:
    labels = {"heddle.dev/workload": "gang", "heddle.dev/workload-size": "3", "heddle.dev/queue": "research"}
    group = World().of(pod("a", labels), pod("b", labels))
    assert group.workload.key == "ns/gang"
    assert group.workload.spec.queue == "research"
    assert [(s.count, s.minimum) for s in group.workload.spec.pod_sets] == [(3, 3)]


def test_an_indexed_job_is_a_gang_and_a_plain_one_is_not() -> None:
    world, labels = World(indexed(4)), {JOB: "train"}
    assert world.groups.name(pod("train-0", labels)) == "job-train-01234"
    assert [s.count for s in world.of(pod("train-0", labels)).workload.spec.pod_sets] == [4]
    world.owners["Job/ns/train"]["spec"]["completionMode"] = "NonIndexed"
    assert world.groups.name(pod("train-0", labels)) == "(pod) train-0"


def test_some_of_a_gang_may_be_enough() -> None:
    labels = {JOB: "train", "heddle.dev/min-available": "2"}
    (pods,) = World(indexed(4)).of(pod("train-0", labels)).workload.spec.pod_sets
    assert (pods.count, pods.minimum) == (4, 2)


def test_pods_that_ask_for_other_things_are_another_set() -> None:
    labels = {"heddle.dev/workload": "gang", "heddle.dev/workload-size": "4"}
    group = World().of(pod("a", labels), pod("b", labels, gpus=2), pod("c", labels))
    sets = {s.name: s for s in group.workload.spec.pod_sets}
    assert group.sets["a"] == group.sets["c"] == "pods" != group.sets["b"]
    assert sets["pods"].count == 3  # four in all, one of which is of the other set
    assert sets[group.sets["b"]].resources["nvidia.com/gpu"] == 2


def test_a_failed_pod_of_a_job_is_replaced_and_a_gated_one_waits() -> None:
    world, labels = World(indexed(3)), {JOB: "train"}
    failed = pod("train-0-x", labels, status={"phase": "Failed"}, nodeName="n")
    gated = pod("train-1-x", labels, schedulingGates=[{"name": "g"}])
    group = world.of(pod("train-0-y", labels), failed, gated)
    assert group.members == ("train-0-y",)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]}, "spec.volumes[data]"),
        ({"resourceClaims": [{"name": "gpu"}]}, "spec.resourceClaims"),
    ],
)
def test_what_is_not_supported_is_named(spec: dict[str, Any], field: str) -> None:
    assert field in World().of(pod("a", **spec)).fault


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ({"heddle.dev/preemptible": "yes"}, "label heddle.dev/preemptible: 'yes' is not valid; write true or false"),
        ({"heddle.dev/workload": "g", "heddle.dev/workload-size": "many"}, "label heddle.dev/workload-size: 'many'"),
        ({JOB: "gone"}, "there is no Job 'gone'"),
    ],
)
def test_labels_that_cannot_be_read_are_named(labels: dict[str, str], fault: str) -> None:
    assert fault in World().of(pod("a", labels)).fault


@pytest.mark.parametrize(
    ("label", "queue_says", "preemptible"),
    [("", False, False), ("", True, True), ("true", False, True), ("false", True, False)],
)
def test_nobody_is_evicted_unasked(label: str, queue_says: bool, preemptible: bool) -> None:
    queue = msgspec.convert({"metadata": {"name": "q"}, "spec": {"preemptiblePods": queue_says}}, Queue)
    labels = {"heddle.dev/queue": "q"} | ({"heddle.dev/preemptible": label} if label else {})
    assert World(queues={"q": queue}).of(pod("a", labels)).workload.spec.preemptible is preemptible


def test_promises_are_read_off_the_pods_once() -> None:
    world = World()
    promised = pod("a", status={"nominatedNodeName": "n1"})
    assert [place.node for place in world.of(promised).workload.status.reservation] == ["n1"]
    assert world.of(promised, status=WorkloadStatus()).workload.status.reservation == []


def test_a_node_by_its_name() -> None:
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    must = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term, {}]}}
    affinity = World().of(pod("a", affinity={"nodeAffinity": must})).workload.spec.pod_sets[0].node_affinity
    named, nowhere = affinity.required
    assert [(m.key, m.operator, m.values) for m in named.match_expressions] == [("field:metadata.name", "In", ["n1"])]
    assert [(m.key, m.operator) for m in nowhere.match_expressions] == [("field:metadata.name", "DoesNotExist")]


def test_a_workload_has_its_pods_as_they_are_though_not_all_news_makes_it_anew() -> None:
    works = Works({}, {}, World().groups)
    (key,) = works.set_pod(pod("a"))
    works.refresh(key)
    works.set_pod(pod("a", nodeName="n"))
    assert [p.spec.node_name for p in works.pods(key)] == ["n"]
    works.remove_pod(pod("a", nodeName="n"))
    assert works.pods(key) == []


@pytest.mark.parametrize("annotation", ["heddle.dev/gpu-share", "heddle.dev/gpu-memory"])
def test_a_share_of_a_gpu_waits_on_a_cluster_whether_pods_or_an_object_make_up_the_workload(annotation: str) -> None:
    training = msgspec.convert(
        {
            "metadata": {"name": "train", "namespace": "ns"},
            "spec": {"queue": "q", "podSets": [{"name": "nodes", "count": 1}]},
        },
        Workload,
    )
    works = Works({"ns/train": training}, {}, World().groups)
    asks = {"annotations": {annotation: "500m"}}
    part = pod("train-0", {"heddle.dev/workload": "train"}, meta=asks)
    keys = [key for one in (part, pod("alone", meta=asks)) for key in works.set_pod(one)]
    for key in keys:
        works.refresh(key)
        assert f"annotation {annotation}: shares of a GPU are not supported on Kubernetes yet" in works.fault(key), key
    assert works.reach_of_new([part]) == ({"train-0": []}, [works.fault("ns/train")])
    works.set_pod(pod("train-0", {"heddle.dev/workload": "train"}, meta=asks, nodeName="n"))
    assert works.fault("ns/train") == "", "what runs already is left alone"


def test_a_workload_is_found_by_the_job_whose_pods_it_is_and_one_that_waits_before_others() -> None:
    works = Works({}, {}, World(indexed(2)).groups)
    gang = [pod(f"train-{at}", {JOB: "train"}) for at in range(2)]
    singles = [pod("a", {JOB: "many"}, nodeName="n"), pod("b", {JOB: "many"}), pod("c", {JOB: "many"}, nodeName="n")]
    for one in gang + singles:
        for key in works.set_pod(one):
            works.refresh(key)
    assert works.of_owner("ns", "train") == "ns/job-train-01234"
    assert works.of_owner("ns", "many") == "ns/(pod) b"
    assert works.of_owner("elsewhere", "train") == works.of_owner("ns", "other") == ""
