"""Writing until it is known what became of it."""

from collections.abc import Iterable, Iterator

import pytest

from heddle.api.errors import ApiError, Conflict, InternalError, Unreachable
from heddle.control.scheduling import insistence
from heddle.control.scheduling.insistence import insist


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insistence, "_PAUSE", 0.001)
    monkeypatch.setattr(insistence, "_LONGEST", 0.002)


class Server:
    """Answers in turn."""

    def __init__(self, answers: Iterable[str | ApiError]) -> None:
        self._answers: Iterator[str | ApiError] = iter(answers)
        self.asked = 0

    async def write(self) -> str:
        self.asked += 1
        answer = next(self._answers)
        if isinstance(answer, ApiError):
            raise answer
        return answer


async def test_where_nobody_answers_it_is_tried_for_as_long_as_it_takes() -> None:
    server = Server([*(Unreachable("cut") for _ in range(20)), "done"])
    assert await insist(server.write) == "done"
    assert server.asked == 21


async def test_a_refusal_is_an_answer() -> None:
    server = Server([Unreachable("cut"), Conflict("it is bound")])
    with pytest.raises(Conflict):
        await insist(server.write)
    assert server.asked == 2


async def test_a_server_that_fails_again_and_again_is_believed() -> None:
    server = Server(InternalError("etcd is away") for _ in range(100))
    with pytest.raises(InternalError):
        await insist(server.write)
    assert 2 < server.asked < 20
