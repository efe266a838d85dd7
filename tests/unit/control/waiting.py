"""Waiting for what controllers do, in tests that run them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from heddle.api.registry import WORKLOADS
from heddle.api.workload import Workload
from heddle.store.client import Client


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """What is looked for, once it is there."""
    async with asyncio.timeout(20):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.01)


async def workload_with(
    client: Client, name: str, holds: Callable[[Workload], Any], space: str = "default"
) -> Workload:
    """A workload, once something holds of it."""

    async def look() -> Workload | None:
        found: Workload = await client.get(WORKLOADS, name, space)
        return found if holds(found) else None

    found: Workload = await until(look)
    return found
