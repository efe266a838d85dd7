"""As whom TrainingJobs run, in a namespace of Pod Security `restricted` of a real API server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from clusters import Cluster

from heddle.api.registry import NAMESPACES, PODS, TRAININGJOBS

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def plane(bed: Any) -> Iterator[Any]:
    plane = bed.start(controllers="garbage-collector-controller,namespace-controller")
    try:
        plane.start_kwok()
        yield plane
    finally:
        plane.stop()


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
