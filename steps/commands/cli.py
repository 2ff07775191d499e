"""`./reproduce [run|plan|verify|...] [hydra overrides] [-- snakemake arguments]`.

Composes and freezes the plan, then runs snakemake on it. Heavy modules are imported where they are
used (steps/plan/frozen.py says why).
"""

import errno
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from steps import ROOT
from steps.base.console import plain_output
from steps.base.errors import UserError, shown
from steps.plan.frozen import frozen_plan, site_file, snakemake
from steps.schedule import supervisor

PLANNED: Mapping[str, str] = {
    "run": "(default) make the plan and run what of it is missing or outdated",
    "again": "measure anew what failed, or the cells and results that are named",
    "status": "a table of the plan's cells: valid, running, due, failed and why",
    "report": "make the page of what there is; --published: of AMD's published submission",
    "plan": "print what would run, why, how long and how much disk; runs nothing",
    "manifests": "print what Kubernetes would be given, with scheduler=kubernetes",
    "verify": "check every result of the plan, or DIRECTORY as unseal left it, against its digests",
}
"""Commands on a plan: they take overrides."""

PUBLISHED = "--published"
"""What makes `report` one of published results, without a plan."""

OTHERS: Mapping[str, tuple[str, str]] = {
    "ls": ("steps.commands.ls", "list experiments and the values of every group"),
    "describe": (
        "steps.commands.describe",
        "the system description of this machine, or of a cluster",
    ),
    "doctor": ("steps.commands.doctor", "what keeps a plan from running here, and the exact fix"),
    "capacity": (
        "steps.plan.capacity",
        "how many accelerators hold which model at which precision",
    ),
    "validate": (
        "steps.submit.validate.command",
        "check a submission tree by the rules of its round",
    ),
    "migrate": (
        "steps.submit.migrate.command",
        "write a submission tree in another round's layout",
    ),
    "score": (
        "steps.judge.scoring.command",
        "accuracy.txt of a full accuracy log, without a network",
    ),
    "compliance": (
        "steps.judge.compliance.command",
        "verify TEST01, TEST04, TEST06, TEST07 or TEST09 and package it",
    ),
    "explain": ("steps.submit.validate.explain", "what a finding of validate means, and its fix"),
    "compare": ("steps.commands.compare", "A B: differences of two results, own or published"),
    "seal": ("steps.commands.seal", "one file of a finished submission, signed and encrypted"),
    "unseal": ("steps.commands.unseal", "FILE DIRECTORY: open what seal made, checked"),
    "bundle": (
        "steps.commands.bundle.command",
        "one archive from which a machine without network is set up",
    ),
    "unbundle": (
        "steps.commands.bundle.unbundle",
        "FILE DIRECTORY: set up a machine from a bundle",
    ),
    "tune": (
        "steps.commands.tune.command",
        "find target_qps of Server and Interactive on this machine",
    ),
    "diff": (
        "steps.commands.diff",
        "what a system sets otherwise than its base: diff system=A base=B",
    ),
}
"""Commands that need no plan: the module whose `command(arguments) -> exit status` does it."""

PLAIN: Mapping[str, str] = {
    "ls": "",
    "doctor": "[--site FILE] [overrides]",
    "capacity": "[MODEL | BILLIONS of parameters ...]",
    "diff": "system=A base=B [overrides], or --site FILE [overrides]",
}
"""What those of the others take that have no parser of their own, for `--help`."""

REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or have your quota raised",
    errno.EROFS: "give results/ and .envs/ (links may lead elsewhere) a disk that can be written",
    errno.EACCES: "give yourself the right to it, or run as its owner",
    errno.EPERM: "give yourself the right to it, or run as its owner",
    errno.EIO: "look at the disk (dmesg)",
    errno.ESTALE: "mount its file system again",
}
"""By errno; what else there is says enough of itself."""

USAGE = """\
./reproduce [run] [--site FILE] [hydra overrides] [-- snakemake arguments]
./reproduce again [cells and results] [--site FILE] [hydra overrides]
./reproduce status|report|plan|manifests|verify [--site FILE] [hydra overrides]
./reproduce COMMAND [arguments]

{commands}

Overrides: experiment=rehearsal-full, precision=bf16,fp8, system.target_qps.Server=30 ...
Without any: experiment=rehearsal. --site: a system of your own, in a file outside conf/."""


