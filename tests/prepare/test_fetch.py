"""Fetching from a server that stalls, truncates, lies about lengths and refuses."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from steps.base.errors import UserError, explain
from steps.base.record import Manifest
from steps.config.artifacts import ModelConfig
from steps.config.fetch import FetchConfig, HubSource, MlcommonsSource
from steps.plan.registry import STEPS
from steps.prepare.fetch import download as downloading
from steps.prepare.fetch import sources
from steps.prepare.fetch.client import Access, Client
from steps.prepare.fetch.download import Digest, Item, download
from tests import checkpoints, running
from tests.conftest import ROOT, planned
from tests.file_server import Files, serving

SECRET = "hf_the-token-that-no-log-may-hold"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def body(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def client(attempts: int = 3) -> Client:
    return Client(stall_limit_s=0.3, attempts=attempts, retry_wait_s=0.001)


def item(server: Files, name: str = "a.bin", size: int | None = 5000, **changes: Any) -> Item:
    data = server.bodies.setdefault(f"/{name}", body(5000))
    fields = {"digest": Digest("sha256", sha256(data)), **changes}
    return Item(f"{server.url}/{name}", name, size, **fields)


# ---- what passes in the end --------------------------------------------------------------------


@pytest.mark.parametrize("listed", [True, False], ids=["size listed", "size unknown"])
@pytest.mark.parametrize(
    "script",
    [
        ["ok"],
        ["stall", "truncate", "stall"],
        ["truncate"] * 9,
        ["drip", "drip"],
        ["long"],
        ["reset", "reset"],
        ["429:0", "503"],
        ["truncate", "no-range"],
        ["truncate", "other-range"],
        ["truncate", "429:0", "truncate", "502", "truncate"],
    ],
    ids=lambda script: " ".join(script)[:40],
)
def test_what_passes_is_tried_again_and_resumed(
    server: Files, tmp_path: Path, script: list[str], listed: bool
) -> None:
    wanted = item(server, size=5000 if listed else None)
    server.script["/a.bin"] = list(script)
    arrived: list[int] = []
    download([wanted], tmp_path / "out", client(), 2, arrived.append)
    assert (tmp_path / "out" / "a.bin").read_bytes() == server.bodies["/a.bin"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.bin"]
    assert sum(arrived) == 5000


def test_resuming_asks_for_the_rest_only(server: Files, tmp_path: Path) -> None:
    wanted = item(server)
    server.script["/a.bin"] = ["truncate", "truncate"]
    download([wanted], tmp_path, client(), 1)
    asked = [headers.get("Range") for headers in server.asked("/a.bin")]
    assert asked == [None, "bytes=2500-", "bytes=3750-"]


def test_a_length_that_is_too_short_is_made_up_for_when_the_size_is_listed(
    server: Files, tmp_path: Path
) -> None:
    wanted = item(server)
    server.script["/a.bin"] = ["truncate", "short"]  # 206 says the whole size beside it
    download([wanted], tmp_path, client(), 1)
    assert (tmp_path / "a.bin").read_bytes() == server.bodies["/a.bin"]


def test_the_wait_that_a_server_asks_for_is_kept(server: Files, tmp_path: Path) -> None:
    server.script["/a.bin"] = ["429:1"]
    began = time.monotonic()
    download([item(server)], tmp_path, client(), 1)
    assert 1 <= time.monotonic() - began < 5


def test_files_come_at_once(server: Files, tmp_path: Path) -> None:
    items = [item(server, f"dir/{number}.bin") for number in range(4)]
    for wanted in items:
        server.script[f"/{wanted.name}"] = ["stall"]
    began = time.monotonic()
    download(items, tmp_path, client(), 4)
    assert time.monotonic() - began < 3 * 0.3
    assert len(list((tmp_path / "dir").iterdir())) == 4


# ---- what does not -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (["403"], r"a.bin is refused \(status 403\): it needs a token; accept its terms"),
        (["401"], r"is refused \(status 401\)"),
        (["404"], r"doesn't exist \(status 404\); correct its name or revision"),
        (["418"], r"answers with status 418"),
        (["stall", "429:0", "429:0", "429:0"], "failed 3 times: status 429"),
        (["reset"] * 3, r"failed 3 times: no connection .*; check the network and run it again"),
        (["short"] * 3, "failed 3 times: 4,993 bytes are announced where 5,000 are listed"),
        (["more"] * 3, "failed 3 times: more than the listed 5,000 bytes came"),
        (["wrong"] * 3, r"isn't the expected file: its sha256 digest is \w{64}, not \w{64}"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_pass_is_one_sentence(
    server: Files, tmp_path: Path, script: list[str], words: str
) -> None:
    server.script["/a.bin"] = list(script)
    with pytest.raises(UserError, match=words) as caught:
        download([item(server)], tmp_path / "out", client(), 2)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "a.bin").exists()


def test_a_server_that_never_goes_on_is_given_up(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.file_server.STALL_S", 30)
    data = server.bodies["/a.bin"] = body(1)
    wanted = item(server, size=1, digest=Digest("sha256", sha256(data)))
    server.script["/a.bin"] = ["stall"] * 3
    began = time.monotonic()
    with pytest.raises(UserError, match=r"failed 3 times: nothing came for 0.3 s"):
        download([wanted], tmp_path, client(), 1)
    assert time.monotonic() - began < 5


def test_one_file_that_fails_stops_the_others(server: Files, tmp_path: Path) -> None:
    items = [item(server, f"{number}.bin") for number in range(6)]
    for number in (1, 2, 3, 4, 5):
        server.script[f"/{number}.bin"] = ["429:60"] * 9
    server.script["/0.bin"] = ["404"]
    began = time.monotonic()
    with pytest.raises(UserError, match=r"0.bin doesn't exist"):
        download(items, tmp_path, client(), 6)
    assert time.monotonic() - began < 5


def test_a_disk_too_small_is_noticed_before_anything_is_fetched(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=7000)
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: usage)
    items = [item(server), item(server, "b.bin", size=None)]
    with pytest.raises(UserError, match=r"needs 0.0 GB more, the disk has 0.0 GB free; make room"):
        download(items, tmp_path / "out", client(), 2)
    assert not server.asked("/a.bin") and not server.asked("/b.bin")
    (tmp_path / "out" / "a.bin.part").write_bytes(server.bodies["/a.bin"][:4000])
    download(items, tmp_path / "out", client(), 2)


# ---- what an earlier run left ------------------------------------------------------------------


def test_what_is_there_is_checked_and_kept(server: Files, tmp_path: Path) -> None:
    items = [item(server, f"{number}.bin") for number in range(4)]
    data = server.bodies["/0.bin"]
    (tmp_path / "0.bin").write_bytes(data)
    (tmp_path / "1.bin").write_bytes(data[:-1] + b"x")
    (tmp_path / "2.bin.part").write_bytes(data[:1000])
    (tmp_path / "3.bin.part").write_bytes(b"of another file")
    (tmp_path / "stray").touch()
    download(items, tmp_path, client(), 1)
    ranges = {n: [h.get("Range") for h in server.asked(f"/{n}.bin")] for n in range(4)}
    assert ranges == {0: [], 1: [None], 2: ["bytes=1000-"], 3: ["bytes=15-", None]}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"{number}.bin": data for number in range(4)
    }


def test_a_part_longer_than_the_file_is_begun_again(server: Files, tmp_path: Path) -> None:
    for size in (5000, None):
        (tmp_path / "a.bin").unlink(missing_ok=True)
        (tmp_path / "a.bin.part").write_bytes(body(6000, seed=1))
        download([item(server, size=size)], tmp_path, client(), 1)
        assert (tmp_path / "a.bin").read_bytes() == server.bodies["/a.bin"]


# ---- sources -----------------------------------------------------------------------------------


def hub(server: Files, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "hub",
        "endpoint": server.url,
        "repository_type": "model",
        "repository": "org/model",
        "revision": COMMIT,
        "include": ["*"],
        "exclude": ["original/*"],
        "token": None,
        **changes,
    }


LISTING = f"/api/models/org/model/tree/{COMMIT}"


def fill_hub(server: Files) -> dict[str, bytes]:
    """A repository of three files over two pages of listing; one of them is excluded."""
    held = {"model.safetensors": body(9000), "sub/config.json": b"{}", "original/x.pth": b"x"}
    entries: list[dict[str, Any]] = [{"type": "directory", "path": "sub", "oid": "0", "size": 0}]
    for name, data in held.items():
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": blob}
        if name.endswith(".safetensors"):
            entry |= {"oid": "0" * 40, "lfs": {"oid": sha256(data), "size": len(data)}}
        entries.append(entry)
        server.bodies[f"/org/model/resolve/{COMMIT}/{name}"] = data
    server.bodies[LISTING] = json.dumps(entries[:2]).encode()
    server.bodies["/page2"] = json.dumps(entries[2:]).encode()
    server.links[LISTING] = f'<{server.url}/page2?cursor=x>; rel="next"'
    return held


def test_a_hub_is_listed_with_sizes_and_digests(server: Files) -> None:
    fill_hub(server)
    found = sources.items(HubSource.model_validate_json(json.dumps(hub(server))), client())
    assert [(one.name, one.size, one.digest.algorithm) for one in found] == [
        ("model.safetensors", 9000, "sha256"),
        ("sub/config.json", 2, "git"),
    ]


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (b"<html>", "isn't JSON; is this a hub's endpoint"),
        (b"[" * 100_000, "isn't JSON; is this a hub's endpoint"),
        (b"{}", "isn't a listing; is this a hub's endpoint"),
        (b'[{"path": "x"}]', "isn't a hub's listing"),
        (b"[]", "org/model has no files that are wanted"),
        (
            b'[{"type": "file", "path": "../x", "size": 1, "oid": "0"}]',
            "org/model lists the file '../x', outside of its directory",
        ),
        (
            b'[{"type": "file", "path": "/etc/x", "size": 1, "oid": "0"}]',
            "lists the file '/etc/x', outside",
        ),
        (
            b'[{"type": "file", "path": "manifest.json", "size": 1, "oid": "0"}]',
            "has a manifest.json, which is Reprise's own name; exclude it",
        ),
    ],
)
def test_listings_that_are_none_are_refused(server: Files, listing: bytes, words: str) -> None:
    server.bodies[LISTING] = listing
    with pytest.raises(UserError, match=words):
        sources.items(HubSource.model_validate_json(json.dumps(hub(server))), client())


def mlcommons(server: Files, pin: str | None = None) -> MlcommonsSource:
    return MlcommonsSource(
        kind="mlcommons", uri=f"{server.url}/metadata/set.uri", checksums_sha256=pin, headers={}
    )


def fill_mlcommons(server: Files) -> bytes:
    server.bodies["/data/set/a b.pkl"] = server.bodies["/data/set/a%20b.pkl"] = b"aaa"
    server.bodies["/data/set/sub/c.pkl"] = b"ccc"
    lines = [
        f"{hashlib.md5(b'aaa').hexdigest()}  ./a b.pkl",
        f"{hashlib.md5(b'ccc').hexdigest()} *sub/c.pkl",
        "",
    ]
    server.bodies["/metadata/set.uri"] = f"{server.url}/data/set\n".encode()
    checksums = server.bodies["/metadata/set.md5"] = "\n".join(lines).encode()
    return checksums


def test_mlcommons_storage_is_fetched_by_its_checksums(server: Files, tmp_path: Path) -> None:
    checksums = fill_mlcommons(server)
    found = sources.items(mlcommons(server, sha256(checksums)), client())
    download(found, tmp_path, client(), 2)
    assert (tmp_path / "a b.pkl").read_bytes() == b"aaa"
    assert (tmp_path / "sub" / "c.pkl").read_bytes() == b"ccc"
    with pytest.raises(UserError, match="isn't what checksums_sha256 pins"):
        sources.items(mlcommons(server, "0" * 64), client())


def test_mlcommons_storage_that_wants_a_login_says_so(server: Files) -> None:
    fill_mlcommons(server)
    server.script["/metadata/set.uri"] = [f"to {server.url}/cdn-cgi/access/login"]
    with pytest.raises(UserError, match=r"set.uri is refused \(status 302\): it needs a token"):
        sources.items(mlcommons(server), client())


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("set.uri", b"<html>", "holds no address; is it a .uri file of MLCommons"),
        ("set.md5", b"<html>", "has the line '<html>', which isn't a checksum"),
        ("set.md5", b"0" * 32 + b"  ../up", "lists the file '../up', outside of its directory"),
        ("set.md5", (b"0" * 32 + b"  a\n") * 2, "lists a twice"),
    ],
)
def test_metadata_that_is_none_is_refused(
    server: Files, path: str, text: bytes, words: str
) -> None:
    fill_mlcommons(server)
    server.bodies[f"/metadata/{path}"] = text
    with pytest.raises(UserError, match=words):
        sources.items(mlcommons(server), client())


# ---- the step ----------------------------------------------------------------------------------


def config(source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "model",
        "source": source,
        "offline": False,
        "connections": 2,
        "stall_limit_s": 0.5,
        "attempts": 3,
        "retry_wait_s": 0.001,
        **changes,
    }


def command(home: Path, settings: dict[str, Any]) -> list[str]:
    """Fetching is no step of a plan, but a command like one."""
    python, _, _, *arguments = running.command("model", settings, {}, home)
    return [python, "-m", "steps.prepare.fetch", *arguments]


def fetch(home: Path, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(home, settings), cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def leaks(home: Path, done: subprocess.CompletedProcess[str]) -> bool:
    files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    return any(SECRET.encode() in data for data in [*files, (done.stdout + done.stderr).encode()])


@pytest.mark.parametrize("kind", ["environment", "file"])
def test_a_token_goes_to_its_hub_and_nowhere_else(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path.parent / f"{tmp_path.name}-netrc"))
    Path(os.environ["NETRC"]).write_text("machine 127.0.0.1 login me password other\n")
    token = tmp_path.parent / f"{tmp_path.name}-token"
    token.write_text(f"{SECRET}\n")
    monkeypatch.setenv("HUB_TOKEN", SECRET)
    reference = {"environment": "HUB_TOKEN"} if kind == "environment" else {"file": str(token)}
    held = fill_hub(server)
    path = f"/org/model/resolve/{COMMIT}/model.safetensors"
    with serving(Files(bodies={"/blob": held["model.safetensors"]})) as storage:
        server.script[path] = [f"to {storage.url}/blob?signature={SECRET}"]
        done = fetch(tmp_path, config(hub(server, token=reference)))
        assert done.returncode == 0, done.stderr
        assert "Authorization" not in storage.asked("/blob")[0]
    assert {h["Authorization"] for h in server.asked(path)} == {f"Bearer {SECRET}"}
    made = Manifest.read(tmp_path / "out" / "manifest.json")
    assert set(made.files) == {"model.safetensors", "sub/config.json"}
    assert made.damage() == []
    assert not leaks(tmp_path, done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]


def test_a_token_that_is_refused_is_named_by_reference(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_TOKEN", SECRET)
    fill_hub(server)
    server.script[LISTING] = ["403"]
    done = fetch(tmp_path, config(hub(server, token={"environment": "HUB_TOKEN"})))
    assert done.returncode == 1
    assert "what $HUB_TOKEN holds may not read it" in done.stderr
    assert not leaks(tmp_path, done)
    monkeypatch.delenv("HUB_TOKEN")
    done = fetch(tmp_path, config(hub(server, token={"environment": "HUB_TOKEN"})))
    assert "$HUB_TOKEN holds no token; set it" in done.stderr


def test_a_token_is_not_sent_unencrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", SECRET)
    source = hub(Files(url="http://hub.invalid"), token={"environment": "HUB_TOKEN"})
    done = fetch(tmp_path, config(source))
    assert "would send $HUB_TOKEN unencrypted; give an https URL" in done.stderr


def test_killed_in_the_middle_it_goes_on(server: Files, tmp_path: Path) -> None:
    data = server.bodies["/a.bin"] = body(4_000_000)
    file = {"url": f"{server.url}/a.bin", "name": "a.bin", "sha256": sha256(data)}
    settings = config({"kind": "url", "files": [file], "headers": {}}, stall_limit_s=30.0)
    server.script["/a.bin"] = ["stall"]
    child = subprocess.Popen(
        command(tmp_path, settings), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    part = tmp_path / "out.partial" / "a.bin.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=30)
    assert not (tmp_path / "out").exists()
    arrived = part.stat().st_size
    done = fetch(tmp_path, settings)
    assert done.returncode == 0, done.stderr
    assert server.asked("/a.bin")[-1]["Range"] == f"bytes={arrived}-"
    assert (tmp_path / "out" / "a.bin").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]


def test_offline_never_touches_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steps.base.console import Console
    from steps.base.record import Workspace
    from steps.prepare.fetch.fetch import fetch as fetch_here

    class NoSocket(socket.socket):
        def __init__(self, *arguments: object, **named: object) -> None:
            raise AssertionError("a socket was opened")

    def no_lookup(*arguments: object, **named: object) -> None:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr(socket, "socket", NoSocket)
    monkeypatch.setattr(socket, "getaddrinfo", no_lookup)
    console = Console.__new__(Console)
    for source in (
        hub(Files(url="https://hub.invalid"), token={"environment": "NOT_SET"}),
        {
            "kind": "mlcommons",
            "uri": "https://x.invalid/a.uri",
            "checksums_sha256": None,
            "headers": {},
        },
    ):
        settings = FetchConfig.model_validate_json(json.dumps(config(source, offline=True)))
        with pytest.raises(UserError, match="comes from a network and offline=true"):
            fetch_here(settings, Workspace(tmp_path), console)


def local(path: Path, **sha256s: str) -> dict[str, Any]:
    digests = {name.replace("_", "."): digest for name, digest in sha256s.items()}
    return config({"kind": "local", "path": str(path), "sha256": digests}, offline=True)


def test_a_local_directory_is_taken_and_checked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / ".cache").mkdir()
    (home / ".cache" / "blob").write_bytes(b"weights")
    (home / "a.bin").symlink_to(".cache/blob")
    (home / "sub" / "b.bin").write_bytes(b"b")
    for job in (tmp_path / "1", tmp_path / "2"):
        job.mkdir()
    done = fetch(tmp_path / "1", local(home, a_bin=sha256(b"weights")))
    assert done.returncode == 0, done.stderr
    made = Manifest.read(tmp_path / "1" / "out" / "manifest.json")
    assert set(made.files) == {"a.bin", "sub/b.bin"}
    assert not (made.directory / "a.bin").is_symlink()
    # A finished artifact is itself a local source, and its manifest is believed.
    (made.directory / "sub" / "b.bin").unlink()
    (made.directory / "sub" / "b.bin").write_bytes(b"B")
    done = fetch(tmp_path / "2", local(made.directory))
    assert done.returncode == 1
    assert "sub/b.bin is not the file whose sha256 is given" in done.stderr


@pytest.mark.parametrize(
    ("name", "digests", "words"),
    [
        ("nowhere", {}, "isn't a directory; give the path"),
        ("home", {"b_bin": "0" * 64}, "b.bin is missing; restore it"),
        ("home", {"a_bin": "0" * 64}, "a.bin is not the file whose sha256 is given"),
        ("empty", {}, "holds no files"),
    ],
)
def test_local_sources_that_are_none_are_refused(
    tmp_path: Path, name: str, digests: dict[str, str], words: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "home" / "a.bin").write_bytes(b"a")
    done = fetch(tmp_path, local(tmp_path / name, **digests))
    assert done.returncode == 1
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "main"}, "source.hub.revision: string should match pattern"),
        ({"token": {}}, "a secret is given by either `environment` or `file`"),
        ({"kind": "ftp"}, "source: input tag 'ftp'"),
    ],
)
def test_configurations_that_are_wrong_are_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    done = fetch(tmp_path, config(hub(Files(url="https://hub.invalid"), **change)))
    assert done.returncode == 1
    assert words in done.stderr.lower()


def test_a_file_by_url_needs_a_digest(tmp_path: Path) -> None:
    file = {"url": "https://x.invalid/a", "name": "a"}
    done = fetch(tmp_path, config({"kind": "url", "files": [file], "headers": {}}))
    assert "a needs a sha256 or an md5 to be checked against" in done.stderr


# ---- what the other side says ------------------------------------------------------------------


class Refusing(BaseHTTPRequestHandler):
    """Answers everything with `answer`: status, headers, body."""

    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")

    def do_GET(self) -> None:
        status, headers, data = self.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_CONNECT = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def refusing(
    status: int,
    headers: dict[str, str],
    data: bytes,
    context: ssl.SSLContext | None = None,
) -> Iterator[str]:
    handler = type("Handler", (Refusing,), {"answer": (status, headers, data)})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


REVIEW = "Your request to access model org/model is awaiting a review from the repo authors."


@pytest.mark.parametrize(
    ("status", "headers", "data", "words"),
    [
        (403, {"X-Error-Message": REVIEW}, b"", rf"is refused \(status 403, '{REVIEW}'\): what"),
        (403, {}, json.dumps({"error": REVIEW}).encode(), "awaiting a review"),
        (403, {}, b'{"message": "Quota exceeded"}', "'Quota exceeded'"),
        (
            401,
            {"X-Error-Code": "RepoNotFound"},
            b'{"error": "Repository not found"}',
            "exist .stat",
        ),
        (
            404,
            {"X-Error-Message": "Invalid rev id: x"},
            b"",
            "'Invalid rev id: x'.; correct its na",
        ),
        (403, {"Content-Type": "text/html"}, b"<html>no</html>", r"\(status 403\): what \$HF"),
        (403, {}, b'{"error": ["no", "text"]}', r"\(status 403\)"),
        (403, {}, b"[" * 100_000, r"\(status 403\)"),
        (403, {}, b'{"error": "a\\u001b[31mb\\n' + b"c" * 9000 + b'"}', r"'a \[31mb c{20,160}'"),
        (403, {}, b'{"error": "' + SECRET.encode() + b' is no good"}', r"'\*\*\* is no good'"),
    ],
)
def test_the_servers_own_words_are_passed_on(
    status: int, headers: dict[str, str], data: bytes, words: str
) -> None:
    with refusing(status, headers, data) as url:
        access = Access(url.partition("//")[2], {"Authorization": f"Bearer {SECRET}"}, "$HF_TOKEN")
        with pytest.raises(UserError, match=words) as caught:
            client().text(f"{url}/x", access)
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)


def test_words_that_never_end_are_not_waited_for(server: Files) -> None:
    """The status alone decides."""
    server.script["/x"] = ["403"]
    begun = time.monotonic()
    with pytest.raises(UserError, match="is refused"):
        client().text(f"{server.url}/x", Access())
    assert time.monotonic() - begun < 10


def test_an_untrusted_certificate_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a proxy that opens TLS: trying again doesn't help, REQUESTS_CA_BUNDLE does."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        capture_output=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with refusing(200, {}, b"yes", context) as url:
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"certificate of 127\.0\.0\.1:\d+ isn't trusted"):
            Client(stall_limit_s=5, attempts=3, retry_wait_s=60).text(f"{url}/x", Access())
        assert time.monotonic() - begun < 10
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        trusting = Client(stall_limit_s=5, attempts=1, retry_wait_s=0.001)
        assert trusting.text(f"{url}/x", Access())[0] == b"yes"
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent.pem"))
        with pytest.raises(UserError, match="correct REQUESTS_CA_BUNDLE"):
            trusting.text(f"{url}/x", Access())


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://user:secret@127.0.0.1:1", r"failed 3 times: the proxy for it gives no connection"),
        ("PROXY", "the proxy for .* wants a name and password; put them into HTTPS_PROXY"),
    ],
)
def test_a_proxy_that_refuses_is_named(
    proxy: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing(407, {"Proxy-Authenticate": "Basic"}, b"") as url:
        handler = {"https": url if proxy == "PROXY" else proxy}
        chosen = Client(stall_limit_s=5, attempts=3, retry_wait_s=0.001)
        chosen.session.proxies = handler
        with pytest.raises(UserError, match=words) as caught:
            chosen.text("https://hub.invalid/x", Access())
    assert "secret" not in str(caught.value)


# ---- the model step ----------------------------------------------------------------------------


def model_step(home: Path, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        running.command("model", settings, {}, home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@cache
def planned_text() -> str:
    plan = planned("experiment=amd-v5.1", "benchmark=llama3.1-405b")
    return next(job.config for job in plan.jobs if job.step == "model")


def planned_model(fetch: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The model of the plan for Llama 3.1 405B, with some of its keys changed."""
    config: dict[str, Any] = json.loads(planned_text())
    return {**config, **changes, "fetch": {**config["fetch"], **(fetch or {})}}


