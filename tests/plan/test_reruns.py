"""Which edit makes which jobs run again: exact job sets, with a negative control.

Every job's output is faked once with snakemake's own record of it (`--touch`), then the project is
edited and snakemake asked for a dry run.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steps.commands.preview import pending
from steps.plan.make import make
from steps.plan.plan import Plan, freeze
from tests.conftest import copy_project, edit

SNAKEMAKE = Path(sys.executable).parent / "snakemake"
LIMIT_S = 120
MATRIX = ["system=rehearsal-cpu,second-cpu", "scenario=Offline,Server", "precision=bf16,fp8"]

SYSTEMS = ("rehearsal-cpu", "second-cpu")
RUNS = ("performance_run", "accuracy_run", "compliance_run")
CHECKS = ("performance_check", "accuracy_check", "compliance_check")
WHOLE = {("submission", ""), ("provenance", "")}


def command(project: Path, plan: Path) -> list[str]:
    profile = "workflow/profiles/default"
    return [
        *(str(SNAKEMAKE), "--workflow-profile", profile),
        *("--configfile", str(plan.relative_to(project))),
    ]


def touch(project: Path, plan: Plan) -> None:
    """Let snakemake record every output as made by this plan."""
    done = subprocess.run(
        [*command(project, freeze(plan, project)), "--touch", "--forceall"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr


def due(project: Path, overrides: list[str]) -> set[tuple[str, str]]:
    """(step, key) of the jobs that snakemake would run."""
    plan = make(project, overrides)
    outputs = pending(plan, project, command(project, freeze(plan, project)))
    return {(job.step, job.key) for job in plan.jobs if job.output in outputs}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose every job has run: outputs exist and snakemake has recorded them."""
    project = copy_project(tmp_path_factory.mktemp("built"))
    for kind, name in (("hardware", "cpu"), ("system", "rehearsal-cpu")):
        second = {"cpu": "second", "rehearsal-cpu": "second-cpu"}[name]
        text = (project / f"conf/{kind}/{name}.yaml").read_text(encoding="utf-8")
        text = text.replace("name: rehearsal-cpu", "name: second-cpu")
        text = text.replace("override /hardware: cpu", "override /hardware: second")
        (project / f"conf/{kind}/{second}.yaml").write_text(text, encoding="utf-8")
    plan = make(project, MATRIX)
    for job in plan.jobs:
        path = project / job.output
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    touch(project, plan)
    yield project


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "project"
    shutil.copytree(built, copy, copy_function=shutil.copy2)
    return copy


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


@pytest.mark.long
def test_negative_control_with_the_whole_configuration_everything_reruns(project: Path) -> None:
    """With the whole plan as a parameter one edit reruns every job."""
    common = project / "workflow/rules/common.smk"
    edit(
        common,
        '"config": of_job(step, lambda job: job.config),',
        '"config": of_job(step, lambda job: PLAN.model_dump_json()),',
    )
    plan = make(project, MATRIX)
    touch(project, plan)
    assert due(project, MATRIX) == set()
    edit(project / "conf/system/second-cpu.yaml", "Server: 15", "Server: 14")
    assert len(due(project, MATRIX)) == len(plan.jobs)
