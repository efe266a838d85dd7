"""Writes that may wait."""

import asyncio

import pytest

from heddle.control.scheduling import afterwards
from heddle.control.scheduling.afterwards import Afterwards


async def test_of_an_object_only_the_newest_is_written(after: Afterwards) -> None:
    written: list[str] = []

    def write(text: str) -> None:
        async def do() -> None:
            written.append(text)

        after.put(text[0], do)

    for text in ("a1", "b1", "a2", "a3"):
        write(text)
    await asyncio.wait_for(after.flushed(), 5)
    assert written == ["a3", "b1"]


async def test_it_waits_for_what_is_urgent_but_not_for_ever(after: Afterwards, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    async def do() -> None:
        written.append(1)

    with after.urgent():
        after.put("a", do)
        await asyncio.sleep(0.1)
        assert written == []
        monkeypatch.setattr(afterwards, "_WAITS", 0.05)
        await asyncio.wait_for(after.flushed(), 5)
    assert written == [1]


async def test_a_write_that_fails_stops_nothing(after: Afterwards, caplog: pytest.LogCaptureFixture) -> None:
    written: list[int] = []

    async def fail() -> None:
        raise RuntimeError("no")

    async def do() -> None:
        written.append(1)

    after.put("a", fail)
    after.put("b", do)
    await asyncio.wait_for(after.flushed(), 5)
    assert written == [1]
    assert "what is to be read of a is not written" in caplog.text


async def test_what_will_likely_be_of_no_use_waits_and_can_be_dropped(after: Afterwards) -> None:
    written: list[str] = []

    def write(text: str, wait: float) -> None:
        async def do() -> None:
            written.append(text)

        after.put(text[0], do, wait=wait)

    write("a1", 30.0)
    write("b1", 30.0)
    after.drop("a")
    write("c1", 0.1)
    write("c2", 30.0)  # the first of an object says when
    write("b2", 0.0)  # not after all
    write("d1", 0.0)
    write("d2", 30.0)  # it is due already
    await asyncio.wait_for(after.flushed(), 5)
    assert written == ["b2", "d2", "c2"]


async def test_in_a_storm_history_waits_for_calm_and_what_people_wait_for_does_not(
    after: Afterwards, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    async def answer() -> None:
        written.append("answer")

    async def happened() -> None:
        written.append("happened")

    monkeypatch.setattr(afterwards, "_CALM", 0.5)
    with after.urgent(1000):
        pass
    after.note("a", happened)
    after.put("a", answer)
    await asyncio.sleep(0.2)
    assert written == ["answer"]
    await asyncio.wait_for(after.flushed(), 5)
    assert written == ["answer", "happened"]

    monkeypatch.setattr(afterwards, "_CALM", 30.0)
    monkeypatch.setattr(afterwards, "_PATIENCE", 0.2)
    with after.urgent(1000):
        pass
    after.note("b", happened)
    await asyncio.wait_for(after.flushed(), 5)  # but not for ever
    assert written == ["answer", "happened", "happened"]
