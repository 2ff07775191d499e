"""Whatever is done to a tree, the answer is findings: no traceback, no wait, no write."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.submit.validate import submission
from steps.submit.validate.render import as_json, as_object, page, text
from steps.submit.validate.submission import Report, validate
from tests.submit.validate import trees
from tests.submit.validate.damages import (
    ANSWERS,
    DESCRIPTION,
    DETAIL,
    MEASUREMENT,
    OFFLINE_LOG,
    PERFORMANCE,
    SCORES,
    SUMMARY,
    TEST01,
    TEST04,
    TEST06,
    field,
    log,
    replace,
    write,
)
from tests.submit.validate.mutations import damage
from tests.submit.validate.trees import INTERACTIVE, OFFLINE, SERVER, SYSTEM

EXAMPLES = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LOAD_BEARING = {
    OFFLINE: (
        "effective_scenario",
        "effective_qsl_rng_seed",
        "effective_sample_index_rng_seed",
        "effective_schedule_rng_seed",
        "effective_performance_sample_count",
        "effective_min_query_count",
        "effective_min_duration_ms",
        "effective_samples_per_query",
        "effective_sample_concatenate_permutation",
        "requested_use_token_latencies",
        "result_validity",
        "result_samples_per_second",
        "result_tokens_per_second",
    ),
    SERVER: (
        "result_completed_samples_per_sec",
        "result_completed_tokens_per_second",
        "result_first_token_99.00_percentile_latency_ns",
        "result_time_per_output_token_99.00_percentile_ns",
        "effective_target_latency_ns",
    ),
}
"""Keys without which the official checker (v5.1.1) gives a result no verdict."""


def judged(root: Path) -> Report:
    return validate(root, "v5.1", processes=1)


@pytest.fixture(scope="session")
def worn_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that is damaged and mended again and again."""
    root = tmp_path_factory.mktemp("worn") / "tree"
    trees.build(root)
    return root


@EXAMPLES
@given(random=st.randoms(use_true_random=False))
def test_random_damage_gives_findings_and_no_traceback(worn_tree: Path, random: Random) -> None:
    _, undo = damage(worn_tree, random)
    try:
        report = judged(worn_tree)
        shown = [*text(report), page(report)]
        json.loads(as_json(as_object(report)))
    finally:
        undo()
    assert all("\n" not in finding.what + finding.path for finding in report.findings)
    assert shown
    assert judged(worn_tree).valid()


@pytest.mark.parametrize(
    ("place", "key"), [(place, key) for place, keys in LOAD_BEARING.items() for key in keys]
)
def test_a_log_without_a_key_that_counts_is_refused(
    place: str, key: str, fresh_tree: Callable[[], Path]
) -> None:
    root = fresh_tree()
    log(f"{place}/{PERFORMANCE}/{DETAIL}", key, None)(root)
    assert not judged(root).valid()


@EXAMPLES
@given(
    scenario=st.sampled_from([SERVER, INTERACTIVE]),
    name=st.sampled_from(["ttft", "tpot"]),
    latency_ns=st.integers(0, 4_000_000_000),
)
def test_latencies_hold_below_the_limit_and_nowhere_else(
    scenario: str, name: str, latency_ns: int, worn_tree: Path
) -> None:
    limits = trees.RULES.benchmarks["llama2-70b-99"].limits[scenario.rsplit("/", 1)[1]]
    key = {
        "ttft": "result_first_token_99.00_percentile_latency_ns",
        "tpot": "result_time_per_output_token_99.00_percentile_ns",
    }[name]
    path = worn_tree / scenario / PERFORMANCE / DETAIL
    before = path.read_text(encoding="utf-8")
    try:
        log(f"{scenario}/{PERFORMANCE}/{DETAIL}", key, latency_ns)(worn_tree)
        report = judged(worn_tree)
    finally:
        path.write_text(before, encoding="utf-8")
    assert report.valid() == (latency_ns < limits[f"{name}_ms"] * 1_000_000)


@EXAMPLES
@given(value=st.floats(0, 500).map(lambda value: round(value, 1)))
def test_tokens_per_sample_hold_within_the_bounds(value: float, worn_tree: Path) -> None:
    path = worn_tree / OFFLINE / "accuracy/accuracy.txt"
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(before.replace("301.0", f"{value:.1f}"), encoding="utf-8")
        report = judged(worn_tree)
    finally:
        path.write_text(before, encoding="utf-8")
    assert report.valid() == (265.005 <= value <= 323.895)


