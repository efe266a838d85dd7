"""The stock kubectl against embedded heddle."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kubernetes

Kubectl = Callable[..., subprocess.CompletedProcess[str]]

QUEUE = """
apiVersion: heddle.dev/v1alpha1
kind: Queue
metadata: {name: kq}
spec: {quota: {nvidia.com/gpu: 2}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kcm}
data: {a: b}
"""


@pytest.fixture(scope="module")
def kubectl(home: Path, kubectl_binary: Path) -> Kubectl:
    def call(*arguments: str, given: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [
            str(kubectl_binary),
            "--kubeconfig",
            str(home / "kubeconfig"),
            "--cache-dir",
            str(home / "kc"),
            *arguments,
        ]
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    return call


def test_apply_patch_and_delete(kubectl: Kubectl) -> None:
    assert "kq created" in kubectl("apply", "-f", "-", given=QUEUE).stdout
    assert "kq unchanged" in kubectl("apply", "-f", "-", given=QUEUE).stdout
    changed = QUEUE.replace("a: b", "c: d")
    assert "kcm configured" in kubectl("apply", "-f", "-", given=changed).stdout
    assert json.loads(kubectl("get", "cm", "kcm", "-o", "json").stdout)["data"] == {"c": "d"}
    kubectl("patch", "queue", "kq", "--type=merge", "-p", '{"spec":{"weight":3}}')
    assert kubectl("get", "queue", "kq", "-o", "jsonpath={.spec.weight}").stdout == "3"
    kubectl("wait", "--for=condition=Ready", "queue/kq", "--timeout=20s")
    kubectl("delete", "queue/kq", "cm/kcm")
    assert kubectl("get", "queue", "kq", check=False).returncode == 1


def test_get_shows_tables(kubectl: Kubectl) -> None:
    nodes = kubectl("get", "nodes").stdout.splitlines()
    assert nodes[0].split() == ["NAME", "STATUS", "GPUS", "PRODUCT", "AGE"]
    assert any(line.startswith("sim-0") and " 8 " in line for line in nodes)
    assert "VERSION" in kubectl("get", "nodes", "-o", "wide").stdout


def test_describe_explain_and_api_resources(kubectl: Kubectl) -> None:
    assert "Quota" in kubectl("describe", "queue", "default").stdout or "Spec" in kubectl("describe", "hq").stdout
    assert "Owed before any surplus" in kubectl("explain", "queue.spec.quota").stdout
    assert "trainingjobs" in kubectl("api-resources").stdout


def test_logs_follow_a_running_pod(kubectl: Kubectl, heddle: Any) -> None:
    made = heddle(
        "run", "--detach", "--name", "talk", "--", "sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.2; done"
    )
    assert made.returncode == 0
    kubectl("wait", "--for=condition=Complete", "trainingjob/talk", "--timeout=30s")
    assert kubectl("logs", "-f", "talk-0").stdout.split("\n")[:3] == ["line 1", "line 2", "line 3"]
    assert kubectl("logs", "--tail=1", "talk-0").stdout.strip() == "line 3"
    assert "line 1" in kubectl("logs", "--since=1h", "talk-0").stdout
    assert kubectl("logs", "--previous", "talk-0", check=False).returncode == 1


def test_a_watch_sees_changes(kubectl: Kubectl, heddle: Any) -> None:
    done = kubectl("get", "nodes", "-w", "--request-timeout=1s", check=False)
    assert "sim-0" in done.stdout


def test_server_side_apply_is_refused_by_name(kubectl: Kubectl) -> None:
    done = kubectl("apply", "--server-side", "-f", "-", given=QUEUE, check=False)
    assert done.returncode == 1
    assert "server-side apply is not supported" in done.stderr.lower()


def test_a_wrong_token_and_a_large_body_are_refused(kubectl: Kubectl) -> None:
    done = kubectl("--token", "wrong", "get", "nodes", check=False)
    assert "Unauthorized" in done.stderr or "logged in" in done.stderr
    large = QUEUE + f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata: {{a: {'x' * 4_000_000}}}\n"
    done = kubectl("create", "-f", "-", given=large, check=False)
    assert done.returncode == 1
    assert "over the limit" in done.stderr
