"""What the documentation says is there: links, anchors, paths, modules, commands."""

import argparse
import re
from functools import cache
from pathlib import Path

import pytest

from steps.commands.cli import OTHERS, PLANNED, main
from steps.plan.frozen import site_file
from steps.plan.make import make
from tests.docs.pages import MODULE, ROOT, SOURCE_PATH, SOURCES, Page, pages

PAGES = pages()

OWN = ("conf/site/local.yaml",)
"""Files that pages tell a user to make."""

PLACEHOLDERS = {
    "NAME": "rehearsal-cpu-nodes",
    "CODE": "tree-empty",
    "A": "dell-mi300x",
    "B": "amd-mi300x",
}
"""Words in capitals that stand for a value; all others name files or folders."""

SYNTAX = ("…", "[run]", "[overrides]", "[MODEL", "[--")
"""A line with one of these shows a syntax and can't be typed."""

RUN_WHOLE = ("ls", "capacity", "explain", "diff")
"""Commands without a parser that read configuration only: the test runs them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links():
        if re.match(r"https?:", link):
            continue
        target, _, fragment = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), f"{page.name}: {link}"
        if fragment:
            there = Page(path, path.read_text(encoding="utf-8")).anchors()
            assert fragment in there, f"{page.name}: {link}; there are {sorted(there)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_paths_exist(page: Page) -> None:
    missing = [path for path in page.paths() if not exists(path)]
    assert not missing, f"{page.name} names {missing}"


def exists(path: str) -> bool:
    """Whether a path of the checkout exists; a part in capitals or brackets may be anything."""
    path = path.split("::")[0]
    pattern = re.sub(r"<[^>]*>|\{[^}]*\}|\b[A-Z][A-Z_]+\b|…|\bNAME\b", "*", path.rstrip("/"))
    return path in OWN or any(ROOT.glob(pattern))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_modules_exist(page: Page) -> None:
    for module in page.modules():
        assert is_module(module), f"{page.name}: python -m {module}"


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_what_code_and_configuration_name_exists() -> None:
    wrong = []
    for path in sorted(path for pattern in SOURCES for path in ROOT.glob(pattern)):
        text = path.read_text(encoding="utf-8")
        gone = [name for name in SOURCE_PATH.findall(text) if not exists(name)]
        gone += [name for name in MODULE.findall(text) if not is_module(name)]
        gone += re.findall(r"README(?:\.md)?, (?:section )?Trouble", text)
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in gone]
    assert not wrong


def test_every_command_has_a_row_in_the_reference() -> None:
    page = next(page for page in PAGES if page.name == "docs/reference/commands.md")
    rows = re.findall(r"^\| `\./reproduce (?:\[run\] )?(\w+)?", page.text, re.MULTILINE)
    assert set(rows) - {""} == {*OTHERS, *PLANNED} - {"run"}


def test_pages_are_reached_from_the_index() -> None:
    index = next(page for page in PAGES if page.name == "docs/README.md")
    linked = {(index.path.parent / link.split("#")[0]).resolve() for link in index.links()}
    apart = {page.path for page in PAGES if page.name.startswith("docs/")} - linked
    assert apart == {index.path}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


# ---- commands -----------------------------------------------------------------------------------


def typed() -> list[tuple[str, ...]]:
    """Every command of the documentation, once, except lines that only show a syntax.

    Pages that add a part use what they add: tests/docs/test_how_to_add.py runs their commands.
    """
    found = {
        tuple(words): None
        for page in PAGES
        for words in page.commands()
        if "/add-" not in page.name and not any(part in " ".join(words) for part in SYNTAX)
    }
    return list(found)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site files that the partner's tutorial writes."""
    folder = tmp_path_factory.mktemp("sites")
    tutorial = next(page for page in PAGES if page.name.endswith("partner-rerun.md"))
    for language, block in tutorial.blocks():
        name = re.search(r"^  name: (\S+)", block, re.MULTILINE)
        if language == "yaml" and name:
            (folder / f"{name[1]}.yaml").write_text(block, encoding="utf-8")
    return folder


class Parsed(Exception):
    """A parser accepted a command line; nothing else was done."""


@pytest.fixture
def only_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end as soon as their parser has accepted their arguments."""
    parse = argparse.ArgumentParser.parse_known_args
    depth = [0]

    def known(self: argparse.ArgumentParser, *given: object) -> tuple[object, list[str]]:
        depth[0] += 1
        try:
            found: tuple[object, list[str]] = parse(self, *given)  # type: ignore[arg-type]
        finally:
            depth[0] -= 1
        if depth[0]:
            return found
        raise Parsed

    def whole(self: argparse.ArgumentParser, *given: object) -> None:
        depth[0] += 1
        try:
            _, unknown = known(self, *given)
        finally:
            depth[0] -= 1
        if unknown:
            self.error(f"unknown arguments: {unknown}")
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", known)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", whole)


@pytest.mark.parametrize("words", typed(), ids=" ".join)
def test_commands_can_be_typed(words: tuple[str, ...], sites: Path, only_parsed: None) -> None:
    places = {**PLACEHOLDERS, "DIRECTORY": str(sites), "DIR": str(sites)}
    given = [re.sub(r"\b[A-Z]+\b", lambda m: places.get(m[0], m[0]), word) for word in words]
    given = [str(sites / word) if (sites / word).is_file() else word for word in given]
    name = given[0] if given and "=" not in given[0] and given[0][0] != "-" else "run"
    assert name in {*OTHERS, *PLANNED}
    if name in RUN_WHOLE:
        assert main(given) == 0
        return
    if (name in OTHERS and name != "doctor") or str(sites) in given:
        with pytest.raises(Parsed):
            main(given)
    overrides, site = site_file(given[: given.index("--")] if "--" in given else given)
    if name in ("bundle", "describe", "doctor", "seal", "tune", *PLANNED):
        _plans(tuple(word for word in overrides if "=" in word), site)


@cache
def _plans(overrides: tuple[str, ...], site: Path | None) -> None:
    assert make(ROOT, list(overrides), site).jobs
