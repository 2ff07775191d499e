"""The verdict on a test, as files of the test's directory in a submission."""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.base.untrusted import Damaged
from steps.config.verdicts import Complaint
from steps.judge.compliance import lengths, tokens
from steps.judge.compliance.answers import compare
from steps.judge.compliance.speed import IncomparableError, compare_speeds
from steps.judge.scoring.whole import samples_of
from steps.mlperf.accuracy_text import read_scores
from steps.mlperf.compliance import Test
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import ANSWERS, DETAIL, RUN_FILES
from steps.mlperf.loadgen_log import read_answers
from steps.mlperf.truncate import truncated

SPEED, ACCURACY = "verify_performance.txt", "verify_accuracy.txt"
SCORED = ("baseline_accuracy.txt", "compliance_accuracy.txt")
"""Scores for TEST01 where answers differ: the accuracy run's and the test's, on its samples."""

DIFFER = "answers"
"""Code of TEST01's complaint about answers that differ."""

SCORE = "exact_match"
"""The metric that TEST07 bounds."""


@dataclass(frozen=True)
class Scored:
    """Files of scores as the reference scripts print them, their benchmark and its metrics."""

    official: str
    metrics: tuple[str, ...]
    files: tuple[Path, ...]


Found = tuple[dict[str, str], tuple[Complaint, ...]]
"""The test's directory, file to text, and why the test fails."""


def require(found: Found) -> dict[str, str]:
    """The texts of a test that passes; raises UserError naming the first complaint."""
    texts, complaints = found
    for complaint in complaints:
        raise UserError(str(complaint))
    return texts


def speed(name: str, rule: Test, performance: Path, run: Path) -> Found:
    """verify_performance.txt: is the test's run as fast as it must be?

    `performance` and `run` are directories of LoadGen's logs. Without a text if the two prove
    nothing together.
    """
    try:
        speeds = compare_speeds(rule, performance, run)
    except IncomparableError as error:
        return {}, (Complaint(code="incomparable", words=str(error)),)
    texts = {SPEED: speeds.text()}
    if speeds.passed():
        return texts, ()
    complaint = Complaint(
        code="speed",
        words=f"{name} fails: {speeds.measured:g} samples/s are "
        f"{speeds.measured / speeds.reference:.1%} of the performance run's "
        f"{speeds.reference:g}, {rule.allowed()} are allowed",
        value=speeds.measured,
        limit=speeds.reference,
        fix="run both under equal conditions",
    )
    return texts, (complaint,)


def answers(
    rule: Test, accuracy: Path, run: Path, answer_type: str, scored: Scored | None = None
) -> Found:
    """verify_accuracy.txt of TEST01, and the scores where answers differ: do both runs answer
    alike, or answer otherwise and score alike?

    `accuracy` holds the accuracy run's untruncated log, `answer_type` is one of `FORMATS`.
    """
    found = compare(accuracy / ANSWERS, run / ANSWERS, answer_type)
    texts = {ACCURACY: found.text()}
    if found.passed():
        if scored is not None:
            raise UserError("both runs answer alike, so TEST01 has no scores; leave --scores out")
        return texts, ()
    if not found.performance_entries:
        words = f"TEST01 fails: {run / ANSWERS} holds no answer, so nothing was compared"
        fix = "place the test's audit.config where LoadGen looks for it, and run it again"
        return texts, (Complaint(code="empty", words=words, fix=fix),)
    if not found.matched:
        words = (
            f"TEST01 fails: none of the {found.performance_entries} answers is to a sample that "
            f"{accuracy / ANSWERS} answers"
        )
        fix = "give the untruncated logs of one system and dataset"
        return texts, (Complaint(code="unmatched", words=words, fix=fix),)
    if scored is not None:
        more, complaints = _alike(rule, scored)
        return {**texts, **more}, complaints
    differ = f"sample {found.mismatched} differs, {found.mismatches} in all"
    complaint = Complaint(
        code=DIFFER,
        words=f"TEST01 fails: of {found.performance_entries} answers {found.matched} have one in "
        f"the accuracy run{'; ' + differ if found.mismatches else ''}",
        value=float(found.mismatches),
        limit=0.0,
        fix="answers may not depend on the mode (if they vary from run to run, ./reproduce score "
        "both logs with --samples-of the test's, and give both texts as --scores)",
    )
    return texts, (complaint,)


