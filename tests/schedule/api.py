"""A stand-in for Kubernetes, over HTTP: the paths that Reprise uses, and the controller of Jobs."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

TOKEN = "token-of-the-test"
NOW = "2026-11-26T00:00:00Z"
PATH = re.compile(
    r"/(?:api|apis/[\w.]+)/v1/namespaces/(?P<space>[\w-]+)/(?P<kind>\w+)"
    r"(?:/(?P<name>[\w.-]+))?(?:/(?P<part>\w+))?$"
)
Object = dict[str, Any]


class Api:
    """What is in the cluster.

    `denied`: verbs and resources that RBAC doesn't allow. `refusal`: status and message that a Job
    is answered with.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.objects: dict[tuple[str, str], Object] = {}
        self.denied: set[tuple[str, str]] = set()
        self.refusal: tuple[int, str] | None = None
        self.token = TOKEN
        self.logs: dict[str, str] = {}
        self.warnings: dict[str, str] = {}
        self.seen: list[str] = []
        self.tried: list[Object] = []
        self.lock = threading.RLock()
        self.placed: Callable[[Object], None] = lambda pod: None

    def of(self, kind: str) -> list[Object]:
        return [made for (known, _), made in self.objects.items() if known == kind]

    # ---- what a test says as scheduler and kubelet ----------------------------------------------

    def bind(self, pod: str, node: str) -> None:
        self.objects["pods", pod]["spec"]["nodeName"] = node

    def report(self, pod: str, status: Object) -> None:
        with self.lock:
            found = self.objects["pods", pod]
            found["status"] = {**found["status"], **status}
            self._control()

    def vanish(self, pod: str) -> None:
        with self.lock:
            del self.objects["pods", pod]

    # ---- what Kubernetes does -------------------------------------------------------------------

    def create(self, kind: str, made: Object) -> None:
        name = made["metadata"]["name"]
        made["metadata"]["creationTimestamp"] = NOW
        made.setdefault("status", {})
        self.objects[kind, name] = made
        if kind == "jobs":
            template = made["spec"]["template"]
            for number in range(made["spec"]["completions"]):
                labels = {**template["metadata"]["labels"], "job-name": name}
                pod = {
                    "metadata": {
                        "name": f"{name}-{number}",
                        "labels": labels,
                        "creationTimestamp": NOW,
                    },
                    "spec": json.loads(json.dumps(template["spec"])),
                    "status": {"phase": "Pending"},
                }
                self.objects["pods", f"{name}-{number}"] = pod
                self.placed(pod)

    def delete(self, kind: str, name: str) -> None:
        del self.objects[kind, name]
        if kind == "jobs":
            for pod in self.of("pods"):
                if pod["metadata"]["labels"]["job-name"] == name:
                    del self.objects["pods", pod["metadata"]["name"]]

    def _control(self) -> None:
        """A Job is as its pods are."""
        for job in self.of("jobs"):
            name = job["metadata"]["name"]
            pods = [p for p in self.of("pods") if p["metadata"]["labels"]["job-name"] == name]
            phases = {pod["status"]["phase"] for pod in pods}
            if "Failed" in phases:
                reason = "BackoffLimitExceeded"
                message = "Job has reached the specified backoff limit"
                condition = {"type": "Failed", "reason": reason, "message": message}
            elif phases == {"Succeeded"}:
                condition = {"type": "Complete"}
            else:
                continue
            job["status"]["conditions"] = [{**condition, "status": "True"}]


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = Api(f"http://127.0.0.1:{self.server_port}")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        with self.server.api.lock:
            self.server.api.seen.append(f"{self.command} {urlsplit(self.path).path}")
            status, answer = self._decide(body)
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(answer, str) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _answer

    def _decide(self, body: Object) -> tuple[int, Any]:
        api, address = self.server.api, urlsplit(self.path)
        if self.headers.get("Authorization") != f"Bearer {api.token}":
            return _status(401, "Unauthorized")
        if address.path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            return 201, {**body, "status": {"allowed": (asked["verb"], resource) not in api.denied}}
        found = PATH.match(address.path)
        if found is None:
            return _status(404, f"the server could not find {address.path}")
        kind, name, part = found["kind"], found["name"], found["part"]
        options = {key: values[0] for key, values in parse_qs(address.query).items()}
        verb = {"POST": "create", "DELETE": "delete"}.get(self.command, "get" if name else "list")
        if (verb, kind) in api.denied:
            return _status(403, f'{kind} is forbidden: User "u" cannot {verb} resource "{kind}"')
        if kind == "jobs" and verb == "create" and api.refusal is not None:
            return _status(*api.refusal)
        if verb == "create":
            if (kind, body["metadata"]["name"]) in api.objects:
                return _status(409, f'{kind} "{body["metadata"]["name"]}" already exists')
            if options.get("dryRun") == "All":
                api.tried.append(body)
            else:
                api.create(kind, body)
            return 201, body
        if kind == "events":
            about = options["fieldSelector"].split(",")[0].partition("=")[2]
            return 200, {"items": [_event(m) for n, m in api.warnings.items() if n == about]}
        if name is None:
            key, _, value = options["labelSelector"].partition("=")
            items = [o for o in api.of(kind) if o["metadata"]["labels"].get(key) == value]
            return 200, {"items": items, "metadata": {}}
        if (kind, name) not in api.objects:
            return _status(404, f'{kind} "{name}" not found')
        if part == "log":
            return 200, api.logs.get(name, "")
        if verb == "delete":
            api.delete(kind, name)
            return 200, {"kind": "Status", "status": "Success"}
        return 200, api.objects[kind, name]


def _status(code: int, message: str) -> tuple[int, Object]:
    return code, {"kind": "Status", "status": "Failure", "code": code, "message": message}


def _event(message: str) -> Object:
    return {"metadata": {"name": "e"}, "involvedObject": {}, "type": "Warning", "message": message}


@contextmanager
def serving() -> Iterator[Api]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(path: Path, address: str, token: str = TOKEN) -> Path:
    """How the API is reached, as kubectl has it."""
    content = {
        "clusters": [
            {"name": "c", "cluster": {"server": address, "insecure-skip-tls-verify": True}}
        ],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
