"""The parts of a package, one per result, and their reuse from an earlier package.

A part is one cell under one of the benchmarks that it is submitted as. Beside its files the package
keeps the validator's findings, so that after a change of one system or scenario only that part is
written and checked again.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from steps.base.errors import UserError
from steps.base.record import MANIFEST, Manifest, canonical_json, sha256_file
from steps.base.strict import Strict
from steps.submit.validate.result import Outcome

RECORDS = "parts.json"


class Part(Strict):
    """`digest`: of its inputs. `files`: sha256 by path in the package.

    `outcome` is the validator's, as JSON.
    """

    digest: str
    files: dict[str, str]
    outcome: str


class Records(Strict):
    """All parts of a package by their directory in the tree; `code` made and checked them."""

    code: str
    parts: dict[str, Part]


OUTCOME = TypeAdapter(Outcome)


@dataclass(frozen=True)
class Former:
    """The package that a new one replaces; `parts` is empty if none can be reused."""

    home: Path
    parts: Mapping[str, Part]

    @classmethod
    def read(cls, home: Path | None, code: str) -> "Former":
        """Parts that other code made, or that were changed, aren't reused but made again."""
        if home is None:
            return cls(Path(), {})
        try:
            text = Manifest.read(home / MANIFEST).file(RECORDS).read_text(encoding="utf-8")
            records = Records.model_validate_json(text)
        except (UserError, OSError, ValidationError):
            return cls(home, {})
        return cls(home, records.parts if records.code == code else {})

    def lend(
        self, place: str, digest: str, package: Path, fit: Callable[[Path], bool]
    ) -> Part | None:
        """Put the files of an unchanged part into `package`; None unless every one is intact."""
        part = self.parts.get(place)
        if part is None or part.digest != digest:
            return None
        for name, expected in part.files.items():
            path = self.home / name
            if not path.is_file() or sha256_file(path) != expected or not fit(path):
                return None
        for name in part.files:
            link(self.home / name, package / name)
        return part


def link(source: Path, destination: Path) -> None:
    """A hard link, or a copy where links aren't possible."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, destination)
    except OSError:
        shutil.copyfile(source, destination)


def digests(package: Path, folders: list[str]) -> dict[str, str]:
    """sha256 of every file below these folders, by path in the package."""
    return {
        str(path.relative_to(package)): sha256_file(path)
        for folder in folders
        for path in sorted((package / folder).rglob("*"))
        if path.is_file()
    }


def write(package: Path, code: str, parts: Mapping[str, Part]) -> None:
    """The records that the next package reads."""
    records = {"code": code, "parts": {name: part.model_dump() for name, part in parts.items()}}
    (package / RECORDS).write_text(canonical_json(records) + "\n", encoding="utf-8")


def outcome_text(outcome: Outcome) -> str:
    """An outcome as a part keeps it."""
    return json.dumps(OUTCOME.dump_python(outcome, mode="json"), sort_keys=True)
