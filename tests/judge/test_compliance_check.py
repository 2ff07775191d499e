"""TEST06 on token sequences; TEST01 and TEST04 as the plan has them, on LoadGen's logs."""

import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.record import Manifest, publish
from steps.config import verdicts
from steps.config.checks import ComplianceCheckConfig
from steps.config.verdicts import ComplianceVerdict
from steps.judge.compliance.tokens import BAD_END, BAD_FIRST, BAD_LENGTH, examine, unended
from steps.judge.compliance_check import early, step
from steps.mlperf.loadgen_log import Answer
from steps.plan.plan import Job, Plan
from steps.submit.validate.findings import Severity
from steps.submit.validate.submission import validate
from tests.conftest import planned
from tests.running import run_result
from tests.submit.validate import trees

QUIET: Any = SimpleNamespace(say=lambda text: None)
EOS = 2
DAY = "2026-11-30"
BODY = st.lists(st.integers(3, 100), min_size=1, max_size=20)


def answer(tokens: list[int], **changes: object) -> Answer:
    fields: dict[str, object] = {
        "sample_index": 7,
        "tokens": tokens,
        "first_token": tokens[:1],
        "token_count": len(tokens),
    }
    return Answer(**{**fields, **changes})  # type: ignore[arg-type]


@given(BODY)
def test_a_proper_answer_passes(body: list[int]) -> None:
    found = examine([answer([*body, EOS])], {EOS}, timed=True)
    assert found.faults == {}
    assert found.terminated == 1


@given(BODY, st.integers(2, 5))
def test_padding_with_end_tokens_fails(body: list[int], count: int) -> None:
    found = examine([answer(body + [EOS] * count)], {EOS}, timed=True)
    assert found.faults == {BAD_END: 7}
    assert found.terminated == 0


@given(BODY)
def test_an_answer_cut_at_its_limit_passes_but_does_not_count(body: list[int]) -> None:
    found = examine([answer(body)], {EOS}, timed=True)
    assert found.faults == {}
    assert found.terminated == 0


@given(st.lists(BODY, min_size=1), st.integers(1, 20))
def test_answers_below_the_limit_without_an_end_show_wrong_ids(
    bodies: list[list[int]], most: int
) -> None:
    """Those that were cut at the limit no rule asks for an end."""
    found = examine(map(answer, bodies), {EOS}, timed=True)
    said = [one.code for one in unended(found, "TEST06", [EOS], most)]
    assert said == (["end"] if any(len(body) != most for body in bodies) else [])
    ended = examine(map(answer, [*bodies, [3, EOS]]), {EOS}, timed=True)
    assert list(unended(ended, "TEST06", [EOS], most)) == []


def test_answers_that_were_all_cut_at_the_limit_show_no_wrong_ids() -> None:
    found = examine([answer([3] * 160), answer([4] * 160)], {EOS}, timed=True)
    assert list(unended(found, "TEST06", [EOS], 160)) == []
    assert [one.code for one in unended(found, "TEST06", [EOS], 1024)] == ["end"]


@given(BODY)
def test_another_first_token_fails_where_it_is_timed(body: list[int]) -> None:
    wrong = [answer([*body, EOS], first_token=[body[0] + 1])]
    assert examine(wrong, {EOS}, timed=True).faults == {BAD_FIRST: 7}
    assert examine(wrong, {EOS}, timed=False).faults == {}
    untimed = [answer([*body, EOS], first_token=None)]
    assert examine(untimed, {EOS}, timed=True).faults == {BAD_FIRST: 7}


@given(BODY, st.integers(-3, 3).filter(bool))
def test_another_count_fails(body: list[int], off: int) -> None:
    wrong = [answer(body, token_count=len(body) + off)]
    assert examine(wrong, {EOS}, timed=True).faults == {BAD_LENGTH: 7}


PLACE = f"{trees.CLOSED}/compliance/{trees.SYSTEM}/stable-diffusion-xl/Offline"
ANSWERS = trees.answers(200, timed=False, salt=7)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned("experiment=amd-v5.1", "benchmark=stable-diffusion-xl", "scenario=Offline")


def job_of(plan: Plan, name: str, test: str = "") -> Job:
    return next(job for job in plan.jobs if job.step == name and job.key.endswith(test))


def published(home: Path, mode: str, answers: str, audit: Mapping[str, Any]) -> Path:
    """A finished run of stable-diffusion-xl, Offline; returns its manifest."""
    with publish(home, step="", config={}, inputs={}, code="") as workspace:
        folder = workspace.directory
        trees.run(folder, "stable-diffusion-xl", "Offline", mode, trees.Clock(), dict(audit))
        trees.write(folder / "mlperf_log_accuracy.json", answers)
        workspace.result = run_result(mode=mode)
    return home / "manifest.json"


