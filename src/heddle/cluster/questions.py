"""What people ask the controller of a cluster: explain, preview, snapshot, over HTTPS through the API server's proxy.

The proxy does not say who asks, so a question carries the asker's own token, in its body, where no log writes it down.
The API server is asked whose it is and what they may (`heddle.cluster.reviews`), and names of workloads that they may
not read are left out. A process that stands by follows the cluster with the same state and answers as well.
"""

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from heddle.api.errors import ApiError, BadRequest, Forbidden, TooLarge, Unavailable
from heddle.api.registry import PODS, QUEUES, TRAININGJOBS, WORKLOADS
from heddle.cluster.reviews import Asker, Reviews
from heddle.cluster.web import Listener
from heddle.control.redaction import namespaces, redacted
from heddle.control.scheduling.inquiries import Inquiries
from heddle.control.scheduling.questions import explained_job, previewed_object, recorded_world
from heddle.server.auth import User
from heddle.server.tls import ensure_certificate

_log = logging.getLogger(__name__)

_MAX_BODY = 1 << 20
_AT_ONCE = 2
"""Answers that are worked out at a time: each copies the world, and plans go first."""
_WAITING = 32
"""Questions that wait; further ones are told to come again."""


class Asked(msgspec.Struct):
    """The body of a question."""

    token: str = ""
    query: dict[str, str] = {}
    object: Any = None


class Questions:
    """/heddle/v1/explain, /heddle/v1/preview and /heddle/v1/snapshot, each by POST of an `Asked`."""

    def __init__(
        self,
        listen: tuple[str, int],
        inquiries: Inquiries,
        reviews: Reviews,
        ready: Callable[[], str],
    ) -> None:
        """Answer at an address; `ready` says why the process cannot yet, or ""."""
        self._inquiries, self._reviews, self._ready = inquiries, reviews, ready
        self._working = asyncio.Semaphore(_AT_ONCE)
        self._here = 0
        routes = [
            Route(f"/heddle/v1/{name}", self._endpoint(answer), methods=["POST"])
            for name, answer in (("explain", self._explain), ("preview", self._preview), ("snapshot", self._snapshot))
        ]
        with tempfile.TemporaryDirectory() as folder:
            # Nobody can verify it, and the API server's proxy does not: it keeps tokens from who listens on the wire.
            self._listener = Listener(listen, routes, ensure_certificate(Path(folder)))

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    async def run(self) -> None:
        """Answer until cancelled."""
        await self._listener.run()

    def _endpoint(self, answer: Callable[[Asker, Asked], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            try:
                found = await self._answered(request, answer)
            except ApiError as error:
                return _json(error.status, error.status.code)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception:
                _log.exception("%s", request.url.path)
                fault = ApiError("internal error; the log of heddle's controller has the details")
                return _json(fault.status, fault.status.code)
            return _json(found)

        return answered

    async def _answered(self, request: Request, answer: Callable[[Asker, Asked], Awaitable[Any]]) -> Any:
        if why := self._ready():
            raise Unavailable(f"heddle's controller cannot answer yet: {why}; ask again in a moment")
        if self._here >= _WAITING:
            raise Unavailable("heddle's controller has too many questions to answer; ask again in a moment")
        self._here += 1
        try:
            asked = await _asked(request)
            return await answer(await self._reviews.who(asked.token), asked)
        finally:
            self._here -= 1

    async def _explain(self, asker: Asker, asked: Asked) -> Any:
        name, namespace = asked.query.get("name", ""), asked.query.get("namespace", "") or "default"
        if not name:
            raise BadRequest("name: give the name of a workload or a pod")
        own = f"{namespace}/{name}"
        key = self._inquiries.key_of(namespace, name) or own
        resource = WORKLOADS if key == own else PODS
        if not await self._reviews.may(asker, "get", resource, namespace, name):
            raise Forbidden(
                f'user {asker.name} may not read workload or pod "{name}" in namespace {namespace}; the cluster role '
                "view there lets them"
            )
        async with self._working:
            found = await explained_job(self._inquiries, {"name": key.partition("/")[2], "namespace": namespace})
        answer = await self._redacted(asker, found)
        return answer | {"workload": key}

    async def _preview(self, asker: Asker, asked: Asked) -> Any:
        obj = asked.object
        meta = obj.get("metadata") if isinstance(obj, dict) else None
        if not isinstance(meta, dict):
            raise BadRequest("object: give a TrainingJob or a Queue with its metadata")
        if obj.get("kind") == QUEUES.kind:
            await self._reviews.demand(asker, "update", QUEUES, name=str(meta.get("name", "")))
        else:
            meta["namespace"] = meta.get("namespace") or "default"
            await self._reviews.demand(asker, "create", TRAININGJOBS, str(meta["namespace"]))
        query = {"object": msgspec.json.encode(obj).decode()}
        async with self._working:
            found = await previewed_object(self._inquiries, query, User(asker.name, asker.groups), here=False)
        return await self._redacted(asker, found)

    async def _snapshot(self, asker: Asker, asked: Asked) -> Any:
        # It holds all work of all tenants under its names, which a simulation cannot do without.
        await self._reviews.demand(asker, "get", QUEUES)
        await self._reviews.demand(asker, "list", WORKLOADS)
        async with self._working:
            return await recorded_world(self._inquiries)

    async def _redacted(self, asker: Asker, found: Any) -> dict[str, Any]:
        plain = msgspec.to_builtins(found)
        named = sorted(namespaces(plain))
        allowed = await asyncio.gather(*(self._reviews.may(asker, "get", WORKLOADS, each) for each in named))
        answer: dict[str, Any] = redacted(plain, {each for each, may in zip(named, allowed, strict=True) if may})
        return answer


async def _asked(request: Request) -> Asked:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise TooLarge(f"the request body is over the limit of {_MAX_BODY} bytes")
    try:
        return msgspec.json.decode(bytes(body), type=Asked)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is no question: {error}") from None


def _json(value: Any, code: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=code, media_type="application/json")
