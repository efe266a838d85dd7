"""Which scheduler is asked, and what is said where none answers."""

from typing import Any

import msgspec
import pytest

from heddle.api.errors import ApiError, Forbidden, NotFound, Unauthorized, Unavailable
from heddle.sdk.asking import PROXY, Asking
from heddle.sdk.connection import ClusterStore


class Server(ClusterStore):
    """A server that answers by rote."""

    def __init__(self, version: str, *, token: str = "t", refusal: ApiError | None = None) -> None:
        self.token, self._version, self._refusal = token, version, refusal
        self.asked: list[tuple[str, Any]] = []

    async def read(self, path: str, query: dict[str, str] | None = None) -> bytes:
        if path == "/version":
            return msgspec.json.encode({"gitVersion": self._version})
        self.asked.append((path, query))
        return b"{}"

    async def ask(self, path: str, body: Any, query: dict[str, str] | None = None) -> bytes:
        self.asked.append((path, body))
        if self._refusal:
            raise self._refusal
        return b"{}"


async def test_heddles_own_server_answers_itself() -> None:
    server = Server("v1.36.0+heddle-0.1.0")
    await Asking(server).explain({"name": "x"})
    assert server.asked == [("/heddle/v1/explain", {"name": "x"})]


async def test_a_clusters_controller_is_asked_with_the_token_in_the_body() -> None:
    server = Server("v1.36.3")
    await Asking(server).explain({"name": "x"})
    assert server.asked == [(f"{PROXY}/heddle/v1/explain", {"token": "t", "query": {"name": "x"}})]


async def test_without_a_token_nothing_is_asked_and_the_remedy_is_named() -> None:
    server = Server("v1.36.3", token="")
    with pytest.raises(Unauthorized, match=r"client certificate and no token.*kubectl create token"):
        await Asking(server).snapshot()
    assert server.asked == []


def refusal(code: int, message: str, kind: str = "") -> ApiError:
    return ApiError.from_status({"message": message, "code": code, "details": {"kind": kind}}, code)


@pytest.mark.parametrize(
    ("refusal", "kind", "told"),
    [
        (refusal(404, 'services "heddle" not found', "services"), Unavailable, "see: heddle install"),
        (refusal(404, "404 page not found"), Unavailable, "renew it: heddle install"),
        (refusal(503, 'no service port "answers" found for service "heddle"'), Unavailable, "renew it: heddle install"),
        (refusal(503, 'no endpoints available for service "heddle"'), Unavailable, "kubectl -n heddle-system get pods"),
        (refusal(403, 'User "a" cannot create resource "services/proxy"'), Forbidden, "Role heddle-asker"),
        (refusal(404, 'workloads.heddle.dev "a/x" not found', "workloads"), NotFound, 'workloads.heddle.dev "a/x"'),
        (refusal(403, "user a may not read workload"), Forbidden, "user a may not read workload"),
    ],
)
async def test_a_refusal_says_what_to_do(refusal: ApiError, kind: type[ApiError], told: str) -> None:
    with pytest.raises(kind, match=told):
        await Asking(Server("v1.36.3", refusal=refusal)).explain({"name": "x"})
