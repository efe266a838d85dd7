"""A real browser, driven over its DevTools protocol; tests are skipped, with the reason, where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

TOOL = Path(__file__).parents[2] / "tools" / "browser.py"
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


class Page:
    """A tab.

    Attributes:
        faults: what went wrong in it: errors of scripts, and what its own policy forbade.
        requests: what it asked for.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.faults: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._loaded = asyncio.Event()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told["method"] == "Runtime.exceptionThrown":
                self.faults.append(told["params"]["exceptionDetails"]["exception"].get("description", "an error"))
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.faults.append(told["params"]["entry"]["text"])
            elif told["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif told["method"] == "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": self._number, "method": method, "params": params})
        told = await asyncio.wait_for(answer, 60)
        assert "error" not in told, told
        return dict(told["result"])

    async def js(self, expression: str) -> Any:
        told = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.send("Page.navigate", url=path.as_uri())
        await asyncio.wait_for(self._loaded.wait(), 60)
        assert await self.js("document.documentElement.dataset.ready") == "yes", self.faults

    async def text(self, name: str) -> str:
        """What an element shows, by its id."""
        return str(await self.js(f"document.getElementById('{name}').innerText"))

    async def count(self, selector: str) -> int:
        return int(await self.js(f"document.querySelectorAll({json.dumps(selector)}).length"))

    async def disabled(self, name: str) -> bool:
        return bool(await self.js(f"document.getElementById('{name}').disabled"))

    async def choose(self, name: str, value: str) -> None:
        """Chooses from a list."""
        await self.js(
            f"""(() => {{ const list = document.getElementById('{name}'); list.value = '{value}';
            list.dispatchEvent(new Event('change')); }})()"""
        )

    async def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        await self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    async def click(self, x: float, y: float, times: int = 1) -> None:
        for kind in ("mousePressed", "mouseReleased") * times:
            await self.mouse(kind, x, y, button="left", buttons=1, clickCount=times)

    async def box(self, selector: str) -> dict[str, float]:
        """Where an element is, scrolled into sight."""
        found = await self.js(
            f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: "center", behavior: "instant"}}); const b = e.getBoundingClientRect();
            return {{x: b.x, y: b.y, width: b.width, height: b.height}}; }})()"""
        )
        return dict(found)

    async def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a browser's DevTools."""
    spec = importlib.util.spec_from_file_location("heddle_tools_browser", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    binary = tool.find()
    if binary is None:
        pytest.skip(tool.MISSING)
    home = tmp_path_factory.mktemp("browser")
    process = subprocess.Popen(
        [binary, *QUIET, f"--user-data-dir={home}", "--remote-debugging-port=0", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        port = home / "DevToolsActivePort"
        while not port.exists() or not port.read_text().strip():
            assert process.poll() is None, f"{binary} ended with {process.returncode}"
            assert time.monotonic() < until, f"{binary} did not open its DevTools"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text().split()[0]}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
async def page(browser: str) -> AsyncIterator[Page]:
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{browser}/json/new?about:blank") as answer:
            target = await answer.json(content_type=None)
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            tab = Page(socket)
            yield tab
        await asyncio.wait_for(tab._reader, 10)
        async with session.get(f"{browser}/json/close/{target['id']}"):
            pass
