"""Load for a scheduler of a real cluster, and what it made of it, seen over one watch.

It knows nothing of the scheduler but the name and the labels that pods carry, so that any can be measured.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

CONNECTIONS = 48


class _Condition(msgspec.Struct):
    type: str = ""
    message: str = ""


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(msgspec.Struct):
    type: str
    object: _Pod


_EVENT = msgspec.json.Decoder(_Event)


@dataclass
class Seen:
    """When things happened to pods, by name, in seconds of the monotonic clock."""

    bound: dict[str, float] = field(default_factory=dict)
    node: dict[str, str] = field(default_factory=dict)
    leaving: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    told: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Since when the condition PodScheduled has had its present message, and which."""


def pod(
    name: str,
    scheduler: str,
    *,
    gpus: int = 1,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A pod of one container that asks for GPUs."""
    amounts = {"cpu": str(gpus), "memory": f"{4 * gpus}Gi", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}, "annotations": annotations or {}},
        "spec": {
            "schedulerName": scheduler,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "none", "resources": {"requests": amounts, "limits": amounts}}],
        },
    }  # fmt: skip


class Cluster:
    """A bare client of the API server: no retries, no cache."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._url = cluster["server"]
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {user['token']}"},
            connector=aiohttp.TCPConnector(
                ssl=ssl.create_default_context(cafile=cluster["certificate-authority"]), limit=0
            ),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def close(self) -> None:
        """End the session."""
        await self._session.close()

    async def call(self, method: str, path: str, body: Any = None, *, fine: Iterable[int] = ()) -> bytes:
        """One request; any answer that is an error and not `fine` raises."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"}
        async with self._session.request(method, self._url + path, data=data, headers=headers) as answer:
            content = await answer.read()
        if answer.status >= 400 and answer.status not in fine:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()[:500]}")
        return content

    async def each(self, work: Iterable[Callable[[], Awaitable[Any]]], connections: int = CONNECTIONS) -> float:
        """Do things over so many connections; returns how long it took in seconds."""
        due = iter(work)

        async def worker() -> None:
            for do in due:
                await do()

        begun = time.monotonic()
        await asyncio.gather(*(worker() for _ in range(connections)))
        return time.monotonic() - begun

    async def create(self, path: str, objects: Iterable[dict[str, Any]]) -> float:
        """Create objects of a collection; returns how long it took in seconds."""
        return await self.each((lambda o=o: self.call("POST", path, o, fine=(409,))) for o in objects)  # type: ignore[misc]

    async def bind(self, namespace: str, places: Iterable[tuple[str, str]], connections: int = CONNECTIONS) -> float:
        """Bind pods to nodes; returns how long it took in seconds."""

        def binding(name: str, node: str) -> dict[str, Any]:
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}

        path = f"/api/v1/namespaces/{namespace}/pods"
        return await self.each(
            ((lambda n=n, o=o: self.call("POST", f"{path}/{n}/binding", binding(n, o))) for n, o in places),  # type: ignore[misc]
            connections,
        )

    async def clear(self, namespace: str) -> None:
        """Delete all pods of a namespace, and wait until they are gone."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        await self.call("DELETE", f"{path}?gracePeriodSeconds=0")
        while msgspec.json.decode(await self.call("GET", f"{path}?limit=1"))["items"]:  # noqa: ASYNC110
            await asyncio.sleep(0.2)

    @contextlib.asynccontextmanager
    async def watching(self, namespace: str) -> AsyncIterator[Seen]:
        """See what happens to the pods of a namespace while the block runs."""
        seen, ready = Seen(), asyncio.Event()
        task = asyncio.create_task(self._watch(namespace, seen, ready))
        await ready.wait()
        try:
            yield seen
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, namespace: str, seen: Seen, ready: asyncio.Event) -> None:
        path = f"/api/v1/namespaces/{namespace}/pods"
        version = msgspec.json.decode(await self.call("GET", f"{path}?limit=1"))["metadata"]["resourceVersion"]
        ready.set()
        while True:  # the server ends a watch that it finds too slow
            query = f"?watch=true&resourceVersion={version}"
            async with self._session.get(self._url + path + query) as answer:
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    now = time.monotonic()
                    for line in lines:
                        event = _EVENT.decode(line)
                        if event.type == "ERROR":
                            raise RuntimeError(f"the watch of {path} is not to be had: {line!r}")
                        version = event.object.metadata.resource_version
                        _note(seen, event, now)


def _note(seen: Seen, event: _Event, now: float) -> None:
    found, name = event.object, event.object.metadata.name
    if event.type == "DELETED":
        seen.gone.setdefault(name, now)
        return
    if found.metadata.deletion_timestamp:
        seen.leaving.setdefault(name, now)
    if found.spec.node_name and name not in seen.bound:
        seen.bound[name] = now
        seen.node[name] = found.spec.node_name
    for condition in found.status.conditions:
        text = condition.message if condition.type == "PodScheduled" else ""
        if text and seen.told.get(name, (0.0, ""))[1] != text:
            seen.told[name] = (now, text)


async def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something came true in so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True
