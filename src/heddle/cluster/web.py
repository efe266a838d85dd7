"""What the process answers over HTTP: whether it lives, whether it is ready, its metrics."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from heddle.server import web as server


class Listener:
    """Routes at an address."""

    def __init__(
        self, listen: tuple[str, int], routes: Sequence[Route], certificate: tuple[Path, Path] | None = None
    ) -> None:
        """Answer at an address, over TLS where there are a certificate and its key (read here, not later)."""
        family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(listen)
        self.port = int(self._listener.getsockname()[1])
        files: dict[str, Any] = {}
        if certificate is not None:
            files = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]}
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="warning", access_log=False, lifespan="off",
            timeout_graceful_shutdown=1, **files,
        )  # fmt: skip
        config.load()
        self._server = server.Web(config)

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            self._listener.close()


class Web:
    """/healthz, /readyz and /metrics."""

    def __init__(self, listen: tuple[str, int], ready: Callable[[], str], *registries: prometheus.CollectorRegistry):
        """Answer at an address; `ready` says why the process is not, or ""."""
        self._ready, self._registries = ready, registries
        routes = [
            Route("/healthz", self._healthz),
            Route("/livez", self._healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
        ]
        self._listener = Listener(listen, routes)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    async def run(self) -> None:
        """Answer until cancelled."""
        await self._listener.run()

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readyz(self, request: Request) -> Response:
        why = self._ready()
        return PlainTextResponse(why or "ok", status_code=503 if why else 200)

    async def _metrics(self, request: Request) -> Response:
        text = b"".join(prometheus.generate_latest(registry) for registry in self._registries)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
