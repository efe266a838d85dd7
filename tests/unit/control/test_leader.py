"""One of several candidates acts at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heddle.api.core import Namespace
from heddle.api.meta import ObjectMeta
from heddle.api.registry import LEASES, NAMESPACES
from heddle.control.leader import LeaderElection
from heddle.store.client import Client
from heddle.store.sqlite import SQLiteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore.open(tmp_path / "heddle.db")
    await Client(store).create(NAMESPACES, Namespace(metadata=ObjectMeta(name="heddle-system")))
    yield store
    await store.close()


def candidate(store: SQLiteStore, identity: str) -> LeaderElection:
    return LeaderElection(store, "scheduler", identity, duration=1.0, renew_deadline=0.6, retry=0.05)


class Reign:
    """Records who acts, and that nobody else does meanwhile."""

    def __init__(self) -> None:
        self.acting: set[str] = set()
        self.most = 0
        self.began: dict[str, asyncio.Event] = {}

    def of(self, identity: str) -> asyncio.Event:
        return self.began.setdefault(identity, asyncio.Event())

    def lead(self, identity: str) -> "asyncio.Future[None]":
        return asyncio.ensure_future(self._lead(identity))

    async def _lead(self, identity: str) -> None:
        self.acting.add(identity)
        self.most = max(self.most, len(self.acting))
        self.of(identity).set()
        try:
            await asyncio.Event().wait()
        finally:
            self.acting.discard(identity)


async def end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_second_candidate_waits_and_takes_over_when_the_first_leaves(store: SQLiteStore) -> None:
    reign = Reign()
    first = asyncio.create_task(candidate(store, "a").run(lambda: reign.lead("a")))
    await asyncio.wait_for(reign.of("a").wait(), 10)
    second = asyncio.create_task(candidate(store, "b").run(lambda: reign.lead("b")))
    lease = await Client(store).get(LEASES, "scheduler", "heddle-system")
    assert lease.spec.holder_identity == "a"
    await end(first)
    await asyncio.wait_for(reign.of("b").wait(), 10)
    await end(second)
    assert reign.most == 1
    lease = await Client(store).get(LEASES, "scheduler", "heddle-system")
    assert lease.spec.lease_transitions >= 1


async def test_a_holder_that_died_is_replaced_after_its_lease_and_not_before(store: SQLiteStore) -> None:
    dead = candidate(store, "dead")
    assert await dead._try()  # and then never renews
    reign = Reign()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    task = asyncio.create_task(candidate(store, "b").run(lambda: reign.lead("b")))
    await asyncio.wait_for(reign.of("b").wait(), 10)
    assert loop.time() - begun >= 1.0
    await end(task)


async def test_a_holder_that_comes_back_under_its_name_need_not_wait(store: SQLiteStore) -> None:
    assert await candidate(store, "a")._try()
    assert await candidate(store, "a")._try()
    assert not await candidate(store, "b")._try()


async def test_a_holder_whose_lease_was_taken_stops_acting(store: SQLiteStore) -> None:
    reign = Reign()
    task = asyncio.create_task(candidate(store, "a").run(lambda: reign.lead("a")))
    await asyncio.wait_for(reign.of("a").wait(), 10)
    patch = {"spec": {"holderIdentity": "usurper", "leaseDurationSeconds": 60}}
    await Client(store).patch(LEASES, "scheduler", patch, namespace="heddle-system")
    await asyncio.wait_for(task, 10)
    assert not reign.acting


async def test_impossible_times_are_refused(store: SQLiteStore) -> None:
    with pytest.raises(ValueError, match="retry < renew_deadline < duration"):
        LeaderElection(store, "x", "a", duration=5, renew_deadline=10)


async def test_nothing_is_taken_on_the_word_of_an_answer_that_was_long_on_its_way(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await candidate(store, "dead")._try()
    other = candidate(store, "b")
    assert not await other._try()
    await asyncio.sleep(1.1)  # the lease has run out
    get = store.get

    async def late(*args: Any) -> bytes:
        answer = await get(*args)
        await asyncio.sleep(0.1)
        return answer

    monkeypatch.setattr(store, "get", late)
    assert not await other._try()
    monkeypatch.undo()
    assert await other._try()
