"""Admission policies on a real API server: they refuse what embedded heddle refuses, and stop forged submitters."""

import json
import subprocess
from typing import Any

import pytest

from heddle.api.registry import QUEUES, TOPOLOGIES, TRAININGJOBS, WORKLOADS, Resource
from heddle.api.validate import faults

pytestmark = pytest.mark.kubernetes

GPU, MODEL = "nvidia.com/gpu", "nvidia.com/gpu.product"


def job(**spec: Any) -> tuple[Resource, dict[str, Any]]:
    return TRAININGJOBS, {"command": ["true"], **spec}


def roles(*given: dict[str, Any], **spec: Any) -> tuple[Resource, dict[str, Any]]:
    named = [{"name": f"role-{index}", "command": ["true"], **one} for index, one in enumerate(given)]
    return TRAININGJOBS, {"roles": named, **spec}


def work(*pod_sets: dict[str, Any], **spec: Any) -> tuple[Resource, dict[str, Any]]:
    named = [{"name": f"set-{index}", "count": 4, **given} for index, given in enumerate(pod_sets or ({},))]
    return WORKLOADS, {"queue": "default", "podSets": named, **spec}


def queue(**spec: Any) -> tuple[Resource, dict[str, Any]]:
    return QUEUES, spec


def term(operator: str, *values: str) -> dict[str, Any]:
    match = {"key": "disk", "operator": operator} | ({"values": list(values)} if values else {})
    return {"matchExpressions": [match]}


SOUND = {
    "whole-gpus": job(nodes=4, minNodes=2, nodeStep=2, resourcesPerNode={GPU: 8, "cpu": "500m"}),
    "milli-gpus-that-are-whole": job(resourcesPerNode={GPU: "2000m"}),
    "gpu-share": job(resourcesPerNode={GPU: "500m"}),
    "gpu-memory": job(gpuMemoryPerNode="20Gi", gpuModels=["A100", "H100"]),
    "gpu-speeds": job(gpuSpeeds={"A100": "0.45", "H100": 1}, resourcesPerNode={GPU: 1}),
    "gpu-speeds-of-models": job(gpuModels=["A100", "H100"], gpuSpeeds={"A100": "450m"}, gpuMemoryPerNode="20Gi"),
    "mig-instances": job(resourcesPerNode={"nvidia.com/mig-3g.40gb": 2, "cpu": 4}),
    "mig-profiles": job(resourcesPerNode={f"nvidia.com/mig-{profile}": 1 for profile in (
        "1g.10gb.me", "7g.141gb", "1c.3g.20gb", "1g.24gb.me.all", "1g.24gb-me", "2g.48gb.gfx", "1g.5gb")}),
    "licence": job(resourcesPerNode={"licenses.heddle.dev/matlab": "2"}),
    "affinity": job(nodeAffinity={"required": [term("In", "ssd"), term("Gt", "-3")], "preferred": [
        {"weight": 3, "preference": term("Exists")}]}),
    "company": job(podLabels={"app": "trainer", "empty": ""}, podAntiAffinity={"required": [
        {"topologyKey": "rack", "labelSelector": {"matchLabels": {"app": "trainer"}}, "namespaceSelector": {}}]}),
    "spread": job(nodes=4, spread={"level": "rack", "maxSkew": 1}),
    "slices": job(nodes=8, minNodes=4, slices={"level": "rack", "size": 4}),
    "not-resizable": job(nodes=4, minNodes=2, resizable=False),
    "identity": job(
        envFrom=[{"secretRef": {"name": "a"}}, {"configMapRef": {"name": "b"}, "prefix": "B_"}],
        imagePullSecrets=[{"name": "a"}], serviceAccountName="a",
        securityContext={"runAsUser": 1, "runAsGroup": 0, "fsGroup": 1, "runAsNonRoot": True},
    ),
    "root": job(securityContext={"runAsUser": 0}),
    "groups-of-nodes": job(nodes=4, groups=3, minGroups=2),
    "volumes": job(volumes=[
        {"mountPath": "/data", "claim": "data", "subPath": "a/b"}, {"mountPath": "/dev/shm", "memory": "8Gi"},
        {"mountPath": "/code", "configMap": "code", "files": [{"key": "f0", "path": "src/..train.py"}]},
    ]),
    "roles": roles(
        {"nodes": 2, "resourcesPerNode": {GPU: "500m"}}, {"after": ["role-0"], "minNodes": 1, "nodes": 3, "image": "b"},
        image="a", workingDir="/w", env=[{"name": "A"}], successPolicy={"roles": ["role-1"]}, nodes=1, queue="q",
    ),
    "groups": work({"group": "a"}, {"group": "a", "after": ["set-0"]}, {"group": "b"}, minGroups=2),
    "after-a-set-of-no-group": work({}, {"group": "b", "after": ["set-0"]}),
    "queue": queue(quota={GPU: 8, f"{MODEL}=H100": 4, "licenses.heddle.dev/matlab": 3}, limit={GPU: "16"}),
    "queue-of-others": queue(limit={"hugepages-2Mi": "4Gi", "ephemeral-storage": "1Ti", "example.com/fpga": 2}),
    "topology": (TOPOLOGIES, {"levels": [{"nodeLabel": "zone"}, {"nodeLabel": "rack"}]}),
}  # fmt: skip

