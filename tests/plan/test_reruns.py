"""Which edit makes which jobs run again: exact job sets, with a negative control.

Every job's output is faked once, with its record; then the project is edited and asked what is due.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steps.base.record import Origin, publish
from steps.plan.code import codes
from steps.plan.due import due as due_of
from steps.plan.due import told, unsettled
from steps.plan.make import make
from steps.plan.plan import Job, Plan, freeze
from tests.conftest import copy_project, edit

SNAKEMAKE = Path(sys.executable).parent / "snakemake"
LIMIT_S = 120
MATRIX = ["system=rehearsal-cpu,second-cpu", "scenario=Offline,Server", "precision=bf16,fp8"]

SYSTEMS = ("rehearsal-cpu", "second-cpu")
RUNS = ("performance_run", "accuracy_run", "compliance_run")
CHECKS = ("performance_check", "accuracy_check", "compliance_check")
WHOLE = {("submission", ""), ("provenance", "")}


def fake(
    project: Path, plan: Plan, jobs: Callable[[Job], bool] = lambda job: True, words: str = ""
) -> None:
    """Results of this plan, made by today's code: empty, or with a file `words`."""
    known = codes(project)
    for job in filter(jobs, plan.jobs):
        with publish(
            (project / job.output).parent,
            step=job.step,
            config=json.loads(job.config),
            inputs={role: project / path for role, path in job.inputs.items()},
            code=known[job.step].digest,
            origin=Origin(sources=known[job.step].files, container=job.container),
        ) as workspace:
            if words:
                (workspace.directory / "words").write_text(words, encoding="utf-8")


def due(project: Path, overrides: list[str]) -> set[tuple[str, str]]:
    """(step, key) of the jobs that would run."""
    plan = make(project, overrides)
    outputs = due_of(plan, project)
    return {(job.step, job.key) for job in plan.jobs if job.output in outputs}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose every job has run."""
    project = copy_project(tmp_path_factory.mktemp("built"))
    for kind, name in (("hardware", "cpu"), ("system", "rehearsal-cpu")):
        second = {"cpu": "second", "rehearsal-cpu": "second-cpu"}[name]
        text = (project / f"conf/{kind}/{name}.yaml").read_text(encoding="utf-8")
        text = text.replace("name: rehearsal-cpu", "name: second-cpu")
        text = text.replace("override /hardware: cpu", "override /hardware: second")
        (project / f"conf/{kind}/{second}.yaml").write_text(text, encoding="utf-8")
    fake(project, make(project, MATRIX))
    yield project


@pytest.fixture(scope="module")
def pristine(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it that no test touches."""
    copy = tmp_path_factory.mktemp("pristine") / "project"
    shutil.copytree(built, copy, copy_function=shutil.copy2)
    return copy


@pytest.fixture
def project(built: Path, pristine: Path) -> Iterator[Path]:
    """The one that was built, which each test finds as it was: another place is composed anew."""
    yield built
    restore(built, pristine)


def restore(project: Path, pristine: Path) -> None:
    """What was changed, made or removed since the copy, put back with its time."""
    there, wanted = files(project), files(pristine)
    for path in there.keys() - wanted.keys():
        (project / path).unlink()
    for path, state in wanted.items():
        if there.get(path) != state:
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(pristine / path, project / path)


