"""A dress rehearsal's tree, page and marks: what they say, and that no submission takes them."""

import json
from pathlib import Path

import pytest

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Workspace
from steps.config.artifacts import DescribeConfig
from steps.plan.plan import Plan
from steps.run import describe
from steps.submit.submission.verdicts import gather
from tests import synthetic
from tests.conftest import planned
from tests.submit.test_submission import config_of

CELL = (
    *("experiment=amd-v5.1", "scale=dress"),
    "row=8xMI300X_2xEPYC_9575F/llama2-70b-99/Offline",
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(*CELL)


@pytest.fixture(scope="module")
def home(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dress")
    synthetic.build(plan, root)
    synthetic.package(plan, root)
    return root


def test_the_tree_has_the_systems_own_names_and_says_what_stands_in(home: Path) -> None:
    package = home / "results/amd-v5.1-dress/package"
    said = json.loads((package / "manifest.json").read_text(encoding="utf-8"))["result"]
    assert said["may_be_submitted"] is False
    assert any(what.startswith("dress rehearsal: ") for what in said["departures"])
    tree = package / "submission"
    for name in ("llama2-70b-99", "llama2-70b-99.9"):
        place = f"closed/AMD/results/8xMI300X_2xEPYC_9575F/{name}/Offline"
        assert (tree / place / "accuracy/accuracy.txt").is_file()
    notice = (tree / "NOT-FOR-SUBMISSION.md").read_text(encoding="utf-8")
    assert "Llama 2 70B, at the head of main: the rehearsal's Llama" in notice
    system = tree / "closed/AMD/systems/8xMI300X_2xEPYC_9575F.json"
    fields = json.loads(system.read_text(encoding="utf-8"))
    assert fields["sw_notes"].startswith("Dress rehearsal")
    assert fields["accelerator_model_name"].startswith("AMD Instinct MI300X")


def test_a_system_is_described_on_a_machine_that_it_is_not(plan: Plan, tmp_path: Path) -> None:
    (job,) = (job for job in plan.jobs if job.step == "describe")
    config = DescribeConfig.model_validate_json(job.config)
    workspace, console = Workspace(tmp_path), Console(tmp_path / "log")
    describe.step(config, {}, workspace, console)
    fields = json.loads((tmp_path / "system.json").read_text(encoding="utf-8"))
    assert (fields["accelerators_per_node"], fields["host_processor_core_count"]) == ("8", "64")
    with pytest.raises(UserError, match="describes another machine"):
        describe.step(config.model_copy(update={"rehearsal": None}), {}, workspace, console)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("accelerator_model_name", "AMD Instinct MI325X", "its hardware has 'AMD Instinct MI300X"),
        ("accelerator_memory_capacity", "256 GB", "its hardware has '192 GB'"),
        ("host_processors_per_node", "1", "8xMI300X_2xEPYC_9575F has '2'"),
    ],
)
def test_a_description_of_another_system_is_refused(
    plan: Plan, tmp_path: Path, field: str, value: str, says: str
) -> None:
    (job,) = (job for job in plan.jobs if job.step == "describe")
    config = json.loads(job.config)
    config["fields"][field] = value
    wrong = DescribeConfig.model_validate_json(json.dumps(config))
    with pytest.raises(UserError, match="describes another machine than it names") as refused:
        describe.step(wrong, {}, Workspace(tmp_path), Console(tmp_path / "log"))
    assert f"{field} is configured as {value!r}" in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize("experiment", ["amd-v5.1", "dell-v5.1", "vultr-v5.1", "krai-v5.1"])
def test_published_systems_describe_what_they_name(experiment: str, tmp_path: Path) -> None:
    plan = planned(f"experiment={experiment}", "scale=dress")
    jobs = [job for job in plan.jobs if job.step == "describe"]
    assert jobs
    for job in jobs:
        config = DescribeConfig.model_validate_json(job.config)
        describe.step(config, {}, Workspace(tmp_path), Console(tmp_path / "log"))


def test_the_page_lists_what_is_replaced(plan: Plan, home: Path) -> None:
    made = synthetic.report(plan, home)
    text = (made / "index.html").read_text(encoding="utf-8")
    assert "A dress rehearsal" in text and "a mirror on this machine in the same formats" in text
    summary = json.loads((made / "summary.json").read_text(encoding="utf-8"))
    assert {one["cells"][0] for one in summary["replaced"]} == {
        "amd-mi300x/llama2-70b-99.9/none/fp8/Offline"
    }
    assert len(summary["cells"]) == 1
    assert [one["difference"] for one in summary["partners"]] == [None]
    (hours,) = (seconds / 3600 for seconds in summary["expected_s"].values())
    assert 0.5 < hours < 2 and "machine-hours, estimated" in text
    assert summary["claims"] == summary["scaling"] == []


def test_no_submission_takes_a_run_of_one(plan: Plan, home: Path) -> None:
    """Also under the name of the machine that was rehearsed for."""
    (job,) = (job for job in plan.jobs if job.step == "submission")
    inputs = {role: home / path for role, path in job.inputs.items()}
    (cell,) = config_of(plan).cells
    assert gather(cell, inputs).cell == cell
    honest = cell.model_copy(update={"replaced": ()})
    with pytest.raises(UserError, match="was made in a dress rehearsal, on small weights"):
        gather(honest, inputs)


def test_the_real_experiment_sees_nothing_of_it(plan: Plan, home: Path) -> None:
    """Its results lie elsewhere, and are of another configuration."""
    real = planned(*(text for text in CELL if text != "scale=dress"))
    measured = [job for job in real.jobs if job.step.endswith("_run")]
    dressed = {(job.step, job.key): job for job in plan.jobs}
    assert len(measured) == 3
    for job in measured:
        assert not (home / job.output).exists()
        assert dressed[job.step, job.key].config != job.config