FAULTY = {
    "one-and-a-half-gpus": job(resourcesPerNode={GPU: "1500m"}),
    "model-as-resource": job(resourcesPerNode={f"{MODEL}=H100": 1}),
    "mig-profile-without-unit": job(resourcesPerNode={"nvidia.com/mig-3g.40g": 1}),
    "mig-profile-in-capitals": job(resourcesPerNode={"nvidia.com/mig-3G.40GB": 1}),
    "mig-profile-of-a-role": roles({"resourcesPerNode": {"nvidia.com/mig-8g.80gb": 1}}),
    "half-a-licence": job(resourcesPerNode={"licenses.heddle.dev/matlab": "500m"}),
    "licence-without-name": job(resourcesPerNode={"licenses.heddle.dev/": 1}),
    "gpu-memory-too-small": job(gpuMemoryPerNode="1Ki"),
    "environment-of-nothing": job(envFrom=[{}]),
    "environment-of-two-things": job(envFrom=[{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}]),
    "environment-of-no-name": job(envFrom=[{"secretRef": {}}]),
    "pull-secret-without-a-name": job(imagePullSecrets=[{}]),
    "root-that-is-not-root": job(securityContext={"runAsUser": 0, "runAsNonRoot": True}),
    "volume-of-nothing": job(volumes=[{"mountPath": "/data"}]),
    "volume-of-two-things": job(volumes=[{"mountPath": "/data", "claim": "a", "memory": "1Gi"}]),
    "volumes-at-one-path": job(volumes=[{"mountPath": "/a", "claim": "a"}, {"mountPath": "/a", "claim": "b"}]),
    "volume-at-a-relative-path": job(volumes=[{"mountPath": "data", "claim": "a"}]),
    "volume-of-a-relative-host-path": job(volumes=[{"mountPath": "/a", "hostPath": "data"}]),
    "files-of-a-claim": job(volumes=[{"mountPath": "/a", "claim": "a", "files": [{"key": "k", "path": "p"}]}]),
    "sub-path-above-its-volume": job(volumes=[{"mountPath": "/a", "claim": "a", "subPath": "b/../../c"}]),
    "file-above-its-volume": job(
        volumes=[{"mountPath": "/a", "configMap": "a", "files": [{"key": "k", "path": "../p"}]}]
    ),
    "gpus-twice": job(gpuMemoryPerNode="20Gi", resourcesPerNode={GPU: 1}),
    "model-twice": job(gpuModels=["H100", "H100"], resourcesPerNode={GPU: 1}),
    "model-misnamed": job(gpuModels=["H 100"], resourcesPerNode={GPU: 1}),
    "models-without-gpus": job(gpuModels=["H100"], resourcesPerNode={"cpu": 1}),
    "model-pinned-twice": job(gpuModels=["H100"], resourcesPerNode={GPU: 1}, nodeSelector={MODEL: "H100"}),
    "no-speed": job(gpuSpeeds={"H100": 0}, resourcesPerNode={GPU: 1}),
    "speed-of-another-model": job(gpuModels=["A100"], gpuSpeeds={"H100": 1}, resourcesPerNode={GPU: 1}),
    "speed-misnamed": job(gpuSpeeds={"H 100": 1}, resourcesPerNode={GPU: 1}),
    "speeds-without-gpus": job(gpuSpeeds={"H100": 1}),
    "speeds-of-a-pinned-model": job(gpuSpeeds={"H100": 1}, resourcesPerNode={GPU: 1}, nodeSelector={MODEL: "H100"}),
    "half-an-instance": job(resourcesPerNode={"nvidia.com/mig-3g.40gb": "500m"}),
    "step-does-not-divide": job(nodes=6, minNodes=2, nodeStep=3),
    "step-of-nothing-elastic": job(nodes=4, nodeStep=2),
    "nothing-to-resize": job(nodes=4, resizable=False),
    "elastic-groups": job(nodes=4, minNodes=2, groups=2),
    "fewer-groups-than-must-run": job(groups=2, minGroups=3),
    "too-many-nodes-in-all": job(nodes=10_000, groups=11),
    "spread-and-slices": job(nodes=4, spread={"level": "rack", "maxSkew": 1}, slices={"level": "rack", "size": 2}),
    "spread-says-nothing": job(nodes=4, spread={"level": "rack"}),
    "slices-not-whole": job(nodes=4, slices={"level": "rack", "size": 3}),
    "least-is-no-whole-slices": job(nodes=4, minNodes=3, slices={"level": "rack", "size": 2}),
    "label-of-heddles-own": job(podLabels={"heddle.dev/workload": "other"}),
    "label-with-a-blank": job(podLabels={"app": "a b"}),
    "company-of-nobody": job(podAffinity={"required": [{"topologyKey": "rack", "labelSelector": term("In")}]}),
    "company-in-no-namespace": work(
        {"podAntiAffinity": {"required": [{"topologyKey": "rack", "namespaceSelector": term("Exists", "ssd")}]}}
    ),
    "in-without-values": job(nodeAffinity={"required": [term("In")]}),
    "gt-without-number": job(nodeAffinity={"required": [term("Gt", "many")]}),
    "exists-with-values": job(nodeAffinity={"preferred": [{"weight": 1, "preference": term("Exists", "ssd")}]}),
    "no-command": (TRAININGJOBS, {"nodes": 2}),
    "role-twice": roles({"name": "a"}, {"name": "a"}),
    "role-without-a-command": roles({}, {"command": []}),
    "role-of-half-a-licence": roles({"resourcesPerNode": {"licenses.heddle.dev/matlab": "500m"}}),
    "role-after-a-later-one": roles({"after": ["role-1"]}, {}),
    "role-after-itself": roles({}, {"after": ["role-1"]}),
    "role-after-nobody": roles({}, {"after": ["role-7"]}),
    "role-with-a-long-name": roles({"name": "r" * 30}, name="j" * 26),
    "roles-and-a-command": roles({}, command=["true"]),
    "roles-and-nodes": roles({}, nodes=2),
    "roles-and-resources": roles({}, resourcesPerNode={GPU: 1}),
    "roles-and-affinity": roles({}, nodeAffinity={"required": [term("Exists")]}),
    "roles-and-exclusive": roles({}, exclusive=True),
    "roles-and-groups": roles({}, groups=2),
    "success-of-nobody": roles({}, successPolicy={"roles": ["role-7"]}),
    "success-without-roles": job(successPolicy={"roles": ["role-0"]}),
    "too-many-nodes-of-roles": roles({"nodes": 60_000}, {"nodes": 60_000}),
    "pod-set-twice": work({"name": "a"}, {"name": "a"}),
    "pod-set-gpus": work({}, {"resources": {GPU: "2500m"}}),
    "pod-set-step": work({"minCount": 1, "step": 2}),
    "pod-set-slices": work({"slices": {"level": "rack", "size": 3}}),
    "after-nobody": work({"after": ["set-7"]}),
    "after-itself": work({"after": ["set-0"]}),
    "after-another-group": work({"group": "a"}, {"group": "b", "after": ["set-0"]}),
    "more-groups-than-there-are": work({"group": "a"}, {"group": "a"}, minGroups=2),
    "quota-of-half-a-licence": queue(quota={"licenses.heddle.dev/matlab": "1500m"}),
    "quota-of-no-resource": queue(quota={"gpu": 8}),
    "limit-of-no-model": queue(limit={f"{MODEL}=": 4}),
    "level-twice": (TOPOLOGIES, {"levels": [{"nodeLabel": "rack"}, {"nodeLabel": "rack"}]}),
}


