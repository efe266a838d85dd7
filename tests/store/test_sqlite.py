"""What only the SQLite store promises: durability, its file's versions and damage, a full disk."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heddle.api.errors import Expired, InsufficientStorage, Invalid, NotFound, Unavailable
from heddle.api.registry import CONFIGMAPS, NODES, Resource
from heddle.store import schema
from heddle.store.informer import Informer
from heddle.store.port import Watched, user
from heddle.store.sqlite import SQLiteStore


def cm(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


WRITER = """
import asyncio, sys
from heddle.api.registry import CONFIGMAPS
from heddle.store.sqlite import SQLiteStore

async def main():
    store = SQLiteStore.open(sys.argv[1])
    async def write(worker):
        for n in range(100_000):
            name = f"{sys.argv[2]}-{worker}-{n}"
            await store.create(CONFIGMAPS, {"metadata": {"name": name}, "data": {"x": "y" * 500}}, "default")
            print(name, flush=True)
    await asyncio.gather(*(write(w) for w in range(8)))

asyncio.run(main())
"""


async def test_a_kill_at_any_moment_loses_no_acknowledged_write(tmp_path: Path) -> None:
    path, rng, acknowledged = tmp_path / "a.db", random.Random(7), set()
    for attempt in range(6):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), f"run{attempt}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 300)):
                acknowledged.add(process.stdout.readline().strip())
            os.kill(process.pid, signal.SIGKILL)
            acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
    store = SQLiteStore.open(path)
    page = await store.list(CONFIGMAPS, "default")
    stored = {json.loads(blob)["metadata"]["name"]: json.loads(blob) for blob in page.items}
    await store.close()
    assert acknowledged <= set(stored)
    assert len(acknowledged) > 50
    assert all(len(obj["data"]["x"]) == 500 for obj in stored.values())
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in stored.values()]
    assert len(set(versions)) == len(versions)
    assert max(versions) <= int(page.resource_version)


async def test_a_full_disk_is_said_and_harms_nothing(tmp_path: Path) -> None:
    store = SQLiteStore.open(tmp_path / "a.db")
    made = await store.create(CONFIGMAPS, cm("a"), "default")
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    writes = [store.create(CONFIGMAPS, cm(f"b{n}", x="y" * 50_000), "default") for n in range(8)]
    for outcome in await asyncio.gather(*writes, return_exceptions=True):
        assert isinstance(outcome, InsufficientStorage)
        assert f"disk full at {tmp_path / 'a.db'}" in str(outcome)
    assert await store.get(CONFIGMAPS, "a", "default") == made
    store._writer.execute("PRAGMA max_page_count = 1000000")
    await store.create(CONFIGMAPS, cm("b0"), "default")
    assert len((await store.list(CONFIGMAPS)).items) == 2
    await store.close()


async def test_a_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await SQLiteStore.open(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 6}")
    with pytest.raises(schema.NewerSchema, match=f"version {schema.VERSION + 6}.*version {schema.VERSION}"):
        SQLiteStore.open(path)


async def test_an_older_schema_is_upgraded_after_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    store = SQLiteStore.open(path)
    await store.create(CONFIGMAPS, cm("a"), "default")
    await store.close()
    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setitem(schema.UPGRADES, 1, lambda c: c.execute("CREATE TABLE extra (x)"))
    store = SQLiteStore.open(path)
    assert await store.get(CONFIGMAPS, "a", "default")
    await store.close()
    (copy,) = schema.backups(path)
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


@pytest.mark.parametrize("damage", ["page", "bit", "header"])
async def test_a_damaged_file_stops_the_start_and_a_backup_comes_back(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.db"
    store = SQLiteStore.open(path)
    for n in range(200):
        await store.create(CONFIGMAPS, cm(f"kept{n}", x="needle" * 50), "default")
    copy = await store.backup()
    await store.create(CONFIGMAPS, cm("lost"), "default")
    await store.close()
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[content.rfind(b"needleneedle")] ^= 1
        content = bytearray(bytes(content).replace(b"needleneedle", b"noodleneedle"))
    else:
        at = 0 if damage == "header" else 4096 * (len(content) // 4096 // 2)
        content[at : at + 4096] = os.urandom(4096)
    path.write_bytes(content)
    with pytest.raises(schema.CorruptDatabase) as caught:
        SQLiteStore.open(path)
    assert str(path) in str(caught.value)
    assert str(copy) in str(caught.value)
    restored = schema.restore_last_backup(path)
    assert restored.backup == copy
    assert "lost" in str(restored)
    if damage == "bit":
        assert "1 changes" in str(restored)
    store = SQLiteStore.open(path)
    assert len((await store.list(CONFIGMAPS)).items) == 200
    with pytest.raises(NotFound):
        await store.get(CONFIGMAPS, "lost", "default")
    with pytest.raises(Expired):
        await anext(store.watch(CONFIGMAPS, resource_version=str(restored.resource_version)))
    await store.close()


async def test_only_the_newest_backups_are_kept(tmp_path: Path) -> None:
    store = SQLiteStore.open(tmp_path / "a.db")
    taken = [await store.backup() for _ in range(4)]
    assert schema.backups(store.path) == taken[:1:-1]
    await store.close()


async def test_a_page_older_than_the_change_log_is_expired(tmp_path: Path) -> None:
    store = SQLiteStore.open(tmp_path / "a.db")
    for n in range(5):
        await store.create(CONFIGMAPS, cm(f"a{n}"), "default")
    page = await store.list(CONFIGMAPS, limit=2)
    await store.create(CONFIGMAPS, cm("b"), "default")
    await store.compact()
    with pytest.raises(Expired):
        await store.list(CONFIGMAPS, limit=2, continue_=page.continue_)
    await store.close()


async def test_a_watch_resumes_across_a_restart(tmp_path: Path) -> None:
    store = SQLiteStore.open(tmp_path / "a.db")
    at = (await store.list(CONFIGMAPS)).resource_version
    await store.create(CONFIGMAPS, cm("a"), "default")
    await store.close()
    store = SQLiteStore.open(tmp_path / "a.db")
    events = store.watch(CONFIGMAPS, resource_version=at)
    assert (await anext(events)).type == "ADDED"
    await store.create(CONFIGMAPS, cm("b"), "default")
    assert json.loads((await anext(events)).object)["metadata"]["name"] == "b"
    await events.aclose()
    await store.close()


async def test_a_watch_that_ends_leaves_a_bookmark_to_resume_from(tmp_path: Path) -> None:
    store = SQLiteStore.open(tmp_path / "a.db", bookmark_every=0.2)
    seen = [e async for e in store.watch(CONFIGMAPS, resource_version="1", bookmarks=True, timeout=0.7)]
    assert {e.type for e in seen} == {"BOOKMARK"}
    assert len(seen) >= 3
    await store.close()


async def test_admission_sees_the_user_and_its_refusal_is_the_answer(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def admit(r: Resource, old: Any, new: dict[str, Any], operation: str) -> dict[str, Any]:
        seen.append((operation, user.get()))
        if new["metadata"]["name"] == "bad":
            raise Invalid("no")
        return {**new, "data": {"defaulted": "yes"}}

    store = SQLiteStore.open(tmp_path / "a.db", admit)
    user.set("ada")
    assert json.loads(await store.create(CONFIGMAPS, cm("a"), "default"))["data"] == {"defaulted": "yes"}
    with pytest.raises(Invalid):
        await store.create(CONFIGMAPS, cm("bad"), "default")
    assert seen == [("CREATE", "ada"), ("CREATE", "ada")]
    await store.close()


async def test_a_closed_store_says_so_and_its_watches_end(tmp_path: Path) -> None:
    store = SQLiteStore.open(tmp_path / "a.db")

    async def drain() -> None:
        async for _ in store.watch(NODES, resource_version="2"):
            pass

    watching = asyncio.create_task(drain())
    await asyncio.sleep(0.05)
    await store.close()
    await asyncio.wait_for(watching, 5)
    with pytest.raises(Unavailable):
        await store.get(NODES, "a")


async def test_an_informer_follows_and_survives_expiry(tmp_path: Path) -> None:
    store = SQLiteStore.open(tmp_path / "a.db")
    await store.create(CONFIGMAPS, cm("a", x="1"), "default")
    told: list[tuple[str, str]] = []
    informer = Informer(store, CONFIGMAPS)
    informer.on_change(lambda kind, old, new: told.append((kind, (new or old).metadata.name)))
    async with informer:
        await informer.synced()
        await store.create(CONFIGMAPS, cm("b"), "default")
        await store.patch(CONFIGMAPS, "a", {"data": {"x": "2"}}, namespace="default")
        while len(told) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert informer.get("a", "default").data == {"x": "2"}
    await store.delete(CONFIGMAPS, "b", "default")
    await store.create(CONFIGMAPS, cm("c"), "default")
    await store.compact()
    async with informer:
        while len(told) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert told == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("ADDED", "c"), ("DELETED", "b")]
    await store.close()


async def test_an_informer_lists_where_the_server_does_not_stream(tmp_path: Path) -> None:
    class Old(SQLiteStore):
        def watch(self, *args: Any, **more: Any) -> AsyncIterator[Watched]:
            if more.get("send_initial_events"):
                raise Invalid("sendInitialEvents: Forbidden: unless the WatchList feature gate is enabled")
            return super().watch(*args, **more)

    store = Old.open(tmp_path / "a.db")
    await store.create(CONFIGMAPS, cm("a", x="1"), "default")
    informer = Informer(store, CONFIGMAPS)
    async with informer:
        await informer.synced()
        assert set(informer.objects) == {"default/a"}
        await store.create(CONFIGMAPS, cm("b"), "default")
        while len(informer.objects) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await store.close()
