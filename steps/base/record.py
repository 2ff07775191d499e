"""What every step leaves behind: files, a manifest that lists them, and a record.

`manifest.json` is a pure function of a step's configuration, inputs and results, so a repeated
deterministic step leaves the same bytes. `record.json` beside it says where, when and by which
code, and names its manifest by digest. Both appear only when the step is complete: it works in a
temporary directory that is moved into place as a whole. Each ends in a digest over its content, so
a later edit, of the result too, is refused on reading.
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Protocol

from steps.base.errors import UserError
from steps.base.version import Version

MANIFEST = "manifest.json"
RECORD = "record.json"

FORMAT = 3
"""The format of both files. Format 1 had neither this number nor digests; records of format 2 had
no version, and their `code` was of a list of files that was kept by hand. Both are read, and
`verify` says so.
"""

STAMPED = (2, FORMAT)
"""Formats that end in a digest over the content."""

BESIDE = ("frontier.json",)
"""What may lie in a result's directory without being part of it: the search before a run."""

OPEN_OVER_NFS = ".nfs"
"""How the names of files begin that an NFS client keeps while a process has them open."""


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


def digest_files(paths: Iterable[Path], root: Path) -> str:
    """One digest over names (relative to root) and contents, in name order."""
    return combined(digests_of(paths, root))


def digests_of(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """sha256 by path relative to root."""
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in paths}


def combined(digests: Mapping[str, str]) -> str:
    """One digest over names and digests, in name order."""
    total = hashlib.sha256()
    for name, digest in sorted(digests.items()):
        total.update(f"{name}\0{digest}\n".encode())
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


def require_writable(path: Path) -> None:
    """Raises UserError if a file can't be made there; called before hours of work."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.is_file():
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} can't be written ({error.strerror or error}); choose another --output"
    )


@dataclass(frozen=True)
class Manifest:
    """A finished step's output directory, read back.

    `files` maps a path relative to `directory` to {"sha256", "bytes"}; `inputs` maps the role of
    an input to the sha256 of its manifest (or file); `result` is what the step returned. `vouched`:
    a digest covers them all, as in every format but the first.
    """

    directory: Path
    step: str
    config: dict[str, Any]
    inputs: dict[str, str]
    files: dict[str, dict[str, Any]]
    result: dict[str, Any]
    vouched: bool = True

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read `path` (the manifest.json itself). Raises UserError if absent, damaged or edited."""
        fields, number = _read_stamped(path)
        vouched = number > 1
        if not vouched and _is_of_today(path.with_name(RECORD)):
            raise _edited(path)
        try:
            found = cls(directory=path.parent, vouched=vouched, **fields)
            for entry in found.files.values():
                str(entry["sha256"]), int(entry["bytes"])
            if all(isinstance(part, dict) for part in (found.config, found.inputs, found.result)):
                return found
        except (TypeError, AttributeError, LookupError, ValueError) as error:
            raise _damaged(path, error) from error
        raise _damaged(path, "its configuration, inputs or result is no JSON object")

    def file(self, name: str) -> Path:
        """A listed file; raises UserError unless its content is what the manifest says."""
        if name not in self.files:
            raise UserError(f"{self.directory} lists no file {name}; delete it and re-run")
        if complaint := self._damaged(name):
            raise UserError(f"{complaint}; delete {self.directory} and re-run")
        return self.directory / name

    def require_whole(self) -> None:
        """Raises UserError for the first of `damage`."""
        for complaint in self.damage():
            remedy = f"delete {self.directory} and re-run"
            raise UserError(complaint if "; " in complaint else f"{complaint}; {remedy}")

    def damage(self) -> list[str]:
        """Files that are absent, changed or not listed, one sentence each; empty if intact."""
        return self._complaints(lambda path: True)

    def altered(self) -> list[str]:
        """As `damage`, but reads only what was written after the manifest: a step writes that
        last. What was changed with an older time than it has is left to `damage`."""
        try:
            made = (self.directory / MANIFEST).stat().st_mtime_ns
        except OSError as error:
            return [f"{self.directory / MANIFEST} can't be read ({error.strerror})"]
        return self._complaints(lambda path: path.stat().st_mtime_ns > made)

    def _complaints(self, suspected: Callable[[Path], bool]) -> list[str]:
        found = [one for name in self.files if (one := self._damaged(name, suspected))]
        listed = {*self.files, *BESIDE, MANIFEST, RECORD}
        return found + [
            f"{self.directory / name} isn't listed in {MANIFEST}; remove it"
            for name in strangers(self.directory, listed)
            if not Path(name).name.startswith(OPEN_OVER_NFS)
        ]

    def _damaged(
        self, name: str, suspected: Callable[[Path], bool] = lambda path: True
    ) -> str | None:
        path, entry = self.directory / name, self.files[name]
        if not path.is_file():
            return f"{path} is missing"
        same = path.stat().st_size == entry["bytes"]
        if not same or (suspected(path) and sha256_file(path) != entry["sha256"]):
            return f"{path} does not match its sha256 in {MANIFEST}"
        return None


@dataclass(frozen=True)
class Origin:
    """What made a result, besides the digest of its code.

    `version`: which Reprise; None: not known. `sources`: sha256 by path of the files that the
    digest of the code is over. `container`: JSON of the settings of the container it ran in, or "".
    """

    version: Version | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    container: str = ""


