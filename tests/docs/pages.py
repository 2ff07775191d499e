"""The documentation as data: pages, their links, code blocks, commands and paths."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from steps import ROOT

ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = "./reproduce"
NAMED_FOLDERS = "bench|conf|containers|docs|envs|steps|tests|workflow"
SOURCES = ("steps/**/*.py", "steps/**/*.json", "conf/**/*.yaml", "bench/*.py", "workflow/**/*.smk")
"""Files whose messages and comments name files of the checkout."""

SOURCE_PATH = re.compile(rf"(?<![\w./~-])(?:{NAMED_FOLDERS})/[\w./-]+\.(?:md|py|yaml|lock|smk)\b")
MODULE = re.compile(r"python -m (steps(?:\.\w+)+)")
PATH = re.compile(rf"`((?:{NAMED_FOLDERS})/[^`\s]*)`")


@dataclass(frozen=True)
class Page:
    """One Markdown file. `text`: its content."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """Its path within the checkout."""
        return self.path.relative_to(ROOT).as_posix()

    def links(self) -> list[str]:
        """Targets of its links and pictures, code left out."""
        return LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", self.text)))

    def anchors(self) -> set[str]:
        """Fragments that a link may name, as the hosting platform makes them of headings."""
        return {anchor(heading) for heading in HEADING.findall(FENCE.sub("", self.text))}

    def blocks(self) -> list[tuple[str, str]]:
        """Fenced blocks: their language and their content."""
        return FENCE.findall(self.text)

    def commands(self) -> Iterator[list[str]]:
        """Arguments of every `./reproduce` in code: blocks, indented lines and backticks."""
        waiting = ""
        for line in self._code():
            waiting = f"{waiting} {line}".strip()
            try:
                yield from _commands(waiting)
            except ValueError:  # a quotation that goes on in the next line
                continue
            waiting = ""

    def paths(self) -> list[str]:
        """Paths of the checkout in backticks."""
        return PATH.findall(self.text)

    def modules(self) -> list[str]:
        """What `python -m` is given, of this project."""
        return re.findall(r"python -m ((?:steps|bench|tests)[\w.]*\w)", self.text)

    def _code(self) -> Iterator[str]:
        without = FENCE.sub("", self.text)
        for language, block in self.blocks():
            if language in ("", "shell", "bash"):
                yield from block.splitlines()
        yield from (line for line in without.splitlines() if line.startswith("    "))
        for span in re.findall(r"(?<!`)`(\./reproduce[^`]*)`", without):
            yield " ".join(span.split())


def _commands(line: str) -> Iterator[list[str]]:
    """Arguments of every `./reproduce` of a shell's line. Raises ValueError for an open quote."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    for separator, words in groupby(list(lexer), key=lambda word: set(word) <= set(";&|")):
        command = [] if separator else list(words)
        if PROGRAM in command:
            yield command[command.index(PROGRAM) + 1 :]
        for word in command:
            if f"{PROGRAM} " in word:
                yield from _commands(word)


def anchor(heading: str) -> str:
    """A heading in small letters, blanks as hyphens, punctuation dropped."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.replace(" ", "-")


def pages() -> list[Page]:
    """Every page of the documentation, the root's included."""
    paths = [ROOT / name for name in ROOT_PAGES] + sorted((ROOT / "docs").rglob("*.md"))
    return [Page(path, path.read_text(encoding="utf-8")) for path in paths]