def made(resource: Resource, spec: dict[str, Any], name: str = "given") -> dict[str, Any]:
    name, spec = spec.get("name", name), {field: value for field, value in spec.items() if field != "name"}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": spec}


def dry(plane: Any, resource: Resource, obj: dict[str, Any]) -> None:
    plane.create(resource.path("default" if resource.namespaced else "") + "?dryRun=All", [obj])


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_is_accepted(installed: Any, name: str) -> None:
    resource, spec = SOUND[name]
    assert faults(resource, made(resource, spec)) == []
    dry(installed, resource, made(resource, spec))


@pytest.mark.parametrize("name", FAULTY)
def test_what_embedded_heddle_refuses_is_refused_with_a_remedy(installed: Any, name: str) -> None:
    resource, spec = FAULTY[name]
    assert faults(resource, made(resource, spec))
    with pytest.raises(RuntimeError, match=r"answered 422.*denied request: "):
        dry(installed, resource, made(resource, spec))


@pytest.mark.parametrize("wish", [{"gpuModels": ["A100"]}, {"gpuSpeeds": {"A100": 1}}], ids=("models", "speeds"))
def test_instances_that_the_kubelet_picks_are_of_no_model_that_heddle_could_choose(
    installed: Any, wish: dict[str, Any]
) -> None:
    resource, spec = job(resourcesPerNode={"nvidia.com/mig-3g.40gb": 1}, **wish)
    assert faults(resource, made(resource, spec)) == [], "embedded heddle picks them itself"
    with pytest.raises(
        RuntimeError, match="of MIG instances, which the kubelet picks, pin the model with nodeSelector"
    ):
        dry(installed, resource, made(resource, spec))


