"""The valid tree, made once and copied for each test that damages it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.submit.validate import trees


@pytest.fixture(scope="session")
def valid_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("valid") / "tree"
    trees.build(root)
    return root


@pytest.fixture
def fresh_tree(valid_tree: Path, tmp_path: Path) -> Callable[[], Path]:
    """Copies of the valid tree, each in a directory of its own."""
    count = 0

    def copy() -> Path:
        nonlocal count
        count += 1
        return Path(shutil.copytree(valid_tree, tmp_path / f"tree{count}"))

    return copy
