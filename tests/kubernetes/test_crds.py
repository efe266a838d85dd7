"""heddle's kinds on a real API server."""

import json
import subprocess
from typing import Any

import pytest

import heddle
from heddle.api import crd
from heddle.api.errors import Invalid

pytestmark = pytest.mark.kubernetes


def kubectl(plane: Any, *arguments: str, given: str = "") -> str:
    command = [str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(plane: Any, kind: str, name: str, spec: dict[str, Any]) -> str:
    """What a change of `spec` is told; "" = it is made."""
    command = [str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig), "patch", kind, name, "--type=merge", "-p"]
    done = subprocess.run(
        [*command, json.dumps({"spec": spec})], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stderr


def test_the_versions_are_stamped(controlplane: Any) -> None:
    told = json.loads(kubectl(controlplane, "version", "-o", "json"))
    assert told["clientVersion"]["gitVersion"] == told["serverVersion"]["gitVersion"] == "v1.36.3"


@pytest.mark.parametrize("manifest", crd.manifests(), ids=lambda m: m["spec"]["names"]["plural"])
def test_a_definition_is_accepted_and_established(controlplane: Any, manifest: dict[str, Any]) -> None:
    kubectl(controlplane, "apply", "--server-side", "-f", "-", given=json.dumps(manifest))
    name = f"crd/{manifest['metadata']['name']}"
    kubectl(controlplane, "wait", "--for=condition=Established", "--timeout=30s", name)
    conditions = json.loads(kubectl(controlplane, "get", name, "-o", "json"))["status"]["conditions"]
    assert not [c for c in conditions if c["type"] == "NonStructuralSchema"]


def test_a_definition_refuses_to_change_what_pods_are_made_of(controlplane: Any) -> None:
    for manifest in crd.manifests():
        kubectl(controlplane, "apply", "--server-side", "-f", "-", given=json.dumps(manifest))
    kubectl(controlplane, "wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
    job = {
        "command": ["python", "train.py"], "nodes": 4, "minNodes": 2, "resourcesPerNode": {"nvidia.com/gpu": 8},
        "env": [{"name": "A", "value": "b"}], "priority": 1, "walltimeSeconds": 60,
    }  # fmt: skip
    work = {"queue": "default", "podSets": [{"name": "a", "count": 2, "resources": {"cpu": "500m"}}]}
    for kind, spec in (("TrainingJob", job), ("Workload", work)):
        obj = {"apiVersion": "heddle.dev/v1alpha1", "kind": kind, "metadata": {"name": "fixed"}, "spec": spec}
        kubectl(controlplane, "create", "-f", "-", given=json.dumps(obj))
    changes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("nodes", {"nodes": 5}),
        ("minNodes", {"minNodes": None}),
        ("command", {"command": ["sh"]}),
        ("resourcesPerNode", {"resourcesPerNode": {"nvidia.com/gpu": 4}}),
        ("env", {"env": None}),
        ("checkpoint", {"checkpoint": {"path": "/kept"}}),
        ("podLabels", {"podLabels": {"app": "x"}}),
        ("exclusive", {"exclusive": True}),
        ("roles", {"roles": [{"name": "a", "command": ["true"]}]}),
    )
    for field, change in changes:
        told = refused(controlplane, "trainingjob", "fixed", change)
        assert f"spec.{field}: Invalid value" in told, field
        assert f"{field} is immutable: pods are made of it; delete the job and submit it anew" in told
    told = refused(controlplane, "workload", "fixed", {"podSets": [{"name": "a", "count": 3}]})
    assert "podSets is immutable" in told
    edits = {"priority": 7, "walltimeSeconds": None, "gangGraceSeconds": 5, "maxRestarts": 9, "nodes": 4}
    assert refused(controlplane, "trainingjob", "fixed", edits) == ""
    assert refused(controlplane, "workload", "fixed", {"queue": "other", "gangGraceSeconds": 5}) == ""


def test_apply_says_what_it_would_change_and_refuses_what_the_server_would_prune(controlplane: Any) -> None:
    for manifest in crd.manifests():
        kubectl(controlplane, "apply", "--server-side", "-f", "-", given=json.dumps(manifest))
    kubectl(controlplane, "wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
    queue = {"apiVersion": "heddle.dev/v1alpha1", "kind": "Queue", "metadata": {"name": "applied"}, "spec": {}}
    wider, wrong = ({**queue, "spec": spec} for spec in ({"weight": 2}, {"wieght": 2}))
    with heddle.Client(kubeconfig=controlplane.kubeconfig) as client:
        assert [client.apply(queue, dry_run=True)[1], client.apply(queue)[1]] == ["created", "created"]
        assert [client.apply(wider, dry_run=True)[1], client.apply(wider)[1]] == ["configured", "configured"]
        assert [client.apply(wider, dry_run=True)[1], client.apply(wider)[1]] == ["unchanged", "unchanged"]
        for name in ("applied", "new"):
            with pytest.raises(Invalid, match=r"spec\.wieght: unknown field; did you mean weight\?$"):
                client.apply({**wrong, "metadata": {"name": name}})
        client.delete("queue", "applied")
