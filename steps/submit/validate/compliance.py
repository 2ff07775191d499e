"""compliance/<system>/<model>/<scenario>/TESTnn: what each test leaves and must show."""

import json
import math
import re
from array import array
from collections.abc import Iterator, Mapping

from steps.base.untrusted import Damaged, lines_in, lines_of, sha256_of, text_of
from steps.judge.compliance.tokens import fault
from steps.mlperf.accuracy_text import read_scores
from steps.mlperf.detail import Detail, examined
from steps.mlperf.loadgen import ANSWERS, DETAIL
from steps.mlperf.loadgen_log import entries_of, sample_of
from steps.submit.validate.accuracy import SCORES, check_answers, is_shortened
from steps.submit.validate.counted import PRINTED, SHORTENED, check_counted
from steps.submit.validate.findings import Severity
from steps.submit.validate.performance import Judge, check_files, check_measured
from steps.submit.validate.tree import TOLERATED_FILES

VERIFY_ACCURACY, VERIFY_PERFORMANCE = "verify_accuracy.txt", "verify_performance.txt"
PASSED = "TEST PASS"
TEST06_LINES = ("EOS check pass: True", "Sample length check pass: True")
FIRST_TOKEN, FIRST_TOKEN_SKIPPED = "First token check pass: True", "First token check pass: Skipped"
TEST01_EXTRA = ("baseline_accuracy.txt", "compliance_accuracy.txt")
TOKEN_TYPES: Mapping[int, str] = {4: "i", 8: "q", 2: "h"}
"""By the bytes of a logged token: its type, for array."""

TIMED = ("TEST01", "TEST04")
"""Tests of full length, whose speed is compared with the performance run's."""

_SCORE = re.compile(r"(reference|test) score\s*=\s*([0-9.]+)", re.IGNORECASE)


def check_compliance(judge: Judge, official: str, result: float | None) -> dict[str, str]:
    """The sha256 of each test's accuracy log, by test. `result`: of the performance run, per s."""
    digests: dict[str, str] = {}
    parent = judge.place.compliance
    tests = judge.benchmark.compliance_tests
    if tests and not judge.tree.is_directory(parent):
        judge.findings.add("compliance-missing", parent, f"{', '.join(tests)} are required")
        return digests
    for test in tests:
        folder = f"{parent}/{test}"
        if not judge.tree.is_directory(folder):
            judge.findings.add("compliance-missing", folder, f"{test} is required")
            continue
        if test == "TEST06":
            _check_test06(judge, folder, digests)
        elif test in TIMED:
            _check_timed(judge, test, folder, result)
            if test == "TEST01":
                _check_test01_accuracy(judge, folder, official)
        elif test in PRINTED:
            check_counted(judge, test, folder, official)
        else:
            what = f"{test} is not known to this validator"
            judge.findings.add("compliance-not-checked", folder, what, severity=Severity.ERROR)
    return digests


def _lines(judge: Judge, path: str) -> list[str]:
    if not judge.tree.is_file(path):
        judge.findings.add("compliance-files", path, f"{path.rsplit('/', 1)[1]} is missing")
        return []
    try:
        return [line.strip() for line in lines_in(text_of(judge.tree.at(path)))]
    except Damaged as damage:
        judge.findings.add("compliance-failed", path, str(damage), line=damage.line)
        return []


def _check_test06(judge: Judge, folder: str, digests: dict[str, str]) -> None:
    path = f"{folder}/{VERIFY_ACCURACY}"
    if not judge.tree.is_file(path):
        judge.findings.add("compliance-files", path, f"{VERIFY_ACCURACY} is missing")
        return
    lines = _lines(judge, path)
    for wanted in TEST06_LINES:
        if wanted not in lines:
            judge.findings.add("compliance-failed", path, f"no line {wanted!r}")
    if FIRST_TOKEN not in lines:
        if FIRST_TOKEN_SKIPPED not in lines:
            judge.findings.add("compliance-failed", path, f"no line {FIRST_TOKEN!r}")
        elif judge.ran != "Offline":
            what = f"the first token was not checked in {judge.scenario}"
            judge.findings.add("compliance-first-token", path, what)
    log = f"{folder}/accuracy/{ANSWERS}"
    if not judge.tree.is_file(log):
        judge.findings.add("compliance-log-missing", log, "the log of the test is missing")
        return
    try:
        _check_test06_log(judge, log)
        digests["TEST06"] = sha256_of(judge.tree.at(log))
    except Damaged as damage:
        judge.findings.add("compliance-log", log, str(damage), line=damage.line)


def _check_test06_log(judge: Judge, path: str) -> None:
    """The three checks again, on the log; raises Damaged at the first bad entry."""
    count = 0
    shortened = is_shortened(judge, path)
    if shortened:
        judge.findings.add("compliance-log-missing", path, SHORTENED)
    entries = _whole_entries(judge, path) if shortened else entries_of(judge.tree.at(path))
    for number, text in entries:
        count += 1
        if complaint := _complaint(judge, text):
            raise Damaged(complaint, number)
    wanted = judge.rules.compliance["TEST06"].min_samples
    if count < wanted:
        raise Damaged(f"it has {count} answers, {wanted} are required")


def _whole_entries(judge: Judge, path: str) -> Iterator[tuple[int, bytes]]:
    """Those that a shortened log still has from their first to their last byte."""
    for number, line in lines_of(judge.tree.at(path)):
        text = line.strip().rstrip(b",")
        if text.startswith(b"{") and text.endswith(b"}"):
            yield number, text


