"""Accuracy runs: the log's ends, accuracy.txt, and the images of image benchmarks."""

import math
import re
from dataclasses import dataclass

from steps.base.untrusted import Damaged, open_regular, reason_of, sha256_of
from steps.mlperf.accuracy_text import Scores, read_scores
from steps.mlperf.detail import Detail, examined
from steps.mlperf.loadgen import ANSWERS, DETAIL, RUN_FILES, SUMMARY
from steps.submit.validate.findings import Severity
from steps.submit.validate.performance import (
    Judge,
    check_files,
    check_log,
    check_seeds,
)
from steps.submit.validate.summary import check_summary

SCORES = "accuracy.txt"
MAX_LOG_BYTES = 10 << 10
"""MAX_ACCURACY_LOG_SIZE of the official checker (v5.1.1), inclusive."""

GAP = re.compile(rb"(\r?\n){2}\.{3}(\r?\n){2}")
"""The text between a log's ends by tools/submission/truncate_accuracy_log.py, on any system."""

FIRST_ENTRY = re.compile(rb'\s*\[\s*\{\s*"seq_id"\s*:\s*\d+\s*,\s*"qsl_idx"\s*:\s*\d+\s*,')
SHA256 = re.compile(r"[0-9a-f]{64}")
IMAGE_SIDE_PIXELS = 1024


@dataclass(frozen=True)
class Scored:
    """`text` is the cell of the results table; `hashes` are the digests in accuracy.txt, `packaged`
    that of the log as it is in the tree ("" if it isn't).
    """

    detail: Detail
    text: str
    hashes: tuple[str, ...]
    packaged: str


def check_accuracy(judge: Judge) -> Scored | None:
    """None if there is no accuracy.txt to judge."""
    folder = f"{judge.place.results}/accuracy"
    findings = judge.findings
    files = judge.tree.files(folder)
    if SCORES not in files:
        findings.add("accuracy-missing", f"{folder}/{SCORES}", "accuracy.txt is missing")
        return None
    wanted = (*RUN_FILES, SCORES, ANSWERS)
    detail = Detail()
    if check_files(judge, folder, "accuracy-files", wanted=wanted):
        path = f"{folder}/{DETAIL}"
        detail = examined(judge.tree.at(path))
        _check_run(judge, detail, path)
        check_summary(judge.tree, f"{folder}/{SUMMARY}", detail, findings)
    text, hashes = _check_scores(judge, f"{folder}/{SCORES}")
    packaged = ""
    if ANSWERS in files:
        packaged = check_answers(judge, f"{folder}/{ANSWERS}", files[ANSWERS], hashes)
    _check_compliance_files(judge, folder)
    return Scored(detail, text, hashes, packaged)


def _check_run(judge: Judge, detail: Detail, path: str) -> None:
    findings = judge.findings
    check_log(detail, path, findings)
    for error in detail.errors:
        what = f"LoadGen's error: {error.words}"
        findings.add("accuracy-error", path, what, line=error.line)
    if detail.number("num_errors"):
        line = detail.line("num_errors")
        findings.add("accuracy-error", path, "num_errors is not 0", line=line)
    key = "effective_test_mode"
    if (mode := detail.text(key)) != "AccuracyOnly":
        what = f"the mode is {mode or 'missing'}"
        samples = detail.number("result_query_count")
        if sampled := detail.number("effective_accuracy_log_sampling_target"):
            what += f" with {sampled:g} logged answers: a compliance test's run"
        elif samples is not None:
            what += f" with {samples:g} queries"
        findings.add("accuracy-mode", path, what, line=detail.line(key))
    _check_dataset(judge, detail, path)
    key = "effective_scenario"
    if (scenario := detail.text(key)) != judge.ran:
        what = f"{key} is {scenario or 'missing'}, {judge.scenario} needs {judge.ran}"
        findings.add("accuracy-scenario", path, what, line=detail.line(key))
    check_seeds(judge, detail, path, "accuracy-seed")


def _check_dataset(judge: Judge, detail: Detail, path: str) -> None:
    """LoadGen 6 logs besides how many of the samples an accuracy run takes."""
    wanted = judge.benchmark.accuracy_samples(judge.scenario)
    key, there = "effective_accuracy_sample_count", "qsl_reported_total_count"
    total, taken = detail.number(there), detail.number(key)
    if taken is None or (total is not None and total < taken):
        key, taken = there, total
    if taken != wanted:
        shown = "missing" if taken is None else f"{taken:g}"
        what = f"{key} is {shown}, the dataset has {wanted}"
        judge.findings.add("accuracy-dataset", path, what, line=detail.line(key))


