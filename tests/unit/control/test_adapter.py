"""Objects become engine values with nothing lost that decides where pods go."""

from __future__ import annotations

import msgspec

from heddle.api.core import Node
from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.trainingjob import TrainingJob
from heddle.api.workload import CHECKPOINT_ANNOTATION, ReservedPlace, Workload
from heddle.control.scheduling import adapter
from heddle.control.training import pods
from heddle.engine import LabelMatch, NodePreference, PastUsage, Slices, Spread, Taint, Toleration

TERM = {"matchExpressions": [{"key": "age", "operator": "Gt", "values": ["3"]}, {"key": "disk", "operator": "Exists"}]}
AFFINITY = {"required": [TERM], "preferred": [{"weight": 7, "preference": TERM}]}
MATCHES = (LabelMatch("age", "Gt", ("3",)), LabelMatch("disk", "Exists"))


def workload(**pod_set: object) -> Workload:
    sets = [{"name": "main", "count": 1, **pod_set}]
    spec = {"queue": "q", "podSets": sets, "placement": "FragmentationAware"}
    return msgspec.convert({"metadata": {"name": "w", "namespace": "x"}, "spec": spec}, Workload)


def member(**spec: object) -> Pod:
    labels = {"heddle.dev/workload": "w", "heddle.dev/pod-set": "main"}
    return msgspec.convert({"metadata": {"name": "p-0", "namespace": "x", "labels": labels}, "spec": spec}, Pod)


def test_affinity_and_strategy_reach_the_engine() -> None:
    spec = adapter.workload_spec(workload(nodeAffinity=AFFINITY), [member()])
    assert spec.strategy == "fragmentation"
    assert spec.pod_sets[0].node_affinity == (MATCHES,)
    assert spec.pod_sets[0].node_preferences == (NodePreference(7, MATCHES),)


def test_a_pod_that_preempts_nobody_makes_its_workload_gentle() -> None:
    assert adapter.workload_spec(workload(), [member(preemptionPolicy="Never")]).gentle
    assert not adapter.workload_spec(workload(), [member(preemptionPolicy="PreemptLowerPriority")]).gentle


def test_spread_reaches_the_engine() -> None:
    spec = adapter.workload_spec(workload(spread={"level": "rack", "maxPerDomain": 1, "maxSkew": 2}), [member()])
    assert spec.pod_sets[0].spread == Spread("rack", most=1, skew=2)


def test_a_training_job_hands_its_wishes_on() -> None:
    job: dict[str, object] = {
        "command": ["true"],
        "nodeAffinity": AFFINITY,
        "tolerations": [{"key": "t", "operator": "Exists"}],
    }
    job |= {"slices": {"level": "rack", "size": 1, "balanced": True}, "exclusive": True}
    made = msgspec.convert({"metadata": {"name": "j", "namespace": "x"}, "spec": job}, TrainingJob)
    spec = adapter.workload_spec(pods.workload(made), [pods.pod(made, 0)])
    assert spec.pod_sets[0].node_affinity == (MATCHES,)
    assert spec.pod_sets[0].tolerations == (Toleration("t"),)
    assert spec.pod_sets[0].exclusive
    assert spec.pod_sets[0].slices == Slices("rack", 1, balanced=True)


