"""Faults, planted where they would come from, and the sentence by which the dress rehearsal of
AMD's submission names each. docs/explanation/dress-rehearsal.md lists them.

A stop sequence that the engine isn't told takes a run: the page says what came of it.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import MANIFEST, Manifest, Workspace, publish
from steps.config.artifacts import DescribeConfig
from steps.config.checks import AccuracyCheckConfig, ComplianceCheckConfig
from steps.judge import accuracy_check, compliance_check
from steps.mlperf.detail import read_detail
from steps.plan import make as planning
from steps.plan.plan import Plan
from steps.prepare import calibration, mirror
from steps.prepare.rehearsal import dataset
from steps.run import describe
from steps.submit.validate.submission import validate
from tests import synthetic
from tests.conftest import ACME_SITE, ROOT, edit, planned
from tests.prepare.test_loopback import ROWS, make, plan_of
from tests.submit.test_dress_rehearsal import CELL
from tests.synthetic import job_of

EMBEDDED = Path(dataset.__file__).parent / "model"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(*CELL)


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    synthetic.build(plan, root)
    synthetic.package(plan, root)
    return root


@pytest.fixture
def home(whole: Path, tmp_path: Path) -> Path:
    """What a finished rehearsal left, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "home", symlinks=True))


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        act()
    print(error.value)  # `pytest -rP` shows the sentences, for the page's table
    return str(error.value)


# ---- what comes from elsewhere ------------------------------------------------------------------


Change = Callable[[pandas.DataFrame], pandas.DataFrame]


def serve(patch: pytest.MonkeyPatch, recipe: str, part: str, change: Change) -> None:
    """The mirror serves another file of prompts, with the digest of that one."""
    made = mirror.FRAMES[recipe]
    other = {**made, part: lambda count: change(made[part](count))}
    patch.setattr(mirror, "FRAMES", {**mirror.FRAMES, recipe: other})


def prompts(plan: Plan, home: Path) -> Manifest:
    for step in ("mirror", "dataset_files"):
        make(plan, step, home)
    return make(plan, "dataset", home)


def test_a_dataset_that_lacks_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    column = "tok_stop_sequence"
    serve(monkeypatch, "mixtral-15k", "evaluation", lambda frame: frame.drop(columns=column))
    said = refused(lambda: prompts(plan_of("mixtral-8x7b"), tmp_path))
    assert column in said


