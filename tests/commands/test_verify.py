"""Results that changed after they were made: named by verify, read by nobody."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.base.record import (
    MANIFEST,
    RECORD,
    Manifest,
    Workspace,
    canonical_json,
    publish,
    sha256_file,
    stamped,
)
from steps.commands.verify import verify
from steps.config.checks import QuickCheckConfig
from steps.judge.accuracy_check import step as check_accuracy
from steps.judge.compliance_check import step as check_compliance
from steps.judge.performance_check import step as check_performance
from steps.judge.quick_check import step as check_quickly
from steps.plan.code import Code
from steps.plan.complaints import complaints_of
from steps.plan.due import due, earlier_in
from steps.plan.plan import Job, Plan, freeze
from steps.plan.registry import STEPS
from tests import synthetic
from tests.conftest import ROOT, planned

FLIPS = 400
ORIGIN = ("version", "sources", "container")
"""What records say since format 3."""

CODE = Code("c", {})
"""The code that synthetic results say they were made by."""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned("scenario=Server")


@pytest.fixture(scope="module")
def built(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("built")
    synthetic.build(plan, home)
    return home


@pytest.fixture
def home(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "home"))


def made(plan: Plan, home: Path) -> list[Job]:
    return [job for job in plan.jobs if (home / job.output).is_file()]


def the(plan: Plan, step: str) -> Job:
    return next(job for job in plan.jobs if job.step == step)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A manifest or record edited by hand, with nothing else of it touched."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    text = json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def of_format_1(home: Path, job: Job) -> None:
    """A result as versions before the digest left it."""
    manifest, record = home / job.output, (home / job.output).with_name(RECORD)
    gone = ("format", "digest", MANIFEST, *ORIGIN)
    for path in (manifest, record):
        rewritten(path, lambda fields: [fields.pop(name, None) for name in gone])


def of_format_2(home: Path, job: Job, inputs: dict[str, str]) -> None:
    """A result as versions left it whose code was a list of files kept by hand."""
    manifest = home / job.output
    record = manifest.with_name(RECORD)
    for path in (manifest, record):
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields = {name: v for name, v in fields.items() if name not in (*ORIGIN, "digest")}
        fields |= {"inputs": inputs} if path == manifest else {MANIFEST: sha256_file(manifest)}
        path.write_text(stamped(fields, 2), encoding="utf-8")


def test_every_flipped_bit_is_named(plan: Plan, home: Path) -> None:
    jobs, generator, missed = made(plan, home), random.Random(18), []
    assert len(jobs) > 10
    assert not [found for job in jobs for found in complaints_of(job, home, CODE)]
    for number in range(FLIPS):
        job = jobs[number % len(jobs)]
        files = sorted(p for p in (home / job.output).parent.rglob("*") if p.is_file())
        path = generator.choice([p for p in files if p.stat().st_size])
        whole = path.read_bytes()
        at, bit = generator.randrange(len(whole)), generator.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        if not any(path.name in found for found in complaints_of(job, home, CODE)):
            missed.append((job.step, path.name, at, bit))
        path.write_bytes(whole)
    assert not missed


@pytest.mark.parametrize("name", [MANIFEST, RECORD])
def test_every_single_bit_of_a_verdicts_own_words_is_named(
    plan: Plan, home: Path, name: str
) -> None:
    job = the(plan, "performance_check")
    path = (home / job.output).with_name(name)
    whole = path.read_bytes()
    for at in range(len(whole)):
        bit = at % 8
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        assert any(name in found for found in complaints_of(job, home, CODE)), (at, bit)


def test_what_lies_in_a_result_and_is_not_listed_is_named(plan: Plan, home: Path) -> None:
    job = the(plan, "dataset")
    folder = (home / job.output).parent
    (folder / "more.safetensors").write_bytes(b"x")
    (folder / "link").symlink_to("/nowhere")
    found = complaints_of(job, home, CODE)
    assert [f for f in found if "more.safetensors" in f and "isn't listed" in f]
    assert [f for f in found if f"{folder}/link" in f and "isn't listed" in f]


@pytest.mark.parametrize("step", ["performance_check", "accuracy_check", "performance_run"])
def test_a_value_edited_by_hand_never_reaches_the_report(plan: Plan, home: Path, step: str) -> None:
    synthetic.package(plan, home)
    path = home / the(plan, step).output
    rewritten(path, lambda fields: fields["result"].update({"value": 12345, "duration_s": 1.0}))
    summary = (synthetic.report(plan, home) / "summary.json").read_text(encoding="utf-8")
    assert "12345" not in summary
    assert "was changed after it was made" in summary
    with pytest.raises(UserError, match=f"{path.parent}.*(was changed after|is not of the)"):
        synthetic.package(plan, home)


def changed(path: Path, old: bytes, new: bytes) -> None:
    """At equal size, so that only the content tells."""
    assert len(old) == len(new)
    text = path.read_bytes()
    assert old in text
    path.write_bytes(text.replace(old, new, 1))


STEP = {
    "performance_check": check_performance,
    "accuracy_check": check_accuracy,
    "compliance_check": check_compliance,
}
LOGS = [
    ("performance_check", "run", "mlperf_log_detail.txt", b"40", b"50"),
    ("accuracy_check", "run", "mlperf_log_detail.txt", b"100", b"101"),
    ("compliance_check", "run", "mlperf_log_accuracy.json", b"0", b"1"),
    ("compliance_check", "run", "mlperf_log_detail.txt", b"100", b"101"),
]


@pytest.mark.parametrize(("step", "role", "name", "old", "new"), LOGS)
def test_a_verdict_is_on_the_log_that_the_run_wrote(
    plan: Plan, home: Path, tmp_path: Path, step: str, role: str, name: str, old: bytes, new: bytes
) -> None:
    job = the(plan, step)
    inputs = {r: home / path for r, path in job.inputs.items()}
    changed(inputs[role].with_name(name), old, new)
    config = STEPS[step].config.model_validate_json(job.config)
    with pytest.raises(UserError, match=f"{name} does not match its sha256"):
        STEP[step](config, inputs, Workspace(tmp_path), None)  # type: ignore[operator]


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def replaced_by_bomb(table: Path, mark: Path) -> None:
    """A pickle of the same size, so that only its digest tells."""
    import pickle

    size, bomb = table.stat().st_size, pickle.dumps(Bomb(mark))
    table.write_bytes(bomb + bytes(max(size - len(bomb), 0)))


@pytest.mark.parametrize("scorer", ["rehearsal", "llama2-70b"])
def test_no_step_unpickles_what_its_manifest_does_not_vouch_for(
    tmp_path: Path, plan: Plan, home: Path, scorer: str
) -> None:
    import pandas

    mark = tmp_path / "executed"
    table = pandas.DataFrame({"output": ["a text"] * 100, "tok_input": [[1]] * 100})
    with publish(tmp_path / "set", step="dataset", config={}, inputs={}, code="") as workspace:
        for name in ("evaluation.pkl", "calibration.pkl"):
            table.to_pickle(workspace.directory / name)
    for name in ("evaluation.pkl", "calibration.pkl"):
        replaced_by_bomb(tmp_path / "set" / name, mark)
    with publish(tmp_path / "model", step="model", config={}, inputs={}, code="") as workspace:
        shutil.copy(ROOT / "steps/prepare/rehearsal/model/tokenizer.json", workspace.directory)
    dataset = tmp_path / "set" / MANIFEST
    job = the(plan, "accuracy_check")
    config = STEPS[job.step].config.model_validate_json(job.config)
    config = config.model_copy(update={"scorer": scorer, "dataset_size": 24576})
    inputs = {role: home / path for role, path in job.inputs.items()}
    inputs |= {"dataset": dataset, "model": tmp_path / "model" / MANIFEST}
    with pytest.raises(UserError, match=r"evaluation.pkl does not match its sha256"):
        check_accuracy(config, inputs, Workspace(tmp_path / "out"), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"evaluation.pkl does not match its sha256"):
        check_quickly(
            QuickCheckConfig(after="prune", minimum=0.9),
            {"dataset": dataset, "model": inputs["model"]},
            Workspace(tmp_path / "out"),
            None,  # type: ignore[arg-type]
        )
    assert not mark.exists()


# ---- formats -----------------------------------------------------------------------------------


def test_results_of_format_1_are_read_and_said_to_be_unvouched(
    plan: Plan, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steps.commands.verify.codes", lambda *_: dict.fromkeys(STEPS, CODE))
    old = the(plan, "performance_run")
    before = Manifest.read(home / old.output)
    of_format_1(home, old)
    read = Manifest.read(home / old.output)
    assert before.vouched and not read.vouched
    assert (read.result, read.files) == (before.result, before.files)
    assert complaints_of(old, home, CODE) == []
    verify(freeze(plan, home), home)
    said = capsys.readouterr().out
    assert "1 of them of format 1, whose conclusions no digest vouches for" in said
    assert f"performance_run {old.key}:" not in said


def test_results_of_format_2_stay_and_their_verdicts_are_made_again(
    plan: Plan, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = dict.fromkeys(STEPS, Code("another", {"steps/x.py": "0"}))
    monkeypatch.setattr("steps.commands.verify.codes", lambda *_: code)
    for job in made(plan, home):
        now = {role: sha256_file(home / path) for role, path in job.inputs.items()}
        of_format_2(home, job, now)
    reasons = due(plan, home, code)
    stay = [job for job in made(plan, home) if STEPS[job.step].stage in ("artifacts", "runs")]
    assert stay and not [job for job in stay if job.output in reasons]
    check = the(plan, "performance_check")
    assert "format 2 of records" in reasons[check.output].words
    assert complaints_of(the(plan, "performance_run"), home, code["performance_run"]) == []
    assert earlier_in(plan, home) == len(made(plan, home))
    verify(freeze(plan, home), home)
    said = capsys.readouterr().out
    assert f"{len(stay)} of them were made by an earlier version" in said


@pytest.mark.parametrize("field", ["files", "inputs", "config", "result", "step"])
@pytest.mark.parametrize("value", [[], "text", 1, None, {"a": 1}, {"a": {"sha256": "x"}}])
def test_damage_to_format_1_is_a_sentence(
    plan: Plan, home: Path, field: str, value: object
) -> None:
    job = the(plan, "performance_run")
    of_format_1(home, job)
    rewritten(home / job.output, lambda fields: fields.update({field: value}))
    complaints_of(job, home, CODE)  # raises nothing


def test_format_1_packages_and_reports_as_before(plan: Plan, home: Path) -> None:
    """Nothing of an earlier version's results has to be measured again."""
    for job in made(plan, home):
        of_format_1(home, job)
    for job in made(plan, home):  # what was made from them names the manifests of then
        now = {role: sha256_file(home / path) for role, path in job.inputs.items()}
        rewritten(home / job.output, lambda fields, now=now: fields.update(inputs=now))  # type: ignore[misc]
    synthetic.package(plan, home)
    assert synthetic.report(plan, home).is_dir()


