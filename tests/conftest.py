"""A copy of the project that a test may edit: conf, rules and steps, with stand-in locks."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("conf", "envs", "steps", "workflow", "Snakefile")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A throw-away checkout: planning and dry runs work in it, long steps don't."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "local.yaml")
            shutil.copytree(source, tmp_path / part, ignore=ignore)
        else:
            shutil.copyfile(source, tmp_path / part)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    """Replace exactly one occurrence: an edit that misses would make its test meaningless."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path} has {text.count(old)} times {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")