def test_a_name_too_long_for_its_pods_is_refused(installed: Any) -> None:
    resource, spec = job()
    dry(installed, resource, made(resource, spec, "x" * 50))
    with pytest.raises(RuntimeError, match="use at most 50 characters"):
        dry(installed, resource, made(resource, spec, "x" * 51))


ALICE = ("--as=alice", "--as-group=team-a", "--as-group=system:authenticated")
CONTROLLER = ("--as=system:serviceaccount:heddle-system:heddle-controller",)
USER, GROUPS = "heddle.dev/submitted-by", "heddle.dev/submitted-by-groups"


def kubectl(plane: Any, *arguments: str, given: Any = None) -> tuple[str, str]:
    """What it says, and what it complains of."""
    command = [str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig), *arguments]
    text = json.dumps(given) if given is not None else ""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def users(installed: Any) -> Any:
    """alice may edit in `default`, as the chart's rights let her."""
    roles = [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "alice"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "heddle-edit"},
         "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "alice-reads"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "heddle-view"},
         "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]},
    ]  # fmt: skip
    installed.create("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", roles)
    return installed


def submit(plane: Any, name: str, annotations: dict[str, str], *who: str) -> dict[str, Any]:
    obj = made(*job(nodes=2), name)
    obj["metadata"]["annotations"] = annotations
    out, complaint = kubectl(plane, *who, "create", "-f", "-", "-o", "json", given=obj)
    assert complaint == ""
    told: dict[str, Any] = json.loads(out)["metadata"]["annotations"]
    return told


