"""Runs of an earlier version are kept, and never measured again without a word."""

import json
from pathlib import Path

import pytest

from steps.base.errors import UserError
from steps.base.record import publish
from steps.plan.older import refuse_older

RUN = "results/demo/runs/a/b/c/d/Server/performance_run/manifest.json"
CHECK = "results/demo/verdicts/a/b/c/d/Server/performance_check/manifest.json"
EARLIER = {"step": "performance_run", "config": {}, "inputs": {}, "files": {}, "result": {}}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    jobs = [
        {"step": "performance_run", "output": RUN},
        {"step": "performance_check", "output": CHECK},
    ]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"jobs": jobs}), encoding="utf-8")
    return path


def leave(root: Path, output: str, text: str) -> None:
    path = root / output
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


def test_runs_of_an_earlier_format_are_refused(tmp_path: Path, plan: Path) -> None:
    leave(tmp_path, RUN, json.dumps(EARLIER))
    with pytest.raises(UserError, match=r"results/demo has a run of an earlier .* move .* aside"):
        refuse_older(plan, tmp_path)


def test_verdicts_of_an_earlier_format_cost_nothing_and_pass(tmp_path: Path, plan: Path) -> None:
    leave(tmp_path, CHECK, json.dumps({**EARLIER, "step": "performance_check"}))
    refuse_older(plan, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\0"])
def test_what_is_no_manifest_is_somebody_elses_to_name(
    tmp_path: Path, plan: Path, text: str
) -> None:
    leave(tmp_path, RUN, text)
    refuse_older(plan, tmp_path)


def test_runs_of_today_pass(tmp_path: Path, plan: Path) -> None:
    destination = (tmp_path / RUN).parent
    with publish(destination, step="performance_run", config={}, inputs={}, code=""):
        pass
    refuse_older(plan, tmp_path)
