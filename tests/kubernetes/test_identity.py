"""As whom programs run on a real API server: under Pod Security `restricted`, and with rights of their own."""

import base64
import json
import re
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import Cluster

from heddle.api.registry import NAMESPACES, PODS, TRAININGJOBS
from heddle.api.workload import CHECKPOINT_ANNOTATION

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]


def run(cluster: Cluster, name: str, *options: str) -> None:
    command = [
        sys.executable, "-m", "heddle.cli", "--kubeconfig", str(cluster.kubeconfig), "run", "-n", cluster.namespace,
        "--image", "none", "--name", name, "--gpus", "1", *options, "--detach", "--", "true",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)


async def test_a_job_that_is_not_root_runs_under_pod_security_restricted_and_another_learns_how(
    cluster: Cluster, bed: Any
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await cluster.store.patch(NAMESPACES, cluster.namespace, {"metadata": {"labels": labels}})
    await cluster.nodes(bed.gpu_nodes(1))
    await cluster.queue("default", 8)
    cluster.start()
    run(cluster, "root")
    run(
        cluster, "user", "--user", "1000:100", "--service-account", "default", "--image-pull-secret", "registry",
        "--secret-env", "TOKEN=hub:token", "--secret-env", "s3",
    )  # fmt: skip
    await cluster.until_bound(1)
    pod = json.loads(await cluster.store.get(PODS, "user-0", cluster.namespace))
    (container,) = pod["spec"]["containers"]
    secret = {"name": "hub", "key": "token"}
    assert {"name": "TOKEN", "valueFrom": {"secretKeyRef": secret}} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]

    async def told() -> bool:
        job = json.loads(await cluster.store.get(TRAININGJOBS, "root", cluster.namespace))
        message = job.get("status", {}).get("message", "")
        return "violates PodSecurity" in message and "heddle run --user UID:GID" in message

    await cluster.until(told)
    assert list(await cluster.bound()) == ["user-0"]


async def test_a_program_tells_of_its_checkpoint_as_the_documentation_says_and_can_do_no_more(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = cluster.namespace

    def kubectl(*words: str) -> str:
        command = [str(cluster.plane.kubectl), "--kubeconfig", str(cluster.kubeconfig), "-n", space, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    text = (Path(__file__).parents[2] / "docs" / "yielding.md").read_text()
    for line in re.findall(r"^kubectl (create .*)$", text, re.MULTILINE):
        kubectl(*line.replace("default:", f"{space}:").split())
    for name in ("train-0", "train-1"):
        await cluster.pod(name, serviceAccountName="train")
    (connection,) = [each["cluster"] for each in yaml.safe_load(cluster.kubeconfig.read_text())["clusters"]]
    authority = connection.get("certificate-authority-data")
    given = base64.b64decode(authority) if authority else Path(connection["certificate-authority"]).read_bytes()
    (tmp_path / "ca.crt").write_bytes(given)
    (tmp_path / "token").write_text(kubectl("create", "token", "train").strip())
    (tmp_path / "namespace").write_text(space)
    (source,) = re.findall(r"```python\n(import datetime.*?)```", text, re.DOTALL)
    source = source.replace("/var/run/secrets/kubernetes.io/serviceaccount/", f"{tmp_path}/")
    program: dict[str, Any] = {}
    exec(source.replace("https://kubernetes.default.svc", connection["server"]), program)
    monkeypatch.setenv("HEDDLE_POD", "train-0")
    program["saved"]()
    pod = json.loads(await cluster.store.get(PODS, "train-0", space))
    assert pod["metadata"]["annotations"][CHECKPOINT_ANNOTATION]
    monkeypatch.setenv("HEDDLE_POD", "train-1")
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        program["saved"]()
    refused.value.close()
