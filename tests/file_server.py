"""A local HTTP server that misbehaves as it is told, file by file and request by request."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STALL_S = 2.0


@dataclass
class Files:
    """`bodies` by path. `script`: what the next GETs of a path do, "ok" when it is used up.

    stall: half the body, then nothing. drip: a byte at a time. truncate: half the body, then the
    end. long / short: Content-Length says more / less than comes. more: the body, then garbage.
    wrong: another body of the same size. no-range: the whole body whatever was asked for.
    other-range: a range that wasn't asked for. reset: closed without an answer.
    "<status>" or "<status>:<Retry-After>": that status. "to <url>": a redirect.
    """

    bodies: dict[str, bytes] = field(default_factory=dict)
    script: dict[str, list[str]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def asked(self, path: str, method: str = "GET") -> list[dict[str, str]]:
        """Headers of the requests of a path, in order."""
        return [
            headers for verb, where, headers in self.requests if (verb, where) == (method, path)
        ]


@contextlib.contextmanager
def serving(files: Files) -> Iterator[Files]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer("ok", body=False)

        def do_GET(self) -> None:
            script = files.script.get(self.path.partition("?")[0], [])
            self._answer(script.pop(0) if script else "ok", body=True)

        def _answer(self, how: str, body: bool) -> None:
            path = self.path.partition("?")[0]
            files.requests.append((self.command, path, dict(self.headers)))
            self.close_connection = True
            if how == "reset":
                return
            if how.startswith("to "):
                self._head(302, 0, {"Location": how[3:]})
                return
            if how[:3].isdigit():
                status, _, after = how.partition(":")
                self._head(int(status), 0, {"Retry-After": after} if after else {})
                return
            if path not in files.bodies:
                self._head(404, 0, {})
                return
            data = files.bodies[path]
            if how == "wrong":
                data = bytes(byte ^ 1 for byte in data)
            self._send(how, data, path, body)

        def _send(self, how: str, data: bytes, path: str, body: bool) -> None:
            extra = {"Link": files.links[path]} if path in files.links else {}
            status, begin = 200, 0
            if (asked := self.headers.get("Range")) and how != "no-range":
                begin = int(asked.removeprefix("bytes=").partition("-")[0])
                if begin >= len(data):
                    self._head(416, 0, {"Content-Range": f"bytes */{len(data)}"})
                    return
                status = 206
                begin -= how == "other-range"
                extra["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            part = data[begin:]
            stated = len(part) + {"long": 7, "short": -7}.get(how, 0)
            self._head(status, stated, extra, chunked=how == "more")
            if not body:
                return
            half = len(part) // 2
            with contextlib.suppress(OSError):
                if how == "drip":
                    for index in range(len(part)):
                        self.wfile.write(part[index : index + 1])
                        time.sleep(0.05)
                elif how in ("stall", "truncate"):
                    self.wfile.write(part[:half])
                    self.wfile.flush()
                    time.sleep(STALL_S if how == "stall" else 0)
                elif how == "more":
                    for piece in (part, b"garbage", b""):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                else:
                    self.wfile.write(part)

        def _head(
            self, status: int, size: int, extra: dict[str, str], chunked: bool = False
        ) -> None:
            self.send_response(status)
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(size))
            for name, value in extra.items():
                self.send_header(name, value)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    files.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
