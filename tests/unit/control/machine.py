"""A machine of simulated GPUs with a running scheduler, for tests of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from heddle.api.admission import admit
from heddle.api.registry import NODES
from heddle.control.scheduling.controller import SchedulingController
from heddle.control.scheduling.writes import Writes
from heddle.embedded.machine import simulated_nodes
from heddle.node.simulated import parse
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.sqlite import SQLiteStore


@contextlib.asynccontextmanager
async def machine(
    folder: Path, gpus: str, writes: Callable[[Client], Writes] = Writes
) -> AsyncIterator[tuple[Client, SchedulingController]]:
    """A store with such nodes (`2x8xH100`), and a scheduler that runs over it."""
    store = SQLiteStore.open(folder / "heddle.db", admit)
    client = Client(store)
    for node in simulated_nodes([parse(gpus)]):
        await client.create(NODES, node)
        await client.patch_status(NODES, node.metadata.name, {"conditions": [{"type": "Ready", "status": "True"}]})
    informers = Informers(store)
    controller = SchedulingController(informers, writes=writes(client))
    running = asyncio.gather(informers.run(), controller.run())
    yield client, controller
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()
