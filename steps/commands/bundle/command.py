"""`./reproduce bundle [overrides] --output FILE`."""

import argparse
import hashlib
import io
import json
import os
import platform
import shlex
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from steps import ROOT
from steps.base.arguments import Parser, plan_arguments
from steps.base.errors import UserError
from steps.base.installer import WHEELS
from steps.base.locks import of_environment
from steps.base.record import Manifest, sha256_file
from steps.base.venv import TOOL
from steps.commands.bundle import signature
from steps.commands.bundle.unbundle import CHECKOUT_TIME, FORMAT, SELF, SIGNATURE
from steps.commands.bundle.wheels import gather
from steps.config.runtime import EngineAddress
from steps.config.scheduler import Local
from steps.machine.container import carried
from steps.machine.runtime.host import connected
from steps.plan import revisions
from steps.plan.frozen import frozen_plan
from steps.plan.plan import Job, Plan, load

DIRECTORIES = ("bench", "conf", "containers", "docs", "envs", "steps", "tests", "workflow")
FILES = (
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("SECURITY.md", "Snakefile", "pyproject.toml", "reproduce"),
)
"""The project's files and folders of the checkout; everything else is the user's."""

SITE = "site"
CACHE = Path(".envs/wheels")
"""Kept, so that a second bundle downloads nothing again."""

IMAGES = Path(".envs/images")
SAVE_LIMIT_S = 600
"""The longest silence of an engine that saves an image."""


def declare(parser: Parser) -> None:
    """The plan, and the file."""
    parser.description = "Make one archive from which a machine without a network runs a plan."
    plan_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--sign", type=Path, metavar="KEY", help="private key; writes FILE.sig for ssh-keygen"
    )


def command(given: argparse.Namespace) -> int:
    """Everything that the plan takes from a network, and the checkout, in one tar."""
    site = given.site
    _prepare(given.output.absolute())
    if given.sign:
        signature.require_key(given.sign)
    plan = load(frozen_plan(ROOT, given.overrides, site))
    files = {**checkout(ROOT), **artifacts(plan, ROOT), **images(plan, ROOT)}
    if (ROOT / revisions.FILE).is_file():  # by which the plan there is the same
        files[str(revisions.FILE)] = ROOT / revisions.FILE
    run = ["./reproduce", *given.overrides]
    if site is not None:
        files[f"{SITE}/{site.name}"] = site
        run += ["--site", f"{SITE}/{site.name}"]
    wheels = gather(locks(plan), ROOT / CACHE)
    files |= {f"{WHEELS}/{path.name}": path for path in wheels}
    size = write(given.output.absolute(), files, shlex.join(run))
    if given.sign:
        signature.sign(given.sign, given.output.absolute())
    _tell(given.output, f"{size / 1e9:.2f} GB, {len(files)} files, {len(wheels)} packages", given)
    return 0


def _tell(output: Path, what: str, given: argparse.Namespace) -> None:
    """What was made, and how to unpack it on the other machine, checked by nothing inside it."""
    digest, signed = sha256_file(output), bool(given.sign)
    how = f"signed ({output.name}{SIGNATURE})" if signed else "not signed (--sign KEY)"
    other = "the public key" if signed else "this digest"
    print(
        f"{output}: {what}, sha256 {digest}, {how}; on the other machine, {other} from elsewhere:"
    )
    for line in signature.how_to_check(output.name, digest, signed=signed):
        print(f"  {line}")
    print(f"  {signature.how_to_unpack(output.name)}")


