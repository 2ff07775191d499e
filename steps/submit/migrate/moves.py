"""Where each file of a tree goes: v5.1 keeps code/, measurements/ and compliance/ apart; v6 (6.0,
6.1) has src/ and keeps a result's description and tests beside it.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from steps.base.errors import UserError
from steps.mlperf.loadgen import USER_CONF
from steps.submit.validate.tree import Tree

DESCRIBING = (USER_CONF, "README.md", "mlperf.conf", "calibration_process.adoc")
"""A measurement's files beside its JSON (submission rules, v5.1)."""

MEASUREMENT = "measurements.json"
LAYOUTS = ("v5.1", "v6")


@dataclass
class Moves:
    """`files` maps a new path to the old one; `left_out` are old paths that belong to no result."""

    files: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, old: str, new: str) -> None:
        """Raises UserError if two files would become one."""
        if new in self.files:
            raise UserError(
                f"{self.files[new]} and {old} would both become {new}; delete or rename one of them"
            )
        self.files[new] = old


def moves(tree: Tree, layout: str) -> Moves:
    """Every file of the tree; raises UserError for links and other things that can't be copied."""
    found = Moves()
    to = _to_v6 if layout == "v6" else _to_v5_1
    for path in _files(tree):
        new = to(tree, path)
        if new is None:
            found.left_out.append(path)
        else:
            found.add(path, new)
    return found


def _to_v6(tree: Tree, path: str) -> str | None:
    parts = path.split("/")
    if len(parts) < 4:
        return path
    home, kind, rest = "/".join(parts[:2]), parts[2], parts[3:]
    if kind == "code":
        return f"{home}/src/{'/'.join(rest)}"
    if kind not in ("measurements", "compliance"):
        return path
    result = f"{home}/results/{'/'.join(rest[:3])}"
    if len(rest) < 4 or not tree.is_directory(result):
        return None
    if kind == "measurements" and _is_description(rest):
        return f"{result}/{MEASUREMENT}"
    return f"{home}/results/{'/'.join(rest)}"


def _is_description(rest: list[str]) -> bool:
    """<system>*.json directly in the scenario's directory."""
    name = rest[-1]
    return len(rest) == 4 and name.startswith(rest[0]) and name.endswith(".json")


def _to_v5_1(tree: Tree, path: str) -> str | None:
    parts = path.split("/")
    if len(parts) < 4:
        return path
    home, kind, rest = "/".join(parts[:2]), parts[2], parts[3:]
    if kind == "src":
        return f"{home}/code/{'/'.join(rest)}"
    if kind != "results" or len(rest) < 4:
        return path
    result, name = "/".join(rest[:3]), rest[3]
    if len(rest) == 4 and name == MEASUREMENT:
        return f"{home}/measurements/{result}/{rest[0]}.json"
    if len(rest) == 4 and name in DESCRIBING:
        return f"{home}/measurements/{result}/{name}"
    if name.startswith("TEST"):
        return f"{home}/compliance/{'/'.join(rest)}"
    return path


def _files(tree: Tree) -> Iterator[str]:
    todo = [""]
    while todo:
        folder = todo.pop()
        try:
            names = sorted(os.listdir(tree.at(folder)))
        except OSError as error:
            raise UserError(f"{tree.at(folder)} can't be listed ({error.strerror})") from error
        for name in names:
            path = f"{folder}/{name}" if folder else name
            mode = os.lstat(tree.at(path)).st_mode
            if stat.S_ISDIR(mode):
                todo.append(path)
            elif stat.S_ISREG(mode):
                yield path
            else:
                raise UserError(
                    f"{tree.at(path)} is a link or a special file, which a submission may not "
                    "have; replace it by a file or delete it"
                )
