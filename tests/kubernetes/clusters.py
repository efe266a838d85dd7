"""A real cluster with fake nodes for tests of the controller: objects in, objects out, and heddle as processes."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from heddle.api.crd import manifests
from heddle.api.errors import AlreadyExists, ApiError
from heddle.api.registry import NAMESPACES, NODES, PODS, QUEUES, Resource
from heddle.store.kubernetes import KubernetesStore

CRDS = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)
JOBS = Resource("batch", "v1", "Job", "jobs", True)
ACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts", True)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles", True)
BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", True)
BUDGETS = Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True)


class Kubectl:
    """A control plane by the stock kubectl."""

    plane: Any

    def kubectl(self, *arguments: str, given: Any = None) -> str:
        """What it prints; `given` is its input, as JSON."""
        command = [str(self.plane.kubectl), "--kubeconfig", str(self.plane.kubeconfig), *arguments]
        text = "" if given is None else json.dumps(given)
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Objects as decoded JSON."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))


class Cluster:
    """Calls against the API server, and controllers that run as processes."""

    def __init__(self, plane: Any, folder: Path) -> None:
        self.plane, self._folder = plane, folder
        self.store = KubernetesStore.from_config(plane.kubeconfig)
        self.namespace = f"t-{uuid.uuid4().hex[:8]}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._others: set[str] | None = None
        """Nodes that were there before the test."""
        self.kubeconfig = Path(plane.kubeconfig)
        """By which the controllers reach the API server."""

    async def prepare(self) -> None:
        """heddle's definitions and the namespaces."""
        for definition in manifests():
            await self.ensure(CRDS, definition)
        for name in ("heddle-system", self.namespace):
            await self.ensure(NAMESPACES, {"metadata": {"name": name}})
        await self.until(lambda: self._served(), 20)
        if self._others is None:
            self._others = set(await self._names(NODES))

    async def _served(self) -> bool:
        try:
            await self.store.list(QUEUES)
        except ApiError:
            return False
        return True

    async def close(self) -> None:
        """Stop the controllers and remove what the test made."""
        await self.stop()
        for pod in await self.pods():
            await self.store.delete(PODS, pod["metadata"]["name"], self.namespace, grace_period=0)
        for resource in (NODES, QUEUES):
            for name in await self._names(resource):
                if resource is not NODES or name not in (self._others or ()):
                    await self.store.delete(resource, name)
        await self.store.delete(NAMESPACES, self.namespace)
        await self.store.close()

    async def stop(self) -> None:
        """Stop the controllers."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            await asyncio.to_thread(process.wait, 15)

    async def _names(self, resource: Resource) -> list[str]:
        page = await self.store.list(resource)
        return [json.loads(blob)["metadata"]["name"] for blob in page.items]

    async def ensure(self, r: Resource, obj: dict[str, Any], namespace: str = "") -> None:
        """Create what is not there."""
        with contextlib.suppress(AlreadyExists):
            await self.store.create(r, obj, namespace)

    async def nodes(self, nodes: list[dict[str, Any]]) -> None:
        """Create nodes, and wait until kwok has made them Ready."""
        await asyncio.gather(*(self.store.create(NODES, node) for node in nodes))
        names = {node["metadata"]["name"] for node in nodes}

        async def ready() -> bool:
            page = await self.store.list(NODES)
            found = [json.loads(blob) for blob in page.items]
            return names <= {
                node["metadata"]["name"]
                for node in found
                for c in node["status"].get("conditions", [])
                if c["type"] == "Ready" and c["status"] == "True"
            }

        await self.until(ready, 30)

    async def queue(self, name: str, gpus: int, **spec: Any) -> None:
        """A queue that is owed so many GPUs."""
        await self.store.create(
            QUEUES, {"metadata": {"name": name}, "spec": {"quota": {"nvidia.com/gpu": gpus}} | spec}
        )

    async def ensure_pod(self, name: str, labels: dict[str, str], *, gpus: int = 1) -> None:
        """Create a pod where there is none of its name, as its owner would."""
        with contextlib.suppress(AlreadyExists):
            await self.pod(name, labels, gpus=gpus)

    async def pod(self, name: str, labels: dict[str, str] | None = None, *, gpus: int = 1, **spec: Any) -> None:
        """Create a pod of heddle's that asks for GPUs."""
        amounts = {"cpu": "1", "memory": "1Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
        body = {
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {
                "schedulerName": "heddle",
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {"name": "main", "image": "none", "resources": {"requests": amounts, "limits": amounts}}
                ],
                **spec,
            },
        }
        await self.store.create(PODS, body, self.namespace)

    async def gang(self, name: str, size: int, labels: dict[str, str] | None = None, **spec: Any) -> None:
        """Create pods that start together."""
        own = {"heddle.dev/workload": name, "heddle.dev/workload-size": str(size), **(labels or {})}
        await asyncio.gather(*(self.pod(f"{name}-{i}", own, **spec) for i in range(size)))

    async def pods(self) -> list[dict[str, Any]]:
        """All pods of the test."""
        page = await self.store.list(PODS, self.namespace)
        return [json.loads(blob) for blob in page.items]

    async def bound(self, prefix: str = "") -> dict[str, str]:
        """Pods that have a node, with it."""
        return {
            pod["metadata"]["name"]: pod["spec"]["nodeName"]
            for pod in await self.pods()
            if pod["metadata"]["name"].startswith(prefix) and pod["spec"].get("nodeName")
        }

    async def told(self, name: str) -> str:
        """What the condition PodScheduled of a pod says."""
        pod = json.loads(await self.store.get(PODS, name, self.namespace))
        conditions = pod["status"].get("conditions", [])
        return next((c.get("message", "") for c in conditions if c["type"] == "PodScheduled"), "")

    async def until(self, holds: Callable[[], Any], seconds: float = 30) -> None:
        """Wait until something is true."""
        end = time.monotonic() + seconds
        while not await holds():
            assert time.monotonic() < end, f"not so within {seconds} s: {self.logs()[-2000:]}"
            await asyncio.sleep(0.05)

    async def until_bound(self, count: int, prefix: str = "", seconds: float = 30) -> None:
        """Wait until so many pods have a node."""

        async def enough() -> bool:
            return len(await self.bound(prefix)) >= count

        await self.until(enough, seconds)

    # heddle

    def start(self, *, port: int = 0, host: str = "127.0.0.1") -> subprocess.Popen[bytes]:
        """Start a controller."""
        number = len(self._processes)
        command = [
            sys.executable, "-m", "heddle.cli", "--kubeconfig", str(self.kubeconfig), "controller",
            "--listen", f"{host}:{port}",
        ]  # fmt: skip
        environment = {**os.environ, "HOSTNAME": f"controller-{number}"}
        with (self._folder / f"controller-{number}.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self._processes.append(process)
        return process

    def logs(self) -> str:
        """What the controllers have written."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("controller-*.log")))

    async def leading(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a controller leads."""
        number = self._processes.index(process)
        path = self._folder / f"controller-{number}.log"

        async def leads() -> bool:
            assert process.poll() is None, path.read_text()
            return "leading as" in path.read_text()

        await self.until(leads)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """kill -9."""
        process.send_signal(signal.SIGKILL)
        process.wait()


async def answer(url: str) -> tuple[int, str]:
    """Status and text at a URL."""
    async with aiohttp.ClientSession() as session, session.get(url) as found:
        return found.status, await found.text()


class Questions:
    """The controller's port, and users."""

    def __init__(self, cluster: Cluster, url: str) -> None:
        self.cluster, self.url = cluster, url

    @classmethod
    def of(cls, cluster: Cluster) -> "Questions":
        """Those of the first controller that was started, at the address of this machine."""
        found = re.search(r"answers at port (\d+)", cluster.logs())
        assert found is not None
        return cls(cluster, f"https://{address()}:{found[1]}")

    async def user(self, name: str, rules: list[dict[str, Any]]) -> str:
        """The token of a service account that may do this in the test's namespace."""
        store, space = self.cluster.store, self.cluster.namespace
        await store.create(ACCOUNTS, {"metadata": {"name": name}}, space)
        await store.create(ROLES, {"metadata": {"name": name}, "rules": rules}, space)
        role = {"apiGroup": ROLES.group, "kind": "Role", "name": name}
        who = {"kind": "ServiceAccount", "name": name, "namespace": space}
        await store.create(BINDINGS, {"metadata": {"name": name}, "roleRef": role, "subjects": [who]}, space)
        made = await store.ask(f"/api/v1/namespaces/{space}/serviceaccounts/{name}/token", {"spec": {}})
        return str(json.loads(made)["status"]["token"])

    async def __call__(self, what: str, token: str, **body: Any) -> tuple[int, Any]:
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/heddle/v1/{what}", json={"token": token, **body}, ssl=tls) as answer,
        ):
            return answer.status, await answer.json()


def address() -> str:
    """An address of this machine under which the API server may reach it: loopback is refused to endpoints."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        try:
            found.connect(("192.0.2.1", 9))  # sends nothing
            return str(found.getsockname()[0])
        except OSError:
            return "127.0.0.1"