def judged(
    plan: Plan,
    test: str,
    home: Path,
    answers: str = ANSWERS,
    *,
    scored: bool = True,
    **audit: Any,
) -> Path:
    """The directory of the verdict on a test's run with these answers and settings. `scored`:
    answers may differ where the benchmark's scores don't."""
    job = job_of(plan, "compliance_check", test)
    runs = {
        "performance": published(home / "performance", "PerformanceOnly", "[\n]\n", {}),
        "accuracy": published(home / "accuracy", "AccuracyOnly", ANSWERS, {}),
        "run": published(home / "run", "PerformanceOnly", answers, audit),
    }
    with publish(home / "dataset", step="dataset", config={}, inputs={}, code=""):
        pass
    runs["dataset"] = home / "dataset/manifest.json"
    inputs = {role: runs[role] for role in job.inputs if role in runs}
    config = ComplianceCheckConfig.model_validate_json(job.config)
    config = config if scored else config.model_copy(update={"scores": None})
    with publish(home / test, step=job.step, config={}, inputs=inputs, code="") as workspace:
        step(config, inputs, workspace, QUIET)
    return home / test


SETTINGS: Mapping[str, dict[str, Any]] = {
    "TEST01": {"effective_accuracy_log_sampling_target": 128},
    "TEST04": {"effective_performance_issue_same": True},
}


@pytest.mark.parametrize("test", ["TEST01", "TEST04"])
def test_a_timed_test_is_judged_and_packaged_for_the_tree(
    plan: Plan, tmp_path: Path, test: str
) -> None:
    verdict = judged(plan, test, tmp_path, **SETTINGS[test])
    assert Manifest.read(verdict / "manifest.json").result["holds"] is True
    tree = tmp_path / "tree"
    trees.build(tree)
    shutil.rmtree(tree / PLACE / test)
    ignored = shutil.ignore_patterns("manifest.json", "record.json")
    shutil.copytree(verdict, tree / PLACE / test, ignore=ignored)
    report = validate(tree, "v5.1", processes=1)
    errors = {found.code for found in report.findings if found.severity is Severity.ERROR}
    # Its runs are timed by a clock of their own, so their times are those of others in the tree.
    assert errors <= {"audit-copied-log", "audit-overlap"}


def verdict_of(directory: Path) -> ComplianceVerdict:
    return verdicts.read(directory / "manifest.json", ComplianceVerdict)


def test_a_test_that_answers_otherwise_does_not_hold(plan: Plan, tmp_path: Path) -> None:
    found = verdict_of(
        judged(plan, "TEST01", tmp_path, OTHERWISE, scored=False, **SETTINGS["TEST01"])
    )
    assert not found.holds and [one.code for one in found.complaints] == ["answers"]
    assert "sample 33 differs, 1 in all" in found.why


def scoring(monkeypatch: pytest.MonkeyPatch, clip: float, fid: float) -> list[frozenset[int]]:
    """In the place of CLIP and Inception: scores of the accuracy run, and then the test's. Returns
    the samples that were scored."""
    said = iter([(31.75, 23.48), (clip, fid)])
    asked: list[frozenset[int]] = []

    def score(log: Path, files: Any, *, only: frozenset[int]) -> Any:
        asked.append(only)
        found = dict(zip(("CLIP_SCORE", "FID_SCORE"), map(str, next(said)), strict=True))
        return SimpleNamespace(text=lambda: f"Accuracy Results: {found}\n")

    home = "steps.judge.scoring"
    monkeypatch.setitem(sys.modules, f"{home}.images", SimpleNamespace(score=score))
    given = SimpleNamespace(files=lambda weights, dataset: None)
    monkeypatch.setitem(sys.modules, f"{home}.given", given)
    return asked


OTHERWISE = ANSWERS.replace('"qsl_idx" : 33, "data" : "07', '"qsl_idx" : 33, "data" : "08')


