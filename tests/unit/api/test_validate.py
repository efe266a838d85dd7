"""Validation reports every fault at once, with field, value and remedy."""

import pytest

from heddle.api import registry, validate
from heddle.api.errors import Invalid


def fields(resource: registry.Resource, obj: object) -> list[str]:
    return [fault.field for fault in validate.faults(resource, obj)]


def queue(**spec: object) -> dict[str, object]:
    return {"metadata": {"name": "q"}, "spec": spec}


def job(**spec: object) -> dict[str, object]:
    return {"metadata": {"name": "j"}, "spec": {"command": ["true"], **spec}}


APART = {"level": "rack", "maxPerDomain": 1}
TERM = "spec.nodeAffinity.required[0].matchExpressions[0]"


def term(operator: str, *values: str) -> dict[str, object]:
    return {"required": [{"matchExpressions": [{"key": "k", "operator": operator, "values": [*values]}]}]}


def demand(operator: str, *values: str) -> dict[str, object]:
    return {"matchExpressions": [{"key": "app", "operator": operator, "values": [*values]}]}


def test_a_sound_object_has_no_faults() -> None:
    assert validate.faults(registry.QUEUES, queue(quota={"nvidia.com/gpu": 4, "memory": "16Gi"}, weight=2)) == []
    lends = queue(quota={"cpu": 4}, borrowingLimit={"nvidia.com/gpu": 1}, lendingLimit={"cpu": "500m"})
    assert validate.faults(registry.QUEUES, lends) == []
    assert validate.faults(registry.TRAININGJOBS, job(resourcesPerNode={"nvidia.com/gpu": "500m"})) == []


def test_all_faults_come_at_once() -> None:
    spec = {"quota": {"nvidia.com/gpu": -1, "cpu": float("nan")}, "weight": "x", "wieght": 1}
    assert fields(registry.QUEUES, {"metadata": {"name": "Q"}, "spec": spec}) == [
        "metadata.name",
        "spec.quota[nvidia.com/gpu]",
        "spec.quota[cpu]",
        "spec.weight",
        "spec.wieght",
    ]


