"""Pods, a sink and references for tests of the runtime."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from heddle.api.core import ConfigMap, Secret
from heddle.api.meta import ObjectMeta
from heddle.api.pod import Container, Pod, PodSpec, PodStatus
from heddle.runtime.runtime import LocalRuntime, Settings

QUICK = Settings(back_off=0.2, config_retry=30.0)
BOUND = 15.0


def pod(
    *command: str, uid: str = "u1", policy: str = "Never", grace: int = 5, annotations: dict[str, str] | None = None,
    **container: Any,
) -> Pod:  # fmt: skip
    return Pod(
        metadata=ObjectMeta(name=f"p-{uid}", namespace="default", uid=uid, annotations=annotations or {}),
        spec=PodSpec(
            node_name="n1",
            restart_policy=policy,
            termination_grace_period_seconds=grace,
            containers=[Container(name="main", command=list(command), **container)],
        ),
    )


def shell(script: str, **more: Any) -> Pod:
    return pod("/bin/sh", "-c", script, **more)


def python(code: str, **more: Any) -> Pod:
    return pod(sys.executable, "-c", code, **more)


class World:
    """Hears about pods and answers for ConfigMaps and Secrets."""

    def __init__(self) -> None:
        self.statuses: dict[str, list[PodStatus]] = {}
        self.gone: list[str] = []
        self.events: list[tuple[str, str, str]] = []
        self.config_maps: dict[str, ConfigMap] = {}
        self.secrets: dict[str, Secret] = {}
        self.news = asyncio.Event()

    async def pod_status(self, pod: Pod, status: PodStatus) -> None:
        self.statuses.setdefault(pod.metadata.uid, []).append(status)
        self.news.set()

    async def pod_gone(self, pod: Pod) -> None:
        self.gone.append(pod.metadata.uid)
        self.news.set()

    async def pod_event(self, pod: Pod, kind: str, reason: str, message: str) -> None:
        self.events.append((kind, reason, message))
        self.news.set()

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        return self.config_maps.get(name)

    async def secret(self, namespace: str, name: str) -> Secret | None:
        return self.secrets.get(name)

    def last(self, uid: str = "u1") -> PodStatus:
        return self.statuses.get(uid, [PodStatus()])[-1]

    async def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Waits for a report that makes the condition true."""
        end = time.monotonic() + BOUND
        while not (value := condition()):
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), max(0.01, min(0.1, end - time.monotonic())))
            except TimeoutError:
                if time.monotonic() > end:
                    raise AssertionError(f"never came: {what}; statuses: {self.statuses}") from None
        return value

    async def phase(self, wanted: str, uid: str = "u1") -> PodStatus:
        await self.until(lambda: self.last(uid).phase == wanted, f"phase {wanted}")
        return self.last(uid)


def start(data: Path, world: World, settings: Settings = QUICK) -> LocalRuntime:
    return LocalRuntime(data, world, world, settings)


async def text(runtime: LocalRuntime, uid: str = "u1", **options: Any) -> str:
    return b"".join([line async for line in runtime.read_logs(uid, **options)]).decode()


async def eventually(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str = "") -> None:
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return Path("/proc").exists() is False
