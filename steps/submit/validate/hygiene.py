"""Names, sizes and kinds of files: what makes a tree unfit for the results repository."""

import os
import stat
from collections import Counter
from collections.abc import Callable

from steps.base.untrusted import reason_of
from steps.mlperf.rounds import DIVISIONS
from steps.submit.validate.findings import Findings, Severity
from steps.submit.validate.tree import Tree

MAX_FILE_BYTES = 50 << 20
"""FILE_SIZE_LIMIT_MB of the official checker (v5.1.1), inclusive."""

SHOWN = 20
"""Findings of one code below one submitter; the rest is counted."""

SILENT_ROOT_DIRECTORIES = (".git", ".github", "assets")
ROOT_SUFFIXES = (".md", ".pdf")

UNPRINTABLE = "the name has control characters or broken UTF-8"
NOT_EVERYWHERE = "the name has characters that not every system can store"

_Report = Callable[..., None]


def check_root(tree: Tree, findings: Findings) -> None:
    """Check everything above the submitters."""
    for name in tree.files(""):
        if not name.endswith(ROOT_SUFFIXES):
            findings.add("root-file", name, "a file beside the divisions")
    for name in tree.directories(""):
        if name not in DIVISIONS and name not in SILENT_ROOT_DIRECTORIES:
            findings.add("root-directory", name, "no division has this name")
    for division in DIVISIONS:
        for name in tree.files(division):
            findings.add("division-file", f"{division}/{name}", "a file beside the submitters")
        for parent in ("", division):
            _check_links(tree, parent, findings)


def _check_links(tree: Tree, parent: str, findings: Findings) -> None:
    """Links above the submitters would hide what is below them."""
    try:
        names = sorted(os.listdir(tree.at(parent)))
    except OSError:
        return
    for name in names:
        path = f"{parent}/{name}" if parent else name
        shown = parent or name in DIVISIONS
        if shown and os.path.islink(tree.at(path)):
            findings.add("symlink", path, "a symbolic link")


def check_names(tree: Tree, home: str, findings: Findings) -> None:
    """Every file and directory below one submitter; links are not followed."""
    counts: Counter[tuple[str, Severity | None]] = Counter()

    def report(code: str, path: str, what: str, severity: Severity | None = None) -> None:
        counts[code, severity] += 1
        if counts[code, severity] <= SHOWN:
            findings.add(code, path, what, severity=severity)

    todo = [home]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(tree.at(folder)) as entries:
                names = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            report("tree-unreadable", folder, f"it can't be listed ({reason_of(error)})")
            continue
        if not names:
            report("empty-directory", folder, "an empty directory")
        for entry in names:
            path = f"{folder}/{entry.name}"
            _check_name(entry.name, path, report)
            if _check_entry(tree, entry, path, report):
                todo.append(path)
    for (code, severity), count in counts.items():
        if count > SHOWN:
            findings.add(code, home, f"{count - SHOWN} more of these", severity=severity)


def _check_name(name: str, path: str, report: _Report) -> None:
    if name.startswith("."):
        report("hidden-name", path, "the name begins with a dot")
    if " " in name:
        report("space-in-name", path, "the name has a blank")
    if any(not c.isprintable() for c in name):
        report("unsafe-name", path, UNPRINTABLE)
    elif any(c in '\\:*?"<>|' for c in name):
        report("unsafe-name", path, NOT_EVERYWHERE, Severity.WARNING)


def _check_link(tree: Tree, path: str, report: _Report) -> None:
    """The official checker (v5.1.1) looks up the text of links to files from the tree's root."""
    if tree.leads_to_directory(path):
        report("symlink", path, "a symbolic link to a directory of this tree", Severity.WARNING)
    elif not tree.leads_inside(path):
        report("symlink", path, "a symbolic link that leads to nothing in this tree")
    elif not os.path.exists(tree.at(os.readlink(tree.at(path)))):
        report("symlink", path, "a symbolic link that leads to nothing from the tree's root")
    else:
        report("symlink", path, "a symbolic link to a file of this tree", Severity.WARNING)


def _check_entry(tree: Tree, entry: os.DirEntry[str], path: str, report: _Report) -> bool:
    """Whether to go on below it."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        report("tree-unreadable", path, f"it can't be looked at ({reason_of(error)})")
        return False
    if stat.S_ISLNK(status.st_mode):
        _check_link(tree, path, report)
        return False
    if stat.S_ISDIR(status.st_mode):
        if entry.name.endswith("__pycache__"):
            report("pycache", path, "compiled Python")
        return True
    if not stat.S_ISREG(status.st_mode):
        report("special-file", path, "neither a file nor a directory")
    elif status.st_size > MAX_FILE_BYTES:
        report("file-size", path, f"{status.st_size / (1 << 20):.1f} MiB, at most 50 are allowed")
    if not os.access(entry.path, os.R_OK):
        report("tree-unreadable", path, "it can't be read (permission denied)")
    return False