def test_answers_that_differ_and_score_alike_hold(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = scoring(monkeypatch, 31.75 * 1.009, 23.48 * 0.981)
    home = judged(plan, "TEST01", tmp_path, OTHERWISE, **SETTINGS["TEST01"])
    assert verdict_of(home).holds
    assert "TEST FAIL" in (home / "verify_accuracy.txt").read_text(encoding="utf-8")
    texts = ("baseline_accuracy.txt", "compliance_accuracy.txt")
    assert all("FID_SCORE" in (home / "accuracy" / name).read_text() for name in texts)
    assert len(asked) == 2 and asked[0] == asked[1] and 33 in asked[0]


@pytest.mark.parametrize(("clip", "fid"), [(31.75 * 0.98, 23.48), (31.75, 23.48 * 1.03)])
def test_answers_that_score_otherwise_do_not_hold(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float, fid: float
) -> None:
    scoring(monkeypatch, clip, fid)
    found = verdict_of(judged(plan, "TEST01", tmp_path, OTHERWISE, **SETTINGS["TEST01"]))
    assert not found.holds and "TEST01 fails:" in found.why


def test_equal_answers_are_not_scored(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = scoring(monkeypatch, 0.0, 0.0)
    assert verdict_of(judged(plan, "TEST01", tmp_path, **SETTINGS["TEST01"])).holds
    assert not asked


def test_only_the_test_of_answers_is_judged_where_pictures_are_scored(plan: Plan) -> None:
    one, four = (job_of(plan, "compliance_check", test) for test in ("TEST01", "TEST04"))
    assert "/images-" in one.environment and one.inputs["dataset"]
    assert "/analysis-" in four.environment and "dataset" not in four.inputs
    assert "scores" not in json.loads(four.config)


def test_a_test_that_logged_nothing_is_told_so(plan: Plan, tmp_path: Path) -> None:
    """It isn't the mode that is to blame, but LoadGen's settings."""
    found = verdict_of(judged(plan, "TEST01", tmp_path, "[\n]\n", **SETTINGS["TEST01"]))
    assert "holds no answer, so nothing was compared; place the tes" in found.why


def test_a_test_on_other_samples_is_told_so(plan: Plan, tmp_path: Path) -> None:
    other = re.sub(r'"qsl_idx" : (\d+)', r'"qsl_idx" : 9\g<1>99', ANSWERS)
    found = verdict_of(judged(plan, "TEST01", tmp_path, other, **SETTINGS["TEST01"]))
    assert "none of the 200 answers is to a sample that" in found.why


def test_a_test_that_is_too_fast_does_not_hold(plan: Plan, tmp_path: Path) -> None:
    home = judged(plan, "TEST04", tmp_path, result_samples_per_second=44.0, **SETTINGS["TEST04"])
    found = verdict_of(home)
    assert "less than 110% are allowed" in found.why
    assert (found.complaints[0].value, found.complaints[0].limit) == (44.0, 40.0)
    assert "TEST FAIL" in (home / "verify_performance.txt").read_text(encoding="utf-8")


def test_a_run_without_the_tests_settings_proves_nothing(plan: Plan, tmp_path: Path) -> None:
    found = verdict_of(judged(plan, "TEST04", tmp_path))
    assert "performance_issue_same is False, the test needs True" in found.why


def test_a_test_measured_before_its_performance_run_is_named(plan: Plan, tmp_path: Path) -> None:
    def at(home: Path, started: str, finished: str, host: str = "h") -> None:
        times = {"started": f"{DAY}T{started}+00:00", "finished": f"{DAY}T{finished}+00:00"}
        record = {"code": "c", "host": host, **times}
        (home / "record.json").write_text(json.dumps(record), encoding="utf-8")

    performance = Manifest(tmp_path / "performance", "", {}, {}, {}, {})
    run = Manifest(tmp_path / "run", "", {}, {}, {}, {})
    for manifest in (performance, run):
        manifest.directory.mkdir()
    at(performance.directory, "10:00:00", "10:20:00")
    at(run.directory, "10:10:00", "10:15:00")
    (complaint,) = early("TEST04", performance, run)
    assert "measured at 10:10:00, before its performance run ended at 10:20:00" in str(complaint)
    at(run.directory, "10:20:00", "10:25:00")
    assert not list(early("TEST04", performance, run))
    at(run.directory, "10:19:57", "10:25:00")
    assert list(early("TEST04", performance, run)), "one clock doesn't go back"
    at(run.directory, "10:19:57", "10:25:00", host="another")
    assert not list(early("TEST04", performance, run)), "two clocks differ by seconds"
    at(run.directory, "09:50:00", "10:00:09", host="another")
    assert list(early("TEST04", performance, run)), "an earlier try's"


def test_the_plan_gives_a_timed_test_the_settings_of_the_performance_run(plan: Plan) -> None:
    performance = json.loads(job_of(plan, "performance_run").config)
    for test, roles in (("TEST01", {"performance", "accuracy"}), ("TEST04", {"performance"})):
        run = json.loads(job_of(plan, "compliance_run", test).config)
        own = {"min_query_count": None}  # LoadGen's own minimum
        assert run["loadgen"] == performance["loadgen"] | own
        assert run["audit"]["mode"] == 2
        inputs = job_of(plan, "compliance_check", test).inputs
        assert {"performance", "accuracy"} & set(inputs) == roles
