"""What becomes of a rate that was found."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steps import ROOT
from steps.base import processes
from steps.base.errors import UserError
from steps.base.locks import packages
from steps.base.record import Origin, publish, write_atomically
from steps.base.venv import COMPLETE
from steps.commands.cli import call
from steps.commands.tune import command
from steps.commands.tune.journal import Journal
from steps.commands.tune.measure import Probe
from steps.commands.tune.request import (
    OUT_OF_BUDGET,
    REQUEST,
    RESULT,
    Request,
    Result,
    identity,
    request_in,
)
from steps.commands.tune.settings_request import TRIALS, SettingsRequest, Trial, Trials, with_values
from steps.plan import frozen
from steps.plan.code import codes
from steps.plan.due import due as due_of
from steps.plan.make import make
from steps.plan.plan import Job, Plan, environment_directory
from steps.report.frontier import FRONTIER
from tests.conftest import edit
from tests.plan.test_reruns import fake

OVERRIDES = ["scenario=Server"]
FROM_THE_RUN = ("performance_run", "performance_check", "submission", "provenance")
HOME = "results/rehearsal/tune/search"
RUN = f"{HOME}/probes/07-run/run"


def found(job: Job, rate: float) -> Result:
    return Result(
        cell=job.key,
        target_qps=rate,
        run=RUN,
        limit=rate,
        deviation=0.002,
        metric="ttft",
        stopped="within the tolerance of the limit",
        budget_s=None,
        probes=7,
        runs=2,
        measured_s=600.0,
        start_s=60.0,
        scenario="Server",
    )


def run_of(project: Path, overrides: list[str]) -> Job:
    plan = make(project, overrides)
    return next(job for job in plan.jobs if job.step == "performance_run")


def environments(here: Path, plan: Plan) -> None:
    """Stand-ins that say they have what their locks name, so that none is made again."""
    for job in plan.jobs:
        if job.step == "environment":
            home = here / environment_directory(here, job.key)
            (home / "bin").mkdir(parents=True)
            said = json.dumps(list(packages(here / job.inputs["lock"]).items()))
            python = home / "bin/python"
            python.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n", encoding="utf-8")
            python.chmod(0o755)
            (home / COMPLETE).touch()


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that the command works in."""
    for module in (frozen, command):
        monkeypatch.setattr(module, "ROOT", project)
    return project


@pytest.mark.parametrize("made_before", [True, False])
def test_a_found_run_is_taken_by_the_plan_of_its_rate_only(here: Path, made_before: bool) -> None:
    plan = make(here, OVERRIDES)
    environments(here, plan)
    fake(here, plan, lambda job: made_before or job.step not in FROM_THE_RUN)
    at_rate = make(here, [*OVERRIDES, "set.Server.target_qps=41.5"])
    job = next(job for job in at_rate.jobs if job.step == "performance_run")
    code = codes(here)[job.step]
    with publish(
        here / RUN,
        step="performance_run",
        config=json.loads(job.config),
        inputs={role: here / path for role, path in job.inputs.items()},
        code=code.digest,
        origin=Origin(sources=code.files),
    ) as workspace:
        workspace.result = {"duration_s": 600.0}
    (here / HOME / FRONTIER).write_text("{}", encoding="utf-8")

    assert job.output in due_of(at_rate, here), "another rate: a new run"
    given = [*OVERRIDES, "set.target_qps=30"]
    assert command.adopt(here / HOME, found(job, 41.5), given, None) == [
        *OVERRIDES,
        "set.target_qps=41.5",
    ], "the rate that was given isn't told beside the one that was found"
    due = due_of(at_rate, here)
    assert job.output not in due
    assert any(other.output in due for other in at_rate.jobs if other.step == "performance_check")
    other_rate = make(here, [*OVERRIDES, "set.Server.target_qps=42.5"])
    assert job.output in due_of(other_rate, here), "not this plan's run"
    assert (here / job.output).with_name(FRONTIER).is_file()
    assert (here / job.output).read_bytes() == (here / RUN / "manifest.json").read_bytes()


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_run_of_a_search_is_configured_as_the_plan_of_its_rate(
    here: Path, precision: str
) -> None:
    """To the letter: a manifest is compared as text."""
    chosen = [*OVERRIDES, f"precision={precision}"]
    plan = make(here, chosen)
    job = next(job for job in plan.jobs if job.step == "performance_run")
    for role, path in job.inputs.items():
        with publish((here / path).parent, step=role, config={}, inputs={}, code="") as workspace:
            workspace.result = {}
    asked = request_in(here / command.request_of(plan, job, 55.0, None).home)
    assert asked is not None
    probe = Probe(number=1, seed=1, rate=41.5, queries=1024, final=True, allowed_misses=0)
    text = Journal(here, asked).configuration(probe)
    assert text == run_of(here, [*chosen, "set.Server.target_qps=41.5"]).config


def test_a_plan_that_can_no_more_be_made_is_told(here: Path) -> None:
    job = run_of(here, OVERRIDES)
    edit(here / "conf/system/rehearsal-cpu.yaml", "division: open", "division: no such")
    with pytest.raises(UserError, match="division"):
        command.adopt(here / HOME, found(job, 41.5), OVERRIDES, None)


