"""A tree from the layout of v5.1 to that of v6.0 and back."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.base.errors import UserError
from steps.commands.cli import call
from steps.mlperf.rounds import load
from steps.submit.migrate.command import migrate
from steps.submit.validate.submission import validate
from steps.submit.validate.tree import Tree, layout_of
from tests.submit.validate import trees
from tests.submit.validate.trees import CLOSED, OFFLINE, SYSTEM

V5_1, V6 = load("v5.1").layout, load("v6.0").layout


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_there_and_back_is_the_same_tree(valid_tree: Path, tmp_path: Path) -> None:
    assert migrate(valid_tree, tmp_path / "new", V6) == []
    assert layout_of(Tree(tmp_path / "new"), V5_1) == V6
    migrate(tmp_path / "new", tmp_path / "back", V5_1)
    assert contents(tmp_path / "back") == contents(valid_tree)


def test_what_lies_where_in_v6(valid_tree: Path, tmp_path: Path) -> None:
    migrate(valid_tree, tmp_path / "new", V6)
    here = {path.name for path in (tmp_path / "new" / OFFLINE).iterdir()}
    assert here == {
        "TEST06",
        "README.md",
        "accuracy",
        "measurements.json",
        "performance",
        "user.conf",
    }
    assert (tmp_path / "new" / CLOSED / "src/llama2-70b-99/README.md").is_file()
    assert not (tmp_path / "new" / CLOSED / "measurements").exists()


def test_only_the_round_is_another_afterwards(valid_tree: Path, tmp_path: Path) -> None:
    migrate(valid_tree, tmp_path / "new", V6)
    report = validate(tmp_path / "new", "v6.0", processes=1)
    errors = {found.code for found in report.findings if found.severity == "error"}
    # Seeds are v5.1's, and stable-diffusion-xl is an edge benchmark with other images since v6.0.
    assert errors == {
        "performance-seed",
        "accuracy-seed",
        "model-not-for-system",
        "scenario-not-allowed",
        "accuracy-images-missing",
    }
    assert any("the seed of round v5.1" in found.what for found in report.findings)


def test_measurements_without_results_are_left_out(
    fresh_tree: Callable[[], Path], tmp_path: Path
) -> None:
    root = fresh_tree()
    trees.write(root / f"{CLOSED}/measurements/{SYSTEM}/Offline/user.conf", "a = 1\n")
    left = migrate(root, tmp_path / "new", V6)
    assert left == [f"{CLOSED}/measurements/{SYSTEM}/Offline/user.conf"]


def test_two_files_never_become_one(fresh_tree: Callable[[], Path], tmp_path: Path) -> None:
    root = fresh_tree()
    folder = root / f"{CLOSED}/measurements/{SYSTEM}/llama2-70b-99/Offline"
    trees.write(folder / f"{SYSTEM}_Offline.json", "{}")
    with pytest.raises(UserError, match=r"would both become .*measurements\.json"):
        migrate(root, tmp_path / "new", V6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree1"]


@pytest.mark.parametrize("bad", ["exists", "inside", "same layout", "link", "nowhere"])
def test_what_cannot_be_migrated_is_refused(
    bad: str, fresh_tree: Callable[[], Path], tmp_path: Path
) -> None:
    root, output, layout = fresh_tree(), tmp_path / "new", V6
    if bad == "exists":
        output.mkdir()
    elif bad == "inside":
        output = root / "new"
    elif bad == "same layout":
        layout = V5_1
    elif bad == "link":
        os.symlink("nowhere", root / CLOSED / "link")
    else:
        root = tmp_path / "nowhere"
    with pytest.raises(UserError):
        migrate(root, output, layout)


def test_the_command_tells_what_it_did(
    valid_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new"
    assert call(["migrate", str(valid_tree), "--round", "v6.0", "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output} has the layout of v6.0\n"


SDXL_V6 = f"{CLOSED}/results/{SYSTEM}/stable-diffusion-xl"


def test_codes_of_v6(valid_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "new"
    migrate(valid_tree, root, V6)
    model = root / CLOSED / f"results/{SYSTEM}/llama2-70b-99"
    os.rename(model, model.with_name("gpt-oss-120b"))
    trees.write(model.with_name("gpt-oss-120b") / "Server/config.yaml", "a: 1\n")
    os.rename(root / SDXL_V6, root / SDXL_V6.replace("stable-diffusion-xl", "dlrm-v3"))
    test = root / CLOSED / f"results/{SYSTEM}/dlrm-v3/Offline/TEST08"
    trees.write(test / "verify_accuracy.txt", "num_matched = 238\nTEST PASS\n")
    found = {(item.code, item.path) for item in validate(root, "v6.1", processes=1).findings}
    place = f"{CLOSED}/results/{SYSTEM}"
    assert ("compliance-not-checked", f"{place}/dlrm-v3/Offline/TEST08") in found
    assert ("endpoint-not-checked", f"{place}/gpt-oss-120b/Server/config.yaml") in found


def test_a_directory_without_divisions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old/runs").mkdir(parents=True)
    with pytest.raises(UserError, match=r"isn't a submission; name the directory with closed/"):
        migrate(tmp_path / "old", tmp_path / "new", V6)
    assert not (tmp_path / "new").exists()


def test_a_tree_that_the_disk_has_no_room_for_is_not_begun(
    valid_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    with pytest.raises(UserError, match=r"has 0\.0 GB free and the copy needs \d+\.\d GB"):
        migrate(valid_tree, tmp_path / "new", V6)
    assert list(tmp_path.iterdir()) == []