@dataclass(frozen=True)
class Record:
    """Where, when (UTC) and by which code a result was made; `number`: the file's format."""

    code: str
    host: str
    started: str
    finished: str
    number: int = FORMAT
    origin: Origin = Origin()

    @classmethod
    def read(cls, manifest: Path) -> "Record":
        """The record beside `manifest`. Raises UserError if absent, damaged or not its own."""
        path = manifest.with_name(RECORD)
        fields, number = _read_stamped(path)
        if number == 1 and _is_of_today(manifest):
            raise _edited(path)
        if number > 1 and fields.pop(MANIFEST, None) != sha256_file(manifest):
            raise UserError(
                f"{path} is not of the {MANIFEST} beside it; restore both, or delete {path.parent} "
                "and re-run"
            )
        try:
            if number == FORMAT:
                given = {name: fields.pop(name) for name in ("version", "sources", "container")}
                version = given["version"] and Version(**given["version"])
                origin = Origin(version, dict(given["sources"]), str(given["container"]))
                return cls(**fields, number=number, origin=origin)
            return cls(**fields, number=number)
        except (TypeError, ValueError, LookupError) as error:
            raise _damaged(path, error) from error

    def text(self, manifest: str) -> str:
        """The file's text; `manifest`: the sha256 of the manifest that it is of."""
        own = {"code": self.code, "host": self.host}
        times = {"started": self.started, "finished": self.finished}
        return stamped({**own, **times, **asdict(self.origin), MANIFEST: manifest})


def strangers(directory: Path, listed: Collection[str], *, folders: bool = False) -> Iterator[str]:
    """Files, links and pipes below a directory that aren't listed; names relative to it.

    `folders`: empty directories too.
    """
    for home, names, others in os.walk(directory):
        for name in sorted([*names, *others]):
            path = Path(home) / name
            entered = name in names and not path.is_symlink()
            below = path.relative_to(directory).as_posix()
            if below not in listed and not (entered and (not folders or any(path.iterdir()))):
                yield below


def stamped(fields: Mapping[str, Any], number: int = FORMAT) -> str:
    """The text of a manifest or record; the file must have exactly this text when read back."""
    # Through JSON once, so that keys are texts and sorted as such when they are read back.
    content = json.loads(canonical_json({**fields, "format": number}))
    digest = hashlib.sha256(canonical_json(content).encode("utf-8", "surrogatepass")).hexdigest()
    whole = {**content, "digest": digest}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _read_stamped(path: Path) -> tuple[dict[str, Any], int]:
    """Such a file's content, and its format; a digest covers all but the first."""
    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; re-run the step that makes it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(fields, dict):
        raise _damaged(path, "it holds no JSON object")
    if not {"format", "digest"} & fields.keys():
        return fields, 1
    number = fields.pop("format", FORMAT)
    if type(number) is not int or number not in STAMPED:
        raise UserError(
            f"{path} is of format {number!r:.20}, and this version of Reprise reads 1 to {FORMAT}; "
            "use the version that made it"
        )
    fields.pop("digest", None)
    if text != stamped(fields, number):
        raise _edited(path)
    return fields, number


def _is_of_today(other: Path) -> bool:
    """A file without a digest beside one that has it was edited: both are written together."""
    try:
        return "digest" in json.loads(other.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False  # whoever reads that one says what is wrong with it


def _edited(path: Path) -> UserError:
    return UserError(
        f"{path} was changed after it was made; restore it, or delete {path.parent} and re-run"
    )


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(f"{path} is damaged ({reason}); delete it and re-run")


@dataclass
class Workspace:
    """Where a running step writes; `result` becomes part of the manifest.

    `partial` is a directory (not made yet) that outlives a killed step, so that the next one can
    go on from it; it is removed once the step's output is published. `previous` is what the step
    published before, until this takes its place. `destination`: where all of it goes. `code`: the
    digest of the step's code.
    """

    directory: Path
    result: dict[str, Any] = field(default_factory=dict)
    partial: Path | None = None
    previous: Path | None = None
    destination: Path | None = None
    code: str = ""


def partial_directory(destination: Path) -> Path:
    """Where a killed step's finished parts of `destination` wait for the next one."""
    return destination.with_name(f"{destination.name}.partial")


@contextlib.contextmanager
def publish(
    destination: Path,
    *,
    step: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, Path],
    code: str,
    origin: Origin | None = None,
) -> Iterator[Workspace]:
    """Give the step a temporary directory; on success move it to `destination`.

    `inputs` maps roles to manifest files (or plain files); `code` is the digest of the sources
    that made the result, `origin` what else did. On any exception nothing is published and the
    temporary is removed.
    """
    started = datetime.now(timezone.utc)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    _finish_replacement(destination)
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
            destination=destination,
            code=code,
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
        text = stamped(manifest)
        record = Record(
            code=code,
            host=platform.node(),
            started=started.isoformat(timespec="seconds"),
            finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            origin=origin or Origin(),
        )
        said = record.text(hashlib.sha256(text.encode()).hexdigest())
        (temporary / RECORD).write_text(said, encoding="utf-8")
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        _replace_directory(temporary, destination)
        shutil.rmtree(partial_directory(destination), ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _finish_replacement(destination: Path) -> None:
    """Put one back that `_replace_directory` had moved aside when it was killed: the new one,
    which was complete by then, or else the old one.
    """
    beside = f".{destination.name}.*"
    if destination.exists() or not list(destination.parent.glob(f"{beside}.old")):
        return
    for kind in ("tmp", "old"):
        for found in destination.parent.glob(f"{beside}.{kind}"):
            if _is_complete(found):
                os.rename(found, destination)
                return


def _is_complete(directory: Path) -> bool:
    try:
        return not Manifest.read(directory / MANIFEST).altered()
    except UserError:
        return False


def _replace_directory(source: Path, destination: Path) -> None:
    """Rename does not replace a directory that isn't empty, so the old one steps aside first."""
    aside = destination.with_name(f".{destination.name}.{os.getpid()}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if destination.exists():
        os.rename(destination, aside)
    os.rename(source, destination)
    shutil.rmtree(aside, ignore_errors=True)
