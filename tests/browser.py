"""Debian's Chromium, driven through chromedriver's own protocol (W3C WebDriver, plain HTTP).

A handful of calls, so the tests need no browser library. Every wait has a limit.
"""

import base64
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.programs import logs_of

LIMIT_S = 60.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

CUT_TABLES = """
const folded = [...document.querySelectorAll("section > details:not([open])")];
folded.forEach((one) => { one.open = true; });
const cut = [...document.querySelectorAll(".scroll")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.parentElement.id);
folded.forEach((one) => { one.open = false; });
return cut;
"""
"""Ids of tables with columns that are off the screen, all folded parts open."""


class Browser:
    """One window. Methods raise RuntimeError with the browser's words."""

    def __init__(self, address: str, profile: Path) -> None:
        self._address = address
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": [*FLAGS, f"--user-data-dir={profile}"]},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{made['sessionId']}"

    def open(self, path: Path, fragment: str = "") -> None:
        self._call("POST", f"{self._session}/url", {"url": path.as_uri() + fragment})

    def run(self, script: str) -> Any:
        """The value that a script returns."""
        body = {"script": script, "args": []}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's devtools protocol."""
        body = {"cmd": command, "params": parameters}
        return self._call("POST", f"{self._session}/goog/cdp/execute", body)

    def look(self, width: int, scheme: str) -> None:
        """Be a window of so many pixels that prefers a colour scheme ("dark", "light")."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", media="", features=features)

    def screenshot(self, path: Path, height: int) -> None:
        """The first `height` pixels of the page as PNG."""
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.devtools("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """Entries of the "browser" (console) or "performance" (network) log since last asked."""
        found: list[dict[str, Any]] = self._call("POST", f"{self._session}/se/log", {"type": kind})
        return found

    def requests(self) -> list[str]:
        """Addresses that pages from disk asked for, beside themselves and what they carry.

        Asked once: the log is empty then. The browser's own first tab is no page of ours.
        """
        found = []
        for entry in self.logged("performance"):
            message: dict[str, Any] = json.loads(entry["message"])["message"]
            if message["method"] != "Network.requestWillBeSent":
                continue
            if message["params"]["documentURL"].startswith("file:"):
                found.append(message["params"]["request"]["url"])
        return [url for url in found if not url.startswith(("file:", "data:", "blob:"))]

    def press(self, key: str) -> None:
        """A key goes to what has the focus."""
        for kind in ("keyDown", "keyUp"):
            text = {"Enter": "\r"}.get(key, "") if kind == "keyDown" else ""
            self.devtools(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                text=text,
                windowsVirtualKeyCode={"Enter": 13, "Tab": 9}[key],
            )

    def close(self) -> None:
        self._call("DELETE", self._session, None)

    def _call(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode(errors="replace")[:500]) from error


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile; ended with all its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = logs_of("chromium", profile) / f"{port}.log"
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=stream, stderr=subprocess.STDOUT
        ) as driver,
    ):
        try:
            _wait(port)
            window = Browser(f"http://127.0.0.1:{port}", profile)
            try:
                yield window
            finally:
                window.close()
        finally:
            driver.terminate()


def _wait(port: int) -> None:
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"chromedriver did not start within {LIMIT_S:.0f} s")


def contrast(first: str, second: str) -> float:
    """WCAG 2's contrast ratio of two CSS colours, "rgb(28, 30, 33)"."""
    lighter, darker = sorted(map(luminance, (first, second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = colour[colour.index("(") + 1 : colour.index(")")].split(",")[:3]
    values = [float(part) / 255 for part in parts]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