def checkout(root: Path) -> dict[str, Path]:
    """Name and path of every file of the project."""
    found = {name: root / name for name in FILES if (root / name).is_file()}
    for name in DIRECTORIES:
        for path in sorted((root / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found[path.relative_to(root).as_posix()] = path
    return found


def artifacts(plan: Plan, root: Path) -> dict[str, Path]:
    """Fetched weights and datasets, with every file checked against its digest."""
    found = {}
    for job in plan.jobs:
        if not _is_fetched(job):
            continue
        home = (root / job.output).parent
        if not (root / job.output).is_file():
            raise UserError(
                f"{job.step} {job.key} is not here yet, and can't be fetched without a network; "
                f"run ./reproduce with the same overrides and `-- --until {job.step}` first"
            )
        Manifest.read(root / job.output).require_whole()
        for path in sorted(home.rglob("*")):
            if path.is_file():
                found[path.relative_to(root).as_posix()] = path
    return found


def _is_fetched(job: Job) -> bool:
    config = json.loads(job.config)
    if job.step == "model":
        return "embedded" not in config
    return job.step == "dataset_files"


def locks(plan: Plan) -> list[Path]:
    """The locks of every environment that the plan and its scheduler need, and of the installer."""
    made = (job.key for job in plan.jobs if job.step == "environment")
    names = {lock for key in made for lock in of_environment(key)} | {"driver", TOOL}
    if not isinstance(plan.scheduler, Local):
        names.add(plan.scheduler.name)
    return [ROOT / f"envs/{name}.lock" for name in sorted(names)]


def images(plan: Plan, root: Path) -> dict[str, Path]:
    """Archives of the container images that the plan runs in, which must be built already."""
    found = {}
    for job in plan.jobs:
        if job.step != "container":
            continue
        if not (root / job.output).is_file():
            raise UserError(
                f"container image {job.key} is not built yet, and can't be without a network; run "
                "./reproduce with the same overrides and `-- --until container` first"
            )
        address = EngineAddress.model_validate(json.loads(job.config)["host"])
        with connected(address, SAVE_LIMIT_S) as client:
            saved = carried.save(client, Manifest.read(root / job.output), root / IMAGES)
        found[f"{carried.FOLDER}/{job.key}.tar"] = saved
    return found


def _prepare(output: Path) -> None:
    """Raises UserError, before anything is fetched, if no file can be written there."""
    if output.is_dir():
        raise UserError(f"--output {output} is a directory; name a file in it")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise UserError(
            f"--output {output} can't be written ({error.strerror}); name another place"
        ) from error


def write(output: Path, files: Mapping[str, Path], run: str) -> int:
    """Write the archive, under another name until it is complete; returns its size in bytes.

    Its list of files comes first, in a file whose name is its digest.
    """
    files = {SELF: Path(__file__).with_name(SELF), **files}
    total = sum(path.stat().st_size for path in files.values())
    if total > (free := shutil.disk_usage(output.parent).free):
        raise UserError(
            f"{output.parent} has {free / 1e9:.1f} GB free and the bundle needs "
            f"{total / 1e9:.1f} GB; make room"
        )
    contents = {
        "format": FORMAT,
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "machine": platform.machine(),
        "command": run,
        "files": {
            name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for name, path in files.items()
        },
    }
    text = json.dumps(contents, indent=1, sort_keys=True).encode()
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with tarfile.open(temporary, "w:") as archive:
            head = tarfile.TarInfo(f"bundle.{hashlib.sha256(text).hexdigest()}.json")
            head.size = len(text)
            archive.addfile(head, io.BytesIO(text))
            for entry, path in _entries(files):
                with path.open("rb") as stream:
                    archive.addfile(entry, stream)
        signature.signature_of(output).unlink(missing_ok=True)  # of what lay there before
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return output.stat().st_size


def _entries(files: Mapping[str, Path]) -> Iterator[tuple[tarfile.TarInfo, Path]]:
    """Results keep their times, which `Manifest.altered` compares; nothing has an owner."""
    for name, path in files.items():
        status = path.stat()
        entry = tarfile.TarInfo(name)
        entry.size = status.st_size
        entry.mode = 0o755 if status.st_mode & 0o100 else 0o644
        entry.mtime = int(status.st_mtime) if name.startswith("results/") else CHECKOUT_TIME
        yield entry, path
