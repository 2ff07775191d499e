"""`./reproduce ls`: what can be chosen."""

import argparse
import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path

from steps import ROOT
from steps.base.arguments import Parser, json_argument

CONF = ROOT / "conf"
HIDDEN = ("options", "site")


@dataclass(frozen=True)
class Choices:
    """`experiments`: name to what it is; `groups`: the values of every other group."""

    experiments: dict[str, str]
    groups: dict[str, list[str]]


def choices(conf: Path) -> Choices:
    """What `conf/` has; an experiment is described by its first comment."""
    experiments = sorted((conf / "experiment").glob("*.yaml"))
    folders = sorted(path for path in conf.iterdir() if path.is_dir())
    return Choices(
        {path.stem: _about(path) for path in experiments},
        {
            folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
            for folder in folders
            if folder.name not in (*HIDDEN, "experiment")
        },
    )


def _about(path: Path) -> str:
    text = path.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("# ") for line in text if line.startswith("# ")]
    return next((line for line in comments if not line.startswith("@package")), "")


def rendered(found: Choices) -> str:
    """One line per group and its values; experiments come first."""
    width = max(18, *map(len, found.experiments))
    lines = ["experiments"]
    lines += [f"  {name:<{width}} {about}" for name, about in found.experiments.items()]
    lines.append("groups")
    for name, values in found.groups.items():
        wrapped = textwrap.fill(
            ", ".join(values), 78, subsequent_indent=" " * 21, break_on_hyphens=False
        )
        lines.append(f"  {name:<18} {wrapped}")
    return "\n".join(lines)


def declare(parser: Parser) -> None:
    """How the choices are printed."""
    json_argument(parser, "experiments and groups")


def command(given: argparse.Namespace) -> int:
    """Prints what can be chosen."""
    found = choices(CONF)
    print(json.dumps(asdict(found), indent=1) if given.json else rendered(found))
    return 0