def _check_scores(judge: Judge, path: str) -> tuple[str, tuple[str, ...]]:
    """The table's cell and the hashes; either may be empty."""
    findings = judge.findings
    minimum = judge.benchmark.minimum(judge.scenario)
    maximum = judge.benchmark.maximum(judge.scenario)
    metrics = tuple(dict.fromkeys((*minimum, *maximum)))
    try:
        scores = read_scores(judge.tree.at(path), metrics)
    except Damaged as damage:
        findings.add("accuracy-text-damaged", path, str(damage), line=damage.line)
        return "", ()
    # The open division reports what it reached.
    missed = None if judge.place.closed else Severity.WARNING
    for metric in metrics:
        if metric not in scores and metric in minimum:
            some = missed if any(name in scores for name in minimum) else None
            findings.add("accuracy-metric", path, f"{metric} is missing", severity=some)
        for line, value in scores.get(metric, ()):
            low, high = minimum.get(metric, -math.inf), maximum.get(metric, math.inf)
            if float(value) < low:
                what = f"{metric} is {value}, at least {low:.10g} is required"
                findings.add("accuracy-low", path, what, line=line, severity=missed)
            if float(value) > high:
                what = f"{metric} is {value}, at most {high:.10g} is allowed"
                findings.add("accuracy-high", path, what, line=line, severity=missed)
    _check_sample_count(judge, path, scores)
    cell = "  ".join(f"{name}: {scores[name][-1][1]}" for name in minimum if name in scores)
    return cell, _hashes(judge, path, scores)


def _check_sample_count(judge: Judge, path: str, scores: Scores) -> None:
    wanted = judge.benchmark.accuracy_samples(judge.scenario)
    for line, value in scores.get("samples", ()):
        if float(value) != wanted:
            what = f"gen_num is {value}: {value} samples were scored, the dataset has {wanted}"
            judge.findings.add("accuracy-sample-count", path, what, line=line)


def _hashes(judge: Judge, path: str, scores: Scores) -> tuple[str, ...]:
    """The truncation tool adds one each time that it finds a log too long."""
    hashes = scores.get("hash", [])
    if not hashes:
        softer = None if judge.place.closed else Severity.WARNING
        judge.findings.add("accuracy-hash-missing", path, "no hash= line", severity=softer)
    for line, value in hashes:
        if not SHA256.fullmatch(value):
            what = f"hash={value[:64]} is no sha256"
            judge.findings.add("accuracy-hash-format", path, what, line=line)
    return tuple(dict.fromkeys(value for _, value in hashes if SHA256.fullmatch(value)))


def check_answers(judge: Judge, path: str, size: int, hashes: tuple[str, ...]) -> str:
    """mlperf_log_accuracy.json as packaged: at most 10 KiB, whole or its two ends. Its sha256, ""
    for a longer one.
    """
    findings = judge.findings
    if size > MAX_LOG_BYTES:
        softer = None if judge.place.closed else Severity.WARNING
        what = f"it has {size} bytes, at most {MAX_LOG_BYTES} are allowed"
        findings.add("accuracy-not-truncated", path, what, severity=softer)
    try:
        with open_regular(judge.tree.at(path)) as stream:
            head = stream.read(MAX_LOG_BYTES)
        if not FIRST_ENTRY.match(head):
            findings.add("accuracy-log-shape", path, "it doesn't begin with an answer of LoadGen's")
        elif size <= MAX_LOG_BYTES and not head.rstrip().endswith(b"]"):
            findings.add("accuracy-log-shape", path, "it doesn't end with a closing bracket")
        packaged = sha256_of(judge.tree.at(path)) if size <= MAX_LOG_BYTES else ""
        if hashes and packaged and not _has_gap(head) and packaged not in hashes:
            what = f"the log is whole and its sha256 is not {hashes[-1][:12]}…"
            findings.add("accuracy-hash-wrong", path, what)
        return packaged
    except (Damaged, OSError) as error:
        findings.add("accuracy-log-shape", path, str(error))
        return ""


def _has_gap(head: bytes) -> bool:
    return b"..." in head and GAP.search(head) is not None


def is_shortened(judge: Judge, path: str) -> bool:
    """Whether only the ends of an accuracy log are there; raises Damaged if it can't be read."""
    with open_regular(judge.tree.at(path)) as stream:
        try:
            return _has_gap(stream.read(MAX_LOG_BYTES))
        except OSError as error:
            raise Damaged(f"it can't be read ({reason_of(error)})") from error


def _check_compliance_files(judge: Judge, folder: str) -> None:
    if not judge.place.closed and not judge.rules.open_images:
        return
    for kind, stems in judge.benchmark.extra_accuracy_files.items():
        home = f"{folder}/{kind}"
        names = judge.tree.files(home)
        by_stem = {name.split(".")[0]: name for name in names}
        missing = [stem for stem in stems if stem not in by_stem]
        if missing:
            what = f"{len(missing)} of {len(stems)} are missing: {', '.join(missing)}"
            judge.findings.add("accuracy-images-missing", home, what)
        elif "captions" not in by_stem:
            judge.findings.add("accuracy-captions-missing", home, "captions.txt is missing")
        for stem in stems:
            if stem in by_stem and kind == "images":
                _check_image(judge, f"{home}/{by_stem[stem]}")


def _check_image(judge: Judge, path: str) -> None:
    """PNG or JPEG by its first bytes; a PNG's size stands in its header."""
    try:
        with open_regular(judge.tree.at(path)) as stream:
            head = stream.read(24)
    except (Damaged, OSError) as error:
        judge.findings.add("accuracy-image-fake", path, str(error))
        return
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
        if (width, height) != (IMAGE_SIDE_PIXELS, IMAGE_SIDE_PIXELS):
            what = (
                f"it has {width} x {height} pixels, not {IMAGE_SIDE_PIXELS} x {IMAGE_SIDE_PIXELS}"
            )
            judge.findings.add("accuracy-image-fake", path, what)
    elif not head.startswith(b"\xff\xd8\xff"):
        judge.findings.add("accuracy-image-fake", path, "it is neither PNG nor JPEG")
