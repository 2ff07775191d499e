"""Accuracy runs: the log's ends, accuracy.txt, and the images of image benchmarks."""

import math
import re
from dataclasses import dataclass

from steps.base.untrusted import Damaged, open_regular, sha256_of
from steps.mlperf.accuracy_text import Scores, read_scores
from steps.mlperf.loadgen import ANSWERS, DETAIL, RUN_FILES, SUMMARY, loadgen_scenario
from steps.submit.validate.detail import Detail, read_detail
from steps.submit.validate.findings import Severity
from steps.submit.validate.performance import (
    TOLERATED_FILES,
    Judge,
    check_log,
    check_seeds,
)
from steps.submit.validate.summary import check_summary

SCORES = "accuracy.txt"
MAX_LOG_BYTES = 10 << 10
"""MAX_ACCURACY_LOG_SIZE of the official checker (v5.1.1), inclusive."""

GAP = b"\n\n...\n\n"
"""What tools/submission/truncate_accuracy_log.py puts between the ends of a log."""

FIRST_ENTRY = re.compile(rb'\s*\[\s*\{\s*"seq_id"\s*:\s*\d+\s*,\s*"qsl_idx"\s*:\s*\d+\s*,')
SHA256 = re.compile(r"[0-9a-f]{64}")
IMAGE_SIDE_PIXELS = 1024


@dataclass(frozen=True)
class Scored:
    """`text` is the cell of the results table; `hash` the digest in accuracy.txt, if one."""

    detail: Detail
    text: str
    hash: str


def check_accuracy(judge: Judge) -> Scored | None:
    """None if there is no accuracy.txt to judge."""
    folder = f"{judge.place.results}/accuracy"
    findings = judge.findings
    files = judge.tree.files(folder)
    if SCORES not in files:
        findings.add("accuracy-missing", f"{folder}/{SCORES}", "accuracy.txt is missing")
        return None
    wanted = {*RUN_FILES, SCORES, ANSWERS}
    for name in sorted(wanted - set(files)):
        findings.add("accuracy-files", f"{folder}/{name}", f"{name} is missing")
    for name in sorted(set(files) - wanted - set(TOLERATED_FILES)):
        findings.add("accuracy-files", f"{folder}/{name}", f"{name} does not belong here")
    detail = Detail()
    if DETAIL in files:
        path = f"{folder}/{DETAIL}"
        detail = read_detail(judge.tree.at(path))
        _check_run(judge, detail, path)
        check_summary(judge.tree, f"{folder}/{SUMMARY}", detail, findings)
    text, digest = _check_scores(judge, f"{folder}/{SCORES}")
    if ANSWERS in files:
        check_answers(judge, f"{folder}/{ANSWERS}", files[ANSWERS], digest)
    _check_compliance_files(judge, folder)
    return Scored(detail, text, digest)


def _check_run(judge: Judge, detail: Detail, path: str) -> None:
    findings, benchmark = judge.findings, judge.benchmark
    check_log(detail, path, findings)
    for line, what in detail.errors:
        findings.add("accuracy-error", path, f"LoadGen's error: {what}", line=line)
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
    key = "qsl_reported_total_count"
    if (total := detail.number(key)) != benchmark.dataset_size:
        shown = "missing" if total is None else f"{total:g}"
        what = f"{key} is {shown}, the dataset has {benchmark.dataset_size}"
        findings.add("accuracy-dataset", path, what, line=detail.line(key))
    key = "effective_scenario"
    wanted = loadgen_scenario(judge.scenario)
    if (scenario := detail.text(key)) != wanted:
        what = f"{key} is {scenario or 'missing'}, {judge.scenario} needs {wanted}"
        findings.add("accuracy-scenario", path, what, line=detail.line(key))
    check_seeds(judge, detail, path, "accuracy-seed")


def _check_scores(judge: Judge, path: str) -> tuple[str, str]:
    """The table's cell and the hash; either may be empty."""
    findings = judge.findings
    minimum = judge.benchmark.minimum(judge.scenario)
    maximum = judge.benchmark.maximum(judge.scenario)
    metrics = tuple(dict.fromkeys((*minimum, *maximum)))
    try:
        scores = read_scores(judge.tree.at(path), metrics)
    except Damaged as damage:
        findings.add("accuracy-text-damaged", path, str(damage), line=damage.line)
        return "", ""
    # The open division reports what it reached.
    missed = None if judge.place.closed else Severity.WARNING
    for metric in metrics:
        if metric not in scores:
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
    return cell, _hash(judge, path, scores)


def _check_sample_count(judge: Judge, path: str, scores: Scores) -> None:
    wanted = judge.benchmark.accuracy_samples(judge.scenario)
    for line, value in scores.get("samples", ()):
        if float(value) != wanted:
            what = f"gen_num is {value}: {value} samples were scored, the dataset has {wanted}"
            judge.findings.add("accuracy-sample-count", path, what, line=line)


def _hash(judge: Judge, path: str, scores: Scores) -> str:
    hashes = scores.get("hash", [])
    softer = None if judge.place.closed else Severity.WARNING
    if not hashes:
        judge.findings.add("accuracy-hash-missing", path, "no hash= line", severity=softer)
        return ""
    if len({value for _, value in hashes}) > 1:
        line = hashes[1][0]
        judge.findings.add("accuracy-hash-format", path, "two different hashes", line=line)
    line, value = hashes[0]
    if not SHA256.fullmatch(value):
        what = f"hash={value[:64]} is no sha256"
        judge.findings.add("accuracy-hash-format", path, what, line=line)
        return ""
    return value


def check_answers(judge: Judge, path: str, size: int, digest: str) -> None:
    """mlperf_log_accuracy.json as packaged: at most 10 KiB, whole or its two ends."""
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
        elif digest and GAP not in head and sha256_of(judge.tree.at(path)) != digest:
            what = f"the log is whole and its sha256 is not {digest[:12]}…"
            findings.add("accuracy-hash-wrong", path, what)
    except (Damaged, OSError) as error:
        findings.add("accuracy-log-shape", path, str(error))


def _check_compliance_files(judge: Judge, folder: str) -> None:
    """Only the closed division owes them."""
    if not judge.place.closed:
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