def test_the_model_step_fetches_what_the_plan_names(server: Files, tmp_path: Path) -> None:
    held = fill_hub(server)
    assert STEPS["model"].brings(planned_model()) is None
    settings = planned_model(
        {"endpoint": server.url, "token": None}, revision=COMMIT, repository="org/model"
    )
    done = model_step(tmp_path, settings)
    assert done.returncode == 0, done.stderr
    made = Manifest.read(tmp_path / "out/manifest.json")
    assert set(made.files) == {"model.safetensors", "sub/config.json"}
    assert (tmp_path / "out/model.safetensors").read_bytes() == held["model.safetensors"]
    assert made.result["name"] == "llama3.1-405b"
    assert made.result["fetched_from"] == server.url


def test_the_model_step_takes_a_directory_of_this_machine(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "held", checkpoints.llama(2), shards=3)
    settings = local_model(tmp_path / "held")
    assert STEPS["model"].brings(settings) is None
    done = model_step(tmp_path, settings)
    assert done.returncode == 0, done.stderr
    made = set(Manifest.read(tmp_path / "out/manifest.json").files)
    assert len([name for name in made if name.endswith(".safetensors")]) == 3


def local_model(path: Path) -> dict[str, Any]:
    return {
        "name": "x",
        "source": "local",
        "repository": "org/model",
        "path": str(path),
        "fetch": planned_model({"offline": True})["fetch"],
    }