def files(root: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of each, by its path within."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            status = path.stat()
            found[path.relative_to(root)] = status.st_size, status.st_mtime_ns
    return found


def quick(*systems: str) -> set[tuple[str, str]]:
    """Quick check of the quantized weights on these systems."""
    made = [f"{system}/rehearsal/none/fp8/quantize" for system in systems]
    return jobs(("quick_run", "quick_check"), made)


def keys(system: str = "*", scenario: str = "*", precision: str = "*") -> list[str]:
    return [
        f"{s}/rehearsal/none/{p}/{c}"
        for s in SYSTEMS
        for p in ("bf16", "fp8")
        for c in ("Offline", "Server")
        if system in ("*", s) and scenario in ("*", c) and precision in ("*", p)
    ]


def jobs(steps: tuple[str, ...], cells: list[str]) -> set[tuple[str, str]]:
    return {(step, cell) for step in steps for cell in cells}


Edit = Callable[[Path], None]


def replaced(name: str, old: str, new: str) -> Edit:
    return lambda project: edit(project / name, old, new)


def appended(name: str, line: str) -> Edit:
    def change(project: Path) -> None:
        with (project / name).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    return change


CASES: dict[str, tuple[Edit, set[tuple[str, str]]]] = {
    "nothing": (lambda project: None, set()),
    "a comment": (
        replaced("conf/hardware/second.yaml", "\nname: cpu\n", "\n# a remark\nname: cpu\n"),
        set(),
    ),
    "order of keys": (
        replaced(
            "conf/system/second-cpu.yaml",
            "{Offline: 80, Server: 15, Interactive: 8}",
            "{Interactive: 8, Server: 15, Offline: 80}",
        ),
        set(),
    ),
    "a key that no step reads": (
        replaced("conf/hardware/second.yaml", "\nname: cpu\n", "\nname: cpu\nrack: 7\n"),
        set(),
    ),
    "Server target_qps of one system": (
        replaced("conf/system/second-cpu.yaml", "Server: 15", "Server: 14"),
        jobs((*RUNS, *CHECKS), keys("second-cpu", "Server")) | WHOLE,
    ),
    "an engine argument of one hardware": (
        replaced("conf/hardware/second.yaml", "max_num_seqs: 128", "max_num_seqs: 64"),
        jobs((*RUNS, *CHECKS), keys("second-cpu"))
        | quick("second-cpu")
        | {("quick_run", "second-cpu/rehearsal")}
        | WHOLE,
    ),
    "a gate of compressed weights": (
        replaced("conf/compression/none.yaml", "quantize: 0.98", "quantize: 0.97"),
        {job for job in quick(*SYSTEMS) if job[0] == "quick_check"},
    ),
    "min_duration_ms": (
        replaced("conf/length/short.yaml", "min_duration_ms: 1000", "min_duration_ms: 2000"),
        jobs(("performance_run", "performance_check"), keys()) | WHOLE,
    ),
    "a limit of the round": (
        replaced(
            "conf/round/v5.1.yaml",
            "limits: {Server: {ttft_ms: 2000, tpot_ms: 200}, Interactive: {ttft_ms: 450,",
            "limits: {Server: {ttft_ms: 1900, tpot_ms: 200}, Interactive: {ttft_ms: 450,",
        ),
        jobs(("performance_check",), keys(scenario="Server")) | WHOLE,
    ),
    "an accuracy factor of the round": (
        replaced("conf/round/v5.1.yaml", "accuracy_factor_99: 0.99", "accuracy_factor_99: 0.98"),
        jobs(("accuracy_check",), keys()) | WHOLE,
    ),
    "an option of the quantizer": (
        replaced("conf/benchmark/rehearsal.yaml", "num_calib_data: 128", "num_calib_data: 64"),
        {("quantize", "rehearsal/none/fp8")}
        | quick(*SYSTEMS)
        | jobs((*RUNS, *CHECKS), keys(precision="fp8"))
        | WHOLE,
    ),
    "words in the system description": (
        replaced(
            "conf/system/second-cpu.yaml",
            "system_name: Reprise CPU rehearsal",
            "system_name: Another name",
        ),
        {("describe", "second-cpu")} | WHOLE,
    ),
    "code of the accuracy verdict": (
        appended("steps/judge/accuracy_check.py", "# a remark"),
        jobs(("accuracy_check",), keys()) | WHOLE,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_edit_reruns_exactly(project: Path, name: str) -> None:
    change, expected = CASES[name]
    change(project)
    assert due(project, MATRIX) == expected


def test_a_subset_of_the_matrix_reruns_only_what_sums_it_up(project: Path) -> None:
    assert due(project, ["system=second-cpu", *MATRIX[1:]]) == WHOLE


def test_an_override_reruns_like_an_edit(project: Path) -> None:
    overrides = ["system=second-cpu", *MATRIX[1:], "system.target_qps.Server=39"]
    expected = jobs((*RUNS, *CHECKS), keys("second-cpu", "Server")) | WHOLE
    assert due(project, overrides) == expected


def scheduled(project: Path, plan: Plan) -> set[tuple[str, str]]:
    """(step, key) of the jobs that Snakemake would start."""
    command = [
        *(str(SNAKEMAKE), "--workflow-profile", "workflow/profiles/default", "--summary"),
        *("--configfile", str(freeze(plan, project).relative_to(project))),
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    header, *lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    outputs = {row["output_file"] for row in rows if row["plan"] != "no update"}
    return {(job.step, job.key) for job in plan.jobs if job.output in outputs}


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [
        lambda project: None,
        replaced("conf/system/second-cpu.yaml", "Server: 15", "Server: 14"),
        appended("steps/judge/accuracy_check.py", "# a remark"),
        lambda project: shutil.rmtree(project / "results/rehearsal"),
    ],
    ids=["nothing", "a rate", "code", "nothing of ours"],
)
def test_snakemake_starts_what_is_due_and_nothing_else(project: Path, change: Edit) -> None:
    """Its notes are of another directory, or of nothing: there are none in a copy."""
    change(project)
    plan = make(project, MATRIX)
    assert scheduled(project, plan) == due(project, MATRIX)


def test_times_and_places_of_results_are_of_no_account(project: Path, tmp_path: Path) -> None:
    """Copied to another checkout, with the times of the copy, and back."""
    elsewhere = copy_project(tmp_path / "elsewhere")
    shutil.copytree(project / "conf", elsewhere / "conf", dirs_exist_ok=True)
    shutil.copytree(project / "results", elsewhere / "results", copy_function=shutil.copyfile)
    assert due(elsewhere, MATRIX) == set()
    assert scheduled(elsewhere, make(elsewhere, MATRIX)) == set()
    shutil.rmtree(project / "results")
    shutil.copytree(elsewhere / "results", project / "results", copy_function=shutil.copyfile)
    assert scheduled(project, make(project, MATRIX)) == set()


def test_why_names_the_key_with_both_values_and_the_cells(project: Path) -> None:
    edit(project / "conf/system/second-cpu.yaml", "Server: 15", "Server: 14")
    edit(project / "conf/hardware/second.yaml", "max_num_seqs: 128", "max_num_seqs: 64")
    (project / "steps/mlperf/truncate.py").open("a", encoding="utf-8").write("# a remark\n")
    plan = make(project, MATRIX)
    lines = told(plan, due_of(plan, project))
    cell = "second-cpu/rehearsal/none/bf16/Server"
    run = next(line for line in lines if f"performance_run {cell}" in line)
    assert "loadgen.target_qps 15 → 14" in run
    assert "engine.arguments.max_num_seqs 128 → 64" in run
    code = next(line for line in lines if line.startswith("code changed"))
    assert "steps/mlperf/truncate.py" in code and "compliance_check" in code
    assert len(lines) < 12


def test_an_artifact_comes_first_and_its_runs_wait_for_what_it_is(project: Path) -> None:
    """Made again as it was, it takes no result with it; made otherwise, it takes all of them."""
    plan = make(project, MATRIX)
    (project / "steps/prepare/rehearsal/tokenizer.py").open("a", encoding="utf-8").write("# x\n")
    reasons = due_of(plan, project)
    dataset = next(job for job in plan.jobs if job.step == "dataset")
    first = unsettled(plan, reasons)
    assert dataset.output in first
    assert {reasons[job.output].derived for job in plan.jobs if job.step.endswith("_run")} == {True}
    again = {*first}
    fake(project, plan, lambda job: job.output in again)
    left = due(project, MATRIX)
    assert not [job for job in left if job[0].endswith("_run")], left


def test_what_is_gone_and_not_needed_stays_away(project: Path) -> None:
    plan = make(project, MATRIX)
    model = next(job for job in plan.jobs if job.step == "model")
    shutil.rmtree((project / model.output).parent)
    assert due(project, MATRIX) == set()
    run = next(job for job in plan.jobs if job.step == "performance_run")
    shutil.rmtree((project / run.output).parent)
    reasons = due_of(plan, project)
    assert model.output in reasons and model.output in unsettled(plan, reasons)


@pytest.mark.parametrize("name", ["manifest.json", "record.json"])
def test_what_is_damaged_is_named_and_not_measured_again(project: Path, name: str) -> None:
    plan = make(project, MATRIX)
    run = next(job for job in plan.jobs if job.step == "performance_run")
    path = (project / run.output).with_name(name)
    path.write_text(path.read_text(encoding="utf-8").replace("performance_run", "x"))
    path.write_bytes(path.read_bytes() + b" ")
    assert due(project, MATRIX) == set()


def test_negative_control_with_the_whole_plan_as_a_key_everything_reruns(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make(project, MATRIX)
    text = plan.model_dump_json()
    whole = plan.model_copy(
        update={
            "jobs": tuple(
                job.model_copy(
                    update={"config": json.dumps({**json.loads(job.config), "plan": text})}
                )
                for job in plan.jobs
            )
        }
    )
    fake(project, whole)
    assert due_of(whole, project) == {}
    assert len(due_of(plan, project)) == len(plan.jobs)
