"""`./reproduce seal [overrides] --output FILE [--sign KEY] [--recipient FILE]`.

The package becomes one file: a compressed tar, for recipients encrypted in the format of age
(pyrage: the Rust implementation of age, streaming, no key ring, no agent; takes SSH keys too).
"""

import argparse
import gzip
import io
import os
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from steps import ROOT
from steps.base.arguments import Parser, as_typed, plan_arguments
from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.commands.results import Asked, broken, lines
from steps.plan.frozen import frozen_plan
from steps.plan.states import States
from steps.submit.provenance.package import ENVELOPE, FOLDER, STATEMENT, TREE
from steps.submit.provenance.signing import signed
from steps.submit.provenance.statement import damage, read


def declare(parser: Parser) -> None:
    """The plan whose submission it is, the file, and keys."""
    parser.description = (
        "Put a finished submission, its statement and its bills of materials into one file; sign "
        "it, encrypt it."
    )
    plan_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--sign", type=Path, metavar="KEY", help="private key, PEM or OpenSSH")
    parser.add_argument(
        "--recipient", type=Path, metavar="FILE", help="public keys, age's or SSH's, one a line"
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="the package that lies there, though it isn't what the plan holds",
    )


def command(given: argparse.Namespace) -> int:
    """Writes the file under another name first. UserError unless the package is what it was."""
    path = frozen_plan(ROOT, given.overrides, given.site)
    asked = Asked.of(path, ROOT, as_typed(given.overrides, given.site))
    if not given.anyway:
        _require_held(asked)
    jobs = {job.step: job for job in asked.plan.jobs}
    package, made = (
        Manifest.read(ROOT / jobs[step].output) for step in ("submission", "provenance")
    )
    package.require_whole()
    made.require_whole()
    statement = read(made.directory / STATEMENT)
    tree = {resource.name: package.directory / resource.name for resource in statement.subject}
    if tree.keys() != {name for name in package.files if name.startswith(f"{TREE}/")}:
        raise UserError("the statement is of another package; ./reproduce makes it again")
    for complaint in damage(statement, tree):
        raise UserError(f"{complaint}; ./reproduce makes it again")
    recipients = _recipients(given.recipient) if given.recipient else []
    files = {**tree, **{f"{FOLDER}/{n}": made.directory / n for n in made.files}}
    text = (made.directory / STATEMENT).read_bytes()
    extra = {f"{FOLDER}/{ENVELOPE}": signed(text, given.sign).encode()} if given.sign else {}
    output: Path = given.output.absolute()
    try:
        with _taking_place_of(output) as stream, scratch(output.parent) as plain:
            _pack(plain, files, extra)
            plain.seek(0)
            if recipients:
                _encrypt(plain, stream, recipients)
            else:
                shutil.copyfileobj(plain, stream)
    except OSError as error:
        raise UserError(f"{given.output} can't be written ({error.strerror or error})") from error
    how = [
        *(["signed"] if given.sign else []),
        f"encrypted for {len(recipients)} keys" if recipients else "not encrypted",
    ]
    print(f"{given.output}: {len(files)} files, {', '.join(how)}")
    return 0


def _require_held(asked: Asked) -> None:
    """Raises UserError unless the package is that of the plan, made of valid results."""
    cells, states = asked.cells(), States(asked.plan, asked.root)
    bad = [cell for cell in cells if cell.state != "valid"]
    more = "; --anyway seals what lies there"
    for line in (*lines(bad, asked), *broken(asked)):
        raise UserError(f"the plan doesn't hold: {line}{more}")
    for step, why in states.whole():
        raise UserError(
            f"{step}: {why}; {shlex.join(['./reproduce', *asked.overrides])} makes it{more}"
        )


def _pack(plain: IO[bytes], files: dict[str, Path], extra: dict[str, bytes]) -> None:
    """Names and bytes, but nothing of this machine: no owner, no time."""
    with (
        gzip.GzipFile("", "wb", 6, plain, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name in sorted({*files, *extra}):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o644
            if name in extra:
                entry.size = len(extra[name])
                archive.addfile(entry, io.BytesIO(extra[name]))
                continue
            with files[name].open("rb") as stream:
                entry.size = os.fstat(stream.fileno()).st_size
                archive.addfile(entry, stream)


def _encrypt(plain: IO[bytes], stream: IO[bytes], recipients: list[Any]) -> None:
    import pyrage

    try:
        pyrage.encrypt_io(plain, stream, recipients)
    except (pyrage.EncryptError, OSError) as error:
        raise UserError(f"the package can't be encrypted ({error})") from error


def _recipients(path: Path) -> list[Any]:
    import pyrage

    found = []
    for number, line in enumerate(key_lines(path), 1):
        kind = pyrage.ssh if line.startswith("ssh-") else pyrage.x25519
        try:
            found.append(kind.Recipient.from_str(line))
        except (pyrage.RecipientError, ValueError) as error:
            raise UserError(
                f"{path}, key {number} is neither age's (age1...) nor SSH's (ssh-ed25519, ssh-rsa)"
            ) from error
    if not found:
        raise UserError(f"{path} holds no public key; write one a line")
    return found


def key_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"key {path} can't be read; correct the path") from error
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


@contextmanager
def scratch(folder: Path) -> Iterator[IO[bytes]]:
    """A file without a name: unencrypted content never has a path by which it could be read."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as stream:
        yield stream


@contextmanager
def _taking_place_of(path: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `path` if all goes well; only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
