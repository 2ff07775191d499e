"""A mirror on this machine: a step's files, served over HTTP for as long as something is fetched.

Configurations name it by an address without a port, so that what they make doesn't depend on one.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from steps.base.record import Manifest
from steps.config.mirror import ADDRESS, SERVED
from steps.prepare.fetch.client import Session


@contextmanager
def session(mirror: Path | None) -> Iterator[requests.Session]:
    """A session that reaches the mirror of this manifest by ADDRESS; None: there is none."""
    made = Session()
    if mirror is None:
        yield made
        return
    manifest = Manifest.read(mirror)
    manifest.require_whole()
    files = partial(_Files, directory=str(manifest.directory / SERVED))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        made.mount(ADDRESS, _Loopback(server.server_port))
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """What is fetched is said by who fetches it."""


class _Loopback(HTTPAdapter):
    """Sends what is asked of ADDRESS to a port of this machine, whatever proxy is set."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def send(
        self, request: requests.PreparedRequest, *given: Any, **more: Any
    ) -> requests.Response:
        parts = urlsplit(request.url or "")
        here = f"127.0.0.1:{self._port}"
        request.url = str(urlunsplit((parts.scheme, here, parts.path, parts.query, "")))
        more["proxies"] = {}
        return super().send(request, *given, **more)