@pytest.mark.parametrize(
    ("resource", "obj", "field", "remedy"),
    [
        (registry.QUEUES, queue(quta={}), "spec.quta", "did you mean quota?"),
        (registry.QUEUES, queue(quota={"cpu": 4}, limit={"cpu": 2}), "spec.quota[cpu]", "raise limit"),
        (registry.QUEUES, queue(parent="q"), "spec.parent", "not its own parent"),
        (registry.QUEUES, queue(quota={"cpu": 0.5}), "spec.quota[cpu]", '"500m"'),
        (registry.QUEUES, queue(weight=-1), "spec.weight", "0 or more"),
        (registry.QUEUES, queue(ageing={"maxPoints": 5}), "spec.ageing.secondsPerPoint", "a whole number"),
        (
            registry.QUEUES,
            queue(ageing={"maxPoints": 5, "secondsPerPoint": 0}),
            "spec.ageing.secondsPerPoint",
            "1 or more",
        ),
        (registry.QUEUES, queue(stopPolicy="Drain"), "spec.stopPolicy", "None, Hold, HoldAndDrain"),
        (registry.QUEUES, queue(ordering="FIFO"), "spec.ordering", "BestEffort, StrictFIFO"),
        (
            registry.QUEUES,
            queue(limit={"nvidia.com/gpu.product": 2}),
            "spec.limit[nvidia.com/gpu.product]",
            "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3",
        ),
        (
            registry.TRAININGJOBS,
            job(resourcesPerNode={"nvidia.com/gpu.product=H100": 1}),
            "spec.resourcesPerNode[nvidia.com/gpu.product=H100]",
            "nodeSelector",
        ),
        (registry.QUEUES, queue(quota={"gpu": 8}), "spec.quota[gpu]", "such as nvidia.com/gpu"),
        (registry.QUEUES, queue(borrowingLimit={"cpu": 1}), "spec.borrowingLimit[cpu]", "give a quota of cpu"),
        (
            registry.QUEUES,
            queue(quota={"nvidia.com/gpu": 2}, lendingLimit={"nvidia.com/gpu": 3}),
            "spec.lendingLimit[nvidia.com/gpu]",
            "at most the quota of nvidia.com/gpu (2)",
        ),
        (registry.TRAININGJOBS, job(nodes=2, minNodes=3), "spec.minNodes", "at most nodes (2)"),
        (
            registry.TRAININGJOBS,
            job(nodes=8, minNodes=2, nodeStep=4),
            "spec.nodeStep",
            "divisor of nodes - minNodes (6)",
        ),
        (registry.TRAININGJOBS, job(nodes=8, nodeStep=4), "spec.nodeStep", "nothing is elastic; leave it out"),
        (registry.TRAININGJOBS, job(nodes=8, resizable=False), "spec.resizable", "it never resizes; leave it out"),
        (registry.TRAININGJOBS, job(nodes=8, minNodes=4, nodeStep=0), "spec.nodeStep", "1 or more"),
        (
            registry.QUEUES,
            queue(preemptMinRuntimeSeconds=-1),
            "spec.preemptMinRuntimeSeconds",
            "0 or more",
        ),
        (registry.TRAININGJOBS, job(command=[]), "spec.command", "must not be empty"),
        (registry.TRAININGJOBS, job(spread={"level": "rack"}), "spec.spread", "maxPerDomain"),
        (registry.TRAININGJOBS, job(nodes=6, slices={"level": "rack", "size": 4}), "spec.slices.size", "divisor"),
        (registry.TRAININGJOBS, job(spread=APART, slices={"level": "rack"}), "spec.slices", "not both"),
        (registry.TRAININGJOBS, job(spread=APART | {"maxSkew": 0}), "spec.spread.maxSkew", "1 or more"),
        (registry.TRAININGJOBS, job(nodeAffinity=term("Gt", "x")), f"{TERM}.values", "one whole number"),
        (registry.TRAININGJOBS, job(nodeAffinity=term("In")), f"{TERM}.values", "at least one"),
        (registry.TRAININGJOBS, job(nodeAffinity=term("Exists", "x")), f"{TERM}.values", "no values"),
        (registry.TRAININGJOBS, job(nodeAffinity=term("Is", "x")), f"{TERM}.operator", "DoesNotExist"),
        (registry.TRAININGJOBS, job(restartPolicy="Sometimes"), "spec.restartPolicy", "OnFailure, Never"),
        (
            registry.TRAININGJOBS,
            job(resourcesPerNode={"nvidia.com/gpu": "1500m"}),
            "spec.resourcesPerNode[nvidia.com/gpu]",
            "below 1",
        ),
        (
            registry.TOPOLOGIES,
            {"metadata": {"name": "t"}, "spec": {"levels": [{"nodeLabel": "a"}, {"nodeLabel": "a"}]}},
            "spec.levels[1].nodeLabel",
            "of its own",
        ),
        (registry.PODS, {"metadata": {"name": "p"}, "spec": {"containers": "x"}}, "spec.containers", "a list"),
        (
            registry.WORKLOADS,
            {
                "metadata": {"name": "w"},
                "spec": {"queue": "q", "minGroups": 2, "podSets": [{"name": "a", "count": 1, "group": "r0"}]},
            },
            "spec.minGroups",
            "at most 1",
        ),
        (
            registry.WORKLOADS,
            {
                "metadata": {"name": "w"},
                "spec": {"queue": "q", "podSets": [{"name": "a", "count": 1, "after": ["b"]}]},
            },
            "spec.podSets[0].after[0]",
            "one of the pod sets a",
        ),
        (
            registry.WORKLOADS,
            {
                "metadata": {"name": "w"},
                "spec": {"queue": "q", "podSets": [{"name": "a", "count": 1, "after": ["a"]}]},
            },
            "spec.podSets[0].after",
            "wait for itself",
        ),
        (
            registry.WORKLOADS,
            {
                "metadata": {"name": "w"},
                "spec": {
                    "queue": "q",
                    "podSets": [{"name": "a", "count": 1, "group": "x"}, {"name": "b", "count": 1, "after": ["a"]}],
                },
            },
            "spec.podSets[1].after[0]",
            "same group",
        ),
        (
            registry.TRAININGJOBS,
            job(resourcesPerNode={"nvidia.com/mig-3g.40gb": "500m"}),
            "spec.resourcesPerNode[nvidia.com/mig-3g.40gb]",
            "whole number of MIG instances",
        ),
        (
            registry.TRAININGJOBS,
            job(podLabels={"heddle.dev/x": "y"}),
            "spec.podLabels[heddle.dev/x]",
            "are heddle's own",
        ),
        (registry.TRAININGJOBS, job(podLabels={"app": "a b"}), "spec.podLabels[app]", "63 at most"),
        (
            registry.TRAININGJOBS,
            job(podAffinity={"required": [{"labelSelector": {}}]}),
            "spec.podAffinity.required[0].topologyKey",
            "a string",
        ),
        (
            registry.TRAININGJOBS,
            job(podAntiAffinity={"required": [{"topologyKey": "rack", "labelSelector": demand("In")}]}),
            "spec.podAntiAffinity.required[0].labelSelector.matchExpressions[0].values",
            "at least one value",
        ),
        (
            registry.TRAININGJOBS,
            job(podAffinity={"required": [{"topologyKey": "rack", "namespaceSelector": demand("Exists", "x")}]}),
            "spec.podAffinity.required[0].namespaceSelector.matchExpressions[0].values",
            "takes no values",
        ),
        (registry.TRAININGJOBS, job(podAffinity={"preferred": []}), "spec.podAffinity.preferred", "required"),
        (registry.TRAININGJOBS, job(groups=2, minGroups=3), "spec.minGroups", "at most groups (2)"),
        (registry.TRAININGJOBS, job(groups=65), "spec.groups", "64 or less"),
        (registry.TRAININGJOBS, job(groups=2, nodes=4, minNodes=2), "spec.minNodes", "come and go whole"),
        (registry.TRAININGJOBS, job(groups=20, nodes=10_000), "spec.groups", "at most 10"),
        (registry.LICENSES, {"metadata": {"name": "m"}, "spec": {"count": -1}}, "spec.count", "0 or more"),
        (
            registry.TRAININGJOBS,
            job(resourcesPerNode={"licenses.heddle.dev/m": "500m"}),
            "spec.resourcesPerNode[licenses.heddle.dev/m]",
            "whole number",
        ),
        (
            registry.QUEUES,
            queue(quota={"licenses.heddle.dev/": 2}),
            "spec.quota[licenses.heddle.dev/]",
            "name a License",
        ),
    ],
)
def test_a_fault_names_field_and_remedy(resource: registry.Resource, obj: object, field: str, remedy: str) -> None:
    (fault,) = validate.faults(resource, obj)
    assert fault.field == field
    assert remedy.lower() in fault.remedy.lower() or all(w in fault.remedy for w in remedy.split(", "))


