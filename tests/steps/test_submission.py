"""The tree of a finished experiment, and what is kept out of it."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps import schema
from steps.errors import UserError
from steps.plan import Plan, make
from steps.record import Workspace
from steps.submission.__main__ import step
from steps.truncate import truncated
from tests import synthetic
from tests.conftest import ROOT


def config_of(plan: Plan) -> schema.SubmissionConfig:
    job = next(job for job in plan.jobs if job.step == "submission")
    return schema.SubmissionConfig.model_validate_json(job.config)


def assembled(plan: Plan, home: Path) -> Workspace:
    workspace = Workspace(home / "package")
    workspace.directory.mkdir()
    inputs = synthetic.inputs_of(plan, home, "submission")
    step(config_of(plan), inputs, workspace, None)  # type: ignore[arg-type]
    return workspace


@pytest.fixture(scope="module")
def short() -> Plan:
    return make(ROOT, ["precision=bf16,fp8"])


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


def test_the_packaged_accuracy_log_is_truncated_and_hashed(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path)
    workspace = assembled(short, tmp_path)
    place = "rehearsal-cpu-bf16/rehearsal/Server"
    accuracy = workspace.directory / "submission/open/Reprise/results" / place / "accuracy"
    full = workspace.directory / "audit" / place / "mlperf_log_accuracy.json"
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

    full = make(ROOT, ["experiment=rehearsal-full"])
    home = tmp_path / "full"
    synthetic.build(full, home)
    result = assembled(full, home)
    assert not (result.directory / "submission" / "NOT-FOR-SUBMISSION.md").exists()
    assert result.result["may_be_submitted"] is True


def test_a_null_engine_never_enters_a_tree(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path, engine="null")
    with pytest.raises(UserError, match="made by the null engine"):
        assembled(short, tmp_path)


def test_a_verdict_on_another_run_is_refused(short: Plan, tmp_path: Path) -> None:
    synthetic.build(short, tmp_path)
    role = "rehearsal-cpu/rehearsal/none/bf16/Server/performance_run"
    run = synthetic.inputs_of(short, tmp_path, "submission")[role]
    run.write_text(run.read_text(encoding="utf-8") + " ", encoding="utf-8")
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
