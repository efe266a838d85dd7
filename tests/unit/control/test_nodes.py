"""A node that is not heard of takes nothing new, and after a while loses its pods."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from heddle.api.core import Lease, LeaseSpec, Namespace
from heddle.api.errors import NotFound
from heddle.api.meta import ObjectMeta
from heddle.api.pod import Container, Pod, PodSpec
from heddle.api.registry import EVENTS, LEASES, NAMESPACES, NODES, PODS
from heddle.control.nodes import LEASE_NAMESPACE, NodeController
from heddle.embedded.machine import simulated_nodes
from heddle.node.simulated import parse
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.sqlite import SQLiteStore


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """One node with a lease, and a pod on it, watched over with short patience."""
    store = SQLiteStore.open(tmp_path / "heddle.db")
    client = Client(store)
    await client.create(NAMESPACES, Namespace(metadata=ObjectMeta(name=LEASE_NAMESPACE)))
    (node,) = simulated_nodes([parse("1x8xH100")])
    await client.create(NODES, node)
    await client.patch_status(NODES, "sim-0", {"conditions": [{"type": "Ready", "status": "True"}]})
    lease = Lease(metadata=ObjectMeta(name="sim-0", namespace=LEASE_NAMESPACE), spec=LeaseSpec(renew_time="0"))
    await client.create(LEASES, lease)
    spec = PodSpec(containers=[Container(name="main")], node_name="sim-0")
    await client.create(PODS, Pod(metadata=ObjectMeta(name="p", namespace="default"), spec=spec))
    informers = Informers(store)
    controller = NodeController(informers, grace=0.4, eviction=0.4)
    running = asyncio.gather(informers.run(), controller.run())
    yield client
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


async def until(look: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await look():
                return
            await asyncio.sleep(0.02)


async def ready(client: Client) -> str:
    node = await client.get(NODES, "sim-0")
    return str(next(c.status for c in node.status.conditions if c.type == "Ready"))


async def gone(client: Client) -> bool:
    try:
        await client.get(PODS, "p", "default")
    except NotFound:
        return True
    return False


async def test_a_silent_node_is_not_ready_and_then_its_pods_are_given_up(client: Client) -> None:
    async def unknown() -> bool:
        return await ready(client) == "Unknown"

    await until(unknown)
    await until(lambda: gone(client))
    reasons = {e.reason for e in await client.list(EVENTS)}
    assert {"NodeNotReady", "NodeLost"} <= reasons


async def test_a_node_whose_lease_is_renewed_keeps_its_pods(client: Client) -> None:
    for i in range(30):  # far longer than grace and eviction together
        await client.patch(LEASES, "sim-0", {"spec": {"renewTime": str(i)}}, LEASE_NAMESPACE)
        await asyncio.sleep(0.05)
    assert await ready(client) == "True"
    assert not await gone(client)


async def test_the_pods_of_a_removed_node_are_given_up(client: Client) -> None:
    await client.delete(NODES, "sim-0")
    await until(lambda: gone(client))