def test_a_job_says_who_submitted_it_whatever_they_claim(users: Any) -> None:
    told = submit(users, "forged", {USER: "bob", GROUPS: "admins", "mine": "kept"}, *ALICE)
    assert told == {USER: "alice", GROUPS: "team-a,system:authenticated", "mine": "kept"}


def test_an_administrator_hands_on_who_submitted_a_job(users: Any) -> None:
    assert submit(users, "restored", {USER: "bob", GROUPS: "team-b"})[USER] == "bob"
    assert submit(users, "own", {})[USER] == "admin"


def test_who_submitted_a_job_never_changes(users: Any) -> None:
    name = "unchanged"
    submit(users, name, {}, *ALICE)
    for change in (f"{USER}=bob", f"{USER}-", "heddle.dev/anything=x"):
        _, complaint = kubectl(users, *ALICE, "annotate", "--overwrite", "trainingjob", name, change)
        assert "heddle's to write" in complaint, change
    _, complaint = kubectl(users, *ALICE, "label", "trainingjob", name, "heddle.dev/workload=other")
    assert "heddle's to write" in complaint
    _, complaint = kubectl(users, *ALICE, "annotate", "trainingjob", name, "mine=free")
    assert complaint == ""


def test_what_pods_are_made_of_is_fixed_and_the_rest_is_not(users: Any) -> None:
    submit(users, "fixed", {}, *ALICE)
    patch = ("patch", "trainingjob", "fixed", "--type=merge", "-p")
    _, complaint = kubectl(users, *ALICE, *patch, '{"spec":{"nodes":3}}')
    assert "nodes is immutable" in complaint
    _, complaint = kubectl(users, *ALICE, *patch, '{"spec":{"image":"other"}}')
    assert "image is immutable" in complaint
    _, complaint = kubectl(users, *ALICE, *patch, '{"spec":{"priority":7}}')
    assert complaint == ""


def test_the_controller_hands_on_a_submitter_to_a_workload_and_users_write_none(users: Any) -> None:
    workload = made(*work(), "of-a-job")
    workload["metadata"]["annotations"] = {USER: "alice"}
    out, complaint = kubectl(users, *CONTROLLER, "create", "-f", "-", "-o", "json", given=workload)
    assert complaint == ""
    assert json.loads(out)["metadata"]["annotations"] == {USER: "alice"}
    out, complaint = kubectl(users, *CONTROLLER, "create", "-f", "-", "-o", "json", given=made(*work(), "of-pods"))
    assert complaint == ""
    assert "annotations" not in json.loads(out)["metadata"]
    _, complaint = kubectl(users, *ALICE, "create", "-f", "-", given=made(*work(), "forged"))
    assert "cannot create resource" in complaint


def test_nothing_of_heddle_is_asked_when_a_pod_is_created(installed: Any) -> None:
    kinds = "validatingadmissionpolicies,mutatingadmissionpolicies"
    policies = json.loads(kubectl(installed, "get", kinds, "-o", "json")[0])["items"]
    assert len(policies) > 5
    groups = {g for p in policies for r in p["spec"]["matchConstraints"]["resourceRules"] for g in r["apiGroups"]}
    assert groups == {"heddle.dev"}
    webhooks = "validatingwebhookconfigurations,mutatingwebhookconfigurations"
    assert json.loads(kubectl(installed, "get", webhooks, "-o", "json")[0])["items"] == []