def _alike(rule: Test, scored: Scored) -> Found:
    found = []
    for metric in scored.metrics:
        before, after = (score_in(path, metric) for path in scored.files)
        if moved := rule.moved(scored.official, metric, before, after):
            words = f"TEST01 fails: {moved}"
            found.append(Complaint(code=metric, words=words, value=after, limit=before))
    texts = {name: _text(path) for name, path in zip(SCORED, scored.files, strict=True)}
    return texts, tuple(found)


def score_in(path: Path, metric: str) -> float:
    """The value of a metric in an accuracy.txt; raises UserError without one."""
    try:
        printed = read_scores(path, (metric,))
    except Damaged as damage:
        raise UserError(f"{path}: {damage}; score the log again") from damage
    if metric not in printed:
        raise UserError(f"{path} has no {metric}; score the log again")
    return float(printed[metric][-1][1])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")  # read_scores says what is wrong with it


def full_accuracy(rule: Test, run: Path, official: str, path: Path) -> Found:
    """verify_accuracy.txt of TEST07: does its run score as required? `path`: what the benchmark's
    own script prints of the test's log.
    """
    logged, wanted = len(samples_of(run / ANSWERS)), rule.samples(official)
    if logged < wanted:
        words = f"TEST07 fails: {logged} samples were logged, it needs {wanted}"
        fix = "place the test's audit.config where LoadGen looks for it"
        few = Complaint(
            code="samples", words=words, value=float(logged), limit=float(wanted), fix=fix
        )
        return {}, (few,)
    score = score_in(path, SCORE)
    if missed := rule.missed(official, score):
        words = f"TEST07 fails: {SCORE} is {score:g}, {missed}"
        return {}, (Complaint(code=SCORE, words=words, value=score),)
    summary = (
        "TEST07 Verification Summary\n"
        f"Accuracy score: {score}\n"
        f"Accuracy threshold: {rule.bounds[official]['minimum']}\n"
        "Accuracy check pass: True\nTEST PASS\n"
    )
    return {ACCURACY: f"{_text(path).rstrip()}\n\n{summary}"}, ()


def output_lengths(rule: Test, run: Path, official: str) -> Found:
    """verify_output_len.txt of TEST09: are answers as long as required?"""
    found = lengths.measure(read_answers(run / ANSWERS))
    complaints = tuple(lengths.complaints(found, rule, official))
    return {} if complaints else {lengths.LENGTHS: lengths.text(found, rule, official)}, complaints


def consistency(rule: Test, run: Path, ends: Collection[int]) -> tuple[str, tokens.Findings]:
    """verify_accuracy.txt of TEST06, and what was counted; raises UserError unless its log holds.

    `ends`: the model's end-of-sequence tokens.
    """
    detail = read_detail(run / DETAIL)
    for key, wanted in (
        ("effective_test_mode", "PerformanceOnly"),
        ("effective_accuracy_log_sampling_target", rule.audit["accuracy_log_sampling_target"]),
    ):
        if (logged := detail.get(key)) != wanted:
            raise UserError(
                f"{detail.path}: {key} is {logged}, the test needs {wanted}; place the test's "
                "audit.config where LoadGen looks for it"
            )
    timed = detail.get("effective_scenario") != "Offline"
    found = tokens.examine(read_answers(run / ANSWERS), ends, timed=timed)
    for complaint in tokens.complaints(found, "TEST06 fails", rule.min_samples):
        raise UserError(str(complaint))
    return tokens.text(timed=timed), found


def package_answers(target: Path, run: Path, text: str) -> None:
    """Fill `target` with what TEST06 leaves: its verdict, and the answers as a whole."""
    (target / ACCURACY).write_text(text, encoding="utf-8")
    (target / "accuracy").mkdir()
    shutil.copyfile(run / ANSWERS, target / "accuracy" / ANSWERS)


def package(target: Path, run: Path, texts: Mapping[str, str], *, whole: bool = False) -> None:
    """Fill `target` with `texts` and the test's logs; its answers too if they were verified.

    `whole`: the log of answers isn't truncated, and so has no hash.
    """
    logs = target / "performance/run_1"
    logs.mkdir(parents=True)
    for name in RUN_FILES:
        shutil.copyfile(run / name, logs / name)
    for name, text in texts.items():
        path = target / "accuracy" / name if name in SCORED else target / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    home = target / "accuracy"
    if whole:
        home.mkdir(exist_ok=True)
        shutil.copyfile(run / ANSWERS, home / ANSWERS)
    elif ACCURACY in texts:
        short, digest = truncated(run / ANSWERS)
        home.mkdir(exist_ok=True)
        (home / ANSWERS).write_bytes(short)
        (home / "accuracy.txt").write_text(f"\nhash={digest}\n", encoding="utf-8")
