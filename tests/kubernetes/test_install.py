"""`heddle install` on a real cluster: plan, question, installation, change, removal."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clusters import Kubectl
from typer.testing import CliRunner

from heddle.cli.__main__ import app

pytestmark = pytest.mark.kubernetes

Everything = Callable[[Any], set[str]]
JOB = {
    "apiVersion": "heddle.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "running", "namespace": "default"},
    "spec": {"command": ["true"]},
}


class Cluster(Kubectl):
    def __init__(self, plane: Any) -> None:
        self.plane = plane

    def install(self, *arguments: str, code: int = 0) -> str:
        """What the command prints; on failure what it complains of."""
        done = CliRunner().invoke(app, ["install", "--kubeconfig", str(self.plane.kubeconfig), *arguments])
        assert done.exit_code == code, done.output
        return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def cluster(inhabited: Any) -> Cluster:
    return Cluster(inhabited)


# What follows is one life of an installation: each test takes up where the one before it ends.


@pytest.fixture(scope="module")
def before(cluster: Cluster, everything: Everything) -> set[str]:
    """What there was before heddle."""
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", "kube-node-lease", "--timeout=20s")
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", "kube-public", "--timeout=20s")
    return everything(cluster.plane)


def test_a_dry_run_prints_the_plan_and_changes_nothing(
    cluster: Cluster, before: set[str], everything: Everything
) -> None:
    plan = cluster.install("--dry-run")
    assert "  create     Deployment heddle-system/heddle-controller\n" in plan
    assert "  create     Queue default\n" in plan
    assert everything(cluster.plane) == before


def test_off_a_terminal_nothing_is_done_without_yes(cluster: Cluster, before: set[str], everything: Everything) -> None:
    assert "say --yes" in cluster.install(code=2)
    assert everything(cluster.plane) == before


def test_installed_the_controllers_start_on_different_hosts_under_the_strictest_pod_rules(
    cluster: Cluster, before: set[str]
) -> None:
    cluster.install("--yes")
    labels = cluster.get("namespace", "heddle-system")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    cluster.kubectl("-n", "heddle-system", "rollout", "status", "deployment/heddle-controller", "--timeout=30s")
    pods = cluster.get("pods", "-n", "heddle-system")["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {"fake-0", "fake-1"}
    assert cluster.get("queue", "default")


def test_the_api_server_finds_no_fault_in_the_policies(cluster: Cluster) -> None:
    def policies() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cluster.get("validatingadmissionpolicies")["items"]
        return found

    end = time.monotonic() + 30
    while not all(policy.get("status", {}).get("observedGeneration") for policy in policies()):
        assert time.monotonic() < end, "types are not checked"
        time.sleep(0.2)
    assert len(policies()) == 5
    warned = {p["metadata"]["name"]: p["status"].get("typeChecking", {}).get("expressionWarnings") for p in policies()}
    assert {name: warnings for name, warnings in warned.items() if warnings} == {}


def test_installed_again_nothing_changes(cluster: Cluster) -> None:
    kinds = "crd,clusterrole,role,serviceaccount,deployment,service,validatingadmissionpolicy,queue"

    def versions() -> dict[str, str]:
        items = cluster.get(kinds, "-A", "-l", "app.kubernetes.io/part-of=heddle")["items"]
        return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in items}

    old = versions()
    assert "nothing to do: heddle 0.1.0 is installed" in cluster.install("--yes")
    assert versions() == old


def test_a_change_says_what_changes_and_keeps_what_runs(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubectl("create", "-f", "-", given=JOB)
    cluster.kubectl("patch", "queue", "default", "--type=merge", "-p", '{"spec":{"weight":5}}')
    uids = {kind: cluster.get(*kind)["metadata"]["uid"] for kind in (("queue", "default"), ("trainingjob", "running"))}
    values = tmp_path / "values.yaml"
    values.write_text("replicas: 1\nnodeSelector: {kubernetes.io/os: linux}\n")
    said = cluster.install("--yes", "--values", str(values), "--set", "replicas=3")
    assert (
        "  change     Deployment heddle-system/heddle-controller  (spec.replicas, spec.template.spec.nodeSelector)\n"
        in said
    )
    assert "1 change" in said
    spec = cluster.get("deployment", "heddle-controller", "-n", "heddle-system")["spec"]
    assert spec["replicas"] == 3
    assert spec["template"]["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert {kind: cluster.get(*kind)["metadata"]["uid"] for kind in uids} == uids
    assert cluster.get("queue", "default")["spec"]["weight"] == 5


def test_what_was_tampered_with_is_mended_and_what_an_earlier_heddle_left_goes(cluster: Cluster) -> None:
    rules = '[{"op":"add","path":"/rules/0","value":{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}}]'
    cluster.kubectl("patch", "clusterrole", "heddle-controller", "--type=json", "-p", rules)
    cluster.kubectl("create", "clusterrole", "heddle-former", "--verb=get", "--resource=pods")
    cluster.kubectl("label", "clusterrole", "heddle-former", "app.kubernetes.io/managed-by=heddle-install")
    said = cluster.install("--yes", "--set", "replicas=3", "--set", r"nodeSelector.kubernetes\.io/os=linux")
    assert "  change     ClusterRole heddle-controller  (rules)\n" in said
    assert "  delete     ClusterRole heddle-former\n" in said
    assert not [r for r in cluster.get("clusterrole", "heddle-controller")["rules"] if "secrets" in r["resources"]]
    assert "clusterrole/heddle-former" not in cluster.kubectl("get", "clusterroles", "-o", "name")


def test_what_helm_looks_after_is_left_to_helm(cluster: Cluster) -> None:
    label = ("label", "--overwrite", "serviceaccount", "heddle-controller", "-n", "heddle-system")
    cluster.kubectl(*label, "app.kubernetes.io/managed-by=Helm")
    assert "helm upgrade heddle" in cluster.install("--yes", code=1)
    cluster.kubectl(*label, "app.kubernetes.io/managed-by=heddle-install")


def test_removed_with_definitions_kept_the_jobs_stay_and_are_taken_up_again(cluster: Cluster) -> None:
    uid = cluster.get("trainingjob", "running")["metadata"]["uid"]
    cluster.install("--uninstall", "--keep-crds", "--yes")
    assert cluster.get("deployments", "-n", "heddle-system")["items"] == []
    assert cluster.get("queue", "default")["spec"]["weight"] == 5
    cluster.install("--yes")
    assert cluster.get("trainingjob", "running")["metadata"]["uid"] == uid


def test_removed_it_leaves_nothing(cluster: Cluster, before: set[str], everything: Everything) -> None:
    said = cluster.install("--uninstall", "--yes")
    assert "with their definitions go: 1 TrainingJob, 1 Queue" in said
    assert everything(cluster.plane) == before
    assert "nothing to do" in cluster.install("--uninstall", "--yes")


def test_a_namespace_that_was_there_before_stays_its_owners(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "heddle-system")
    without = ("--set", "crds.install=false", "--set", "defaultQueue.enabled=false")
    assert "  unchanged  Namespace heddle-system\n" in cluster.install("--yes", *without)
    assert "CustomResourceDefinition" not in cluster.install("--uninstall", "--yes")
    assert cluster.get("namespace", "heddle-system")["status"]["phase"] == "Active"