@pytest.mark.parametrize(
    "path",
    [
        f"{TEST01}/verify_performance.txt",
        f"{TEST01}/verify_accuracy.txt",
        f"{TEST04}/verify_performance.txt",
        f"{TEST06}/verify_accuracy.txt",
        f"{OFFLINE}/accuracy/accuracy.txt",
        f"{OFFLINE}/accuracy/mlperf_log_accuracy.json",
        f"{OFFLINE}/{PERFORMANCE}/{DETAIL}",
        f"{MEASUREMENT}/{SYSTEM}.json",
        DESCRIPTION,
    ],
)
def test_an_empty_file_is_refused(path: str, fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    (root / path).write_bytes(b"")
    assert not judged(root).valid()


@pytest.mark.parametrize("number", ["4..0", ".", "1.2.3", "9" * 5000])
def test_a_score_that_is_no_number_is_refused(number: str, fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    replace(f"{TEST04}/verify_performance.txt", "Test score = 40.0", f"Test score = {number}")(root)
    found = [item for item in judged(root).findings if item.code == "compliance-contradicts"]
    assert [item.line for item in found] == [3]


DEEP = "[" * 900 + "]" * 900
HOSTILE = {
    "number of 4,000 digits": replace(OFFLINE_LOG, ": 24576,", f": {'9' * 4000},"),
    "time of 4,000 digits": replace(OFFLINE_LOG, '"time_ms": 1.0', f'"time_ms": {"9" * 4000}'),
    "deep value in a log": replace(OFFLINE_LOG, '"value": "VALID"', f'"value": {DEEP}'),
    "deep value in a description": replace(DESCRIPTION, '"available"', DEEP),
    "list as a type": field(DESCRIPTION, "system_type", []),
    "object as a count": field(DESCRIPTION, "accelerators_per_node", {"a": [1]}),
    "number as a text": field(DESCRIPTION, "hw_notes", 1e308),
    "infinite count": replace(f"{TEST06}/accuracy/{ANSWERS}", ": 40 }", ": Infinity }"),
    "many equal keys": write(DESCRIPTION, "{" + '"a": 1, ' * 200_000 + '"a": 1}'),
    "blanks without end": write(f"{OFFLINE}/{PERFORMANCE}/{SUMMARY}", "a" + " " * 3_000_000),
    "brackets without end": write(f"{OFFLINE}/accuracy/{SCORES}", "{" * 3_000_000),
    "metrics without end": write(f"{OFFLINE}/accuracy/{SCORES}", "'rouge1': 1\n" * 200_000),
    "settings without end": write(f"{MEASUREMENT}/user.conf", "a\n" * 200_000),
    "hash behind a form feed": replace(f"{OFFLINE}/accuracy/{SCORES}", "hash=", "x\x0chash="),
}


NO_ERROR = {
    "time of 4,000 digits",
    "object as a count",
    "blanks without end",
    "settings without end",
}
"""What is a warning, or nothing that a rule speaks of."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_refused_in_time_and_in_few_words(
    name: str, fresh_tree: Callable[[], Path]
) -> None:
    root = fresh_tree()
    HOSTILE[name](root)
    started = time.process_time()
    report = judged(root)
    assert time.process_time() - started < 10
    assert report.valid() == (name in NO_ERROR)
    assert len(report.findings) < 100
    json.loads(as_json(as_object(report)))


def test_names_that_are_no_utf8_are_shown(fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    model = (root / trees.TUNED).parent
    os.rename(model, model.with_name(os.fsdecode(b"a\xff")))
    report = judged(root)
    "\n".join([*text(report), page(report), as_json(as_object(report))]).encode("utf-8")
    assert "unsafe-name" in {found.code for found in report.findings}


def test_a_killed_process_ends_the_run_with_a_sentence(
    valid_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "SERIAL", 0)
    monkeypatch.setattr(submission, "check_result", _die)
    with pytest.raises(UserError, match="was killed"):
        validate(valid_tree, "v5.1", processes=2)


def _die(*_: object, edge: bool) -> None:
    os._exit(9)


def test_processes_change_nothing_but_the_time(
    valid_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "SERIAL", 0)
    assert as_object(validate(valid_tree, "v5.1", processes=3)) == as_object(judged(valid_tree))


def test_a_huge_log_is_read_in_bounded_memory(fresh_tree: Callable[[], Path]) -> None:
    import resource

    root = fresh_tree()
    path = root / OFFLINE / PERFORMANCE / DETAIL
    line = trees.record("generic_message", "x" * 4000)
    with path.open("a", encoding="utf-8") as stream:
        for _ in range(20_000):
            stream.write(line)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = judged(root)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert {finding.code for finding in report.findings if finding.severity == "error"} == {
        "file-size"
    }
    assert grown_kib < 40 << 10, f"{path.stat().st_size >> 20} MiB of log took {grown_kib} KiB"


def test_a_line_without_end_is_refused(fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    with (root / OFFLINE / PERFORMANCE / DETAIL).open("ab") as stream:
        stream.truncate(64 << 20)
    report = judged(root)
    assert "log-damaged" in {finding.code for finding in report.findings}


def test_a_name_that_leads_out_of_the_tree_is_not_followed(
    fresh_tree: Callable[[], Path], tmp_path: Path
) -> None:
    root = fresh_tree()
    outside = tmp_path / "outside.json"
    outside.write_text("not to be read", encoding="utf-8")
    description = root / f"closed/Example/systems/{SYSTEM}.json"
    description.unlink()
    os.symlink(outside, description)
    report = judged(root)
    assert {"symlink", "system-missing"} <= {finding.code for finding in report.findings}
    assert not any("not to be read" in finding.what for finding in report.findings)
