"""The tree of a finished experiment, and what is kept out of it."""

import hashlib
import json
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.base.record import Workspace, publish
from steps.config.submission import SubmissionConfig
from steps.mlperf.truncate import truncated
from steps.plan.plan import Plan
from steps.submit.submission.__main__ import step
from steps.submit.validate.findings import Severity
from steps.submit.validate.submission import validate
from tests import synthetic
from tests.conftest import ROOT, copy_project, planned
from tests.submit.validate import trees


def config_of(plan: Plan) -> SubmissionConfig:
    job = next(job for job in plan.jobs if job.step == "submission")
    return SubmissionConfig.model_validate_json(job.config)


def assembled(plan: Plan, home: Path, name: str = "package") -> Workspace:
    workspace = Workspace(home / name)
    workspace.directory.mkdir()
    inputs = synthetic.inputs_of(plan, home, "submission")
    step(config_of(plan), inputs, workspace, None)  # type: ignore[arg-type]
    return workspace


@pytest.fixture(scope="module")
def short() -> Plan:
    return planned("precision=bf16,fp8")


def test_the_layout_is_the_rounds(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path)
    workspace = assembled(short, tmp_path)
    home = workspace.directory / "submission" / "open" / "Reprise"
    for system in ("rehearsal-cpu-bf16", "rehearsal-cpu-fp8"):
        assert (home / "systems" / f"{system}.json").is_file()
        for scenario in ("Offline", "Server", "Interactive"):
            place = f"{system}/rehearsal/{scenario}"
            found = {
                str(path.relative_to(home / "results" / place))
                for path in (home / "results" / place).rglob("*")
                if path.is_file()
            }
            logs = ["summary.txt", "detail.txt", "accuracy.json"]
            assert found == {
                *(f"performance/run_1/mlperf_log_{log}" for log in logs),
                *(f"accuracy/mlperf_log_{log}" for log in logs),
                "accuracy/accuracy.txt",
            }
            measured = home / "measurements" / place
            names = {path.name for path in measured.iterdir()}
            assert names == {"user.conf", "README.md", f"{system}.json"}
            assert (home / "compliance" / place / "TEST06" / "verify_accuracy.txt").is_file()
    mapping = json.loads((home / "model_mapping.json").read_text(encoding="utf-8"))
    assert mapping == {"rehearsal": "llama2-70b-99"}
    assert (home / "code" / "rehearsal" / "README.md").is_file()
    names = [path.name for path in (workspace.directory / "submission").rglob("*")]
    assert not [name for name in names if " " in name or name.startswith(".")]


