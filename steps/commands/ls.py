"""`./reproduce ls`: what can be chosen."""

import textwrap
from pathlib import Path

from steps import ROOT
from steps.base.errors import UserError

CONF = ROOT / "conf"
HIDDEN = ("site",)


def groups(conf: Path) -> str:
    """One line per group and its values; experiments come first, with their first comment."""
    lines = ["experiments"]
    experiments = sorted((conf / "experiment").glob("*.yaml"))
    width = max(18, *(len(path.stem) for path in experiments))
    for path in experiments:
        text = path.read_text(encoding="utf-8").splitlines()
        comments = [line.removeprefix("# ") for line in text if line.startswith("# ")]
        about = next((line for line in comments if not line.startswith("@package")), "")
        lines.append(f"  {path.stem:<{width}} {about}")
    lines.append("groups")
    for folder in sorted(path for path in conf.iterdir() if path.is_dir()):
        if folder.name not in (*HIDDEN, "experiment"):
            values = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            wrapped = textwrap.fill(values, 78, subsequent_indent=" " * 21, break_on_hyphens=False)
            lines.append(f"  {folder.name:<18} {wrapped}")
    return "\n".join(lines)


def command(arguments: list[str]) -> int:
    """Prints the groups; takes no arguments."""
    if arguments:
        raise UserError(f"ls takes no arguments, {' '.join(arguments)!r} was given")
    print(groups(CONF))
    return 0
