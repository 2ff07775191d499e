"""`./reproduce [run|plan|verify|...] [hydra overrides] [-- snakemake arguments]`.

Composes and freezes the plan, then runs snakemake on it. Heavy modules are imported where they are
used: a repeated run whose plan is known costs little more than snakemake itself.
"""

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from steps import supervisor
from steps.errors import UserError
from steps.record import canonical_json, digest_files, write_atomically

ROOT = Path(__file__).resolve().parent.parent

PLANNED: Mapping[str, str] = {
    "run": "(default) make the plan and run what of it is missing or outdated",
    "plan": "print what would run, why, how long and how much disk; runs nothing",
    "manifests": "print what Kubernetes would be given, with scheduler=kubernetes",
    "verify": "check every result of the plan, or DIRECTORY as unseal left it, against its digests",
}
"""Commands on a plan: they take overrides."""

OTHERS: Mapping[str, tuple[str, str]] = {
    "ls": ("steps.listing", "list experiments and the values of every group"),
    "describe": ("steps.describe", "the system description of this machine, or of a cluster"),
    "doctor": ("steps.doctor", "what keeps a plan from running here, and the exact fix"),
    "capacity": ("steps.capacity", "how many accelerators hold which model at which precision"),
    "validate": ("steps.validate.command", "check a submission tree by the rules of its round"),
    "migrate": ("steps.migrate.command", "write a submission tree in another round's layout"),
    "score": ("steps.scoring.command", "accuracy.txt of a full accuracy log, without a network"),
    "compliance": (
        "steps.compliance.command",
        "verify TEST01, TEST04, TEST07 or TEST09 and package it",
    ),
    "explain": ("steps.validate.explain", "what a finding of validate means, and its fix"),
    "compare": ("steps.compare", "A B: differences of two results, own or published"),
    "report": ("steps.report.command", "--published: the page of AMD's published submission"),
    "seal": ("steps.provenance.seal", "one file of a finished submission, signed and encrypted"),
    "unseal": ("steps.provenance.unseal", "FILE DIRECTORY: open what seal made, checked"),
    "bundle": (
        "steps.bundle.command",
        "one archive from which a machine without network is set up",
    ),
    "unbundle": ("steps.bundle.unbundle", "FILE DIRECTORY: set up a machine from a bundle"),
    "tune": ("steps.tune.command", "find target_qps of Server and Interactive on this machine"),
    "diff": ("steps.diff", "what a system sets otherwise than its base: diff system=A base=B"),
}
"""Commands that need no plan: the module whose `command(arguments) -> exit status` does it."""

USAGE = """\
./reproduce [run|plan|manifests|verify] [--site FILE] [hydra overrides] [-- snakemake arguments]
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
    name = arguments[0] if arguments and "=" not in arguments[0] else ""
    try:
        if name == "verify" and len(arguments) > 1 and Path(arguments[1]).is_dir():
            return int(importlib.import_module("steps.provenance.package").command(arguments[1:]))
        if name in OTHERS:
            return int(importlib.import_module(OTHERS[name][0]).command(arguments[1:]))
        return _planned(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _planned(arguments: list[str]) -> int:
    if any(argument in ("-h", "--help") for argument in arguments):
        print(usage())
        return 0
    ours, passed_on = arguments, []
    if "--" in arguments:
        split = arguments.index("--")
        ours, passed_on = arguments[:split], arguments[split + 1 :]
    ours, site = site_file(ours)
    command, overrides = "run", ours
    if ours and "=" not in ours[0]:
        command, overrides = ours[0], ours[1:]
    if command not in PLANNED or (command != "run" and passed_on):
        print(f"error: {' '.join(arguments)!r} is not a command\n{usage()}", file=sys.stderr)
        return 2
    path = frozen_plan(ROOT, overrides, site)
    if command == "plan":
        from steps.preview import preview

        print(preview(path, ROOT, snakemake(path)))
        return 0
    if command == "manifests":
        from steps.scheduler.kubernetes.run import show

        return show(path, ROOT)
    if command == "verify":
        from steps.verify import verify

        return verify(path, ROOT)
    from steps.limits import refusal

    if reason := refusal(path, ROOT):
        raise UserError(reason)
    supervisor.lock(ROOT)
    os.chdir(ROOT)
    if (name := scheduler(path)) != "local":
        found = {"slurm": "steps.scheduler.run", "kubernetes": "steps.scheduler.kubernetes.run"}
        return int(importlib.import_module(found[name]).run(path, passed_on, ROOT))
    return supervisor.supervise([*snakemake(path), *passed_on], ROOT)


def site_file(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Arguments without `--site FILE`, and the file; a relative path is one from the checkout."""
    rest, site = [], None
    waiting = iter(arguments)
    for argument in waiting:
        if argument != "--site" and not argument.startswith("--site="):
            rest.append(argument)
            continue
        name = argument.partition("=")[2] or next(waiting, "")
        if not name or site is not None:
            raise UserError("--site takes one file, as in --site acme.yaml")
        site = Path(name)
    return rest, site


def frozen_plan(root: Path, overrides: list[str], site: Path | None = None) -> Path:
    """The plan of these overrides; composed only if `conf/`, code or locks changed since.

    Composition is a pure function of what the key covers: `conf/` has no resolver that reads the
    environment, the clock or the machine.
    """
    files = [*root.glob("conf/**/*.yaml"), *root.glob("envs/*.lock"), *root.glob("steps/**/*.py")]
    key = digest_files([*files], root) + canonical_json(overrides)
    if site is not None and site.is_file():
        key += site.name + site.read_text(encoding="utf-8", errors="replace")
    index = root / "results/plans/index" / f"{_sha256(key)[:24]}"
    if index.is_file():
        path = root / "results/plans" / f"{index.read_text().strip()}.json"
        if path.is_file():
            return path
    from steps.plan import freeze, make

    path = freeze(make(root, overrides, site), root)
    write_atomically(index, path.stem + "\n")
    return path


def scheduler(plan: Path) -> str:
    """Who runs a frozen plan, by its name in `conf/scheduler/`."""
    import json

    return str(json.loads(plan.read_text(encoding="utf-8"))["scheduler"]["name"])


def snakemake(plan: Path) -> list[str]:
    """The command that runs a plan on this machine, as a user could type it."""
    return [
        str(Path(sys.executable).parent / "snakemake"),
        "--configfile",
        str(plan.relative_to(ROOT)),
        "--workflow-profile",
        "workflow/profiles/default",
    ]


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


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
