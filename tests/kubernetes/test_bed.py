"""The cluster that tests of the Kubernetes side run in: kwok's nodes, the stock scheduler, the stock controllers."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def cluster(inhabited: Any) -> Any:
    return inhabited


def kubectl(plane: Any, *arguments: str, given: str = "") -> str:
    command = [str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(plane: Any, *arguments: str) -> Any:
    return json.loads(kubectl(plane, "get", *arguments, "-o", "json"))


def eventually(told: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def pod(name: str, node: str = "", gpus: int = 1, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    wants = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "spec": {
            "containers": [{"name": "main", "image": "none", "resources": wants}],
            **({"nodeName": node} if node else {}),
        },
    }


def create(plane: Any, *pods: dict[str, Any]) -> None:
    kubectl(plane, "wait", "--for=create", "--timeout=20s", "serviceaccount/default")
    plane.create("/api/v1/namespaces/default/pods", pods)


def test_a_fake_node_goes_ready_with_its_gpus(cluster: Any) -> None:
    kubectl(cluster, "wait", "--for=condition=Ready", "--timeout=20s", "node/fake-0", "node/fake-1")
    node = get(cluster, "node", "fake-0")
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"


def test_a_bound_pod_runs_and_a_deleted_one_is_gone(cluster: Any) -> None:
    create(cluster, pod("bound", node="fake-0"))
    kubectl(cluster, "wait", "--for=condition=Ready", "--timeout=20s", "pod/bound")
    found = get(cluster, "pod", "bound")
    assert found["status"]["phase"] == "Running"
    assert found["status"]["podIP"]
    kubectl(cluster, "delete", "pod", "bound", "--timeout=20s")


@pytest.mark.parametrize(("code", "phase"), [("0", "Succeeded"), ("3", "Failed")])
def test_a_pod_ends_when_and_how_its_annotations_say(cluster: Any, code: str, phase: str) -> None:
    name = f"ends-{code}"
    annotations = {"kwok.heddle.dev/runs-for": "100ms", "kwok.heddle.dev/exit-code": code}
    create(cluster, pod(name, node="fake-0", annotations=annotations))
    kubectl(cluster, "wait", f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=20s", f"pod/{name}")
    status = get(cluster, "pod", name)["status"]
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == int(code)


def test_an_annotation_takes_a_node_down_and_up(cluster: Any) -> None:
    kubectl(cluster, "annotate", "node", "fake-1", "kwok.heddle.dev/down=yes")
    kubectl(cluster, "wait", "--for=condition=Ready=false", "--timeout=20s", "node/fake-1")
    kubectl(cluster, "annotate", "node", "fake-1", "kwok.heddle.dev/down-")
    kubectl(cluster, "wait", "--for=condition=Ready", "--timeout=20s", "node/fake-1")


def test_the_stock_scheduler_binds_what_fits(cluster: Any) -> None:
    kubectl(cluster, "wait", "--for=condition=Ready", "--timeout=20s", "node/fake-0", "node/fake-1")
    create(cluster, pod("fits", gpus=8), pod("too-large", gpus=9))
    kubectl(cluster, "wait", "--for=condition=Ready", "--timeout=30s", "pod/fits")
    kubectl(cluster, "wait", "--for=condition=PodScheduled=false", "--timeout=30s", "pod/too-large")
    assert get(cluster, "pod", "fits")["spec"]["nodeName"].startswith("fake-")
    kubectl(cluster, "delete", "pod", "fits", "too-large", "--timeout=20s")


def test_the_stock_controllers_make_pods_of_a_deployment(cluster: Any) -> None:
    kubectl(cluster, "create", "deployment", "web", "--image=none", "--replicas=2")
    eventually(lambda: len(get(cluster, "pods", "-l", "app=web")["items"]) == 2)
    found = get(cluster, "pods", "-l", "app=web")["items"]
    assert {p["metadata"]["ownerReferences"][0]["kind"] for p in found} == {"ReplicaSet"}
    assert {p["spec"]["serviceAccountName"] for p in found} == {"default"}
    kubectl(cluster, "delete", "deployment", "web", "--cascade=foreground", "--timeout=30s")


def test_logs_tell_what_a_program_wrote(cluster: Any) -> None:
    assert "Watch nodes" in cluster.logs("kwok")


def test_a_refused_object_is_told_not_lost(bed: Any, cluster: Any) -> None:
    with pytest.raises(RuntimeError, match="409"):
        cluster.create("/api/v1/nodes", bed.gpu_nodes(1, prefix="fake"))


def test_make_kube_leaves_nothing(bed: Any, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, bed.__file__, "kube"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        try:
            assert process.stdout is not None
            said = "".join(itertools.takewhile(lambda line: "Ctrl-C" not in line, process.stdout))
            config = next(line.split("=", 1)[1] for line in said.splitlines() if line.startswith("export KUBECONFIG="))
            command = [
                str(bed.build() / "kubectl"),
                "--kubeconfig",
                config,
                "get",
                "queues.heddle.dev,nodes",
                "-o",
                "name",
            ]
            names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
            assert names == [f"node/gpu-{index}" for index in range(4)]
        finally:
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)  # the impatient do not stop it from cleaning up
            assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert [command for command in commands if str(tmp_path) in command] == []
