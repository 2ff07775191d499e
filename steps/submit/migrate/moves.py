"""Where each file of a tree goes in another layout: by what it is in its own (conf/round/)."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from steps.base.errors import UserError
from steps.mlperf.loadgen import USER_CONF
from steps.mlperf.rounds import Layout
from steps.submit.validate.tree import Tree

DESCRIBING = (USER_CONF, "README.md", "mlperf.conf", "calibration_process.adoc")
"""A measurement's files beside its JSON (submission rules, v5.1)."""

RESULTS = "results"
RESULT = 3
"""Folders below results/ that name a result: system, model and scenario."""


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


def moves(tree: Tree, old: Layout, new: Layout) -> Moves:
    """Every file of the tree; raises UserError for links and other things that can't be copied."""
    found = Moves()
    for path in _files(tree):
        place = _moved(tree, path, old, new)
        if place is None:
            found.left_out.append(path)
        else:
            found.add(path, place)
    return found


def _moved(tree: Tree, path: str, old: Layout, new: Layout) -> str | None:
    """The new path; None for a file that belongs to no result and would lie among those of one."""
    parts = path.split("/")
    if len(parts) < 4:
        return path
    home, folder, rest = "/".join(parts[:2]), parts[2], parts[3:]
    if folder == old.code:
        return "/".join((home, new.code, *rest))
    kind = _kind(folder, rest, old)
    goes = {"measurement": new.measurements, "test": new.compliance}.get(kind, folder)
    if goes is None and folder != RESULTS:
        result = "/".join((home, RESULTS, *rest[:RESULT]))
        if len(rest) <= RESULT or not tree.is_directory(result):
            return None
    if kind == "measurement" and len(rest) == RESULT + 1 and old.describes(rest[0], rest[-1]):
        rest = [*rest[:RESULT], new.described(rest[0])]
    return "/".join((home, goes or RESULTS, *rest))


def _kind(folder: str, rest: list[str], layout: Layout) -> str:
    """What a file is: "measurement", "test" of compliance, or anything else: ""."""
    if folder in (layout.measurements, layout.compliance):
        return "measurement" if folder == layout.measurements else "test"
    if folder != RESULTS or len(rest) <= RESULT:
        return ""
    if layout.compliance is None and rest[RESULT].startswith("TEST"):
        return "test"
    described = rest[-1] in DESCRIBING or layout.describes(rest[0], rest[-1])
    own = len(rest) == RESULT + 1 and layout.measurements is None and described
    return "measurement" if own else ""


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
