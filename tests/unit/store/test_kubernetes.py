"""What the Store of a cluster makes of a line that breaks, and of a process that may no longer write."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from heddle.api.errors import NotFound, Unavailable, Unreachable
from heddle.api.registry import PODS, QUEUES
from heddle.store.kubernetes import KubernetesStore


class Server:
    """Answers every request, and knows which it was sent in full."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.answers = True
        self.breaks = False
        self.knows_kinds = True
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.heard.append(request.method)
        if not self.answers and request.transport is not None:
            request.transport.abort()
        if not self.knows_kinds:
            return web.Response(text="404 page not found\n", status=404)
        if self.breaks and request.transport is not None:
            answer = web.StreamResponse()
            await answer.prepare(request)
            await answer.write(b"tick")
            request.transport.close()
            return answer
        return web.json_response({})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


async def test_what_was_done_before_the_answer_was_lost_is_not_said_to_have_failed(server: Server) -> None:
    store = KubernetesStore(server.url)
    server.answers = False
    with pytest.raises(Unreachable):
        await store.patch(PODS, "p", {"metadata": {}}, namespace="default")
    assert server.heard == ["PATCH"]
    await store.close()


async def test_nothing_is_sent_by_whom_writing_was_forbidden_while_he_connected(server: Server) -> None:
    asked = 0

    def allowed() -> bool:
        nonlocal asked
        asked += 1
        return asked == 1  # when the request is made, and not once there is a connection

    store = KubernetesStore(server.url, may_write=allowed)
    with pytest.raises(Unavailable):
        await store.patch(PODS, "p", {"metadata": {}}, namespace="default")
    assert asked == 2
    await asyncio.sleep(0.1)
    assert server.heard == []
    await store.close()


async def test_who_may_not_write_sends_nothing_and_may_read(server: Server) -> None:
    store = KubernetesStore(server.url, may_write=lambda: False)
    with pytest.raises(Unavailable, match="leads no longer") as refused:
        await store.delete(PODS, "p", "default")
    assert not isinstance(refused.value, Unreachable), "it is known that it was not done"
    await store.get(PODS, "p", "default")
    assert server.heard == ["GET"]
    await store.close()


async def test_a_stream_that_breaks_is_told_in_words_and_not_in_those_of_http(server: Server) -> None:
    server.breaks = True
    store = KubernetesStore(server.url)
    with pytest.raises(Unavailable, match=r"the connection broke in the middle of an answer$"):
        async for _ in store.stream("/log"):
            pass
    await store.close()


async def test_a_cluster_without_the_kinds_of_heddle_is_told_from_one_without_the_object(server: Server) -> None:
    server.knows_kinds = False
    store = KubernetesStore(server.url)
    with pytest.raises(NotFound, match=r"none of heddle's kinds .* heddle install"):
        await store.list(QUEUES)
    with pytest.raises(NotFound, match="404 page not found"):
        await store.get(PODS, "p", "default")
    await store.close()