def test_weights_that_changed_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub lists another digest than that of what it sends."""
    monkeypatch.setattr(mirror, "sha256_file", lambda path: 64 * "0")
    plan = plan_of("llama2-70b-99.9")
    make(plan, "mirror", tmp_path)
    said = refused(lambda: make(plan, "model", tmp_path))
    assert "model.safetensors" in said and 64 * "0" in said


def test_calibration_prompts_that_are_evaluation_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = "llama3.1-405b"
    tested = mirror.FRAMES[recipe]["evaluation"](ROWS)
    serve(
        monkeypatch, recipe, "calibration", lambda one: tested.assign(tok_output=one["tok_output"])
    )
    made = prompts(plan_of(recipe), tmp_path)
    said = refused(lambda: calibration.load(made.directory / MANIFEST, 8, answers=True))
    assert "is an evaluation prompt too" in said


# ---- what was measured --------------------------------------------------------------------------


def run_of(plan: Plan, home: Path, step: str) -> Path:
    return (home / job_of(plan, step).output).parent


def test_a_user_conf_that_was_edited_after_its_run(plan: Plan, home: Path) -> None:
    path = run_of(plan, home, "performance_run") / "user.conf"
    path.write_text(path.read_text(encoding="utf-8").replace("600000", "60000"), "utf-8")
    shutil.rmtree(home / "results/amd-v5.1-dress/package")
    assert "user.conf" in refused(lambda: synthetic.package(plan, home))


def test_a_user_conf_in_the_tree_that_its_log_contradicts(plan: Plan, home: Path) -> None:
    tree = home / "results/amd-v5.1-dress/package/submission"
    for path in tree.rglob("user.conf"):
        path.write_text("*.Offline.target_qps = 80\n*.Offline.min_duration = 60000\n", "utf-8")
    found = {one.code: str(one) for one in validate(tree, "v5.1", processes=1).findings}
    assert "user-conf-contradicts" in found, found


def test_a_test_that_was_not_run_under_its_audit_config(plan: Plan, home: Path) -> None:
    """LoadGen read one that asks for no answers."""
    run = run_of(plan, home, "compliance_run")
    path = run / "mlperf_log_detail.txt"
    asked = re.compile(r'("effective_accuracy_log_sampling_target", "value": )\d+')
    path.write_text(asked.sub(r"\g<1>0", path.read_text(encoding="utf-8")), encoding="utf-8")
    job = job_of(plan, "compliance_check")
    inputs = {role: home / name for role, name in job.inputs.items()}
    config = ComplianceCheckConfig.model_validate_json(job.config)

    def judge() -> Workspace:
        workspace = Workspace(home)
        compliance_check.step(config, inputs, workspace, Console(home / "log"))
        return workspace

    assert "mlperf_log_detail.txt" in refused(judge)
    synthetic.made_otherwise(run / "manifest.json", lambda fields: None)
    words = [one["words"] for one in judge().result["complaints"]]
    assert "TEST06 of Offline fails: the run was not under its audit.config" in words


def test_an_accuracy_log_that_was_cut(plan: Plan, home: Path) -> None:
    """By a full disk, say: its digest is that of what was written."""
    run = run_of(plan, home, "accuracy_run")
    path = run / "mlperf_log_accuracy.json"
    path.write_bytes(path.read_bytes()[:-200])
    synthetic.made_otherwise(run / MANIFEST, lambda fields: None)
    with publish(home / "prompts", step="dataset", config={}, inputs={}, code="") as workspace:
        dataset.evaluation(100).to_pickle(workspace.directory / "evaluation.pkl")
    with publish(home / "small", step="model", config={}, inputs={}, code="") as workspace:
        shutil.copy(EMBEDDED / "tokenizer.json", workspace.directory)
    job = job_of(plan, "accuracy_check")
    config = AccuracyCheckConfig.model_validate_json(job.config)
    logged = read_detail(run / "mlperf_log_detail.txt").get("qsl_reported_total_count")
    whole = config.model_copy(update={"dataset_size": logged})
    inputs = {role: home / name for role, name in job.inputs.items()}
    inputs |= {"model": home / "small" / MANIFEST, "dataset": home / "prompts" / MANIFEST}
    workspace, console = Workspace(home), Console(home / "log")
    said = refused(lambda: accuracy_check.step(whole, inputs, workspace, console))
    assert "mlperf_log_accuracy.json" in said


# ---- what the submitter writes ------------------------------------------------------------------


def test_a_description_of_other_accelerators(plan: Plan, tmp_path: Path) -> None:
    config = json.loads(job_of(plan, "describe").config)
    config["fields"]["accelerator_model_name"] = "AMD Instinct MI325X 256GB HBM3e"
    wrong = DescribeConfig.model_validate_json(json.dumps(config))
    workspace, console = Workspace(tmp_path), Console(tmp_path / "log")
    said = refused(lambda: describe.step(wrong, {}, workspace, console))
    assert "describes another machine than it names: accelerator_model_name" in said


def test_a_recipe_that_no_longer_takes_what_it_is_given(tmp_path: Path) -> None:
    for name in ("conf", "envs", "steps"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "containers", tmp_path / "containers")
    edit(tmp_path / "containers/vllm-rocm/Dockerfile", "ARG TUNING", "ARG TUNNING")
    said = refused(lambda: planning.make(tmp_path, list(CELL)))
    assert said.startswith("what is rehearsed for is refused: image ")


def test_a_site_file_with_a_misspelt_key(tmp_path: Path) -> None:
    site = tmp_path / "acme-mi325x.yaml"
    site.write_text(ACME_SITE.replace("submitter:", "submiter:"), encoding="utf-8")
    said = refused(lambda: planning.make(ROOT, list(CELL[:2]), site))
    assert "submiter" in said
