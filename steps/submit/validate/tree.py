"""The places in a submission tree, and the contents of its directories."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.mlperf.loadgen import TRACE
from steps.mlperf.rounds import DIVISIONS, Layout, layouts

SCENARIO_SPELLINGS: Mapping[str, str] = {
    "offline": "Offline",
    "server": "Server",
    "interactive": "Interactive",
    "singlestream": "SingleStream",
    "multistream": "MultiStream",
}
"""Lower-case directory names that the official checker takes too (SCENARIO_MAPPING, v5.1.1)."""

TOLERATED_FILES = (TRACE, "results.json")
"""Files that may lie beside those of any run (files_diff of the checkers)."""


@dataclass(frozen=True)
class Tree:
    """A directory on disk; all names and paths are relative to `root`, with slashes."""

    root: Path

    def at(self, path: str) -> Path:
        return self.root / path

    def files(self, path: str) -> dict[str, int]:
        """Names and sizes (bytes) of the regular files of a directory; empty if there is none."""
        return {
            entry.name: entry.stat(follow_symlinks=False).st_size
            for entry in self._entries(path)
            if entry.is_file(follow_symlinks=False)
        }

    def directories(self, path: str) -> list[str]:
        """Names of the real directories of a directory, sorted; links don't count."""
        return sorted(
            entry.name for entry in self._entries(path) if entry.is_dir(follow_symlinks=False)
        )

    def is_directory(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(self.at(path)).st_mode)
        except (OSError, ValueError):
            return False

    def leads_to_directory(self, path: str) -> bool:
        """Whether it is a directory of this tree, or a link to one."""
        return self.is_directory(path) or (self.leads_inside(path) and os.path.isdir(self.at(path)))

    def leads_inside(self, path: str) -> bool:
        """Whether a link leads to something that is there, in this tree."""
        root, target = os.path.realpath(self.root), os.path.realpath(self.at(path))
        return os.path.exists(target) and os.path.commonpath([root, target]) == root

    def is_file(self, path: str) -> bool:
        try:
            return stat.S_ISREG(os.lstat(self.at(path)).st_mode)
        except (OSError, ValueError):
            return False

    def _entries(self, path: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.at(path)) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except (OSError, ValueError):
            return []  # whoever walks the tree reports it


@dataclass(frozen=True)
class Place:
    """One result in the tree; `scenario` as the directory spells it."""

    layout: Layout
    division: str
    submitter: str
    system: str
    model: str
    scenario: str

    @property
    def home(self) -> str:
        return f"{self.division}/{self.submitter}"

    @property
    def results(self) -> str:
        return self._in("results")

    @property
    def measurements(self) -> str:
        """Where user.conf, README.md and the measurement's JSON lie."""
        return self._below(self.layout.measurements)

    @property
    def compliance(self) -> str:
        """The directory above those of the compliance tests."""
        return self._below(self.layout.compliance)

    def _below(self, folder: str | None) -> str:
        return self.results if folder is None else self._in(folder)

    def _in(self, folder: str) -> str:
        return f"{self.home}/{folder}/{self.system}/{self.model}/{self.scenario}"

    @property
    def official_scenario(self) -> str:
        return SCENARIO_SPELLINGS.get(self.scenario, self.scenario)

    @property
    def closed(self) -> bool:
        """Whether the stricter rules of closed and network apply."""
        return self.division != "open"


def layout_of(tree: Tree, wanted: Layout) -> Layout:
    """The layout of the first submitter that shows one; the oldest if none does. `wanted`: see
    `home_layout`."""
    homes = (f"{d}/{submitter}" for d in DIVISIONS for submitter in tree.directories(d))
    found = (home_layout(tree, home, wanted) for home in homes)
    return next(filter(None, found), layouts()[0])


def home_layout(tree: Tree, home: str, wanted: Layout) -> Layout | None:
    """The layout of one submitter, by the folder that tells it from others; None without one.

    Of layouts that share that folder it is the one with most of its folders there, and of those
    that are equal in this, `wanted`.
    """
    first = next((one for one in layouts() if _shows(tree, home, one)), None)
    if first is None:
        return None
    alike = [one for one in layouts() if one.folders[0] == first.folders[0]]
    there = {name for one in alike for name in one.folders if tree.is_directory(f"{home}/{name}")}
    return max(alike, key=lambda one: (len(there.intersection(one.folders)), one == wanted))


def _shows(tree: Tree, home: str, layout: Layout) -> bool:
    """Whether the folder is there that tells this layout from others; code may be a link to it."""
    path = f"{home}/{layout.folders[0]}"
    return tree.leads_to_directory(path) if layout.measurements is None else tree.is_directory(path)
