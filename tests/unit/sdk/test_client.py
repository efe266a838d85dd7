"""A client that is closed while its other threads are still asking."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import heddle
from heddle.api.errors import Unavailable


class Endless:
    """A store with one log, which never ends."""

    async def stream(self, path: str, query: Any) -> AsyncIterator[bytes]:
        yield b"tick\n"

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> heddle.Client:
    def connect(kubeconfig: Path | None, context: str | None) -> Endless:
        return Endless()

    monkeypatch.setattr("heddle.sdk.client.connect", connect)
    return heddle.Client()


def test_a_closed_client_says_so_and_may_be_closed_again(client: heddle.Client) -> None:
    client.close()
    client.close()
    with pytest.raises(Unavailable, match="this client is closed"):
        list(client.logs("pod"))
    with pytest.raises(Unavailable, match="this client is closed"):
        client.get("pod", "x")


@pytest.mark.parametrize("_turn", range(20))
def test_what_another_thread_asks_while_it_is_closed_is_refused_and_not_forgotten(
    client: heddle.Client, _turn: int
) -> None:
    ends: list[str] = []
    started = threading.Event()

    def ask() -> None:
        try:
            while True:
                list(client.logs("pod"))
                started.set()
        except Unavailable as error:
            ends.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    client.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert ends == ["this client is closed"] * 3