def test_taints_keep_their_effect_and_tolerations_mean_what_kubernetes_says() -> None:
    taints = [
        {"key": "team", "value": "x"},
        {"key": "old", "effect": "PreferNoSchedule"},
        {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
        {"key": "odd", "effect": "Whatever"},
    ]
    node = msgspec.convert({"metadata": {"name": "n"}, "spec": {"taints": taints}}, Node)
    assert adapter.node_spec(node).taints == (
        Taint("team", "x"),
        Taint("old", "", "PreferNoSchedule"),
        Taint("node.kubernetes.io/disk-pressure"),
    )
    tolerations = [
        {"key": "team", "value": "x", "effect": "NoSchedule"},
        {"key": "empty"},
        {"operator": "Exists"},
    ]
    spec = adapter.workload_spec(workload(), [member(tolerations=tolerations)])
    assert spec.pod_sets[0].tolerations == (
        Toleration("team", "x", "NoSchedule"),
        Toleration("empty", ""),
        Toleration(""),
    )


def test_a_pod_that_is_moved_keeps_its_place_until_it_is_made_anew() -> None:
    moved = workload(count=2)
    moved.spec.movable = True
    moved.status.reservation = [ReservedPlace("main", "p-1", "n1"), ReservedPlace("main", "p-0", "n0")]
    spec = adapter.workload_spec(moved, [member()])
    assert spec.pod_sets[0].tasks == ("p-0", "p-1")
    assert spec.awaited == {"p-1"}
    assert adapter.workload_spec(moved, [member()], admitted=False).awaited == frozenset()
    moved.spec.movable = False
    assert adapter.workload_spec(moved, [member()]).pod_sets[0].tasks == ("p-0",)


def test_no_more_pods_are_awaited_than_there_may_be() -> None:
    moved = workload(count=1)
    moved.spec.movable = True
    moved.status.reservation = [ReservedPlace("main", "p-1", "n1")]
    assert adapter.workload_spec(moved, [member()]).awaited == frozenset()


def test_a_job_may_be_moved_only_if_it_resumes_from_a_checkpoint() -> None:
    def movable(**spec: object) -> bool:
        made = msgspec.convert({"metadata": {"name": "j"}, "spec": {"command": ["x"], **spec}}, TrainingJob)
        return pods.workload(made).spec.movable

    assert movable(checkpoint={"path": "/c"})
    assert not movable()
    assert not movable(checkpoint={"path": "/c"}, preemptible=False)
    assert not movable(checkpoint={"path": "/c"}, movable=False)


def test_a_share_by_memory_goes_all_the_way_from_job_to_engine() -> None:
    made = msgspec.convert(
        {
            "metadata": {"name": "j", "namespace": "x"},
            "spec": {"command": ["true"], "gpuMemoryPerNode": "1.5Gi", "separateGpus": True},
        },
        TrainingJob,
    )
    pod = pods.pod(made, 0)
    assert pod.metadata.annotations["heddle.dev/gpu-memory"] == "1.5Gi"
    spec = adapter.workload_spec(pods.workload(made), [pod])
    assert spec.separate_gpus
    assert (spec.pod_sets[0].gpu, spec.pod_sets[0].gpu_memory) == (0, 1536)
    orphan = adapter.orphan_spec("x/j", [pod])
    assert (orphan.pod_sets[0].gpu, orphan.pod_sets[0].gpu_memory) == (0, 1536)


def test_a_node_without_inventory_tells_its_cards_by_its_labels() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-A10", "nvidia.com/gpu.memory": "23028"}
    status = {"allocatable": {"nvidia.com/gpu": 2}}
    node = msgspec.convert({"metadata": {"name": "n", "labels": labels}, "spec": {}, "status": status}, Node)
    assert [(d.id, d.model, d.memory_mib) for d in adapter.node_spec(node).devices] == [
        ("n/0", "NVIDIA-A10", 23028),
        ("n/1", "NVIDIA-A10", 23028),
    ]


def test_gpu_models_reach_the_engine() -> None:
    job = {"command": ["true"], "gpuModels": ["H100", "A100"], "resourcesPerNode": {"nvidia.com/gpu": 2}}
    made = msgspec.convert({"metadata": {"name": "j", "namespace": "x"}, "spec": job}, TrainingJob)
    spec = adapter.workload_spec(pods.workload(made), [pods.pod(made, 0)], models=frozenset({"A100"}))
    assert (spec.pod_sets[0].gpu, spec.pod_sets[0].gpu_models) == (2000, ("H100", "A100"))
    assert not spec.pod_sets[0].request
    paced = workload(gpuSpeeds={"A100": "0.45", "H100": 1, "B200": 2}, resources={"nvidia.com/gpu": 1})
    (pod_set,) = adapter.workload_spec(paced, [member()]).pod_sets
    assert (pod_set.gpu_models, pod_set.gpu_speeds["A100"]) == (("B200", "H100", "A100"), 0.45)
    pinned = workload(gpuMemory="1Gi", nodeSelector={"nvidia.com/gpu.product": "A100"})
    spec = adapter.workload_spec(pinned, [member()], models=frozenset({"A100"}))
    assert spec.pod_sets[0].gpu_models == ("A100",)


def test_a_checkpoint_reaches_the_engine_where_it_can_be_read() -> None:
    for stamp, at in (("1970-01-01T00:01:00Z", 60.0), (None, None), ("yesterday", None)):
        found = workload()
        found.status.checkpoint_time = stamp
        assert adapter.workload_spec(found, []).checkpointed == at


def test_the_newest_checkpoint_that_the_owner_or_a_pod_tells_of_counts() -> None:
    found = workload()
    found.status.checkpoint_time = "1970-01-01T00:00:10Z"

    def told(*stamps: str) -> float | None:
        pods = [msgspec.convert({"metadata": {"annotations": {CHECKPOINT_ANNOTATION: stamp}}}, Pod) for stamp in stamps]
        return adapter.workload_spec(found, pods).checkpointed

    assert told("1970-01-01T00:00:05Z", "soon") == 10
    assert told("1970-01-01T00:00:05Z", "1970-01-01T01:00:30+01:00") == 30


def test_minimum_runtimes_of_a_queue_reach_the_engine_and_absent_is_not_0() -> None:
    spec = {"preemptMinRuntimeSeconds": 0, "reclaimMinRuntimeSeconds": 60}
    found = adapter.queue_spec(msgspec.convert({"metadata": {"name": "q"}, "spec": spec}, Queue))
    assert (found.preempt_min_runtime, found.reclaim_min_runtime) == (0, 60)
    plain = adapter.queue_spec(msgspec.convert({"metadata": {"name": "q"}}, Queue))
    assert (plain.preempt_min_runtime, plain.reclaim_min_runtime) == (None, None)


def test_steps_reach_the_engine_from_the_job_too() -> None:
    assert adapter.workload_spec(workload(count=5, minCount=1, step=2), [member()]).pod_sets[0].step == 2
    spec = {"command": ["true"], "nodes": 5, "minNodes": 1, "nodeStep": 2}
    made = msgspec.convert({"metadata": {"name": "j", "namespace": "x"}, "spec": spec}, TrainingJob)
    assert pods.workload(made).spec.pod_sets[0].step == 2


def test_what_is_not_resizable_keeps_what_it_started_with_as_its_minimum() -> None:
    found = workload(count=5, minCount=1, resizable=False)
    spec = adapter.workload_spec(found, [member(nodeName="n")])
    assert (spec.pod_sets[0].resizable, spec.pod_sets[0].min) == (False, 1)
    assert adapter.workload_spec(found, [member()]).pod_sets[0].min == 5, "its other pods are still being made"
    found.status.admitted_counts = {"main": 3}
    assert adapter.workload_spec(found, [member()]).pod_sets[0].min == 3
    found.spec.pod_sets[0].resizable = True
    assert adapter.workload_spec(found, [member()]).pod_sets[0].min == 1


def test_ports_and_volumes_of_nodes_are_no_business_of_queues() -> None:
    used = {"gpu": 2000, "hostPort:TCP/80": 1, "volumes of disks.example.com": 3, "free volumes of local (1)": 1}
    assert adapter.resources(used) == {"nvidia.com/gpu": "2"}
    assert adapter.past_resources(PastUsage(0.0, {name: float(v) for name, v in used.items()})) == {
        "nvidia.com/gpu": "2.0"
    }