def test_unknown_fields_of_core_kinds_are_kept() -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "livenessProbe": {}}], "hostPID": True}}
    assert validate.faults(registry.PODS, pod) == []


def test_the_error_carries_a_cause_for_each_fault() -> None:
    with pytest.raises(Invalid) as caught:
        validate.check(registry.QUEUES, queue(weight=-1, priority="high"))
    assert [cause.field for cause in caught.value.causes] == ["spec.priority", "spec.weight"] or [
        cause.field for cause in caught.value.causes
    ] == ["spec.weight", "spec.priority"]
    assert caught.value.status.code == 422


def test_gpu_memory_stands_alone() -> None:
    resource = registry.TRAININGJOBS
    assert not fields(resource, job(gpuMemoryPerNode="20Gi", resourcesPerNode={"cpu": 1}))
    both = job(gpuMemoryPerNode="20Gi", resourcesPerNode={"nvidia.com/gpu": 1})
    assert fields(resource, both) == ["spec.gpuMemoryPerNode"]
    for wrong in ("20x", "-1", 0, "20"):
        assert fields(resource, job(gpuMemoryPerNode=wrong)) == ["spec.gpuMemoryPerNode"]
    sets = [{"name": "a", "count": 1, "gpuMemory": "4Gi", "resources": {"nvidia.com/gpu": "500m"}}]
    workload = {"metadata": {"name": "w"}, "spec": {"queue": "q", "podSets": sets}}
    assert fields(registry.WORKLOADS, workload) == ["spec.podSets[0].gpuMemory"]


