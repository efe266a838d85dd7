"""A line between controllers and their API server that can be cut, held up, or made slow."""

import asyncio
import contextlib
import random
from pathlib import Path
from urllib.parse import urlsplit


class Line:
    """Passes bytes on, both ways; TLS goes through it untouched."""

    def __init__(self, url: str) -> None:
        """A line to the server at this address."""
        self._host, self._port = urlsplit(url).hostname or "", urlsplit(url).port or 443
        self._open = asyncio.Event()
        self._open.set()
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.cuts = 0

    async def __aenter__(self) -> "Line":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._open.set()
        self.cut()

    @property
    def url(self) -> str:
        """Where it begins."""
        assert self._server is not None
        return f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def kubeconfig(self, original: Path, folder: Path) -> Path:
        """A kubeconfig that goes through the line."""
        path = folder / "through-the-line.yaml"
        path.write_text(original.read_text().replace(f"https://{self._host}:{self._port}", self.url))
        path.chmod(0o600)
        return path

    def cut(self) -> None:
        """End all connections at once, without a farewell."""
        self.cuts += len(self._writers)
        for writer in list(self._writers):
            writer.transport.abort()

    async def hold(self, seconds: float) -> None:
        """Pass nothing on for so long; what is sent meanwhile comes after."""
        self._open.clear()
        await asyncio.sleep(seconds)
        self._open.set()

    async def slow(self, seconds: float, delay: float) -> None:
        """For so long each piece comes later, by up to `delay` seconds."""
        self._delay = delay
        await asyncio.sleep(seconds)
        self._delay = 0.0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection(self._host, self._port)
            self._writers.add(there)
            await asyncio.gather(self._pass(reader, there), self._pass(back, writer))
        except OSError:  # the server is gone, or the line was cut
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(1 << 16):
                if self._delay:
                    await asyncio.sleep(random.uniform(0, self._delay))
                await self._open.wait()
                sink.write(piece)
                await sink.drain()
        sink.transport.abort()
