"""Set up a machine from a bundle: everything is checked before anything is written.

Needs only Python. The bundle contains this file, for a machine that has only the bundle:

    tar -xf FILE unbundle.py && python3.11 unbundle.py FILE DIRECTORY

Anybody who can alter a bundle can alter this file in it, so ssh-keygen checks the bundle's
signature first (docs/how-to/air-gap.md). In a checkout that is trusted already, --signer does that.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

FORMAT = 1
SELF = "unbundle.py"
CHUNK = 1 << 20
SIGNATURE = ".sig"
NAMESPACE = "reprise-bundle"
"""A signature made for another purpose doesn't count."""

SIGNER = "reprise"
"""The signer's name for ssh-keygen, which needs one for the key."""

SIGN_LIMIT_S = 6 * 3600
"""Enough for a terabyte on a slow disk."""

LARGEST_LIST = 1 << 28
"""A list of a million files has a tenth of it."""

LONGEST_NAME = 255
"""Bytes of a file's name on every file system of Linux."""

CHECKOUT_TIME = 1_000_000_000
"""The time of all of the checkout's files, older than every result."""


class BundleError(Exception):
    """One sentence."""


def declare(parser: argparse.ArgumentParser) -> None:
    """The bundle, and where to."""
    parser.add_argument("file", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--signer", type=Path, metavar="KEY", help="public key of OpenSSH's form; checks FILE.sig"
    )


def command(given: argparse.Namespace) -> int:
    """Exit status 0 once the directory is in place, 1 with one sentence otherwise."""
    try:
        if given.signer:
            require_signed(given.file, given.signer)
        contents = unbundle(given.file, given.directory.absolute())
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or given.directory
        print(f"error: {where}: {error.strerror or error}; fix it and re-run", file=sys.stderr)
        return 1
    said = "signed by the key in " + str(given.signer) if given.signer else "signature not checked"
    print(f"{given.directory}: {len(contents['files'])} files, all checked; {said}; now, there:")
    print(f"  {contents['command']}")
    return 0


def unbundle(file: Path, directory: Path) -> dict[str, Any]:
    """Returns the bundle's description of itself. Continues after an interruption. Raises
    BundleError for an archive that is truncated or altered, and for another kind of machine.
    """
    if directory.exists():
        raise BundleError(f"{directory} exists; name a directory that doesn't")
    if not file.is_file():
        raise BundleError(f"{file} is missing; correct the path")
    contents = checked(file)
    _require_machine(contents, file)
    partial = directory.with_name(f"{directory.name}.partial")
    _require_room(contents, partial)
    with _readable(file):
        for name, entry, stream in _members(file):
            if name in contents["files"]:
                _write(partial / name, stream, contents["files"][name], entry)
    os.rename(partial, directory)
    return contents


