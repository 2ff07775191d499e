"""The specs of the steps, and what a plan says of what can't be executed."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

from steps.plan.plan import freeze
from steps.plan.registry import STEPS
from steps.plan.unsupported import refusal, unseen
from tests.conftest import ROOT, planned

SHARED = "shared"
NAMES = ROOT / "steps/mlperf/loadgen.py"


def test_every_spec_is_registered_and_every_step_has_its_key() -> None:
    specs = {path.stem for path in (ROOT / "steps/plan/specs").glob("[a-z]*.py")} - {SHARED}
    assert specs == set(STEPS)
    keys = re.findall(r"^(\w+):", (ROOT / "conf/steps.yaml").read_text(encoding="utf-8"), re.M)
    assert set(keys) - {"cell", "other_datasets"} == {n for n, spec in STEPS.items() if spec.axes}


def test_what_a_step_needs_is_made_by_another_step() -> None:
    for name, spec in STEPS.items():
        makers = {needed.split("/")[0] for needed in spec.needs.values()}
        assert makers <= {*STEPS, "weights"} - {name}


def test_a_repeated_run_imports_no_types(tmp_path: Path) -> None:
    path = freeze(planned("scenario=Offline"), tmp_path)
    code = (
        "import sys; from pathlib import Path; from steps.commands import cli;"
        "from steps.plan.unsupported import refusal; from steps.machine.look import Look;"
        f"print(refusal(Path({str(path)!r}), Path({str(tmp_path)!r}), Look().missing));"
        "print([m for m in sys.modules if m.split('.')[0] == 'pydantic' or 'config' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["None", "[]"], done.stdout + done.stderr


def test_what_cannot_be_executed_is_in_the_plan() -> None:
    jobs = {(job.step, job.key): job for job in planned("experiment=amd-v5.1").jobs}
    dataset = jobs["dataset", "stable-diffusion-xl"]
    assert dataset.limitation is None
    assert dataset.brings is not None and "benchmark.dataset.path" in dataset.brings
    run = next(job for (step, key), job in jobs.items() if step.endswith("_run") and "-xl/" in key)
    assert run.limitation is not None
    assert run.limitation.startswith("this version can't start engine shark (AMD's shark-ai ")
    assert "experiment=sdxl-diffusers" in run.limitation
    assert not any(job.limitation for job in planned().jobs)


def test_a_program_that_this_machine_lacks_is_a_reason(tmp_path: Path) -> None:
    raw = planned("scenario=Offline").model_dump(mode="json")
    path = tmp_path / "plan.json"

    def refused(program: str) -> str | None:
        for job in raw["jobs"]:
            job["programs"] = {program: "get it"} if job["step"] == "accuracy_check" else {}
        path.write_text(json.dumps(raw), encoding="utf-8")
        return refusal(path, tmp_path, unseen)

    assert "step accuracy_check: get it" in str(refused("no-such-program"))
    assert refused(Path(sys.executable).name) is None


def test_a_plan_of_another_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    raw = planned("scenario=Offline").model_dump(mode="json")
    for job in raw["jobs"]:
        del job["brings"], job["programs"]
    path = tmp_path / "older.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    sentence = "another version of Reprise; ./reproduce freezes it again"
    assert sentence in str(refusal(path, tmp_path, unseen))


def test_names_of_loadgens_files_stand_in_one_place() -> None:
    tree = ast.parse(NAMES.read_text(encoding="utf-8"))
    values = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    names = {value for value in values if re.fullmatch(r"\w+\.(txt|json|csv|conf|config)", value)}
    assert len(names) == 7
    keys = {value.format("99.00") for value in values if "{}" in value}
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "steps").rglob("*.py")
        if path != NAMES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names | keys
    }
    assert not found
