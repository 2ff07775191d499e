"""`collect`: what is taken of another machine's results, where this one has its own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.commands.collect import wanted
from steps.plan.make import make
from steps.plan.plan import Job, Plan
from tests.conftest import copy_project
from tests.plan.test_reruns import fake


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Plan]:
    """A checkout with results, the same of another machine, and their plan."""
    home = copy_project(tmp_path_factory.mktemp("here"))
    plan = make(home, ["experiment=null-engine", "scenario=Offline"])
    fake(home, plan, words="found")
    other = tmp_path_factory.mktemp("there") / "results"
    shutil.copytree(home / "results", other)
    return home, other, plan


def truncated(manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes()[:100])


def edited(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace('"step"', '"stop"'))


def emptied(manifest: Path) -> None:
    manifest.write_bytes(b"")


def longer(manifest: Path) -> None:
    manifest.with_name("words").write_text("something else, and longer")


def as_long(manifest: Path) -> None:
    words = manifest.with_name("words")
    words.write_text("x" * words.stat().st_size)


def lost(manifest: Path) -> None:
    manifest.with_name("words").unlink()


def without_record(manifest: Path) -> None:
    manifest.with_name("record.json").unlink()


def gone(manifest: Path) -> None:
    shutil.rmtree(manifest.parent)


DAMAGES = (truncated, edited, emptied, longer, as_long, lost, without_record, gone)


def job_of(plan: Plan, step: str) -> Job:
    return next(job for job in plan.jobs if job.step == step)


def test_what_is_here_already_is_not_brought(both: tuple[Path, Path, Plan]) -> None:
    home, other, plan = both
    assert not list(wanted(plan, [other], home))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("step", ["model", "performance_run", "performance_check"])
def test_another_machine_s_result_takes_the_place_of_a_damaged_one(
    both: tuple[Path, Path, Plan], tmp_path: Path, step: str, damage: Callable[[Path], None]
) -> None:
    home, other, plan = both
    root = tmp_path / "root"
    shutil.copytree(home, root, copy_function=shutil.copy2)
    job = job_of(plan, step)
    damage(root / job.output)
    (found,) = wanted(plan, [other], root)
    assert (found.job.output, found.beside) == (job.output, False)
    found.bring()
    assert (root / job.output).read_bytes() == (other.parent / job.output).read_bytes()
    assert not list(wanted(plan, [other], root))
