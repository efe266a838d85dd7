"""The Store of a cluster: the REST dialect over one aiohttp session, bytes passed through.

Works against kube-apiserver and against heddle's own server. Finding the server, TLS and tokens is left to the
official client's configuration loader.
"""

import asyncio
import importlib
import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter

from heddle.api.errors import ApiError, Expired, NotFound, Unavailable, Unreachable
from heddle.api.registry import Resource
from heddle.store.port import Object, Page, Patch, PatchType, Propagation, Watched
from heddle.store.throttle import Throttle

_CHUNK = 1 << 16
_TRIES = 4  # of a request that the server is too busy for
_ANSWER = aiohttp.ClientTimeout(total=60, sock_connect=10)  # kube-apiserver itself gives up after 60 s
_LONGEST = 10.0  # seconds between two of them


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Head(msgspec.Struct):
    metadata: _Meta


_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(_Event)
_HEAD = msgspec.json.Decoder(_Head)


class _Allowed(aiohttp.BytesPayload):
    """A body that is not sent once writing is forbidden: a process may stand still while it connects, and others may
    lead by the time it goes on."""

    def __init__(self, body: bytes, allowed: Callable[[], bool]) -> None:
        super().__init__(body)
        self._allowed = allowed

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """See `aiohttp.Payload`."""
        if not self._allowed():
            raise OSError("this process leads no longer")
        await super().write_with_length(writer, content_length)


