"""`./reproduce unseal FILE DIRECTORY [--identity KEY] [--signer KEY]`."""

import argparse
import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from steps.base.arguments import Parser
from steps.base.errors import UserError
from steps.base.untrusted import Damaged, open_regular
from steps.commands.seal import key_lines, scratch
from steps.submit.provenance.package import FOLDER, TREE, complaints_of, verify

AGE = b"age-encryption.org/v1"
"""The first bytes of a file of age."""


RATIO, FREE_BYTES = 200, 64 << 20
"""Logs of a submission shrink to a fifth or a twentieth, a file of zeros to a thousandth; small
ones may be anything.
"""


def declare(parser: Parser) -> None:
    """The file, where to, and keys."""
    parser.description = "Open what seal made, and check every file of it."
    parser.add_argument("file", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--identity", type=Path, metavar="KEY", help="private key, age's or SSH's")
    parser.add_argument("--signer", type=Path, metavar="KEY", help="public key, PEM or OpenSSH")


def command(given: argparse.Namespace) -> int:
    """Decrypts, checks and only then moves into place. UserError for whatever doesn't hold."""
    directory: Path = given.directory.absolute()
    if directory.exists():
        raise UserError(f"{directory} exists; name a directory that doesn't")
    try:
        _unseal(given, directory)
    except OSError as error:
        raise UserError(f"{directory} can't be written ({error.strerror or error})") from error
    return verify(directory, given.signer)


def _unseal(given: argparse.Namespace, directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".unseal-") as folder:
        inside = Path(folder) / "package"
        inside.mkdir()
        with _open(given.file) as sealed, scratch(directory.parent) as plain:
            _decrypt(sealed, plain, given)
            plain.seek(0)
            _unpack(plain, inside, given.file)
        complaints, _ = complaints_of(inside, given.signer)
        if complaints:
            more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
            raise UserError(f"{given.file}: {complaints[0]}{more}; nothing was written")
        os.rename(inside, directory)


def _unpack(plain: IO[bytes], directory: Path, name: Path) -> None:
    packed, size = os.fstat(plain.fileno()).st_size, 0
    try:
        with tarfile.open(fileobj=plain, mode="r:gz") as archive:
            for entry in archive:
                parts = entry.name.split("/")
                fit = parts[0] in (TREE, FOLDER) and not {"", ".", ".."} & {*parts}
                if not entry.isfile() or not fit or os.path.lexists(directory / entry.name):
                    raise UserError(f"{name} holds {entry.name!r}, which no package of seal's does")
                size += entry.size
                if size > max(FREE_BYTES, RATIO * packed):
                    raise UserError(
                        f"{name} unpacks to more than {RATIO} times its size, which no package of "
                        "seal's does; nothing was written"
                    )
                _write(directory / entry.name, archive.extractfile(entry))
    except _NO_PACKAGE as error:
        raise UserError(f"{name} isn't a package, or damaged; get it again") from error


_NO_PACKAGE = (
    *(tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, ValueError),
    *(FileExistsError, NotADirectoryError),
)
"""The last two: for a file with others below it."""


def _write(path: Path, stream: IO[bytes] | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as target:
        if stream is not None:
            shutil.copyfileobj(stream, target)


def _decrypt(sealed: IO[bytes], plain: IO[bytes], given: argparse.Namespace) -> None:
    import pyrage

    encrypted = sealed.read(len(AGE)) == AGE
    sealed.seek(0)
    if not encrypted:
        shutil.copyfileobj(sealed, plain)
        return
    if given.identity is None:
        raise UserError(f"{given.file} is encrypted; give your private key: --identity KEY")
    try:
        pyrage.decrypt_io(sealed, plain, _identities(given.identity))
    except (pyrage.DecryptError, OSError, ValueError) as error:
        raise UserError(
            f"{given.file} can't be decrypted with the key in {given.identity}: it is for another "
            "one, or truncated or altered"
        ) from error


def _identities(path: Path) -> list[Any]:
    import pyrage

    lines = key_lines(path)
    try:
        if lines and lines[0].startswith("-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(path.read_bytes())]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines]
    except (pyrage.IdentityError, ValueError) as error:
        raise UserError(f"{path} holds no private key of age or SSH that can be used") from error
    if not found:
        raise UserError(f"{path} holds no private key")
    return found


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Raises UserError unless it is a regular file: a pipe would block, and a device has no end."""
    try:
        stream = open_regular(path.resolve())
    except (Damaged, OSError, RuntimeError) as error:
        raise UserError(f"{path}: {error}; give the file that seal made") from error
    with stream:
        yield stream
