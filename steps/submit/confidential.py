"""Removes what identifies the site from a submission's documents, and refuses it elsewhere."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from steps.base.confidential.finder import Finder
from steps.base.confidential.placeholders import KINDS, PLACEHOLDERS
from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.config.submission import Redaction

OURS = ".md"
"""Documents that the submission step writes: it may replace words in these only."""


def require_clean(tree: Path, finder: Finder) -> None:
    """Raises UserError naming the first place that can't be sent; the value is not repeated."""
    for name, path in _files(tree):
        if kind := _kind(finder, name):
            raise UserError(
                f"{_shown(finder, name)}: the name holds {KINDS[kind]}, which a submission may not "
                f"carry; {_fix(PurePosixPath())}"
            )
        text = path.read_bytes().decode("utf-8", "replace")
        if _kind(finder, text) is None:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if kind := _kind(finder, line):
                raise UserError(
                    f"{name}, line {number}: {_part(line)}holds {KINDS[kind]}, which a submission "
                    f"may not carry; {_fix(PurePosixPath(name))}"
                )


def redactions(tree: Path) -> list[Redaction]:
    """The documents' placeholders."""
    found = []
    for name, path in _files(tree):
        if name.endswith(OURS):
            text = path.read_text(encoding="utf-8")
            for kind, placeholder in PLACEHOLDERS.items():
                if count := text.count(placeholder):
                    found.append(Redaction(file=name, kind=kind, count=count))
    return found


def redact(tree: Path, finder: Finder) -> None:
    """Rewrite documents that name the site; other hard links to them stay unchanged."""
    for name, path in _files(tree):
        if name.endswith(OURS):
            text, counts = finder.redacted(path.read_text(encoding="utf-8"))
            if counts:
                write_atomically(path, text)


def is_clean(path: Path, finder: Finder) -> bool:
    """False for a document that `redact` would rewrite."""
    return path.suffix != OURS or _kind(finder, path.read_text(encoding="utf-8")) is None


def _files(tree: Path) -> Iterable[tuple[str, Path]]:
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            yield path.relative_to(tree).as_posix(), path


def _kind(finder: Finder, text: str) -> str | None:
    return next(iter(finder.redacted(text)[1]), None)


def _shown(finder: Finder, text: str) -> str:
    return finder.redacted(text)[0]


def _part(line: str) -> str:
    """The field's name in a JSON line, without its value."""
    name = line.strip().partition(":")[0].strip('"')
    return f"{name} " if line.strip().startswith('"') and name.isidentifier() else "it "


def _fix(name: PurePosixPath) -> str:
    if name.suffix == ".json" and "systems" in name.parts:
        return "reword the field, system.fields of conf/system/ or of the --site file"
    if name.name.startswith(("mlperf_log", "verify_", "accuracy.txt")):
        return (
            "logs must stay as they were written, so it can't be replaced: find where the run "
            "got it, remove it there and run again"
        )
    return "change the name or setting that it comes from, in conf/ or the --site file"