@pytest.mark.parametrize("system", ["rehearsal-cpu", "amd-mi300x"])
def test_the_override_names_a_rate_whether_the_system_has_one_or_not(system: str) -> None:
    experiment = "rehearsal" if system == "rehearsal-cpu" else "amd-v5.1"
    chosen = [f"experiment={experiment}", f"system={system}", "scenario=Server"]
    if experiment == "amd-v5.1":
        chosen.append("benchmark=llama2-70b-99.9")
    job = run_of(ROOT, [*chosen, "set.Server.target_qps=41.5"])
    assert json.loads(job.config)["loadgen"]["target_qps"] == 41.5


def test_runs_of_an_earlier_version_are_not_measured_again(here: Path) -> None:
    run = here / run_of(here, OVERRIDES).output
    run.parent.mkdir(parents=True)
    run.write_text(json.dumps({"step": "performance_run", "config": {}}), encoding="utf-8")
    with pytest.raises(UserError, match="a run of an earlier version of Reprise"):
        call(["tune", *OVERRIDES])
    assert list(run.parent.iterdir()) == [run]


def test_a_search_goes_on_from_its_own_guess_and_only_for_want_of_time(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make(here, OVERRIDES)
    job = next(job for job in plan.jobs if job.step == "performance_run")
    for role, path in job.inputs.items():
        with publish((here / path).parent, step=role, config={}, inputs={}, code="") as workspace:
            workspace.result = {}
    asked = command.request_of(plan, job, 55.0, 1800.0)
    again = command.request_of(plan, job, None, None)
    assert (again.guess, again.guessed_from) == (55.0, "--guess")
    assert again.home == asked.home, "what was measured is found whatever the budget"

    spent = found(job, 41.5).model_copy(update={"budget_s": 1800.0, "stopped": OUT_OF_BUDGET})
    for result, answered in (
        (None, [False, False, False]),
        (spent, [True, False, False]),
        (found(job, 41.5), [True, True, True]),
    ):
        if result is not None:
            (here / asked.home / RESULT).write_text(result.model_dump_json(), encoding="utf-8")
        budgets = (1800.0, 3600.0, None)
        requests = [asked.model_copy(update={"budget_s": budget}) for budget in budgets]
        assert [command.answered(request) for request in requests] == answered


SEARCH = """
import os, sys
from pathlib import Path
from steps.commands.tune import command
from steps.plan.plan import Plan
python, home = sys.argv[1:]
command.ROOT = Path(home)
words = ["-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
command._search([python, *words], Plan.model_construct(jobs=()))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_a_search_ends_with_the_command(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SEARCH, sys.executable, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    search = int(process.stdout.readline())
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    limit = time.monotonic() + 10
    while processes.state(search) not in processes.GONE:
        assert time.monotonic() < limit, "it measures on"
        time.sleep(0.02)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number
        assert "error: ended by SIGTERM" in said


def test_the_rate_is_searched_where_the_best_trial_began(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the plan that the override of the settings makes, with the time that they left."""
    monkeypatch.chdir(here)
    plan = make(here, OVERRIDES)
    environments(here, plan)
    fake(here, plan, lambda job: job.step in ("environment", "model", "dataset"))
    values = {"arguments.max_num_seqs": 48, "arguments.max_num_batched_tokens": 4096}
    searched: list[Request] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "steps.commands.tune.settings" in words:
            asked = SettingsRequest.model_validate_json((here / words[-1]).read_text())
            assert asked.budget_s == 300
            planned = with_values(asked.base.planned, values)
            home = f"{asked.below}/{identity(planned, asked.context)}"
            begun = asked.base.model_copy(
                update={"planned": planned, "home": home, "guess": 61.0, "guessed_from": "trial 1"}
            )
            write_atomically(here / home / REQUEST, begun.model_dump_json())
            fields = {"deviation": 0.01, "why": "", "probes": 2}
            first = Trial(
                **{"number": 1, "values": {}, "limit": 50.0, "spent_s": 70.0, "home": "x", **fields}
            )
            best = Trial(
                **{"number": 2, "values": values, "limit": 70.0, "spent_s": 90.0, "home": home},
                **fields,
            )
            kept = Trials(trials=(first, best)).model_dump_json()
            write_atomically((here / words[-1]).with_name(TRIALS), kept)
        if "steps.commands.tune.main" in words:
            searched.append(Request.model_validate_json((here / words[-1]).read_text()))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(command, "_search", lambda words, plan: run(words).returncode)
    monkeypatch.setattr(command, "environment_python", lambda root, name: Path("python"))
    monkeypatch.setattr(command, "refusal", lambda *_: None)
    assert call(["tune", *OVERRIDES, "--settings", "--budget", "10m"]) == 0
    named = [*OVERRIDES, "set.Server.engine.max_num_seqs=48"]
    [request] = searched
    assert request.planned == run_of(here, named).config
    assert (request.guess, request.guessed_from) == (61.0, "trial 1")
    assert request.budget_s == 600 - 70, "what the best trial took counts as the search's own"
