"""What every step leaves behind: files, a manifest that stands for them, and a record.

`manifest.json` is a pure function of a step's configuration, inputs and results, so a repeated
deterministic step leaves the same bytes. `record.json` beside it says where, when and by which
code. Both appear only when the step is complete: it works in a temporary directory that is moved
into place as a whole.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Protocol

from steps.base.errors import UserError

MANIFEST = "manifest.json"
RECORD = "record.json"


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def digest_of(stream: IO[bytes], state: Hash) -> str:
    """Hex digest of the rest of a stream."""
    while data := stream.read(1 << 20):
        state.update(data)
    return state.hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest; raises UserError for a file that can't be read."""
    try:
        with path.open("rb") as stream:
            return digest_of(stream, hashlib.sha256())
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); restore it or re-run") from error


def canonical_json(value: object) -> str:
    """One text per value: sorted keys, no blanks. Snakemake compares parameters as text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_files(paths: list[Path], root: Path) -> str:
    """One digest over names (relative to root) and contents, in name order."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(root)}\0{sha256_file(path)}\n".encode())
    return total.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write beside the target, then move into place; a pipe or device is written to as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Manifest:
    """A finished step's output directory, read back.

    `files` maps a path relative to `directory` to {"sha256", "bytes"}; `inputs` maps the role of
    an input to the sha256 of its manifest (or file); `result` is what the step returned.
    """

    directory: Path
    step: str
    config: dict[str, Any]
    inputs: dict[str, str]
    files: dict[str, dict[str, Any]]
    result: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read `path` (the manifest.json itself). Raises UserError if absent or damaged."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return cls(directory=path.parent, **fields)
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing; re-run the step that makes it") from error
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}); delete it and re-run") from error

    def file(self, name: str) -> Path:
        """A listed file, checked for presence and size (not content: `damage` does that)."""
        path = self.directory / name
        if name not in self.files:
            raise UserError(f"{self.directory} lists no file {name}; delete it and re-run")
        if not path.is_file() or path.stat().st_size != self.files[name]["bytes"]:
            raise UserError(f"{path} is missing or truncated; delete {self.directory} and re-run")
        return path

    def damage(self) -> list[str]:
        """Listed files that are absent or changed, one sentence each; empty if all hold."""
        found = []
        for name, entry in self.files.items():
            path = self.directory / name
            if not path.is_file():
                found.append(f"{path} is missing")
            elif sha256_file(path) != entry["sha256"]:
                found.append(f"{path} does not match its sha256 in {MANIFEST}")
        return found


@dataclass
class Workspace:
    """Where a running step writes; `result` becomes part of the manifest.

    `partial` is a directory (not made yet) that outlives a killed step, so that the next one can
    go on from it; it is removed once the step's output is published. `previous` is what the step
    published before, until this takes its place.
    """

    directory: Path
    result: dict[str, Any] = field(default_factory=dict)
    partial: Path | None = None
    previous: Path | None = None


def partial_directory(destination: Path) -> Path:
    """Where what a killed step had finished of `destination` waits for the next one."""
    return destination.with_name(f"{destination.name}.partial")


@contextlib.contextmanager
def publish(
    destination: Path,
    *,
    step: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, Path],
    code: str,
) -> Iterator[Workspace]:
    """Give the step a temporary directory; on success move it to `destination`.

    `inputs` maps roles to manifest files (or plain files); `code` is the digest of the sources
    that made the result. On any exception nothing is published and the temporary is removed.
    """
    started = datetime.now(timezone.utc)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    # Left by killed ones: only one process at a time makes a destination.
    for left_over in destination.parent.glob(f".{destination.name}.*"):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        # Taken before the work: what is recorded is what the step was given.
        digests = {role: sha256_file(path) for role, path in inputs.items()}
        workspace = Workspace(
            temporary,
            partial=partial_directory(destination),
            previous=destination if destination.is_dir() else None,
        )
        yield workspace
        files = {
            str(path.relative_to(temporary)): {
                "sha256": sha256_file(path),
                "bytes": path.stat().st_size,
            }
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        manifest = {
            "step": step,
            "config": dict(config),
            "inputs": digests,
            "files": files,
            "result": workspace.result,
        }
        record = {
            "code": code,
            "host": platform.node(),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        for name, content in ((RECORD, record), (MANIFEST, manifest)):
            text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
            (temporary / name).write_text(text + "\n", encoding="utf-8")
        _replace_directory(temporary, destination)
        shutil.rmtree(partial_directory(destination), ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_directory(source: Path, destination: Path) -> None:
    """Rename does not replace a directory that isn't empty, so the old one steps aside first."""
    aside = destination.with_name(f".{destination.name}.{os.getpid()}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if destination.exists():
        os.rename(destination, aside)
    os.rename(source, destination)
    shutil.rmtree(aside, ignore_errors=True)
