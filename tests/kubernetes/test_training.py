"""TrainingJobs on a real node: `heddle run` to the end, with pods that really run and one that is killed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster

from heddle.api.registry import CONFIGMAPS, PODS, TRAININGJOBS

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(300)]

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
IMAGE = "heddle.test/digits:1"
QUIET = {  # two cores for two processes
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@pytest.fixture(scope="module")
def plane(bed: Any) -> Iterator[Any]:
    with bed.running(controllers=f"{bed.LEAN},node-lifecycle-controller") as plane:
        yield plane


@pytest.fixture(scope="module")
def node(plane: Any, real: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real node with two GPUs that are not there, and the image of the digits training."""
    import ociimage

    archive = tmp_path_factory.mktemp("image") / "digits.tar"
    ociimage.python(archive, IMAGE, ["jax", "scikit-learn"])
    with real.running(plane, gpus=2) as node:
        node.load(archive)
        archive.unlink()
        yield node


def heddle(cluster: Cluster, *words: str) -> list[str]:
    return [sys.executable, "-m", "heddle.cli", "--kubeconfig", str(cluster.plane.kubeconfig), *words]


@pytest.fixture
def training(cluster: Cluster, node: Any, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """`heddle run` of the digits as a gang of two pods, what it prints, and the directory that outlives pods."""
    kept, out = tmp_path / "kept", tmp_path / "out"
    kept.mkdir()
    environment = [word for name, value in QUIET.items() for word in ("--env", f"{name}={value}")]
    command = heddle(
        cluster, "run", "--name", "digits", "--namespace", cluster.namespace, "--image", IMAGE,
        "--upload", str(DIGITS), "--gpus", "1", "--nodes", "2", "--volume", f"{kept}:/kept",
        "--checkpoint", "/kept/digits", "--grace", "5s", *environment, "--",
        "python", "train.py", "--steps", "100", "--until-file", "/kept/finish",
    )  # fmt: skip
    with out.open("wb") as stdout:
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stdout)
    try:
        yield run, out, kept
    finally:
        run.kill()
        run.wait()
        print(out.read_text(), cluster.logs()[-3000:], node.logs("kubelet")[-3000:], sep="\n---\n")


async def test_the_digits_train_as_a_gang_of_two_pods_and_resume_after_a_kill(
    cluster: Cluster, node: Any, training: tuple[subprocess.Popen[bytes], Path, Path]
) -> None:
    run, out, kept = training
    await cluster.queue("default", 2)
    await cluster.leading(cluster.start())
    await _story(cluster, node, kept, out)
    assert await asyncio.to_thread(run.wait, 60) == 0
    assert "digits-0: finished at step" in out.read_text()
    command = heddle(cluster, "logs", "digits", "--namespace", cluster.namespace)
    logs = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert re.search(r"digits-0: finished at step \d+: held-out accuracy \d+", logs.stdout)


async def _story(cluster: Cluster, node: Any, kept: Path, out: Path) -> None:
    async def job() -> Any:
        return json.loads(await cluster.store.get(TRAININGJOBS, "digits", cluster.namespace))

    async def trains() -> bool:
        return bool(re.search(r"digits-0: checkpoint at step \d{3}", out.read_text()))

    await cluster.until(trains, 120)
    first = {pod["metadata"]["name"]: pod for pod in await cluster.pods()}
    assert set(first) == {"digits-0", "digits-1"}
    assert [pod["spec"]["subdomain"] for pod in first.values()] == ["digits", "digits"]
    service = json.loads(await cluster.store.read(f"/api/v1/namespaces/{cluster.namespace}/services/digits"))
    assert service["spec"]["clusterIP"] == "None"
    world = json.loads(await cluster.store.get(CONFIGMAPS, "digits-rendezvous", cluster.namespace))["data"]
    assert world["address"] == first["digits-0"]["status"]["podIP"]

    (victim,) = await asyncio.to_thread(node.processes, "digits-1", cluster.namespace)
    os.kill(victim, signal.SIGKILL)

    async def resumed() -> bool:
        return bool(re.search(r"digits-0: resumed at step \d+", out.read_text()))

    await cluster.until(resumed, 120)
    step = int(re.findall(r"resumed at step (\d+)", out.read_text())[-1])
    before = [int(found) for found in re.findall(r"checkpoint at step (\d+)", out.read_text().split("resumed")[0])]
    assert step == max(before) >= 100
    status = (await job())["status"]
    assert (status["restarts"], status.get("resizes", 0)) == (1, 0)
    second = {pod["metadata"]["name"]: pod for pod in await cluster.pods()}
    assert all(second[name]["metadata"]["uid"] != first[name]["metadata"]["uid"] for name in first)

    (kept / "finish").touch()

    async def ended() -> bool:
        return (await job())["status"]["phase"] == "Succeeded"

    await cluster.until(ended, 60)
    page = await cluster.store.list(PODS, cluster.namespace)
    assert {json.loads(blob)["status"]["phase"] for blob in page.items} == {"Succeeded"}
