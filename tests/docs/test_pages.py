"""What the documentation says is there: links, anchors, paths, modules, commands."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from steps.base.arguments import is_override
from steps.commands.cli import main, parsed
from steps.commands.table import COMMANDS, ON_A_PLAN
from steps.plan.make import make
from tests.conftest import copy_project, planned, reproduce
from tests.docs.pages import MODULE, ROOT, SOURCE_PATH, SOURCES, Page, pages

PAGES = pages()

OWN = ("conf/site/local.yaml",)
"""Files that pages tell a user to make."""

PLACEHOLDERS = {
    "NAME": "rehearsal-cpu-nodes",
    "CODE": "tree-empty",
    "A": "rehearsal-cpu-nodes",
    "B": "rehearsal-cpu",
}
"""Words in capitals that stand for a value; all others name files or folders."""

SYNTAX = ("…", "[run]", "[overrides]", "[MODEL", "[--")
"""A line with one of these shows a syntax and can't be typed."""

RUN_WHOLE = ("ls", "capacity", "explain", "diff")
"""Commands that read configuration only: the test runs them."""

PLANNING = ("bundle", "describe", "doctor", "seal", "tune", *ON_A_PLAN)
"""Commands whose overrides have to make a plan."""


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
    rows = re.findall(r"^\| `\./reproduce (?:\[run\] )?([\w-]+)?", page.text, re.MULTILINE)
    assert sorted(name for name in rows if name and name[0] != "-") == sorted(
        set(COMMANDS) - {"run"}
    )


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


@pytest.mark.parametrize("words", typed(), ids=" ".join)
def test_commands_can_be_typed(words: tuple[str, ...], sites: Path) -> None:
    places = {**PLACEHOLDERS, "DIRECTORY": str(sites), "DIR": str(sites)}
    filled = [re.sub(r"\b[A-Z]+\b", lambda m: places.get(m[0], m[0]), word) for word in words]
    filled = [str(sites / word) if (sites / word).is_file() else word for word in filled]
    if "--help" in filled or "--version" in filled:
        assert main(filled) == 0
        return
    given = parsed(filled)
    if given.command in RUN_WHOLE:
        assert main(filled) == 0
    if given.command in PLANNING:
        words_of = [*getattr(given, "overrides", []), *getattr(given, "words", [])]
        overrides = tuple(word for word in words_of if isinstance(word, str) and is_override(word))
        plan = make(ROOT, list(overrides), given.site) if given.site else planned(*overrides)
        assert plan.jobs


# ---- the same, run ------------------------------------------------------------------------------

WHOLE = (
    *("ls", "capacity", "explain", "diff", "completion", "plan", "show", "--version"),
    *("status", "report"),
)
"""Commands that need nothing but the checkout: they end well."""

OF_A_MACHINE = ("doctor", "describe", "manifests", "import-round", "migrate", "collect")
OF_RESULTS = ("verify", "seal", "bundle", "unseal", "unbundle", "again")
"""Commands that need another machine, files or results: a sentence says which, if they aren't
there."""

MEASURES = ("tune",)
"""Commands that measure at once; tests/commands/tune has them."""


def kind_of(words: tuple[str, ...]) -> str:
    first = words[0] if words else "run"
    if "--help" in words or first in WHOLE:
        return "whole"
    if first in MEASURES:
        return "measures"
    return "named" if first in (*OF_A_MACHINE, *OF_RESULTS) else "run"


@pytest.fixture(scope="module")
def checkout(sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy where the tutorial's files lie, and nothing was measured."""
    home = copy_project(tmp_path_factory.mktemp("checkout"))
    (home / ".envs").symlink_to(ROOT / ".envs")
    (home / "DIRECTORY").mkdir()
    for site in sites.iterdir():
        shutil.copy(site, home)
    return home


def test_every_command_of_the_pages_is_of_a_kind() -> None:
    kinds = Counter(map(kind_of, typed()))
    assert set(kinds) == {"whole", "run", "named", "measures"} and min(kinds.values()) > 4, kinds


@pytest.mark.command
@pytest.mark.parametrize(
    "words", [one for one in typed() if kind_of(one) != "measures"], ids=" ".join
)
def test_commands_are_run_as_they_are_printed(words: tuple[str, ...], checkout: Path) -> None:
    """What would measure is asked what it would run: all that comes before is done. What this
    machine lacks is said in one sentence, and never is a command line one that can't be read."""
    kind = kind_of(words)
    filled = [re.sub(r"\b[A-Z]+\b", lambda m: PLACEHOLDERS.get(m[0], m[0]), one) for one in words]
    if kind == "run":
        filled += ["--dry-run"] if "--" in filled else ["--", "--dry-run"]
    status, text = reproduce(checkout, *filled, limit_s=120)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert status in ((0,) if kind == "whole" else (0, 1)), text
    assert text.strip() and len(errors) <= status, text
    if kind == "run":
        assert len(errors) == status, "a run is refused in one sentence"
