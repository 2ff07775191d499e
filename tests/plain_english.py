"""Plain English: counts worn phrases in docs, and in docstrings and messages of the code.

`python -m tests.plain_english` checks SCOPE and fails if it finds any. `--counts PATH...` prints
how many there are per folder below these paths, `--show PATH...` lists them; both always succeed.
"""

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from steps import ROOT

PHRASES = Path(__file__).with_name("worn_phrases.txt")

SCOPE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CITATION.cff",
    ".github",
    "docs",
    "bench",
    "steps",
)
"""Files and folders that `make lint` checks."""

GENERATED = ("docs/reference/validator.md", "docs/reference/configuration.md")
"""Written from strings of the code, where these phrases are counted."""

VOCABULARY = "steps/prepare/rehearsal/notes.py"
"""Its word lists are the tokens of the rehearsal's language, "lent" among them, not messages."""

PROSE = (".md", ".cff", ".yml", ".yaml")
OPENING = "of "
"""No docstring begins with it."""


@dataclass(frozen=True)
class Phrase:
    """A worn phrase, and the plain word."""

    pattern: re.Pattern[str]
    instead: str


@dataclass(frozen=True)
class Finding:
    """One occurrence. `line` counts from 1."""

    path: Path
    line: int
    found: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r}; say instead: {self.instead}"


def phrases(path: Path = PHRASES) -> list[Phrase]:
    """The list of worn phrases."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern, _, instead = line.partition(" -> ")
            # No lookahead at the end: patterns may end in one of their own.
            found.append(Phrase(re.compile(rf"\b(?:{pattern})(?!\w)", re.IGNORECASE), instead))
    return found


def findings(paths: Iterable[Path], worn: Iterable[Phrase]) -> Iterator[Finding]:
    """Every worn phrase in these files and folders, and every docstring that begins with "Of"."""
    worn = list(worn)
    for path in _files(paths):
        text = path.read_text(encoding="utf-8")
        passages = _python(text) if path.suffix == ".py" else _prose(text)
        for line, passage, is_docstring in passages:
            yield from _in_passage(path, line, passage, worn)
            if is_docstring and passage.lower().startswith(OPENING):
                yield Finding(path, line, passage[:20], "a subject")


def _in_passage(path: Path, line: int, passage: str, worn: list[Phrase]) -> Iterator[Finding]:
    for phrase in worn:
        for match in phrase.pattern.finditer(passage):
            at = line + passage.count("\n", 0, match.start())
            yield Finding(path, at, " ".join(match.group().split()), phrase.instead)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            if file.suffix in (*PROSE, ".py") and file not in {
                ROOT / name for name in (*GENERATED, VOCABULARY)
            }:
                yield file


def _prose(text: str) -> Iterator[tuple[int, str, bool]]:
    """The whole text, with code blanked out: fenced, indented and in backticks."""
    lines, fenced = [], False
    for line in text.split("\n"):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        code = fence or fenced or line.startswith("    ")
        lines.append("" if code else line)
    yield 1, _without_code("\n".join(lines)), False


def _without_code(text: str) -> str:
    """Words in backticks are names; a line break within them stays, so lines can be counted."""
    return re.sub(r"(`+)[^`]+\1", lambda match: "`" + "\n" * match.group().count("\n") + "`", text)


def _python(text: str) -> Iterator[tuple[int, str, bool]]:
    """Docstrings, and strings of several words: what a message is made of."""
    tree = ast.parse(text)
    docstrings = set(_docstrings(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, _without_code(node.value), node in docstrings


def _docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Strings that document a module, a class, a function or the assignment above them."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                yield statement.value


def counts(found: Iterable[Finding], root: Path) -> str:
    """A table of findings per folder."""
    per_folder = Counter(str(one.path.parent.relative_to(root)) for one in found)
    lines = [f"{count:5} {folder}" for folder, count in sorted(per_folder.items())]
    return "\n".join([*lines, f"{per_folder.total():5} in all"])


def main(arguments: list[str]) -> int:
    """Exit status 1: worn phrases were found."""
    parser = argparse.ArgumentParser(prog="python -m tests.plain_english", description=__doc__)
    parser.add_argument("--counts", type=Path, nargs="+", metavar="PATH", help="count, don't fail")
    parser.add_argument("--show", type=Path, nargs="+", metavar="PATH", help="list, don't fail")
    given = parser.parse_args(arguments)
    asked = given.counts or given.show or [Path(name) for name in SCOPE]
    found = list(findings([(ROOT / path).resolve() for path in asked], phrases()))
    if given.counts:
        print(counts(found, ROOT))
        return 0
    for one in found:
        print(Finding(one.path.relative_to(ROOT), one.line, one.found, one.instead))
    if given.show or not found:
        return 0
    print(f"{len(found)} worn phrases; tests/worn_phrases.txt has the plain words")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
