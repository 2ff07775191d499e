"""Download many files at once: resumed, checked, published only when all are correct."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import requests

from steps.base.errors import UserError
from steps.base.record import MANIFEST, RECORD, Hash, digest_of
from steps.prepare.fetch.client import Access, Client, Stopped, Transient, length, shown

Algorithm = Literal["sha256", "md5", "git"]
"""Algorithms of digests; "git": sha1 of a blob, the only digest hubs have of small files."""


@dataclass(frozen=True)
class Digest:
    algorithm: Algorithm
    hex: str


@dataclass(frozen=True)
class Item:
    """A file to fetch; `size` in bytes, None if unknown; `name` below the directory."""

    url: str
    name: str
    size: int | None
    digest: Digest
    access: Access = field(default_factory=Access)
    follow: bool = True


def hasher(algorithm: Algorithm, size: int) -> Hash:
    """`size` of the whole file: git puts it before the content."""
    if algorithm == "git":
        return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    return hashlib.new(algorithm, usedforsecurity=False)


def file_digest(path: Path, algorithm: Algorithm) -> str:
    with path.open("rb") as stream:
        return digest_of(stream, hasher(algorithm, path.stat().st_size))


def check_names(names: Sequence[str], source: str) -> None:
    """Names come from a server: none may leave the directory or replace another."""
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise UserError(f"{source} lists the file {name!r}, outside of its directory")
        if name in (MANIFEST, RECORD):
            raise UserError(f"{source} has a {name}, which is Reprise's own name; exclude it")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{source} lists {twice} twice")


def download(
    items: Sequence[Item],
    directory: Path,
    client: Client,
    connections: int,
    advance: Callable[[int], None] = lambda count: None,
    total: Callable[[int], None] = lambda count: None,
) -> None:
    """Fetch all items into `directory`, continuing what an earlier call left there.

    `total` is called once with the bytes of all files, `advance` from several threads with those
    that arrived. UserError for a full disk before anything is fetched, and for the first file that
    can't be fetched or doesn't match its digest; correct files are kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {directory / item.name for item in items}
    wanted |= {_part(path) for path in wanted}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path not in wanted:
            path.unlink()
    with ThreadPoolExecutor(connections) as pool:
        try:
            sizes = list(pool.map(lambda item: _size(client, item), items))
            total(sum(sizes))
            _check_disk(directory, items, sizes)
            jobs = [pool.submit(_fetch, client, item, directory, advance) for item in items]
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            client.stop.set()
            pool.shutdown(cancel_futures=True)
    failed = [error for job in jobs if not job.cancelled() and (error := job.exception())]
    for error in sorted(failed, key=lambda error: isinstance(error, Stopped)):
        raise error


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _size(client: Client, item: Item) -> int:
    """The listed size, else the server's, else 0: an unknown size isn't worth failing for."""
    if item.size is not None:
        return item.size
    try:
        with client.open("HEAD", item.url, item.access, follow=item.follow) as response:
            return length(response) or 0
    except (Transient, UserError):
        return 0


def _check_disk(directory: Path, items: Sequence[Item], sizes: Sequence[int]) -> None:
    needed = 0
    for item, size in zip(items, sizes, strict=True):
        path = directory / item.name
        there = next((p.stat().st_size for p in (path, _part(path)) if p.exists()), 0)
        needed += max(size - there, 0)
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"{directory} needs {needed / 1e9:.1f} GB more, the disk has {free / 1e9:.1f} GB free;"
            " make room and run it again"
        )


def _fetch(client: Client, item: Item, directory: Path, advance: Callable[[int], None]) -> None:
    path = directory / item.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if file_digest(path, item.digest.algorithm) == item.digest.hex:
            advance(path.stat().st_size)
            return
        path.unlink()
    part = _part(path)
    resumed = part.exists() and part.stat().st_size > 0
    _complete(client, item, part, advance)
    if file_digest(part, item.digest.algorithm) != item.digest.hex and resumed:
        # What an earlier run left may have been of another file; a fresh copy decides.
        part.unlink()
        _complete(client, item, part, advance)
    found = file_digest(part, item.digest.algorithm)
    if found != item.digest.hex:
        part.unlink()
        raise UserError(
            f"{shown(item.url)} isn't the expected file: its {item.digest.algorithm} digest "
            f"is {found}, not {item.digest.hex}; correct the digest or the address"
        )
    part.replace(path)


def _complete(client: Client, item: Item, part: Path, advance: Callable[[int], None]) -> None:
    """Append to `part` until it is complete. Only bytes beyond what was there count as progress."""
    part.touch()
    best = part.stat().st_size
    advance(best)

    def attempt() -> None:
        nonlocal best
        offset = part.stat().st_size
        if item.size is not None and offset == item.size:
            return
        if item.size is not None and offset > item.size:
            offset = 0
        with client.open(
            "GET", item.url, item.access, offset=offset, follow=item.follow
        ) as response:
            offset, whole = _range(response, offset, part)
            if item.size is not None and whole is not None and whole != item.size:
                raise Transient(f"{whole:,} bytes are announced where {item.size:,} are listed")
            with part.open("r+b") as stream:
                stream.truncate(offset)
                stream.seek(offset)
                for data in client.body(response):
                    stream.write(data)
                    position = stream.tell()
                    if position > best:
                        advance(position - best)
                        best = position
                    if item.size is not None and position > item.size:
                        stream.truncate(0)
                        raise Transient(f"more than the listed {item.size:,} bytes came")
                size = stream.tell()
        due = item.size if item.size is not None else whole
        if due is not None and size < due:
            raise Transient(f"it ended after {size:,} of {due:,} bytes")

    client.retry(item.url, attempt, lambda: best)


def _range(response: requests.Response, offset: int, part: Path) -> tuple[int, int | None]:
    """Where the body begins, and the size of the whole file as far as the server says."""
    if response.status_code == 416:
        part.unlink()
        part.touch()
        raise Transient("the server has less than what was fetched of it before")
    if response.status_code == 200:
        return 0, length(response)
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, stated = rest.partition("/")
    begin = span.partition("-")[0]
    if unit != "bytes" or not begin.isdecimal() or int(begin) != offset:
        part.unlink()
        part.touch()
        raise Transient("the server sent another range than asked for")
    return offset, int(stated) if stated.isdecimal() else None