@pytest.mark.command
def test_the_commands_of_a_readme_can_be_typed_in_a_clone(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path)
    home = assembled(short, tmp_path).directory / "submission/open/Reprise"
    path = home / "measurements/rehearsal-cpu-fp8/rehearsal/Server/README.md"
    text = path.read_text(encoding="utf-8")
    code = (home / "code/rehearsal/README.md").read_text(encoding="utf-8")
    assert "Made by" in text and "`./reproduce precision=bf16,fp8`" in code
    clone = copy_project(tmp_path / "clone")
    (clone / ".envs").symlink_to(ROOT / ".envs")
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ./reproduce")]
    runs = ("performance_run", "accuracy_run", "compliance_run")
    assert [any(f"/{run}/" in line for line in commands[1:]) for run in runs] == [True] * 3
    for line in commands:
        dry = f"{line} -n" if " -- " in line else f"{line} -- -n"
        done = subprocess.run(
            ["bash", "-c", dry], cwd=clone, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    wrong = f"{commands[1]}x -n"
    done = subprocess.run(["bash", "-c", wrong], cwd=clone, capture_output=True, timeout=300)
    assert done.returncode != 0, "a control: not every path is one that can be made"


def test_the_packaged_accuracy_log_is_truncated_and_hashed(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path)
    workspace = assembled(short, tmp_path)
    place = "rehearsal-cpu-bf16/rehearsal/Server"
    accuracy = workspace.directory / "submission/open/Reprise/results" / place / "accuracy"
    full = workspace.directory / "audit/open/Reprise" / place / "mlperf_log_accuracy.json"
    digest = hashlib.sha256(full.read_bytes()).hexdigest()
    lines = (accuracy / "accuracy.txt").read_text(encoding="utf-8").splitlines()
    assert f"hash={digest}" in lines
    assert (accuracy / full.name).stat().st_size == 2 * 4096 + 7
    assert full.stat().st_size > 8199


def test_a_tree_with_departures_says_so_and_one_without_does_not(
    short: Plan, tmp_path: Path
) -> None:
    synthetic.build(short, tmp_path)
    result = assembled(short, tmp_path)
    notice = result.directory / "submission" / "NOT-FOR-SUBMISSION.md"
    assert "min_duration_ms is 1,000 instead of 600,000" in notice.read_text(encoding="utf-8")
    assert result.result["may_be_submitted"] is False

    full = planned("experiment=rehearsal-full")
    home = tmp_path / "full"
    synthetic.build(full, home)
    result = assembled(full, home)
    assert not (result.directory / "submission" / "NOT-FOR-SUBMISSION.md").exists()
    assert result.result["may_be_submitted"] is True


@pytest.mark.parametrize(("hours", "submitted"), [(5.5, True), (-8, True), (5.6, False)])
def test_a_time_zone_keeps_no_result_from_being_submitted(
    hours: float, submitted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoadGen writes local time as test_datetime; 5.6 hours from UTC are no zone."""
    of_utc = trees.log_values

    def log_values(*of: Any, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        before, after = of_utc(*of, **settings)
        began = datetime.fromisoformat(before["test_datetime"]) + timedelta(hours=hours)
        return {**before, "test_datetime": f"{began:%FT%TZ}"}, after

    monkeypatch.setattr(trees, "log_values", log_values)
    full = planned("experiment=rehearsal-full")
    synthetic.build(full, tmp_path)
    assert assembled(full, tmp_path).result["may_be_submitted"] is submitted


def test_a_slow_engine_is_named_in_the_system_description(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path, degraded=["engine 1 of node 0 could not start"])
    result = assembled(short, tmp_path)
    paths = list((result.directory / "submission").glob("*/*/systems/*.json"))
    assert len(paths) == 2
    for path in paths:
        notes = json.loads(path.read_text(encoding="utf-8"))["hw_notes"].split("; ")
        assert "rehearsal Offline performance: engine 1 of node 0 could not start" in notes


def test_a_null_engine_never_enters_a_tree(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path, engine="null")
    with pytest.raises(UserError, match="made by the null engine"):
        assembled(short, tmp_path)


def test_a_verdict_on_another_run_is_refused(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path)
    role = "rehearsal-cpu/rehearsal/none/bf16/Server/performance_run"
    run = synthetic.inputs_of(short, tmp_path, "submission")[role]
    synthetic.made_otherwise(run, lambda fields: fields["result"].update(samples=101))
    with pytest.raises(UserError, match="verdict on another run"):
        assembled(short, tmp_path)


def test_a_changed_log_is_refused(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path)
    role = "rehearsal-cpu/rehearsal/none/bf16/Server/performance_run"
    run = synthetic.inputs_of(short, tmp_path, "submission")[role]
    log = run.parent / "mlperf_log_detail.txt"
    log.write_text("x" * log.stat().st_size, encoding="utf-8")
    with pytest.raises(UserError, match="does not match its sha256"):
        assembled(short, tmp_path)


@pytest.fixture(scope="module")
def amd() -> Plan:
    return planned("experiment=amd-v5.1")


def test_a_whole_submission_of_both_divisions_holds_by_the_rules(amd: Plan, tmp_path: Path) -> None:
    synthetic.build(amd, tmp_path)
    workspace = assembled(amd, tmp_path)
    tree = workspace.directory / "submission"
    report = validate(tree, "v5.1", processes=1)
    errors = [found for found in report.findings if found.severity is Severity.ERROR]
    assert errors == []
    # One set of runs is submitted as -99 and as -99.9: 16 cells are 24 results.
    assert len(report.rows) == 24
    assert workspace.result["errors"] == 0
    assert workspace.result["may_be_submitted"] is True
    home = tree / "closed/AMD"
    for system in ("8xMI300X_2xEPYC_9575F", "8xMI325X_2xEPYC_9575F_1"):
        logs = [
            (home / f"results/{system}/llama2-70b-{level}/Server/accuracy" / name).read_bytes()
            for level in ("99", "99.9")
            for name in ("mlperf_log_detail.txt",)
        ]
        assert logs[0] == logs[1]
    (images,) = home.glob("results/*/stable-diffusion-xl/Offline/accuracy/images")
    assert len(list(images.iterdir())) == 11
    (compliance,) = home.glob("compliance/*/stable-diffusion-xl/Server")
    assert {path.name for path in compliance.iterdir()} == {"TEST01", "TEST04"}
    statement = (home / "documentation/bandwidth.md").read_text(encoding="utf-8")
    # 43.2 images per second of 1024 x 1024 x 3 bytes.
    assert f"| {43.2 * 3_145_728:,.0f} |" in statement
    assert not (home / "model_mapping.json").exists()


def packaged(plan: Plan, home: Path) -> dict[str, tuple[int, int]]:
    """Publish the package as its command does; inode and time of every file of the tree."""
    inputs = synthetic.inputs_of(plan, home, "submission")
    with publish(
        home / "package", step="submission", config={}, inputs=inputs, code=""
    ) as workspace:
        step(config_of(plan), inputs, workspace, None)  # type: ignore[arg-type]
    tree = home / "package/submission"
    return {
        str(path.relative_to(tree)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in tree.rglob("*")
        if path.is_file()
    }


def exchanged(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    """Results of which a file is another one: system/benchmark/scenario."""
    assert set(before) == set(after)
    changed = {name for name in before if before[name] != after[name]}
    places = (name.split("/") for name in changed)
    return {"/".join(place[3:6]) for place in places if len(place) > 6}


def test_one_exchanged_result_is_written_and_checked_and_no_other(
    short: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.build(short, tmp_path)
    first = packaged(short, tmp_path)
    assert "6 results written and checked, 0 kept" in capsys.readouterr().out
    assert exchanged(first, packaged(short, tmp_path)) == set()
    assert "0 results written and checked, 6 kept" in capsys.readouterr().out

    cell = "rehearsal-cpu/rehearsal/none/fp8/Server"
    maker = synthetic.Maker(short, "vllm", {}, [], [])
    maker.made = 500
    for job in short.jobs:
        if job.key == cell and job.step.startswith("performance"):
            synthetic.publish_job(maker, job, tmp_path)
    before = packaged(short, tmp_path)
    assert "1 results written and checked, 5 kept" in capsys.readouterr().out
    assert exchanged(first, before) == {"rehearsal-cpu-fp8/rehearsal/Server"}
    kept = json.loads((tmp_path / "package/validation.json").read_text(encoding="utf-8"))
    fresh = assembled(short, tmp_path, "fresh")
    anew = json.loads((fresh.directory / "validation.json").read_text(encoding="utf-8"))
    assert kept == anew, "what was kept says what a check of everything says"


def test_a_file_that_was_changed_in_the_package_is_not_kept(
    short: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.build(short, tmp_path)
    packaged(short, tmp_path)
    place = "submission/open/Reprise/measurements/rehearsal-cpu-bf16/rehearsal/Offline/user.conf"
    user_conf = tmp_path / "package" / place
    text = user_conf.read_text(encoding="utf-8")
    user_conf.write_text("*.*.target_qps = 1\n", encoding="utf-8")
    packaged(short, tmp_path)
    assert "1 results written and checked, 5 kept" in capsys.readouterr().out
    assert user_conf.read_text(encoding="utf-8") == text


@given(st.integers(0, 20_000))
def test_truncation_keeps_both_ends_of_any_length(length: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        data = bytes(33 + n % 90 for n in range(length))
        path.write_bytes(data)
        short, digest = truncated(path)
    assert digest == hashlib.sha256(data).hexdigest()
    if length < 4096:
        assert short == data
    else:
        assert short[:4096] == data[:4096]
        assert short[-4096:] == data[-4096:]
        assert len(short) == 8199
