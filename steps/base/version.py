"""Which Reprise this is: the version, and the commit and state of the checkout."""

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

VERSION = "0.1.0"
"""That of pyproject.toml, CITATION.cff and the changelog; a test holds them together."""

LIMIT_S = 20.0

PARTS = (
    *("steps", "conf", "envs", "containers", "workflow"),
    *("Snakefile", "reproduce", "pyproject.toml"),
)
"""What a change of makes a checkout `changed`; results and docs don't."""


@dataclass(frozen=True)
class Version:
    """`commit`: of the checkout, in full; None where git has none to tell. `changed`: whether files
    of PARTS differ from it or are new; None where that isn't known."""

    number: str
    commit: str | None = None
    changed: bool | None = None

    @classmethod
    def of(cls, root: Path) -> "Version":
        """What git says of a checkout that is its own repository's."""
        commit = _git(root, "rev-parse", "HEAD", "--show-toplevel")
        if commit is None:
            return cls(VERSION)
        name, top = commit.split("\n", 1)
        if Path(top).resolve() != root.resolve():  # a copy within somebody else's repository
            return cls(VERSION)
        parts = [part for part in PARTS if (root / part).exists()]
        state = _git(root, "status", "--porcelain", "--", *parts)
        return cls(VERSION, name, None if state is None else bool(state))

    def but_changed(self) -> "Version":
        """The same, of code that isn't the commit's."""
        return replace(self, changed=True)

    def __str__(self) -> str:
        if self.commit is None:
            return f"Reprise {self.number}, of no known commit"
        return f"Reprise {self.number}, commit {self.commit}{self._state}"

    @property
    def _state(self) -> str:
        if self.changed is None:
            return ", perhaps changed"
        return ", changed" if self.changed else ""


def _git(root: Path, *words: str) -> str | None:
    """What git prints; None if it isn't there or refuses."""
    # Another repository's variables, as a hook has them, would answer for that one.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.strip()