def usage() -> str:
    """What `--help` prints."""
    about = {**PLANNED, **{name: words for name, (_, words) in OTHERS.items()}}
    return USAGE.format(commands="\n".join(f"  {name:<10} {about[name]}" for name in about))


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 1 the user's to mend, 2 usage."""
    with plain_output():
        return _main(arguments)


def _main(arguments: list[str]) -> int:
    name = arguments[0] if arguments and "=" not in arguments[0] else ""
    try:
        _go_back()
        if name == "verify" and len(arguments) > 1 and Path(arguments[1]).is_dir():
            return int(
                importlib.import_module("steps.submit.provenance.package").command(arguments[1:])
            )
        if name == "report" and PUBLISHED in arguments:
            return int(importlib.import_module("steps.report.command").command(arguments[1:]))
        if name in PLAIN and {"-h", "--help"} & set(arguments[1:]):
            print(f"./reproduce {name} {PLAIN[name]}".strip(), OTHERS[name][1], sep="\n\n")
            return 0
        if name in OTHERS:
            return int(importlib.import_module(OTHERS[name][0]).command(arguments[1:]))
        return _planned(arguments)
    except UserError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: {shown(unusable(error))}", file=sys.stderr)
        return 1


def unusable(error: OSError) -> str:
    """A file or disk that can't be used, as a sentence with what to do."""
    where = f"{error.filename}: " if error.filename else ""
    remedy = REMEDIES.get(error.errno or 0, "mend that")
    return f"{where}{error.strerror or error}; {remedy}, and run again"


def _go_back() -> None:
    """To where the user stands, whose relative paths are from there; `reproduce` left it."""
    directory = os.environ.pop("REPRISE_DIRECTORY", None)
    if directory is None:
        return
    try:
        os.chdir(directory)
    except OSError as error:
        raise UserError(
            f"{directory} can't be entered ({error.strerror}); start from a directory that is there"
        ) from error


def _planned(arguments: list[str]) -> int:
    if any(argument in ("-h", "--help") for argument in arguments):
        print(usage())
        return 0
    ours, passed_on = arguments, []
    if "--" in arguments:
        split = arguments.index("--")
        ours, passed_on = arguments[:split], arguments[split + 1 :]
    ours, site = site_file(ours)
    command, given = "run", ours
    if ours and "=" not in ours[0]:
        command, given = ours[0], ours[1:]
    if command not in PLANNED or (command != "run" and passed_on):
        print(f"error: {' '.join(arguments)!r} is not a command\n{usage()}", file=sys.stderr)
        return 2
    words = [word for word in given if command == "again" and "=" not in word]
    overrides = [word for word in given if word not in words]
    path = frozen_plan(ROOT, overrides, site)
    typed = [*overrides, *(["--site", str(site)] if site else [])]
    return _on_plan(command, path, typed, words, passed_on)


def _on_plan(
    command: str, path: Path, typed: list[str], words: list[str], passed_on: list[str]
) -> int:
    """`typed`: what chose the plan, as it was typed."""
    if command == "plan":
        from steps.commands.preview import preview

        print(preview(path, ROOT, snakemake(path), typed))
        return 0
    if command == "manifests":
        from steps.schedule.kubernetes.run import show

        return show(path, ROOT)
    if command == "verify":
        from steps.commands.verify import verify

        return verify(path, ROOT, typed)
    from steps.commands import results

    asked = results.Asked.of(path, ROOT, typed)
    if command == "report":
        return results.report(asked)
    if command == "status":
        return results.status(asked)
    from steps.plan.older import refuse_older
    from steps.plan.unsupported import refusal

    refuse_older(path, ROOT)
    if reason := refusal(path, ROOT):
        raise UserError(reason)
    supervisor.lock(ROOT)
    os.chdir(ROOT)
    return results.again(asked, words) if command == "again" else results.run(asked, passed_on)


def command_line() -> NoReturn:
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        status = 1
    supervisor.release()
    raise SystemExit(status)


if __name__ == "__main__":
    command_line()
