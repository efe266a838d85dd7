"""One reconcile at a time per key; failures come back."""

import asyncio
import contextlib

from heddle.control.workqueue import WorkQueue


async def run_until(queue: WorkQueue, done: asyncio.Event) -> None:
    task = asyncio.create_task(queue.run())
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_key_is_never_worked_on_twice_at_once_and_not_lost() -> None:
    working, most, count = 0, 0, 0
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        nonlocal working, most, count
        working += 1
        most = max(most, working)
        queue.add(key) if count < 5 else done.set()
        await asyncio.sleep(0)
        count += 1
        working -= 1

    queue = WorkQueue("test", reconcile)
    for _ in range(3):
        queue.add("a")
    await run_until(queue, done)
    assert most == 1
    assert count >= 6


async def test_a_failed_key_is_tried_again_later() -> None:
    tries: list[float] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) < 3:
            raise ValueError("not yet")
        done.set()

    queue = WorkQueue("test", reconcile)
    queue.add("a")
    await run_until(queue, done)
    assert tries[2] - tries[1] > tries[1] - tries[0] > 0.05


async def test_a_reconcile_may_ask_to_be_called_again() -> None:
    calls = 0
    done = asyncio.Event()

    async def reconcile(key: str) -> float | None:
        nonlocal calls
        calls += 1
        if calls == 2:
            done.set()
            return None
        return 0.01

    queue = WorkQueue("test", reconcile)
    queue.add("a")
    await run_until(queue, done)
    assert calls == 2
