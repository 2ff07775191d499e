"""The records are the cache: what was measured holds in another checkout, wherever that is, and
what is damaged there is made again, alone.

With null engines, whose submission this checkout takes, and without a required score.
"""

import shutil
from pathlib import Path

import pytest

from steps.base.record import MANIFEST, RECORD, sha256_file
from tests.conftest import ROOT, copy_project, edit, reproduce

pytestmark = pytest.mark.e2e

CHOSEN = (
    *("experiment=null-engine", "compression.required_gate=none", "scenario=Offline,Server"),
    "hardware.engine.arguments.max_num_seqs=16",
    "system.target_qps={Offline: 200, Server: 100}",
)
CELLS = "results/null-engine/{}/null-engine/rehearsal/none/bf16"
RUNS, VERDICTS = CELLS.format("runs"), CELLS.format("verdicts")
NOTHING = "null-engine: nothing to do"


def clone(home: Path) -> Path:
    home.parent.mkdir(parents=True, exist_ok=True)
    made = copy_project(home)
    (made / ".envs").symlink_to(ROOT / ".envs")
    edit(made / "steps/submit/submission/verdicts.py", '"vllm", "diff', '"vllm", "null", "diff')
    return made


def records(home: Path) -> dict[str, str]:
    """What every job of the experiment left, by its folder."""
    found = [path for name in (MANIFEST, RECORD) for path in (home / "results").rglob(name)]
    return {str(path.relative_to(home)): sha256_file(path) for path in found}


def made_again(home: Path, before: dict[str, str]) -> set[str]:
    """Folders of the jobs whose records are other ones than before."""
    return {str(Path(path).parent) for path, _ in records(home).items() ^ before.items()}


def copied(source: Path, target: Path) -> None:
    """With the times of the copy, as cp and most archives do it."""
    shutil.rmtree(target / "results", ignore_errors=True)
    copy = shutil.copyfile
    shutil.copytree(source / "results", target / "results", symlinks=True, copy_function=copy)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = clone(tmp_path_factory.mktemp("first"))
    status, text = reproduce(home, *CHOSEN)
    assert status == 0 and "2 of 2 cells valid" in text, text
    return home


def test_nothing_is_to_do_in_a_fresh_clone_at_another_path_and_back(
    measured: Path, tmp_path: Path
) -> None:
    before = records(measured)
    assert len(before) > 20
    fresh, longer = clone(tmp_path / "fresh"), clone(tmp_path / "a path/with spaces, and longer")
    for source, target in ((measured, fresh), (fresh, longer), (longer, measured)):
        copied(source, target)
        if target != measured:
            shutil.rmtree(target / ".snakemake", ignore_errors=True)
        status, text = reproduce(target, *CHOSEN, limit_s=120)
        assert status == 0 and NOTHING in text and "2 of 2 cells valid" in text, text
        assert "to run" not in text
        assert records(target) == before
        status, text = reproduce(target, "verify", *CHOSEN, limit_s=120)
        assert status == 0, text


@pytest.mark.parametrize("name", [MANIFEST, RECORD])
def test_a_damaged_verdict_is_made_again_and_nothing_is_measured(
    measured: Path, tmp_path: Path, name: str
) -> None:
    other = clone(tmp_path / "other")
    copied(measured, other)
    before = records(other)
    check = f"{VERDICTS}/Server/performance_check"
    (other / check / name).write_bytes(b"\0" * 100)
    status, text = reproduce(other, *CHOSEN)
    assert status == 0 and "2 of 2 cells valid" in text, text
    again = made_again(other, before)
    assert check in again
    # A verdict says when it was made: the package, which has it, is made with it.
    assert {path for path in again - {check} if "/package" not in path} == set(), again
    assert NOTHING in reproduce(other, *CHOSEN, limit_s=120)[1]


def test_a_damaged_run_is_named_and_measured_again_alone_when_asked_for(
    measured: Path, tmp_path: Path
) -> None:
    other = clone(tmp_path / "other")
    copied(measured, other)
    run = f"{RUNS}/Offline/accuracy_run"
    (other / run / RECORD).write_bytes((other / run / RECORD).read_bytes()[:-20])
    before = records(other)
    status, text = reproduce(other, *CHOSEN, limit_s=120)
    assert status == 1 and "./reproduce again" in text, text
    (line,) = [line for line in text.splitlines() if line.startswith("Offline damaged")]
    assert line.endswith(" Offline")
    assert records(other) == before, "hours of measuring are asked for, never begun unasked"
    status, text = reproduce(other, "again", *CHOSEN)
    assert status == 0 and "2 of 2 cells valid" in text, text
    again = made_again(other, before)
    assert {path for path in again if "/runs/" in path} == {run}
    assert {path for path in again if "/verdicts/" in path} == {
        f"{VERDICTS}/Offline/accuracy_check"
    }
    assert not any("/artifacts/" in path for path in again)
    assert NOTHING in reproduce(other, *CHOSEN, limit_s=120)[1]
