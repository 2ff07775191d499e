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
from steps.base.record import Manifest, sha256_file
from steps.base.venv import TOOL
from steps.commands.bundle.unbundle import CHECKOUT_TIME, FORMAT, SELF
from steps.commands.bundle.wheels import gather
from steps.config.runtime import EngineAddress
from steps.config.scheduler import Local
from steps.machine.container import carried
from steps.machine.runtime.host import connected
from steps.plan.frozen import frozen_plan
from steps.plan.plan import Job, Plan, load

DIRECTORIES = ("bench", "conf", "containers", "docs", "envs", "steps", "tests", "workflow")
FILES = ("LICENSE", "Makefile", "README.md", "Snakefile", "pyproject.toml", "reproduce")
"""Of the checkout; what else lies in it is the user's."""

SITE = "site"
CACHE = Path(".envs/wheels")
"""Kept, so that a second bundle fetches nothing again."""

IMAGES = Path(".envs/images")
SAVE_LIMIT_S = 600
"""Silence of an engine that saves an image."""


def declare(parser: Parser) -> None:
    """The plan, and the file."""
    parser.description = "Make one archive from which a machine without a network runs a plan."
    plan_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")


def command(given: argparse.Namespace) -> int:
    """Everything that the plan takes from a network, and the checkout, in one tar."""
    site = given.site
    _prepare(given.output.absolute())
    plan = load(frozen_plan(ROOT, given.overrides, site))
    files = {**checkout(ROOT), **artifacts(plan, ROOT), **images(plan, ROOT)}
    run = ["./reproduce", *given.overrides]
    if site is not None:
        files[f"{SITE}/{site.name}"] = site
        run += ["--site", f"{SITE}/{site.name}"]
    wheels = gather(locks(plan), ROOT / CACHE)
    files |= {f"{WHEELS}/{path.name}": path for path in wheels}
    size = write(given.output.absolute(), files, shlex.join(run))
    print(
        f"{given.output}: {size / 1e9:.2f} GB, {len(files)} files, {len(wheels)} packages, sha256 "
        f"{sha256_file(given.output)}; on the other machine:"
    )
    name = shlex.quote(given.output.name)
    print(f"  tar -xf {name} {SELF} && python3.11 {SELF} {name} DIRECTORY")
    return 0


def checkout(root: Path) -> dict[str, Path]:
    """Name and path of every file that the project consists of."""
    found = {name: root / name for name in FILES if (root / name).is_file()}
    for name in DIRECTORIES:
        for path in sorted((root / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found[path.relative_to(root).as_posix()] = path
    return found


def artifacts(plan: Plan, root: Path) -> dict[str, Path]:
    """Weights and datasets that come from elsewhere, every file checked against its digest."""
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
        for complaint in Manifest.read(root / job.output).damage():
            raise UserError(f"{complaint}; delete {home} and run ./reproduce again")
        for path in sorted(home.rglob("*")):
            if path.is_file():
                found[path.relative_to(root).as_posix()] = path
    return found


def _is_fetched(job: Job) -> bool:
    config = json.loads(job.config)
    if job.step == "model":
        return "embedded" not in config
    return job.step == "dataset" and bool(config.get("files"))


def locks(plan: Plan) -> list[Path]:
    """Of every environment that the plan and its scheduler need, and of what installs them."""
    names = {job.key for job in plan.jobs if job.step == "environment"} | {"driver", TOOL}
    if not isinstance(plan.scheduler, Local):
        names.add(plan.scheduler.name)
    return [ROOT / f"envs/{name}.lock" for name in sorted(names)]


def images(plan: Plan, root: Path) -> dict[str, Path]:
    """Archives of the container images that the plan runs in, which have to be built already."""
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
    """Raises UserError for a place where no file can be written, before anything is fetched."""
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
    """The archive, under another name until it is whole; returns its bytes.

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
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return output.stat().st_size


def _entries(files: Mapping[str, Path]) -> Iterator[tuple[tarfile.TarInfo, Path]]:
    """Results keep their times, by which snakemake knows what is older; nothing has an owner."""
    for name, path in files.items():
        status = path.stat()
        entry = tarfile.TarInfo(name)
        entry.size = status.st_size
        entry.mode = 0o755 if status.st_mode & 0o100 else 0o644
        entry.mtime = int(status.st_mtime) if name.startswith("results/") else CHECKOUT_TIME
        yield entry, path
