"""What code a step's results follow from: nothing that it runs is left out."""

import ast
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steps.base.version import VERSION
from steps.plan.closure import PLUMBING, Closures, closure
from steps.plan.code import KEPT, PAGE, codes
from steps.plan.registry import STEPS
from tests.conftest import ROOT, edit

EDITS = 4
LOADED = """
import importlib, os, sys
for name in sys.argv[1:]:
    pid = os.fork()
    if not pid:
        importlib.import_module(name)
        ours = [module for n, module in sys.modules.items() if n.split(".")[0] == "steps"]
        print(name, *sorted(m.__file__ for m in ours if getattr(m, "__file__", None)))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Modules and the data of steps, and nothing else."""
    for part in ("steps", "conf/round"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    return tmp_path


def test_plumbing_is_short_and_reasoned() -> None:
    assert len(PLUMBING) <= 12
    assert all((ROOT / path).is_file() and reason for path, reason in PLUMBING.items())


def test_what_importing_a_step_loads_is_in_its_code() -> None:
    """Python's own account against ours. Files that plumbing also imports aren't compared; imports
    in functions are in test_imports_of_every_kind_are_found.
    """
    modules = {spec.module: name for name, spec in STEPS.items()}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, *_ in lines} == set(modules), done.stderr
    known = codes(ROOT)
    plumbing = carried()
    for name, *files in lines:
        loaded = {str(Path(file).relative_to(ROOT)) for file in files}
        missing = loaded - known[modules[name]].files.keys() - plumbing
        assert not missing, (name, missing)


def unbounded(module: str) -> set[str]:
    """A closure that plumbing doesn't end."""
    found = pytest.MonkeyPatch()
    with found.context() as patch:
        patch.setattr("steps.plan.closure.PLUMBING", {})
        return set(closure(module, ROOT))


def carried() -> set[str]:
    """Plumbing, and all that it imports."""
    modules = [path.removesuffix(".py").replace("/", ".") for path in PLUMBING]
    return {path for module in modules for path in unbounded(module)}


def test_a_planted_edit_changes_a_digest_or_is_in_plumbing(checkout: Path) -> None:
    """Which files a step has is taken from the code under test."""
    before = codes(checkout)
    reached = {path for step in STEPS.values() for path in unbounded(step.module)}
    counted = {path for one in before.values() for path in one.files}
    assert reached - counted <= carried()
    for path in random.Random(20).sample(sorted(counted), EDITS):
        (checkout / path).open("a", encoding="utf-8").write("# planted\n")
        after = codes(checkout)
        changed = {name for name in before if before[name].digest != after[name].digest}
        assert changed == {name for name, one in before.items() if path in one.files}, path
        before = after


def test_the_holes_of_the_lists_by_hand_are_closed(checkout: Path) -> None:
    before = codes(checkout)
    edit(checkout / "steps/mlperf/loadgen_log.py", "TOKEN_BYTES = 4", "TOKEN_BYTES = 8")
    edit(
        checkout / "steps/config/loadgen.py",
        "return self.performance_sample_count_override or rules.performance_sample_count",
        "return 1",
    )
    after = codes(checkout)
    for step in ("performance_run", "accuracy_run", "compliance_run", "performance_check"):
        assert before[step].digest != after[step].digest
    assert before["quantize"].digest == after["quantize"].digest


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import steps.a.b", True),
        ("from steps.a import b", True),
        ("from steps.a.b import name", True),
        ("def f():\n    from steps.a.b import name", True),
        ("import sys\ncommand = [sys.executable, '-m', 'steps.a.b', '--flag']", True),
        ("command = 'python -m steps.a.b --flag'", True),
        ("name = 'x'\nmodule = f'steps.a.{name}'", True),
        ('"""As steps.a.b does it."""', False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from steps.a import b", False),
        ("from steps.a import c", False),
    ],
)
def test_imports_of_every_kind_are_found(tmp_path: Path, text: str, found: bool) -> None:
    for name in ("__init__", "a/__init__", "a/b", "a/c"):
        path = tmp_path / f"steps/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    (tmp_path / "steps/top.py").write_text(text, encoding="utf-8")
    assert ("steps/a/b.py" in closure("steps.top", tmp_path)) == found


def test_a_package_that_is_started_brings_its_main(tmp_path: Path) -> None:
    for name, text in {
        "__init__": "",
        "a/__init__": "",
        "a/__main__": "import steps.c",
        "c": "",
    }.items():
        path = tmp_path / f"steps/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert "steps/c.py" in Closures(tmp_path).of("steps.a")


def test_unchanged_modules_are_read_once(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = codes(checkout)
    assert (checkout / KEPT).is_file()

    def refuse(*_: object) -> None:
        raise AssertionError("a module was read")

    monkeypatch.setattr(ast, "parse", refuse)
    assert codes(checkout) == first and PAGE in first


@pytest.mark.parametrize("text", ["{", "[]", '{"key": 1}'])
def test_a_damaged_note_of_the_imports_is_made_anew(checkout: Path, text: str) -> None:
    first = codes(checkout)
    (checkout / KEPT).write_text(text, encoding="utf-8")
    assert codes(checkout) == first


def test_the_version_is_that_of_the_project() -> None:
    lines = {"pyproject.toml": f'version = "{VERSION}"', "CITATION.cff": f"version: {VERSION}"}
    for name, line in lines.items():
        assert line in (ROOT / name).read_text(encoding="utf-8").splitlines()