def test_a_digest_that_was_taken_out_is_no_older_format(plan: Plan, home: Path) -> None:
    job = the(plan, "performance_check")

    def strip(fields: dict[str, Any]) -> None:
        fields.pop("format")
        fields.pop("digest")
        fields["result"]["value"] = 12345

    rewritten(home / job.output, strip)
    with pytest.raises(UserError, match="was changed after it was made"):
        Manifest.read(home / job.output)


@pytest.mark.parametrize("number", [4, "2", None, 1, True, [2]])
def test_another_format_is_one_sentence(plan: Plan, home: Path, number: object) -> None:
    path = home / the(plan, "performance_check").output
    rewritten(path, lambda fields: fields.update(format=number))
    with pytest.raises(UserError, match=r"manifest.json is of format .* reads 1 to 3"):
        Manifest.read(path)


def test_a_record_belongs_to_its_manifest(plan: Plan, home: Path) -> None:
    """A record brought from elsewhere says who made another result."""
    one, other = the(plan, "performance_run"), the(plan, "accuracy_run")
    shutil.copy((home / other.output).with_name(RECORD), (home / one.output).with_name(RECORD))
    assert any(RECORD in found for found in complaints_of(one, home, CODE))


def test_numbers_and_keys_of_every_kind_are_vouched_for(tmp_path: Path) -> None:
    result = {10: 1e-300, 9: float("inf"), 2: -0.0, 1: "ü\u2028", 11: 10**40, 100: None}
    with publish(tmp_path / "out", step="s", config={}, inputs={}, code="c") as workspace:
        workspace.result = result  # type: ignore[assignment]
    read = Manifest.read(tmp_path / "out" / MANIFEST)
    assert canonical_json(read.result) == canonical_json(json.loads(json.dumps(result)))
