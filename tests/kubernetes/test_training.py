"""TrainingJobs on a real node: `heddle run` to the end, with pods that really run and one that is killed."""

import asyncio
import base64
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    with bed.running(controllers=f"{bed.LEAN},node-lifecycle-controller,persistentvolume-binder-controller") as plane:
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
    _claim(cluster, "kept", kept)
    environment = [word for name, value in QUIET.items() for word in ("--env", f"{name}={value}")]
    command = heddle(
        cluster, "run", "--name", "digits", "--namespace", cluster.namespace, "--image", IMAGE,
        "--upload", str(DIGITS), "--gpus", "1", "--nodes", "2", "--volume", "kept:/kept",
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


def _claim(cluster: Cluster, name: str, folder: Path) -> None:
    """A claim of the test's namespace on a volume that is a directory of this machine."""
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    volume = {"capacity": size, "accessModes": modes, "hostPath": {"path": str(folder)}, "storageClassName": ""}
    claim = {"resources": {"requests": size}, "accessModes": modes, "volumeName": name, "storageClassName": ""}
    cluster.plane.create("/api/v1/persistentvolumes", [{"metadata": {"name": name}, "spec": volume}])
    where = f"/api/v1/namespaces/{cluster.namespace}/persistentvolumeclaims"
    cluster.plane.create(where, [{"metadata": {"name": name}, "spec": claim}])


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

    page = await cluster.store.list(CONFIGMAPS, cluster.namespace, label_selector="heddle.dev/training-job=digits")
    owners = {
        one["metadata"]["name"]: one["metadata"]["ownerReferences"][0]["name"] for one in map(json.loads, page.items)
    }
    assert set(owners.values()) == {"digits"}
    assert len([name for name in owners if name.startswith("upload-")]) == 1

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


COUNTS = """
import os, pathlib, signal, sys, time
kept = pathlib.Path(os.environ["HEDDLE_CHECKPOINT_DIR"]) / "step"
step = int(kept.read_text()) if kept.exists() else 0
def leave(number, frame):
    kept.write_text(str(step))
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
print(f"world of {os.environ['WORLD_SIZE']} from step {step}", flush=True)
while True:
    time.sleep(0.05)
    step += 1
"""


async def test_an_elastic_job_grows_and_shrinks_and_goes_on_where_it_was(
    cluster: Cluster, node: Any, tmp_path: Path
) -> None:
    await cluster.queue("default", 1)
    await cluster.queue("owner", 1)
    await cluster.leading(cluster.start())
    await _owner(cluster)
    where = ("--namespace", cluster.namespace)
    command = heddle(
        cluster, "run", "--detach", "--name", "elastic", *where, "--image", IMAGE, "--gpus", "1", "--nodes", "2",
        "--min-nodes", "1", "--volume", f"{tmp_path}:/kept", "--checkpoint", "/kept", "--", "python", "-c", COUNTS,
    )  # fmt: skip
    await asyncio.to_thread(subprocess.run, command, check=True)
    with _followed(cluster, "elastic", tmp_path / "out") as out:
        first = await _world(cluster, out, 1, 1)
        await cluster.store.delete(PODS, "owner", cluster.namespace, grace_period=0)
        grown = await _world(cluster, out, 2, 2)
        await _owner(cluster)
        shrunk = await _world(cluster, out, 1, 2)
        assert 0 == first < grown < shrunk
        status = json.loads(await cluster.store.get(TRAININGJOBS, "elastic", cluster.namespace))["status"]
        assert (status["resizes"], status.get("restarts", 0)) == (2, 0)
        assert "unable to retrieve" not in out.read_text()


@contextmanager
def _followed(cluster: Cluster, name: str, out: Path) -> Iterator[Path]:
    """What `heddle logs -f` prints, as it comes."""
    with out.open("wb") as stdout:
        logs = subprocess.Popen(heddle(cluster, "logs", "-f", name, "--namespace", cluster.namespace), stdout=stdout)
    try:
        yield out
    finally:
        logs.kill()
        logs.wait()
        print(out.read_text(), cluster.logs()[-3000:], sep="\n---\n")


async def _owner(cluster: Cluster) -> None:
    """A pod of the queue whose GPU the elastic job borrows."""
    container = {
        "name": "main", "image": "heddle.test/pause:1", "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }  # fmt: skip
    await cluster.pod("owner", {"heddle.dev/queue": "owner"}, containers=[container])
    await cluster.until_bound(1, "owner")


async def _world(cluster: Cluster, out: Path, size: int, count: int) -> int:
    """The step from which a world of this size went on, once that many members of such worlds have begun."""
    found: list[str] = []

    async def began() -> bool:
        found[:] = re.findall(rf"elastic-\d: world of {size} from step (\d+)", out.read_text())
        return len(found) >= count

    await cluster.until(began, 60)
    return int(found[-1])


async def test_an_upload_whose_job_is_refused_leaves_nothing(cluster: Cluster) -> None:
    command = heddle(
        cluster, "run", "--name", "Bad_Name", "--namespace", cluster.namespace, "--image", IMAGE,
        "--upload", str(DIGITS), "--", "python", "train.py",
    )  # fmt: skip
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Bad_Name" in done.stderr
    page = await cluster.store.list(CONFIGMAPS, cluster.namespace)
    assert not [blob for blob in page.items if json.loads(blob)["metadata"]["name"].startswith("upload-")]


SERVES = """
import http.server, os
address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
print("told of", sorted(name for name in os.environ if name.startswith("HEDDLE_HOSTS")), flush=True)
http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
"""
ASKS = """
import os, time, urllib.request
where = f"http://{os.environ['HEDDLE_ADDRESS_SERVER']}/"
for _ in range(100):
    try:
        status = urllib.request.urlopen(where).status
        break
    except OSError:
        time.sleep(0.1)
print(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} got {status} from {os.environ['HEDDLE_HOSTS_SERVER']}",
      len(os.environ["HEDDLE_HOSTS_WORKER"].split(",")), flush=True)
"""


async def test_roles_start_in_order_find_each_other_and_end_by_the_success_policy(cluster: Cluster, node: Any) -> None:
    await cluster.queue("default", 2)
    await cluster.leading(cluster.start())
    server = {"name": "server", "command": ["python", "-c", SERVES]}
    worker = {
        "name": "worker", "nodes": 2, "after": ["server"], "command": ["python", "-c", ASKS],
        "resourcesPerNode": {"nvidia.com/gpu": 1},
    }  # fmt: skip
    spec = {"image": IMAGE, "successPolicy": {"roles": ["worker"]}, "roles": [server, worker]}
    status, logs = await _finished(cluster, "parts", spec)
    assert (status["phase"], status["message"]) == ("Succeeded", "worker succeeded"), (status, logs)
    pods = {pod["metadata"]["name"]: pod for pod in await cluster.pods()}
    address = pods["parts-server-0"]["status"]["podIP"]
    assert "parts-server-0: told of ['HEDDLE_HOSTS_SERVER']" in logs
    for rank in range(2):
        assert f"parts-worker-{rank}: rank {rank} of 2 got 200 from {address} 2" in logs
    bound = {
        name: next(c["lastTransitionTime"] for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")
        for name, pod in pods.items()
    }
    assert bound["parts-server-0"] <= min(bound["parts-worker-0"], bound["parts-worker-1"])


async def _finished(cluster: Cluster, name: str, spec: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The status of a job that has ended, and its logs."""
    obj = {"apiVersion": "heddle.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}
    await cluster.store.create(TRAININGJOBS, obj, cluster.namespace)

    async def ended() -> bool:
        found = json.loads(await cluster.store.get(TRAININGJOBS, name, cluster.namespace))
        return found.get("status", {}).get("phase") in ("Succeeded", "Failed")

    try:
        await cluster.until(ended, 90)
    finally:
        command = heddle(cluster, "logs", name, "--namespace", cluster.namespace)
        logs = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        told = [(pod["metadata"]["name"], pod["status"].get("containerStatuses")) for pod in await cluster.pods()]
        print(logs.stdout, logs.stderr, json.dumps(told), cluster.logs()[-3000:], sep="\n---\n")
    return json.loads(await cluster.store.get(TRAININGJOBS, name, cluster.namespace))["status"], logs.stdout


TELLS = """
import os, pathlib
print("user", os.getuid(), os.getgid(), "groups", os.getgroups())
print("token", os.environ["TOKEN"], "all", os.environ["PASSWORD"], "plain", os.environ["PLAIN"])
status = pathlib.Path("/proc/self/status").read_text()
print([line for line in status.splitlines() if line.startswith(("NoNewPrivs", "CapBnd"))])
pathlib.Path("/dev/shm/mine").write_text("x")
"""


async def _restricted(cluster: Cluster) -> None:
    """Only pods that Pod Security calls *restricted* may be in the test's namespace."""
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    kubectl = [str(cluster.plane.kubectl), "--kubeconfig", str(cluster.plane.kubeconfig)]
    patch = [*kubectl, "patch", "namespace", cluster.namespace, "--type=merge", "-p", json.dumps(label)]
    await asyncio.to_thread(subprocess.run, patch, check=True, capture_output=True)


async def test_a_job_runs_as_whom_it_says_with_its_secrets_in_a_restricted_namespace(
    cluster: Cluster, node: Any
) -> None:
    await cluster.queue("default", 2)
    await cluster.leading(cluster.start())
    space = f"/api/v1/namespaces/{cluster.namespace}"
    await _restricted(cluster)
    docker = {"auths": {"registry.heddle.test": {"username": "u", "password": "p"}}}
    cluster.plane.create(f"{space}/secrets", [
        {"metadata": {"name": "hub"}, "stringData": {"token": "t0ken", "PASSWORD": "pa$s"}},
        {"metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson",
         "stringData": {".dockerconfigjson": json.dumps(docker)}},
    ])  # fmt: skip
    cluster.plane.create(f"{space}/serviceaccounts", [{"metadata": {"name": "trainer"}}])
    command = heddle(
        cluster, "run", "--name", "identity", "--namespace", cluster.namespace, "--image", IMAGE, "--gpus", "1",
        "--user", "1234:5678", "--secret-env", "TOKEN=hub:token", "--secret-env", "hub", "--env", "PLAIN=$(TOKEN)",
        "--image-pull-secret", "pull", "--service-account", "trainer", "--shm", "1Mi", "--max-restarts", "0",
        "--", "python", "-c", TELLS,
    )  # fmt: skip
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=120)
    print(done.stdout, done.stderr, cluster.logs()[-3000:], sep="\n---\n")
    assert done.returncode == 0
    assert "user 1234 5678 groups [5678]" in done.stdout
    assert "token t0ken all pa$s plain $(TOKEN)" in done.stdout
    assert re.search(r"CapBnd:\\t0+', 'NoNewPrivs:\\t1'", done.stdout), "no way to become root"
    (pod,) = await cluster.pods()
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["spec"]["serviceAccountName"] == "trainer"
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


async def test_a_job_that_does_not_say_as_whom_it_runs_is_told_so_where_that_is_demanded(cluster: Cluster) -> None:
    await cluster.queue("default", 2)
    await cluster.leading(cluster.start())
    await _restricted(cluster)
    spec = {"image": IMAGE, "command": ["true"]}
    obj = {"apiVersion": "heddle.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "root"}, "spec": spec}
    await cluster.store.create(TRAININGJOBS, obj, cluster.namespace)

    async def told() -> bool:
        found = json.loads(await cluster.store.get(TRAININGJOBS, "root", cluster.namespace))
        return "heddle run --user UID:GID" in found.get("status", {}).get("message", "")

    await cluster.until(told, 30)


@contextmanager
def _registry(archive: Path, name: str, user: str, password: str) -> Iterator[str]:
    """A registry on loopback, without TLS, that gives an image to one user only; its name there."""
    blobs = tarfile.open(archive)  # noqa: SIM115 - closed at the end
    index = json.loads(blobs.extractfile("index.json").read())  # type: ignore[union-attr]
    (described,) = index["manifests"]
    known = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, digest = "application/octet-stream", self.path.rpartition("/")[2]
            if self.path.startswith(f"/v2/{name}/manifests/"):
                kind, digest = described["mediaType"], described["digest"]
            try:
                with lock:
                    member = blobs.getmember(f"blobs/sha256/{digest.removeprefix('sha256:')}")
                    content = blobs.extractfile(member).read()  # type: ignore[union-attr]
            except KeyError:
                content = b"{}"
            allowed = self.headers.get("Authorization") == known
            self.send_response(200 if allowed else 401)
            if not allowed:
                content = b"{}"
                self.send_header("WWW-Authenticate", 'Basic realm="heddle"')
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 - the names are http.server's

        def log_message(self, *_: Any) -> None:
            """Nothing: it is no news."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, blobs:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_an_image_that_only_some_may_pull_is_pulled_with_the_jobs_secret(
    cluster: Cluster, node: Any, tmp_path: Path
) -> None:
    import ociimage

    archive = tmp_path / "private.tar"
    await asyncio.to_thread(ociimage.python, archive, "private:1", [])
    await cluster.queue("default", 2)
    await cluster.leading(cluster.start())
    with _registry(archive, "private", "ada", "s3cret") as registry:
        node.trust(registry)
        docker = {"auths": {registry: {"username": "ada", "password": "s3cret"}}}
        cluster.plane.create(f"/api/v1/namespaces/{cluster.namespace}/secrets", [
            {"metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson",
             "stringData": {".dockerconfigjson": json.dumps(docker)}},
        ])  # fmt: skip
        spec = {"image": f"{registry}/private:1", "command": ["python", "-c", "print('pulled')"]}
        without = {"apiVersion": "heddle.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "without"}}
        await cluster.store.create(TRAININGJOBS, without | {"spec": spec}, cluster.namespace)

        async def refused() -> bool:
            found = json.loads(await cluster.store.get(TRAININGJOBS, "without", cluster.namespace))
            return bool(re.match("without-0: .*ImagePull.*no basic auth", found.get("status", {}).get("message", "")))

        await cluster.until(refused, 60)
        status, logs = await _finished(cluster, "with", spec | {"imagePullSecrets": [{"name": "pull"}]})
        assert (status["phase"], logs) == ("Succeeded", "pulled\n")