def test_gpu_models_are_named_once_and_go_with_gpus() -> None:
    resource, gpus = registry.TRAININGJOBS, {"nvidia.com/gpu": 1}
    assert not fields(resource, job(gpuModels=["NVIDIA-H100", "NVIDIA-A100"], resourcesPerNode=gpus))
    assert not fields(resource, job(gpuModels=["NVIDIA-H100"], gpuMemoryPerNode="1Gi"))
    assert fields(resource, job(gpuModels=["NVIDIA-H100"])) == ["spec.gpuModels"]
    twice = job(gpuModels=["A", "A", "B 2"], resourcesPerNode=gpus)
    assert fields(resource, twice) == ["spec.gpuModels[1]", "spec.gpuModels[2]"]
    for wrong in ({"A": 0}, {"A": "1001"}, {"A B": 1}):
        (field,) = fields(resource, job(gpuSpeeds=wrong, resourcesPerNode=gpus))
        assert field.startswith("spec.gpuSpeeds[A")
    assert not fields(resource, job(gpuModels=["A", "B"], gpuSpeeds={"B": "0.45"}, resourcesPerNode=gpus))
    assert fields(resource, job(gpuModels=["A"], gpuSpeeds={"B": 1}, resourcesPerNode=gpus)) == ["spec.gpuSpeeds[B]"]
    assert fields(resource, job(gpuSpeeds={"B": 1})) == ["spec.gpuSpeeds"]
    many = {f"m{at}": 1 for at in range(17)}
    assert fields(resource, job(gpuSpeeds=many, resourcesPerNode=gpus)) == ["spec.gpuSpeeds"]
    both = job(gpuSpeeds={"A": 1}, resourcesPerNode=gpus, nodeSelector={"nvidia.com/gpu.product": "A"})
    assert fields(resource, both) == ["spec.nodeSelector[nvidia.com/gpu.product]"]
    pinned = job(gpuModels=["A"], resourcesPerNode=gpus, nodeSelector={"nvidia.com/gpu.product": "A"})
    assert fields(resource, pinned) == ["spec.nodeSelector[nvidia.com/gpu.product]"]


def roles(*given: dict[str, object], **spec: object) -> dict[str, object]:
    named = [{"name": f"role-{at}", "command": ["true"], **one} for at, one in enumerate(given)]
    return {"metadata": {"name": "j"}, "spec": {"roles": named, **spec}}


def test_roles_say_what_is_of_nodes_and_the_job_the_rest() -> None:
    shared = {"image": "a", "workingDir": "/w", "env": [{"name": "A"}], "queue": "q", "tolerations": []}
    sound = roles({"nodes": 2}, {"after": ["role-0"]}, successPolicy={"roles": ["role-1"]}, **shared)
    assert not fields(registry.TRAININGJOBS, sound)
    said = {"command": ["true"], "nodes": 2, "resourcesPerNode": {"cpu": 1}, "exclusive": True, "spread": APART}
    assert sorted(fields(registry.TRAININGJOBS, roles({}, **said))) == sorted(f"spec.{name}" for name in said)
    assert fields(registry.TRAININGJOBS, roles({}, groups=2, minGroups=1)) == ["spec.groups", "spec.minGroups"]


@pytest.mark.parametrize(
    ("obj", "field", "remedy"),
    [
        (roles({"name": "a"}, {"name": "a"}), "spec.roles[1].name", "a name of its own"),
        (roles({"name": "A"}), "spec.roles[0].name", "must match"),
        (roles({"command": []}), "spec.roles[0].command", "must not be empty"),
        (roles({"minNodes": 2}), "spec.roles[0].minNodes", "at most nodes (1)"),
        (roles({"gpuModels": ["H100"]}), "spec.roles[0].gpuModels", "ask for GPUs too"),
        (roles({"after": ["role-1"]}, {}), "spec.roles[0].after[0]", "none, as it is the first"),
        (roles({}, {"after": ["role-1"]}), "spec.roles[1].after[0]", "listed before it: one of role-0"),
        (roles({}, successPolicy={"roles": ["x"]}), "spec.successPolicy.roles[0]", "one of the roles role-0"),
        (job(successPolicy={"roles": ["x"]}), "spec.successPolicy", "only where there are roles"),
        (roles({"nodes": 60_000}, {"nodes": 60_000}), "spec.roles", "at most 100000 nodes"),
        (roles({}) | {"metadata": {"name": "j" * 50}}, "spec.roles[0].name", "at most 55 characters"),
    ],
)
def test_a_fault_of_roles_names_the_field_and_the_remedy(obj: dict[str, object], field: str, remedy: str) -> None:
    (fault,) = validate.faults(registry.TRAININGJOBS, obj)
    assert fault.field == field
    assert remedy in str(fault)
