"""What `make lint` says of imports that the layers of steps/ don't allow."""

from pathlib import Path

import pytest

from tests.layering import problems

TREE = {
    "base/errors.py": "from steps import ROOT\n",
    "plan/registry.py": "from steps.base.errors import UserError\n",
    "plan/plan.py": "from steps.plan import registry\n",
    "run/sut/fleet.py": "import steps.run.sut.wire\nfrom steps.plan.registry import STEPS\n",
    "run/sut/wire.py": "from steps.base import errors\n",
    "commands/cli.py": "def run():\n    from steps.plan.plan import load\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {"__init__.py": "", **TREE}.items():
        path = tmp_path / "steps" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        (path.parent / "__init__.py").touch()
    return tmp_path


def plant(tree: Path, name: str, line: str) -> list[str]:
    path = tree / "steps" / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    return problems(tree)


def test_imports_of_lower_layers_pass(tree: Path) -> None:
    assert problems(tree) == []


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("from steps.commands.cli import run", 1),
        ("from steps.commands import cli", 1),
        ("import steps.commands.cli as cli", 1),
        ("from ..commands import cli", 1),
        ("def late():\n    from steps.commands.cli import run", 2),
        ("if TYPE_CHECKING:\n    from steps.commands.cli import run", 2),
    ],
)
def test_an_import_upward_is_found(tree: Path, line: str, number: int) -> None:
    (found,) = plant(tree, "config/axes.py", line)
    assert found == (
        f"steps.config.axes, line {number}, imports steps.commands.cli: commands is above config"
    )


def test_steps_itself_imports_no_layer(tree: Path) -> None:
    (found,) = plant(tree, "__init__.py", "from steps.base import errors")
    assert "base is above steps itself" in found


@pytest.mark.parametrize("name", ["run/sut/wire.py", "judge/check.py", "submit/tree.py"])
def test_of_the_plan_steps_import_the_registry_only(tree: Path, name: str) -> None:
    (found,) = plant(tree, name, "from steps.plan.plan import Job")
    assert "knows of the plan only steps.plan.registry" in found


def test_every_circle_is_found(tree: Path) -> None:
    plant(tree, "base/errors.py", "def late():\n    import steps.base.record")
    plant(tree, "base/record.py", "from steps.base.errors import UserError")
    plant(tree, "run/sut/wire.py", "from steps.run.sut import link")
    found = plant(tree, "run/sut/link.py", "from steps.run.sut.fleet import Fleet")
    assert sorted(words.partition(":")[0] for words in found) == ["a circle of imports"] * 2
    assert any(
        all(f"steps.run.sut.{name}" in words for name in ("wire", "link", "fleet"))
        for words in found
    )


@pytest.mark.parametrize("name", ["loose.py", "judge.py", "place/slurm.py"])
def test_a_module_outside_the_layers_is_found(tree: Path, name: str) -> None:
    (found,) = plant(tree, name, "")
    assert f"steps/{name} is in no layer" in found