SECOND = "model-00002-of-00003.safetensors"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 41752\n"


@pytest.mark.parametrize("folder", ["", "transformer/"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda home: (home / SECOND).unlink(), f"{SECOND} is missing, and"),
        (lambda home: (home / SECOND).write_bytes(LFS), f"{SECOND} is a pointer of Git LFS"),
        (lambda home: (home / "tokenizer.json").write_bytes(LFS), "tokenizer.json is a pointer"),
        (lambda home: (home / SECOND).write_bytes(b""), f"{SECOND} is truncated or no safetens"),
        (lambda home: os.truncate(home / SECOND, 9000), "bytes, its header says"),
        (
            lambda home: [path.unlink() for path in home.glob("model*")],
            "holds no weights",
        ),
    ],
)
def test_a_local_model_that_is_not_whole_is_refused_before_it_is_taken(
    tmp_path: Path, folder: str, damage: Callable[[Path], object], words: str
) -> None:
    home = checkpoints.write(tmp_path / "held" / folder, checkpoints.llama(2), shards=3)
    damage(home)
    done = model_step(tmp_path, local_model(tmp_path / "held"))
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fetch": {"offline": True}}, "fetch.offline is set"),
    ],
)
def test_a_model_that_cannot_be_fetched_is_named_before_anything_starts(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    model = planned_model(**settings)
    assert words in str(STEPS["model"].brings(model))
    done = model_step(tmp_path, model)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"revision": "main"}, "revision: "),
        ({"source": "ftp"}, "'ftp'"),
        ({"source": "mlcommons"}, "uri: "),
        ({"fetch": {"token": "by value"}}, "fetch.token: "),
        ({"fetch": {"connections": 0}}, "fetch.connections: "),
    ],
)
def test_a_model_that_is_not_described_right_is_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelConfig.model_validate_json(json.dumps(planned_model(**settings)))
    assert words in explain(caught.value)


def test_a_token_given_by_value_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        ModelConfig.model_validate_json(json.dumps(planned_model(fetch={"token": SECRET})))
    said = explain(caught.value)
    assert "fetch.token: a token is given by reference, {environment: NAME} or {file: PATH}" in said
    assert SECRET not in said
