"""The real node of the test bed: pods really run on it, and it leaves nothing on the machine."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import Kubectl

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]

IMAGE = "heddle.test/python:1"


def eventually(told: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


class Realm(Kubectl):
    """A cluster with one real node, by kubectl."""

    def __init__(self, plane: Any, node: Any) -> None:
        self.plane, self.node = plane, node

    def pod(self, name: str, program: str, **spec: Any) -> None:
        """Run a program of Python's on the node."""
        container = {"name": "main", "image": IMAGE, "command": ["python", "-u", "-c", program], **spec}
        body = {"nodeName": self.node.name, "restartPolicy": "Never", "containers": [container]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}
        self.kubectl("create", "-f", "-", given=pod)

    def phase(self, name: str) -> str:
        """Of a pod."""
        return str(self.get("pod", name)["status"].get("phase"))


@pytest.fixture(scope="module")
def realm(bed: Any, real: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    import ociimage

    archive = tmp_path_factory.mktemp("image") / "python.tar"
    ociimage.python(archive, IMAGE, [])
    with bed.running(controllers=bed.REALISTIC, service_accounts=True) as plane, real.running(plane, gpus=2) as node:
        node.load(archive)
        archive.unlink()
        found = Realm(plane, node)
        found.kubectl("wait", "--for=create", "--timeout=20s", "serviceaccount/default")
        yield found


def test_a_pod_really_runs_and_its_log_comes_through_the_api_server(realm: Realm) -> None:
    realm.pod("says", "import socket; print('at', socket.gethostbyname(socket.gethostname())); exit(3)")
    eventually(lambda: realm.phase("says") == "Failed")
    status = realm.get("pod", "says")["status"]
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert realm.kubectl("logs", "says") == f"at {status['podIP']}\n"


def test_pods_reach_each_other_by_address(realm: Realm) -> None:
    realm.pod(
        "serves",
        "import socket; s = socket.create_server(('', 8000)); c, _ = s.accept(); c.sendall(b'hello'); c.close()",
    )
    eventually(lambda: realm.phase("serves") == "Running")
    address = realm.get("pod", "serves")["status"]["podIP"]
    realm.pod("calls", f"import socket; print(socket.create_connection(('{address}', 8000), 20).recv(9).decode())")
    eventually(lambda: realm.phase("calls") == "Succeeded")
    assert realm.kubectl("logs", "calls") == "hello\n"


def test_the_gpus_that_were_offered_are_counted(realm: Realm) -> None:
    realm.pod("one", "import time; time.sleep(600)", resources={"limits": {"nvidia.com/gpu": "2"}})
    eventually(lambda: realm.phase("one") == "Running")
    realm.pod("more", "print()", resources={"limits": {"nvidia.com/gpu": "1"}})
    eventually(lambda: realm.phase("more") == "Failed")
    assert realm.get("pod", "more")["status"]["reason"] == "OutOfnvidia.com/gpu"
    realm.kubectl("delete", "pod", "one", "more", "--grace-period=1", "--timeout=30s")


def test_a_killed_process_of_a_pod_is_told(realm: Realm) -> None:
    realm.pod("dies", "import time; time.sleep(600)")
    eventually(lambda: realm.phase("dies") == "Running")
    (process,) = realm.node.processes("dies")
    os.kill(process, signal.SIGKILL)
    eventually(lambda: realm.phase("dies") == "Failed")
    status = realm.get("pod", "dies")["status"]["containerStatuses"][0]
    assert status["state"]["terminated"]["exitCode"] == 137


def traces(folder: str) -> list[str]:
    """What is there of a node on this machine, but for its folder."""
    name = Path(folder).name
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{name}")]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return groups + mounts + [command for command in commands if name in command]


def interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def settings() -> dict[str, str]:
    paths = [*Path("/proc/sys/vm").glob("overcommit*"), *Path("/proc/sys/kernel").glob("panic*")]
    paths += [*Path("/proc/sys/kernel/keys").iterdir(), Path("/proc/sys/net/ipv4/ip_forward")]
    return {str(path): path.read_text() for path in paths}


def pause(realm: Realm, name: str) -> None:
    """A pod that does nothing, on the node of its name."""
    container = {"name": "main", "image": "heddle.test/pause:1"}
    pod = {"metadata": {"name": name}, "spec": {"nodeName": name, "containers": [container]}}
    realm.kubectl("create", "-f", "-", given={"apiVersion": "v1", "kind": "Pod"} | pod)
    eventually(lambda: realm.phase(name) == "Running")


def test_a_node_leaves_nothing(bed: Any, real: Any, realm: Realm) -> None:
    before, known = (interfaces(), settings()), {str(path) for path in Path("/var/lib").iterdir()}
    with real.running(realm.plane, "brief") as node:
        folder = str(node.folder)
        assert traces(folder)
        pause(realm, "brief")
        assert interfaces() - before[0]
    assert traces(folder) == []
    assert not Path(folder).exists()
    eventually(lambda: (interfaces(), settings()) == before, 5)
    assert {str(path) for path in Path("/var/lib").iterdir()} == known
    realm.kubectl("delete", "pod", "brief", "--force", "--grace-period=0")
    realm.kubectl("delete", "node", "brief")


def test_what_a_killed_starter_leaves_goes_with_the_next_start(real: Any, realm: Realm) -> None:
    before = interfaces()
    reading, writing = os.pipe()
    starter = os.fork()
    if starter == 0:
        try:
            node = real.start(realm.plane, "orphan")
            os.write(writing, json.dumps(str(node.folder)).encode())
            time.sleep(600)
        finally:
            os._exit(1)
    os.close(writing)
    folder = json.loads(os.read(reading, 1000) or "null")
    os.close(reading)
    assert folder, "the node did not start"
    pause(realm, "orphan")
    assert [line for line in traces(folder) if "shim" in line]
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    eventually(lambda: not [command for command in traces(folder) if "kubelet" in command], 20)
    assert Path(folder).exists()
    real.sweep()
    assert not Path(folder).exists()
    assert traces(folder) == []
    assert realm.node.folder.exists(), "one that runs is left alone"
    eventually(lambda: interfaces() == before, 5)
    realm.kubectl("delete", "pod", "orphan", "--force", "--grace-period=0")
    realm.kubectl("delete", "node", "orphan")
