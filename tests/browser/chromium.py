"""A real Chromium, driven through its DevTools: what a page looks like, what it fetched, whether anything ran."""

from __future__ import annotations

import asyncio
import base64
import itertools
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START_TIMEOUT_S = 60
MAX_SHOT_HEIGHT = 12_000
"""Pixels; Chromium refuses screenshots of more than 16,384."""


class Browser:
    """Opens pages one by one in a Chromium that is already running.

    Args:
        port: of its DevTools.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def visit(self, page: Path | str, width: int, height: int, scheme: str, expression: str) -> dict[str, Any]:
        """Open a page and look at it.

        Args:
            page: a file, or a URL.
            width: of the window, pixels.
            height: of the window, pixels.
            scheme: `light` or `dark`.
            expression: JavaScript whose value is wanted; it runs from outside, so the page's policy does not stop it.

        Returns:
            value, requests (URLs), dialogs (texts), screenshot (PNG bytes of the page, its first
            `MAX_SHOT_HEIGHT` pixels).
        """
        return asyncio.run(
            self._visit(page.as_uri() if isinstance(page, Path) else page, width, height, scheme, expression)
        )

    async def _visit(self, url: str, width: int, height: int, scheme: str, expression: str) -> dict[str, Any]:
        address = f"http://127.0.0.1:{self._port}"
        async with aiohttp.ClientSession() as session:
            async with session.put(f"{address}/json/new?about:blank") as answer:
                target = await answer.json(content_type=None)
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = DevTools(socket)
                for domain in ("Page", "Network", "Runtime"):
                    await page.call(f"{domain}.enable")
                feature = {"name": "prefers-color-scheme", "value": scheme}
                await page.call("Emulation.setEmulatedMedia", features=[feature])
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
                await page.call("Emulation.setDeviceMetricsOverride", **size)
                await page.call("Page.navigate", url=url)
                await page.wait_for("Page.loadEventFired")
                result = await page.call(
                    "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
                )
                tall = await page.call("Runtime.evaluate", expression="document.documentElement.scrollHeight")
                clip = {"x": 0, "y": 0, "width": width, "scale": 1}
                clip["height"] = min(max(tall["result"]["value"], height), MAX_SHOT_HEIGHT)
                beyond = clip["height"] > height  # only then: it resizes the window, and a page may draw itself anew
                shot = await page.call("Page.captureScreenshot", captureBeyondViewport=beyond, clip=clip)
            async with session.get(f"{address}/json/close/{target['id']}"):
                pass
        assert "exceptionDetails" not in result, result
        return {
            "value": result["result"].get("value"),
            "requests": [
                e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"
            ],
            "dialogs": [e["params"]["message"] for e in page.events if e["method"] == "Page.javascriptDialogOpening"],
            "screenshot": base64.b64decode(shot["data"]),
        }


class DevTools:
    """One page's DevTools connection; events are kept in `events`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while (message := await self._receive()).get("id") != number:
            pass
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    async def wait_for(self, method: str) -> None:
        """Return when an event has come."""
        while not any(event["method"] == method for event in self.events):
            await self._receive()

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json(timeout=START_TIMEOUT_S)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def running_chromium(program: str, profile: Path) -> Iterator[Browser]:
    """A Chromium with an empty profile of its own, ended after the block."""
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    port_file = profile / "DevToolsActivePort"
    try:
        for _ in range(10 * START_TIMEOUT_S):
            assert process.poll() is None, f"{program} ended with {process.returncode}"
            if port_file.exists() and port_file.read_text().count("\n"):
                break
            time.sleep(0.1)
        yield Browser(int(port_file.read_text().splitlines()[0]))
    finally:
        process.terminate()
        process.wait(timeout=30)
