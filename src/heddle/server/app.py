"""The Kubernetes REST dialect over a Store, as one ASGI application.

Each request is answered on its own: authenticate, find the target, call the store. Nothing is kept between requests
but counters, so that a crash loses nothing. Bodies are bounded before they are read.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import msgspec
import prometheus_client as prometheus
import yaml
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from heddle.api.admission import stamp
from heddle.api.errors import (
    ApiError,
    BadRequest,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
)
from heddle.api.registry import PODS
from heddle.api.status import Status, StatusDetails
from heddle.server import discovery, openapi, paths, tables
from heddle.server.access import authorise
from heddle.server.auth import Tokens, User
from heddle.server.paths import Target
from heddle.store.port import PatchType, Store

_log = logging.getLogger(__name__)

MAX_BODY = 3 * 1024 * 1024
"""Bytes of a request body; as in kube-apiserver."""

JSON = "application/json"
_encode = msgspec.json.encode


class LogReader(Protocol):
    """Where the logs of pods come from."""

    def check(self, uid: str, container: str, *, previous: bool) -> None:
        """Raise BadRequest where there is no such log (yet), before an answer has begun."""
        ...

    def read(
        self,
        uid: str,
        container: str,
        *,
        follow: bool,
        tail: int | None,
        previous: bool,
        since: float | None,
        timestamps: bool,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """Yield the log of a container of the pod with this UID; `since` counts seconds back from now."""
        ...


class Server:
    """Answers requests; `app` is the ASGI application."""

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        *,
        logs: LogReader | None = None,
        ready: Callable[[], str] = lambda: "",
        actions: dict[str, Callable[[dict[str, str], User], Any]] | None = None,
    ) -> None:
        """Serve a store.

        Args:
            store: where the objects are.
            tokens: who may call.
            logs: reads pods' logs; without it the log subresource answers 404.
            ready: "" when the rest of heddle is ready, else why it is not.
            actions: endpoints under /heddle/v1/NAME: an (async) function of query and user to a JSON value; the body
                of a POST is "object" in the query.
        """
        self._store, self._tokens, self._logs, self._ready = store, tokens, logs, ready
        self._actions = actions or {}
        self._stopping = asyncio.Event()
        self.metrics = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "apiserver_request_total", "Requests by verb, resource and code.", ["verb", "resource", "code"],
            registry=self.metrics,
        )  # fmt: skip
        self._seconds = prometheus.Histogram(
            "apiserver_request_duration_seconds", "Seconds to answer, watches left out.", ["verb"],
            registry=self.metrics,
        )  # fmt: skip
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])

    def stop(self) -> None:
        """End the watches and log streams, so that the HTTP server can shut down."""
        self._stopping.set()

    async def _answer(self, request: Request) -> Response:
        started = time.perf_counter()
        target: Target | None = None
        try:
            if answer := await self._public(request):
                return answer
            user = self._tokens.authenticate(request.headers.get("authorization"))
            if answer := await self._described(request, user):
                return answer
            target = paths.parse(request.url.path)
            if target is None:
                raise NotFound("the server could not find the requested resource")
            answer = await self._resource(request, target, user)
        except ApiError as error:
            answer = _refusal(error)
        except ClientDisconnect:
            answer = Response(status_code=499)
        except Exception:
            _log.exception("%s %s", request.method, request.url.path)
            answer = _refusal(ApiError("internal error; heddle's log has the details"))
        resource = target.resource.plural if target else ""
        self._requests.labels(request.method, resource, str(answer.status_code)).inc()
        if not isinstance(answer, StreamingResponse):
            self._seconds.labels(request.method).observe(time.perf_counter() - started)
        return answer

    async def _public(self, request: Request) -> Response | None:
        """Health for everybody; it tells nothing about objects."""
        match request.url.path:
            case "/healthz" | "/livez":
                return Response("ok", media_type="text/plain")
            case "/readyz":
                why = self._ready()
                return Response(why or "ok", status_code=503 if why else 200, media_type="text/plain")
            case "/version" | "/version/":
                return _json(discovery.version())
            case _:
                return None

    async def _described(self, request: Request, user: User) -> Response | None:
        """Discovery, OpenAPI, metrics and actions: everything that is not an object."""
        path = request.url.path.rstrip("/")
        parts = path.split("/")[1:]
        found: Any = None
        if path == "/metrics":
            body = prometheus.generate_latest(self.metrics)
            return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
        if path == "/api":
            found = discovery.core_versions()
        elif path == "/apis":
            found = discovery.groups()
        elif path == "/openapi/v3":
            found = openapi.index()
        elif path.startswith("/openapi/v3/"):
            found = openapi.document(path.removeprefix("/openapi/v3/"))
        elif parts[0] == "api" and len(parts) == 2:
            found = discovery.resources("", parts[1])
        elif parts[0] == "apis" and len(parts) == 2:
            found = discovery.group(parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found = discovery.resources(parts[1], parts[2])
        elif parts[:2] == ["heddle", "v1"] and len(parts) == 3 and (action := self._actions.get(parts[2])):
            query = dict(request.query_params)
            if request.method == "POST":
                query["object"] = (await _body(request)).decode()
            found = action(query, user)
            if asyncio.iscoroutine(found):
                found = await found
        return None if found is None else _json(found)

    async def _resource(self, request: Request, target: Target, user: User) -> Response:
        await authorise(self._store, user, request.method, target)
        match request.method, bool(target.name), target.subresource:
            case "GET", True, "log":
                return await self._log(request, target)
            case "GET" | "HEAD", True, _:
                return await self._get(request, target)
            case "GET" | "HEAD", False, _:
                if _flag(request, "watch"):
                    return await self._watch(request, target)
                return await self._list(request, target)
            case "POST", True, "binding":
                return await self._bind(request, target)
            case "POST", False, _:
                obj = await _object(request)
                if target.resource.own:
                    stamp(obj, user.name, user.groups)
                blob = await self._store.create(target.resource, obj, target.namespace, dry_run=_dry_run(request))
                return Response(blob, status_code=201, media_type=JSON)
            case "PUT", True, _:
                obj = await _object(request)
                _agrees(target, obj)
                blob = await self._store.replace(
                    target.resource, obj, subresource=target.subresource, dry_run=_dry_run(request)
                )
                return Response(blob, media_type=JSON)
            case "PATCH", True, _:
                return await self._patch(request, target)
            case "DELETE", True, "":
                return await self._delete(request, target)
            case "DELETE", False, _:
                return await self._delete_collection(request, target)
            case _:
                raise MethodNotAllowed(f"the server does not allow {request.method} here")

    async def _get(self, request: Request, target: Target) -> Response:
        blob = await self._store.get(target.resource, target.name, target.namespace)
        if _wants_table(request):
            return Response(tables.table(target.resource, [blob], metadata={}), media_type=JSON)
        return Response(blob, media_type=JSON)

    async def _list(self, request: Request, target: Target) -> Response:
        query, r = request.query_params, target.resource
        page = await self._store.list(
            r,
            target.namespace,
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
            limit=_number(query.get("limit"), "limit") or 0,
            continue_=query.get("continue", ""),
        )
        meta: dict[str, Any] = {"resourceVersion": page.resource_version}
        if page.continue_:
            meta["continue"] = page.continue_
            if page.remaining is not None:
                meta["remainingItemCount"] = page.remaining
        if _wants_table(request):
            return Response(tables.table(r, list(page.items), metadata=meta), media_type=JSON)
        head = {"kind": r.list_kind, "apiVersion": r.api_version, "metadata": meta}
        body = _encode(head)[:-1] + b',"items":[' + b",".join(page.items) + b"]}"
        return Response(body, media_type=JSON)

    async def _watch(self, request: Request, target: Target) -> Response:
        query, r = request.query_params, target.resource
        field_selector = query.get("fieldSelector", "")
        timeout = _number(query.get("timeoutSeconds"), "timeoutSeconds")
        events = self._store.watch(
            r,
            target.namespace,
            resource_version=query.get("resourceVersion", ""),
            label_selector=query.get("labelSelector", ""),
            field_selector=field_selector,
            bookmarks=_flag(request, "allowWatchBookmarks"),
            send_initial_events=_flag(request, "sendInitialEvents"),
            timeout=float(timeout) if timeout else None,
        )
        as_table = _wants_table(request)

        async def stream() -> AsyncIterator[bytes]:
            first = True
            try:
                async for event in _until(events, self._stopping):
                    body = event.object
                    if as_table and event.type != "BOOKMARK":
                        body = tables.table(r, [body], metadata={}, headers=first)
                        first = False
                    yield b'{"type":"' + event.type.encode() + b'","object":' + body + b"}\n"
            except ApiError as error:
                yield b'{"type":"ERROR","object":' + _encode(error.status) + b"}\n"

        return StreamingResponse(stream(), media_type=JSON)

    async def _bind(self, request: Request, target: Target) -> Response:
        obj = await _object(request)
        node = (obj.get("target") or {}).get("name")
        if not isinstance(node, str) or not node:
            raise BadRequest("target.name: name the node to bind to")
        binding = {**obj, "metadata": {**(obj.get("metadata") or {}), "name": target.name}}
        await self._store.create(PODS, binding, target.namespace, subresource="binding", dry_run=_dry_run(request))
        return _json({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}, 201)

    async def _patch(self, request: Request, target: Target) -> Response:
        media = request.headers.get("content-type", "").split(";")[0].strip()
        if media == "application/apply-patch+yaml":
            raise UnsupportedMediaType(
                "server-side apply is not supported by embedded heddle; use client-side apply (kubectl apply)"
            )
        try:
            type_ = PatchType(media)
        except ValueError:
            accepted = ", ".join(t.value for t in PatchType)
            raise UnsupportedMediaType(f"the body of the patch is {media!r}; accepted: {accepted}") from None
        patch = _decode(await _body(request))
        blob = await self._store.patch(
            target.resource,
            target.name,
            patch,
            namespace=target.namespace,
            type=type_,
            subresource=target.subresource,
            dry_run=_dry_run(request),
        )
        return Response(blob, media_type=JSON)

    async def _delete(self, request: Request, target: Target) -> Response:
        options = await _delete_options(request)
        preconditions = options.get("preconditions") or {}
        blob = await self._store.delete(
            target.resource,
            target.name,
            target.namespace,
            uid=preconditions.get("uid", ""),
            resource_version=preconditions.get("resourceVersion", ""),
            propagation=options.get("propagationPolicy") or "Background",
            grace_period=options.get("gracePeriodSeconds"),
        )
        return Response(blob, media_type=JSON)

    async def _delete_collection(self, request: Request, target: Target) -> Response:
        options, query = await _delete_options(request), request.query_params
        page = await self._store.list(
            target.resource,
            target.namespace,
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
        )
        for blob in page.items:
            meta = msgspec.json.decode(blob)["metadata"]
            with contextlib.suppress(NotFound):
                await self._store.delete(
                    target.resource,
                    meta["name"],
                    meta.get("namespace", ""),
                    uid=meta["uid"],
                    propagation=options.get("propagationPolicy") or "Background",
                    grace_period=options.get("gracePeriodSeconds"),
                )
        done = Status(status="Success", code=200, details=StatusDetails(kind=target.resource.plural))
        return Response(_encode(done), media_type=JSON)

    async def _log(self, request: Request, target: Target) -> Response:
        if self._logs is None:
            raise NotFound("this server has no logs")
        pod = msgspec.json.decode(await self._store.get(PODS, target.name, target.namespace))
        names = [c["name"] for c in pod["spec"].get("containers", [])]
        query = request.query_params
        container = query.get("container") or names[0]
        if container not in names:
            raise BadRequest(f"container {container} is not valid for pod {target.name}; it has: {', '.join(names)}")
        uid, previous = pod["metadata"]["uid"], _flag(request, "previous")
        self._logs.check(uid, container, previous=previous)
        lines = self._logs.read(
            uid,
            container,
            follow=_flag(request, "follow"),
            tail=_number(query.get("tailLines"), "tailLines"),
            previous=previous,
            since=_number(query.get("sinceSeconds"), "sinceSeconds"),
            timestamps=_flag(request, "timestamps"),
            limit_bytes=_number(query.get("limitBytes"), "limitBytes"),
        )
        return StreamingResponse(_until(lines, self._stopping), media_type="text/plain")


async def _until(source: AsyncIterator[Any], stop: asyncio.Event) -> AsyncIterator[Any]:
    """The items of a source until it ends or `stop` is set."""
    stopped = asyncio.ensure_future(stop.wait())
    pending: asyncio.Future[Any] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(anext(source))
            await asyncio.wait({pending, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not pending.done():
                return
            try:
                yield pending.result()
            except StopAsyncIteration:
                return
    finally:
        stopped.cancel()
        if pending is not None and not pending.done():
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await pending
        if hasattr(source, "aclose"):
            await source.aclose()


def _json(value: Any, code: int = 200) -> Response:
    return Response(_encode(value), status_code=code, media_type=JSON)


def _refusal(error: ApiError) -> Response:
    return Response(_encode(error.status), status_code=error.status.code, media_type=JSON)


def _wants_table(request: Request) -> bool:
    return "as=Table" in request.headers.get("accept", "")


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("true", "1")


def _number(text: str | None, name: str) -> int | None:
    if text is None or text == "":
        return None
    try:
        value = int(text)
    except ValueError:
        raise BadRequest(f"{name}: {text!r} is not a whole number") from None
    if value < 0:
        raise BadRequest(f"{name}: give 0 or more")
    return value


def _dry_run(request: Request) -> bool:
    value = request.query_params.get("dryRun", "")
    if value not in ("", "All"):
        raise BadRequest(f"dryRun: {value!r} is not known; write All")
    return value == "All"


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    too_large = TooLarge(f"the request body is over the limit of {MAX_BODY} bytes; split the object")
    if length.isdigit() and int(length) > MAX_BODY:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise too_large
    return bytes(body)


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None


async def _object(request: Request) -> dict[str, Any]:
    body = await _body(request)
    media = request.headers.get("content-type", JSON).split(";")[0].strip()
    if media in (JSON, ""):
        obj = _decode(body)
    elif media == "application/yaml":
        try:
            obj = yaml.safe_load(body)
        except yaml.YAMLError as error:
            raise BadRequest(f"the body is not YAML: {error}") from None
    else:
        raise UnsupportedMediaType(f"the body is {media!r}; accepted: {JSON}, application/yaml")
    if not isinstance(obj, dict):
        raise BadRequest("the body must be an object")
    return obj


def _agrees(target: Target, obj: dict[str, Any]) -> None:
    meta = obj.setdefault("metadata", {})
    if not isinstance(meta, dict):
        raise BadRequest("metadata: give an object")
    for field, wanted in (("name", target.name), ("namespace", target.namespace)):
        if wanted and meta.setdefault(field, wanted) != wanted:
            raise BadRequest(f"the {field} of the object ({meta[field]}) does not match the URL ({wanted})")


async def _delete_options(request: Request) -> dict[str, Any]:
    body = await _body(request)
    options = _decode(body) if body else {}
    if not isinstance(options, dict):
        raise BadRequest("the body must be DeleteOptions")
    query = request.query_params
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    if "gracePeriodSeconds" in query:
        options["gracePeriodSeconds"] = _number(query["gracePeriodSeconds"], "gracePeriodSeconds")
    if options.get("propagationPolicy") not in (None, "Background", "Foreground", "Orphan"):
        raise BadRequest("propagationPolicy: choose Background, Foreground or Orphan")
    return options