def require_signed(file: Path, signer: Path) -> None:
    """Raises BundleError unless FILE.sig is the signature of that public key on the file."""
    signature = file.with_name(file.name + SIGNATURE)
    tool = shutil.which("ssh-keygen")
    if tool is None:
        raise BundleError("ssh-keygen checks signatures, and it is missing: install OpenSSH")
    for path, what in ((file, "bundle"), (signature, "signature"), (signer, "public key")):
        if not path.is_file():
            raise BundleError(f"{what} {path} is missing; correct the path or bring it along")
    key = signer.read_text(encoding="utf-8", errors="replace").strip()
    if not key.startswith(("ssh-", "ecdsa-", "sk-")) or "\n" in key:
        raise BundleError(f"{signer} isn't a public key of OpenSSH, one line that begins with ssh-")
    with tempfile.TemporaryDirectory() as folder, file.open("rb") as stream:
        signers = Path(folder) / "signers"
        signers.write_text(f'{SIGNER} namespaces="{NAMESPACE}" {key}\n', encoding="utf-8")
        command = [tool, "-Y", "verify", "-f", str(signers), "-I", SIGNER, "-n", NAMESPACE]
        try:
            done = subprocess.run(
                [*command, "-s", str(signature)],
                stdin=stream,
                capture_output=True,
                timeout=SIGN_LIMIT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise BundleError(f"{file} took longer than {SIGN_LIMIT_S} s to check") from error
    if done.returncode:
        raise BundleError(
            f"{file} is not what the key in {signer} signed: it was altered, or someone else "
            "signed it; nothing was written"
        )


def checked(file: Path) -> dict[str, Any]:
    """The bundle's description of itself, after every file of it is checked."""
    with _readable(file):
        return _checked(file)


def _checked(file: Path) -> dict[str, Any]:
    contents: dict[str, Any] = {}
    seen: set[str] = set()
    for name, _, stream in _members(file):
        if name.startswith("bundle."):
            text = stream.read(LARGEST_LIST + 1)
            if contents or name != f"bundle.{hashlib.sha256(text).hexdigest()}.json":
                raise BundleError(f"{file} was altered: its list of files; copy it again")
            contents = _list(text, file)
            continue
        said = contents.get("files", {}).get(name)
        if said is None or name in seen:
            raise BundleError(f"{file} was altered: {name!r} is not in its list; copy it again")
        if _digest(stream) != said["sha256"]:
            raise BundleError(f"{file} was altered: {name!r} differs from its list; copy it again")
        seen.add(name)
    if not contents or len(seen) < len(contents["files"]):
        raise BundleError(f"{file} is incomplete: files are missing; copy it again")
    return contents


def _list(text: bytes, file: Path) -> dict[str, Any]:
    """A bundle's list. BundleError if one can't be unpacked by it: anyone can make a bundle, and
    its list then has the right digest in its name.
    """
    try:
        contents: dict[str, Any] = json.loads(text)
        if contents["format"] != FORMAT:
            raise BundleError(f"{file} is of another version of Reprise; make it again")
        files = contents["files"]
        well_formed = all(
            isinstance(contents[key], str) for key in ("python", "machine", "command")
        )
        well_formed &= all(
            isinstance(said["sha256"], str) and type(said["bytes"]) is int and said["bytes"] >= 0
            for said in files.values()
        )
    except (TypeError, KeyError, AttributeError, RecursionError):
        well_formed = False
    if not well_formed:
        raise BundleError(f"{file}'s list of files isn't one that Reprise writes; make it again")
    folders = {str(folder) for name in files for folder in PurePosixPath(name).parents}
    for name in files:
        if name in folders or not _is_path(name):
            raise BundleError(f"{file} lists {name!r}, which can't be a file's path; make it again")
    return contents


def _is_path(name: str) -> bool:
    """Whether it names one file below a directory, in the one spelling that it has."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    parts = name.split("/")
    return "\0" not in name and not any(
        part in ("", ".", "..") or len(part.encode()) > LONGEST_NAME for part in parts
    )


def _members(file: Path) -> Iterator[tuple[str, tarfile.TarInfo, IO[bytes]]]:
    """The files in order. BundleError for other kinds of entries."""
    with tarfile.open(file, "r:") as archive:
        for entry in archive:
            stream = archive.extractfile(entry) if entry.isfile() else None
            if stream is None or entry.name.startswith("/") or ".." in entry.name.split("/"):
                raise BundleError(f"{file} was altered: {entry.name!r} isn't a file of a bundle")
            yield entry.name, entry, stream


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    """BundleError for a tar that ends too early or isn't a tar."""
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, KeyError) as error:
        raise BundleError(f"{file} isn't a bundle, or damaged; copy it again") from error


def _digest(stream: IO[bytes]) -> str:
    total = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        total.update(chunk)
    return total.hexdigest()


def _require_machine(contents: dict[str, Any], file: Path) -> None:
    here = [f"{sys.version_info[0]}.{sys.version_info[1]}", platform.machine()]
    if here != [contents["python"], contents["machine"]]:
        raise BundleError(
            f"{file} is for Python {contents['python']} on {contents['machine']}, this is Python "
            f"{here[0]} on {here[1]}; run it with that Python, or make a bundle on such a machine"
        )


def _require_room(contents: dict[str, Any], partial: Path) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    needed = sum(
        said["bytes"] for name, said in contents["files"].items() if not (partial / name).exists()
    )
    if needed > (free := shutil.disk_usage(partial).free):
        raise BundleError(
            f"{partial.parent} has {free / 1e9:.1f} GB free and the bundle needs "
            f"{needed / 1e9:.1f} GB; make room"
        )


def _write(path: Path, stream: IO[bytes], said: dict[str, Any], entry: tarfile.TarInfo) -> None:
    if path.is_file() and path.stat().st_size == said["bytes"]:
        with path.open("rb") as written:
            if _digest(written) == said["sha256"]:
                return
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with path.open("wb") as target:
        shutil.copyfileobj(stream, target, CHUNK)
    path.chmod(0o755 if entry.mode & 0o100 else 0o644)
    os.utime(path, (entry.mtime, entry.mtime))


if __name__ == "__main__":
    alone = argparse.ArgumentParser(prog="unbundle", description="Set up a machine from a bundle.")
    declare(alone)
    raise SystemExit(command(alone.parse_args()))
