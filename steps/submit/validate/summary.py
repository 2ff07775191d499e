"""mlperf_log_summary.txt beside the detail log of the same run."""

import math
import re
from collections.abc import Mapping

from steps.base.untrusted import Damaged, text_of
from steps.mlperf.detail import Detail
from steps.submit.validate.findings import Findings
from steps.submit.validate.tree import Tree

TEXTS: Mapping[str, str] = {
    "Scenario": "effective_scenario",
    "Mode": "effective_test_mode",
    "Result is": "result_validity",
}
NUMBERS: Mapping[str, str] = {
    "Samples per second": "result_samples_per_second",
    "Completed samples per second": "result_completed_samples_per_sec",
    "Tokens per second": "result_tokens_per_second",
    "Completed tokens per second": "result_completed_tokens_per_second",
    "qsl_rng_seed": "effective_qsl_rng_seed",
    "sample_index_rng_seed": "effective_sample_index_rng_seed",
    "schedule_rng_seed": "effective_schedule_rng_seed",
}
"""Labels of the summary, and the detail log's key for the same value."""

MAX_LINE_CHARACTERS = 300
ROUNDED = 0.006
"""The summary gives rates to two decimals."""

_LINE = re.compile(r"^([A-Za-z][A-Za-z_ ]*?)(?: \(ns\))?\s*:\s*(\S.*)$")


def check_summary(tree: Tree, path: str, detail: Detail, findings: Findings) -> None:
    """`path`: the summary; `detail`: the detail log beside it."""
    if not tree.is_file(path):
        return  # the list of files is checked elsewhere
    try:
        text = text_of(tree.at(path))
    except Damaged as damage:
        findings.add("summary-damaged", path, str(damage), line=damage.line)
        return
    if not text.strip():
        findings.add("summary-empty", path, "it is empty")
        return
    for number, line in enumerate(text.splitlines(), start=1):
        found = _LINE.match(line[:MAX_LINE_CHARACTERS])
        if found and (words := _contradiction(found[1].strip(), found[2].strip(), detail)):
            findings.add("summary-contradicts", path, words, line=number)


def _contradiction(name: str, value: str, detail: Detail) -> str:
    if name in TEXTS:
        logged = detail.text(TEXTS[name])
        return (
            f"{name} is {value}, the detail log says {logged}" if logged not in ("", value) else ""
        )
    if name not in NUMBERS:
        return ""
    actual = detail.number(NUMBERS[name])
    try:
        number = float(value)
    except ValueError:
        return f"{name} is {value}"
    if actual is None or math.isclose(number, actual, rel_tol=1e-4, abs_tol=ROUNDED):
        return ""
    return f"{name} is {value}, the detail log says {actual:g}"
