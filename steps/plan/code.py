"""What code a step's results follow from: the closure of its module's imports, and its data files.

Reading all imports takes half a second, so which files they are is kept below results/, under the
digest of all modules: a repeated run reads no module.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.base.record import canonical_json, combined, digests_of, write_atomically
from steps.plan.closure import PACKAGE, Closures
from steps.plan.registry import PAGE_DATA, PAGE_MODULE, STEPS

KEPT = Path("results/plans/index/sources.json")
PAGE = "page"
"""Stands among the steps for the page of an experiment, which is no job."""

Lists = Mapping[str, list[str]]


@dataclass(frozen=True)
class Code:
    """`digest`: what a record's `code` must equal for the record to be of today's code. `files`:
    sha256 by path in the checkout."""

    digest: str
    files: Mapping[str, str]


def codes(root: Path) -> Mapping[str, Code]:
    """The code of every step as it is now, and of the PAGE."""
    modules = digests_of(root.glob(f"{PACKAGE}/**/*.py"), root)
    lists, data = _lists(root, combined(modules)), _data(root)
    found = {}
    for name, paths in lists.items():
        files = {path: modules[path] for path in paths} | data[name]
        found[name] = Code(combined(files), files)
    return found


def code_digest(step: str, root: Path) -> str:
    return codes(root)[step].digest


def sources(step: str, root: Path) -> list[str]:
    """Paths in the checkout of all that can change a step's results."""
    return sorted(codes(root)[step].files)


def _modules() -> dict[str, str]:
    return {name: spec.module for name, spec in STEPS.items()} | {PAGE: PAGE_MODULE}


def _data(root: Path) -> dict[str, dict[str, str]]:
    globs = {name: spec.data for name, spec in STEPS.items()} | {PAGE: PAGE_DATA}
    return {name: digests_of(_matching(found, root), root) for name, found in globs.items()}


def _matching(patterns: Iterable[str], root: Path) -> set[Path]:
    return {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}


def _lists(root: Path, key: str) -> Lists:
    modules = _modules()
    # Another table of steps has another key, too: it is a module.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads((root / KEPT).read_text(encoding="utf-8"))
        if kept["key"] == key and kept["files"].keys() == modules.keys():
            return dict(kept["files"])
    closures = Closures(root)
    lists = {name: list(closures.of(module)) for name, module in modules.items()}
    with contextlib.suppress(OSError):  # a checkout that can't be written only has to read again
        write_atomically(root / KEPT, canonical_json({"key": key, "files": lists}) + "\n")
    return lists
