"""TEST07, TEST08 and TEST09 of v6: their verification's output, compared with the log."""

import json

from steps.base.untrusted import Damaged, lines_in, text_of
from steps.judge.compliance.lengths import LENGTHS, MEAN
from steps.mlperf.accuracy_text import LABELS
from steps.mlperf.compliance import Test
from steps.mlperf.loadgen import ANSWERS
from steps.mlperf.loadgen_log import entries_of, sample_of, token_bytes
from steps.submit.validate.accuracy import is_shortened
from steps.submit.validate.performance import Judge

PASSED = "TEST PASS"
PRINTED = {"TEST07": "verify_accuracy.txt", "TEST08": "verify_accuracy.txt", "TEST09": LENGTHS}
SHORTENED = "only the two ends of the test's log are there"
ROUNDED = 0.006
"""How far a mean may be from its two printed decimals."""


def check_counted(judge: Judge, test: str, folder: str, official: str) -> None:
    """`official` is the benchmark's name."""
    path = f"{folder}/{PRINTED[test]}"
    if not judge.tree.is_file(path):
        judge.findings.add("compliance-files", path, f"{PRINTED[test]} is missing")
        return
    try:
        lines = [line.strip() for line in lines_in(text_of(judge.tree.at(path)))]
    except Damaged as damage:
        judge.findings.add("compliance-failed", path, str(damage), line=damage.line)
        return
    # Of TEST08 the official checker wants the whole line.
    if PASSED not in (lines if test == "TEST08" else "\n".join(lines)):
        judge.findings.add("compliance-failed", path, f"no {PASSED!r}")
    rule = judge.rules.compliance.get(test)
    if test == "TEST08" or rule is None or official not in rule.bounds:
        what = f"{test} of {official} can't be computed again"
        judge.findings.add("compliance-not-checked", folder, what)
        return
    printed = _printed(lines, f"{MEAN}:" if test == "TEST09" else LABELS["exact_match"][0])
    if printed is None:
        judge.findings.add("compliance-failed", path, "it doesn't say what was counted")
    elif missed := rule.missed(official, printed):
        judge.findings.add("compliance-failed", path, f"{printed:g} was counted, {missed}")
    _check_log(judge, test, f"{folder}/accuracy/{ANSWERS}", (path, printed), rule, official)


def _printed(lines: list[str], label: str) -> float | None:
    """The number behind the last such label."""
    for line in reversed(lines):
        _, found, rest = line.rpartition(label)
        if found:
            try:
                return float(rest.strip().split(",")[0].rstrip("}").strip("'"))
            except ValueError:
                return None
    return None


def _check_log(
    judge: Judge,
    test: str,
    path: str,
    printed: tuple[str, float | None],
    rule: Test,
    official: str,
) -> None:
    """Count again if the complete log is there; not every submitter can include it."""
    if not judge.tree.is_file(path):
        what = "the log of the test is missing"
        judge.findings.add("compliance-log-missing", path, what)
        return
    try:
        if is_shortened(judge, path):
            judge.findings.add("compliance-log-missing", path, SHORTENED)
            return
        samples, mean = _counted(judge, path)
    except Damaged as damage:
        judge.findings.add("compliance-log", path, str(damage), line=damage.line)
        return
    if samples < rule.samples(official):
        what = f"it answers {samples} samples, {rule.samples(official)} are required"
        judge.findings.add("compliance-log", path, what)
    if test != "TEST09":
        return
    if missed := rule.missed(official, mean):
        what = f"answers have {mean:.2f} tokens on average, {missed}"
        judge.findings.add("compliance-log", path, what)
    if printed[1] is not None and abs(printed[1] - mean) > ROUNDED:
        what = f"{MEAN} is {printed[1]:g}, the log says {mean:.2f}"
        judge.findings.add("compliance-contradicts", printed[0], what)


def _counted(judge: Judge, path: str) -> tuple[int, float]:
    """How many different samples are answered, and the mean of tokens over all answers."""
    samples, answers, tokens = set(), 0, 0
    width = token_bytes(judge.tree.at(path))
    for number, text in entries_of(judge.tree.at(path)):
        try:
            entry = json.loads(text)
            samples.add(sample_of(entry))
            tokens += len(entry["data"]) // (2 * width)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise Damaged(f"no answer of LoadGen's ({error})"[:160], number) from error
        answers += 1
    return len(samples), tokens / max(1, answers)
