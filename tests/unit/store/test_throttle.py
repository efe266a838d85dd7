"""How many requests are under way at once."""

import asyncio

import pytest

from heddle.store import throttle
from heddle.store.throttle import Throttle


async def test_no_more_than_the_limit_at_once_and_first_come_first_served() -> None:
    gate, inside, most, order = Throttle(first=3, most=3), 0, 0, []

    async def request(number: int) -> None:
        nonlocal inside, most
        async with gate.pass_through():
            order.append(number)
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(request(number) for number in range(20)))
    assert most == 3
    assert order == list(range(20))


async def answers(gate: Throttle, count: int) -> None:
    """So many requests, all at once, each of which is answered."""

    async def request() -> None:
        async with gate.pass_through():
            await asyncio.sleep(0)
            gate.answered()

    await asyncio.gather(*(request() for _ in range(count)))


async def test_it_grows_while_requests_wait_for_their_turn() -> None:
    gate = Throttle(first=4, most=32)
    await answers(gate, 5000)
    assert gate.limit == 32


async def test_what_is_not_limited_by_us_says_nothing() -> None:
    gate = Throttle(first=4)
    for _ in range(100):
        await answers(gate, 1)
    assert gate.limit == 4


async def test_it_halves_when_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(throttle.time, "monotonic", lambda: clock)
    gate = Throttle(least=2, first=8, most=8)
    gate.refused()
    gate.refused()  # of the same moment: they count once
    assert gate.limit == 4
    for _ in range(5):
        clock += 2
        gate.refused()
    assert gate.limit == 2


async def test_one_who_gives_up_waiting_leaves_its_place_to_others() -> None:
    gate = Throttle(least=1, first=1, most=1)
    hold = asyncio.Event()

    async def request(until: asyncio.Event | None = None) -> None:
        async with gate.pass_through():
            if until:
                await until.wait()

    first = asyncio.create_task(request(hold))
    await asyncio.sleep(0)
    second, third = asyncio.create_task(request()), asyncio.create_task(request())
    await asyncio.sleep(0)
    second.cancel()
    hold.set()
    await asyncio.wait_for(asyncio.gather(first, third), 5)
    assert second.cancelled()
    await asyncio.wait_for(request(), 5)
