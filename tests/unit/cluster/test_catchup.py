"""Who begins to lead hears first what became of the pods that wait."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heddle.api.meta import ObjectMeta
from heddle.api.pod import Container, Pod, PodSpec
from heddle.api.registry import PODS
from heddle.cluster.catchup import caught_up
from heddle.store.client import Client
from heddle.store.informer import Informer
from heddle.store.port import Watched
from heddle.store.sqlite import SQLiteStore


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    store = SQLiteStore.open(tmp_path / "heddle.db")
    client = Client(store)
    for name in ("a", "b"):
        spec = PodSpec(containers=[Container(name="main", command=["true"])], scheduler_name="heddle")
        await client.create(PODS, Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=spec))
    yield client
    await store.close()


async def test_it_waits_for_news_of_a_pod_that_others_have_bound(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    comes = asyncio.Event()
    watch = client.store.watch

    async def late(*args: Any, **options: Any) -> AsyncIterator[Watched]:
        async for event in watch(*args, **options):
            if b'"nodeName"' in event.object:
                await comes.wait()
            yield event

    monkeypatch.setattr(client.store, "watch", late)
    async with Informer[Pod](client.store, PODS) as pods:
        await pods.synced()
        await asyncio.wait_for(caught_up(client.store, pods, "heddle"), 5)  # both wait, and it is known
        await client.bind(PODS, "a", "default", "n1", uid=pods.objects["default/a"].metadata.uid)
        waiting = asyncio.create_task(caught_up(client.store, pods, "heddle"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        comes.set()
        await asyncio.wait_for(waiting, 5)
        assert pods.objects["default/a"].spec.node_name == "n1"


async def test_where_nothing_waits_nobody_is_asked(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Informer[Pod](client.store, PODS) as pods:
        await pods.synced()
        monkeypatch.setattr(client.store, "list", None)
        await caught_up(client.store, pods, "another")