def _complaint(judge: Judge, text: bytes) -> str:
    try:
        entry = json.loads(text)
        data, first = bytes.fromhex(entry["data"]), bytes.fromhex(entry.get("token_data", ""))
        count, index = int(entry["token_count"]), sample_of(entry)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        return f"no answer of LoadGen's ({type(error).__name__}: {error})"[:160]
    if not 0 <= index < judge.benchmark.dataset_size:
        return f"there is no sample {index} in the dataset"
    width = next((width for width in TOKEN_TYPES if count * width == len(data)), 0)
    if not width:
        return f"sample {index} has {len(data)} bytes, {count} tokens were counted"
    whole = b"" if len(first) % width else first
    tokens, began = (array(TOKEN_TYPES[width], part) for part in (data, whole))
    timed = judge.ran != "Offline"
    wrong = fault(tokens, began, count, judge.benchmark.eos_token_ids, timed=timed)
    return f"sample {index} {wrong}" if wrong else ""


def _check_timed(judge: Judge, test: str, folder: str, result: float | None) -> None:
    """Check a test of full length: the log, its settings, and the verification's comparison."""
    verified = f"{folder}/{VERIFY_PERFORMANCE}"
    lines = _lines(judge, verified)
    if judge.tree.is_file(verified) and not any(PASSED in line for line in lines):
        judge.findings.add("compliance-failed", verified, f"no {PASSED!r}")
    run = f"{folder}/performance/run_1"
    if not judge.tree.is_directory(run):
        judge.findings.add("compliance-files", run, "the directory is missing")
        return
    if not check_files(judge, run, "compliance-files", ANSWERS):
        return
    path = f"{run}/{DETAIL}"
    detail = examined(judge.tree.at(path))
    check_measured(judge, detail, run)
    _check_settings(judge, test, detail, path)
    key = (
        "result_samples_per_second"
        if judge.ran == "Offline"
        else ("result_completed_samples_per_sec")
    )
    _check_speed(judge, test, verified, lines, detail.number(key), result)


def _check_settings(judge: Judge, test: str, detail: Detail, path: str) -> None:
    rule = judge.rules.compliance[test]
    wanted = rule.settings()
    if not rule.logs_answers:
        wanted["effective_accuracy_log_sampling_target"] = 0
    for key, value in wanted.items():
        found = detail.values.get(key)
        if found is not None and found != value:
            what = f"{key} is {found}, {test} sets {value}"
            judge.findings.add("compliance-settings", path, what, line=detail.line(key))
    key = "effective_accuracy_log_sampling_target"
    if test == "TEST01" and detail.number(key) == 0:
        what = f"{key} is 0: no answer was logged to compare"
        judge.findings.add("compliance-settings", path, what, line=detail.line(key))


def _check_speed(
    judge: Judge,
    test: str,
    path: str,
    lines: list[str],
    measured: float | None,
    reference: float | None,
) -> None:
    """Compare the verification's output with the logs, and repeat its verdict."""
    if measured is None or reference is None or reference <= 0:
        return  # reported with the logs
    actual = {"reference": reference, "test": measured}
    for number, line in enumerate(lines, start=1):
        found = _SCORE.match(line)
        if not found:
            continue
        expected = actual[found[1].lower()]
        if not _agrees(found[2], expected):
            what = f"{found[1]} score is {found[2][:40]}, the log says {expected:g}"
            judge.findings.add("compliance-contradicts", path, what, line=number)
    rule = judge.rules.compliance[test]
    if not rule.fast_enough(measured, reference):
        what = (
            f"{test} ran at {measured / reference:.1%} of the performance run's speed, "
            f"{rule.allowed()} are allowed"
        )
        judge.findings.add("compliance-speed", path, what)


def _agrees(printed: str, logged: float) -> bool:
    """A summary gives rates to two decimals, a detail log to six digits."""
    try:
        return math.isclose(float(printed), logged, rel_tol=1e-4, abs_tol=0.006)
    except ValueError:
        return False


def _check_test01_accuracy(judge: Judge, folder: str, official: str) -> None:
    verified = f"{folder}/{VERIFY_ACCURACY}"
    passed = any(PASSED in line for line in _lines(judge, verified))
    home = f"{folder}/accuracy"
    files = judge.tree.files(home)
    wanted = {ANSWERS, SCORES, *(() if passed else TEST01_EXTRA)}
    for name in sorted(wanted ^ (set(files) - set(TOLERATED_FILES))):
        state = "is missing" if name in wanted else "does not belong here"
        judge.findings.add("compliance-files", f"{home}/{name}", f"{name} {state}")
    if ANSWERS in files:
        check_answers(judge, f"{home}/{ANSWERS}", files[ANSWERS], ())
    if not passed and wanted <= set(files):
        _check_delta(judge, home, official)


def _check_delta(judge: Judge, home: str, official: str) -> None:
    """Answers may differ from run to run if the metrics stay."""
    metrics = tuple(judge.benchmark.minimum(judge.scenario))
    try:
        baseline, compliance = (
            read_scores(judge.tree.at(f"{home}/{name}"), metrics) for name in TEST01_EXTRA
        )
    except Damaged as damage:
        judge.findings.add("compliance-delta", home, str(damage), line=damage.line)
        return
    for metric in metrics:
        if metric not in baseline or metric not in compliance:
            judge.findings.add("compliance-delta", home, f"{metric} is missing")
            continue
        before, after = float(baseline[metric][-1][1]), float(compliance[metric][-1][1])
        if moved := judge.rules.compliance["TEST01"].moved(official, metric, before, after):
            judge.findings.add("compliance-delta", home, moved)