class KubernetesStore:
    """A `Store` over HTTP. Make it inside the event loop that uses it."""

    def __init__(
        self,
        server: str,
        *,
        token: str = "",
        ssl_context: ssl.SSLContext | bool = True,
        headers: dict[str, str] | None = None,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """A store of the server at this address.

        Args:
            server: such as https://127.0.0.1:6443.
            token: bearer token.
            ssl_context: how to trust the server (and the client certificate, where there is one).
            headers: sent with every request.
            may_write: asked before each write; where it says no, the write raises Unavailable and is not sent.
        """
        own = {"Authorization": f"Bearer {token}"} if token else {}
        self._session = aiohttp.ClientSession(
            headers={**own, **(headers or {}), "Accept": "application/json"},
            connector=aiohttp.TCPConnector(ssl=ssl_context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )
        self._server = server.rstrip("/")
        self._watches: set[aiohttp.ClientResponse] = set()
        self.throttle = Throttle()
        self.may_write = may_write

    @classmethod
    def from_config(cls, kubeconfig: str | Path | None = None, context: str | None = None) -> "KubernetesStore":
        """A store of the cluster that a kubeconfig, or the pod that this runs in, speaks of.

        Tokens that the configuration renews (exec plugins, service accounts) are read once, here.
        """
        # A second of imports that embedded mode never needs.
        client: Any = importlib.import_module("kubernetes.client")
        config: Any = importlib.import_module("kubernetes.config")

        configuration = client.Configuration()
        if kubeconfig is None and not Path("~/.kube/config").expanduser().exists():
            try:
                config.load_incluster_config(configuration)
            except config.ConfigException:
                config.load_kube_config(context=context, client_configuration=configuration)
        else:
            path = str(kubeconfig) if kubeconfig else None
            config.load_kube_config(config_file=path, context=context, client_configuration=configuration)
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:  # the kubeconfig says insecure-skip-tls-verify
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            tls.load_cert_chain(configuration.cert_file, configuration.key_file)
        settings = configuration.auth_settings().values()
        headers = {
            str(s["key"]).title(): str(s["value"]) for s in settings if s.get("in") == "header" and s.get("value")
        }
        return cls(configuration.host, ssl_context=tls, headers=headers)

    async def get(self, r: Resource, name: str, namespace: str = "") -> bytes:
        """See `Store.get`."""
        return await self._call("GET", r.path(namespace, name))

    async def list(
        self,
        r: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
    ) -> Page:
        """See `Store.list`."""
        query = _query(
            labelSelector=label_selector, fieldSelector=field_selector, limit=limit, **{"continue": continue_}
        )
        page = _LIST.decode(await self._call("GET", r.path(namespace), query))
        m = page.metadata
        items = tuple(bytes(item) for item in page.items or [])
        return Page(items, m.resource_version, m.continue_, m.remaining_item_count)

    async def watch(
        self,
        r: Resource,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = False,
        send_initial_events: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Watched]:
        """See `Store.watch`. Where no timeout is given the server ends the watch after its own (30 to 60 min)."""
        query = _query(
            watch="true",
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
            allowWatchBookmarks="true" if bookmarks else "",
            sendInitialEvents="true" if send_initial_events else "",
            resourceVersionMatch="NotOlderThan" if send_initial_events else "",
            timeoutSeconds=0 if timeout is None else max(1, round(timeout)),
        )
        try:
            async with self._session.get(self._server + r.path(namespace), params=query) as answer:
                if answer.status >= 400:
                    raise _error(await answer.read(), answer.status)
                self._watches.add(answer)
                try:
                    async with asyncio.timeout(timeout):
                        async for line in _lines(answer.content):
                            yield _watched(line)
                except TimeoutError:
                    return
                finally:
                    self._watches.discard(answer)
                    _abort(answer)
        except (aiohttp.ClientError, OSError) as error:
            if self._session.closed:
                return
            raise self._lost(error) from error

    async def create(
        self,
        r: Resource,
        obj: Object,
        namespace: str = "",
        *,
        subresource: str = "",
        dry_run: bool = False,
        strict: bool = False,
    ) -> bytes:
        """See `Store.create`; `strict`: a field that the server does not know is refused, and not left out."""
        obj = _typed(r, obj) if not subresource else {"apiVersion": "v1", "kind": "Binding", **obj}
        m = obj.get("metadata") or {}
        name = m.get("name", "") if subresource else ""
        path = r.path(namespace or m.get("namespace", ""), name, subresource)
        return await self._call("POST", path, _dry(dry_run) | _strict(strict), obj)

    async def replace(self, r: Resource, obj: Object, *, subresource: str = "", dry_run: bool = False) -> bytes:
        """See `Store.replace`."""
        m = obj.get("metadata") or {}
        path = r.path(m.get("namespace", ""), m.get("name", ""), subresource)
        return await self._call("PUT", path, _dry(dry_run), _typed(r, obj))

    async def patch(
        self,
        r: Resource,
        name: str,
        patch: Patch,
        *,
        namespace: str = "",
        type: PatchType = PatchType.MERGE,  # noqa: A002
        subresource: str = "",
        dry_run: bool = False,
        strict: bool = False,
    ) -> bytes:
        """See `Store.patch`, and `create` for `strict`."""
        path = r.path(namespace, name, subresource)
        return await self._call("PATCH", path, _dry(dry_run) | _strict(strict), patch, type.value)

    async def delete(
        self,
        r: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: Propagation = "Background",
        grace_period: int | None = None,
    ) -> bytes:
        """See `Store.delete`."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        conditions = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}
        if conditions:
            options["preconditions"] = conditions
        if grace_period is not None:
            options["gracePeriodSeconds"] = grace_period
        return await self._call("DELETE", r.path(namespace, name), {}, options)

    async def read(self, path: str, query: dict[str, str] | None = None) -> bytes:
        """What the server answers at a path that is no object, such as /version."""
        return await self._call("GET", path, query)

    async def ask(self, path: str, body: Any, query: dict[str, str] | None = None) -> bytes:
        """What the server answers to a body (anything that encodes as JSON) at a path that is no object."""
        return await self._call("POST", path, query, body)

    async def stream(self, path: str, query: dict[str, str] | None = None) -> AsyncIterator[bytes]:
        """The body at a path as it comes, for instance a log that is followed."""
        try:
            async with self._session.get(self._server + path, params=query or {}) as answer:
                if answer.status >= 400:
                    raise _error(await answer.read(), answer.status)
                async for chunk in answer.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> Unavailable:
        broken = isinstance(error, aiohttp.ClientPayloadError)  # whose text is about HTTP's framing
        why = "the connection broke in the middle of an answer" if broken else str(error) or type(error).__name__
        return Unavailable(f"{self._server}: {why}")

    async def close(self) -> None:
        """End all watches and close the session."""
        for answer in list(self._watches):
            _abort(answer)
        connector = self._session.connector
        if connector is not None:
            await connector.close(abort_ssl=True)
        await self._session.close()
        for _ in range(4):  # aborted transports end in the loop's next rounds
            await asyncio.sleep(0)

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> bytes:
        encoded = None if body is None else msgspec.json.encode(body)
        headers = None if encoded is None else {"Content-Type": content_type}
        for tried in range(_TRIES):
            data = None if encoded is None else _Allowed(encoded, self.may_write)  # one that is sent is used up
            async with self.throttle.pass_through():
                if method != "GET" and not self.may_write():
                    raise Unavailable(f"{method} {path} is not sent: this process leads no longer")
                try:
                    async with self._session.request(
                        method, self._server + path, params=query, data=data, headers=headers, timeout=_ANSWER
                    ) as answer:
                        content = await answer.read()
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self.throttle.refused()
                    raise Unreachable(f"{self._server}: {error or type(error).__name__}") from error
            if answer.status < 400:
                self.throttle.answered()
                return content
            if not _overloaded(answer, path):
                raise _no_kind(path, content) or _error(content, answer.status)
            self.throttle.refused()
            if tried < _TRIES - 1:
                await asyncio.sleep(_pause(answer, tried))
        raise _error(content, answer.status)


def _overloaded(answer: aiohttp.ClientResponse, path: str) -> bool:
    """Whether the server only asks to be asked again later (an eviction that a budget forbids is told otherwise)."""
    return answer.status == 429 and "Retry-After" in answer.headers and not path.endswith("/eviction")


def _pause(answer: aiohttp.ClientResponse, tried: int) -> float:
    said = answer.headers.get("Retry-After", "")
    least = float(said) if said.isdigit() else 1.0
    return random.uniform(0.5, 1) * min(_LONGEST, max(0.1, least) * float(2**tried))


def _abort(answer: aiohttp.ClientResponse) -> None:
    """Drop an unfinished watch at once: a TLS farewell would wait for a server that is still sending."""
    transport = answer.connection.transport if answer.connection else None
    if transport is not None:
        transport.abort()
    answer.close()


def _typed(r: Resource, obj: Object) -> Object:
    return {"apiVersion": r.api_version, "kind": r.kind, **obj}


def _query(**parameters: str | int) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items() if value}


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _strict(strict: bool) -> dict[str, str]:
    return {"fieldValidation": "Strict"} if strict else {}


def _no_kind(path: str, content: bytes) -> NotFound | None:
    """A server without the definitions of heddle's kinds says that there is no such page, and no more."""
    if content.strip() != b"404 page not found" or not path.startswith("/apis/heddle.dev/"):
        return None
    return NotFound("this cluster has none of heddle's kinds (heddle.dev); see: heddle install")


def _error(content: bytes, code: int) -> ApiError:
    try:
        body = msgspec.json.decode(content)
    except msgspec.DecodeError:
        body = content.decode(errors="replace")
    return ApiError.from_status(body, code)


def _watched(line: bytes) -> Watched:
    event = _EVENT.decode(line)
    blob = bytes(event.object)
    if event.type == "ERROR":
        error = _error(blob, 500)
        if error.status.code == 410:
            raise Expired(status=error.status)
        raise error
    return Watched(event.type, _HEAD.decode(blob).metadata.resource_version, blob)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length (the stream's own reader has a limit)."""
    rest = bytearray()
    async for chunk in stream.iter_chunked(_CHUNK):
        start = len(rest)
        rest += chunk
        while (end := rest.find(b"\n", start)) >= 0:
            yield bytes(rest[:end])
            del rest[: end + 1]
            start = 0
