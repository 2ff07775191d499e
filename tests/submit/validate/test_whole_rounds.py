"""`python -m bench.rounds`: differences are looked up in the reviewed table, and none gets lost.

The official checker's verdicts are given here; the bench itself runs the real one.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.rounds import (
    KINDS,
    NOTHING,
    OTHERWISE,
    UNSEEN,
    Entry,
    Judged,
    Verdicts,
    classified,
    complaints,
    differing,
    linked,
    table,
    told,
)
from steps.mlperf.rounds import names
from steps.submit.validate.findings import Severity, codes
from steps.submit.validate.official import Official
from steps.submit.validate.submission import validate
from tests.submit.validate.damages import ACCURACY_LOG, OFFLINE_LOG, log, write
from tests.submit.validate.trees import CLOSED, OFFLINE, SERVER

RULE = re.compile(r"((inference|submission)_rules\.adoc, [A-Z][^:]+: |loadgen/\w+\.\w+, )\w")
"""A document of the rules, its section and what it says there; or a place in LoadGen's source."""


def verdicts(root: Path, **changes: object) -> Verdicts:
    """As if the official checker accepted what is in the tree, with our values."""
    report = validate(root, "v5.1", processes=1)
    accepted = {
        row.path: (str(row.result), row.units, row.accuracy)
        for row in report.rows
        if row.result is not None
    }
    official = Official("", True, accepted, [], [], "", "")
    return Verdicts(report, replace(official, **changes), 1.0, 2.0)  # type: ignore[arg-type]


def said(root: Path, *entries: Entry, **changes: object) -> list[str]:
    return list(complaints(*classified(differing(verdicts(root, **changes)), entries)))


SEED = Entry("accuracy-seed", "true find", "", "", says="effective_qsl_rng_seed is 0", results=1)


def test_a_valid_tree_has_no_difference(valid_tree: Path) -> None:
    assert said(valid_tree) == []


def test_a_difference_has_to_be_in_the_table(fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    log(ACCURACY_LOG, "effective_qsl_rng_seed", 0)(root)
    [unknown] = said(root)
    assert unknown.startswith(f"not in the table: {OFFLINE}: accuracy-seed: {ACCURACY_LOG}:")
    assert said(root, SEED) == []
    assert said(root, replace(SEED, results=2)) == [
        "accuracy-seed (true find): 1 results, the table says 2"
    ]
    other = replace(SEED, says="another seed")
    assert [line[:20] for line in said(root, other)] == [
        "accuracy-seed (true ",
        "not in the table: cl",
    ]


def test_what_is_mended_has_to_leave_the_table(valid_tree: Path) -> None:
    assert said(valid_tree, SEED) == ["accuracy-seed (true find): 0 results, the table says 1"]


def test_what_only_the_official_checker_refuses_is_told(valid_tree: Path) -> None:
    found = verdicts(valid_tree).official
    accepted = {path: value for path, value in found.accepted.items() if path != SERVER}
    line = f"{SERVER} has a fault"
    [item] = differing(verdicts(valid_tree, accepted=accepted, errors=["other", line]))
    assert item == Judged(SERVER, False, NOTHING, line)


def test_another_value_and_another_result_are_told(valid_tree: Path) -> None:
    accepted = dict(verdicts(valid_tree).official.accepted)
    accepted[SERVER] = ("1.0", *accepted[SERVER][1:])
    accepted["closed/Example/results/s/m/Offline"] = ("1.0", "Tokens/s", "")
    codes_ = {item.code for item in differing(verdicts(valid_tree, accepted=accepted))}
    assert codes_ == {OTHERWISE, UNSEEN}


def test_a_fault_of_the_tree_is_one_of_the_submitter(fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    write(f"{CLOSED}/code/.hidden", "a")(root)
    [item] = differing(verdicts(root))
    assert (item.where, item.tree, item.code) == (CLOSED, True, "hidden-name")
    entry = Entry("hidden-name", "stricter on purpose", "", "", trees=1)
    assert said(root, entry) == []


def test_a_result_counts_as_the_gravest_of_its_kinds(fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    log(ACCURACY_LOG, "effective_qsl_rng_seed", 0)(root)
    log(OFFLINE_LOG, "num_errors", 1)(root)
    found = verdicts(root)
    strict = Entry("performance-error", "stricter on purpose", "", "", results=1)
    lines = list(told(found, *classified(differing(found), [strict, SEED])))
    assert [line.strip() for line in lines if "results: " in line] == ["1 results: true find"]
    assert f"1 results are refused by Reprise alone, 0 without {CLOSED}" in lines[3]


def test_what_reprise_accepts_is_not_refused_by_it_alone(valid_tree: Path) -> None:
    accepted = dict(verdicts(valid_tree).official.accepted)
    accepted[SERVER] = ("1.0", *accepted[SERVER][1:])
    del accepted[OFFLINE]
    found = verdicts(valid_tree, accepted=accepted)
    unknown = list(differing(found))
    assert {item.code for item in unknown} == {NOTHING, OTHERWISE}
    assert "     0 results are refused by Reprise alone" in told(found, {}, unknown)


def test_what_a_checkout_lacks_is_left_out_of_both(
    fresh_tree: Callable[[], Path], tmp_path: Path
) -> None:
    root = fresh_tree()
    (root / OFFLINE_LOG).unlink()
    tree, left_out = linked(root, tmp_path / "linked")
    assert left_out == (OFFLINE,)
    assert not (tree / OFFLINE).exists()
    assert (tree / SERVER).is_dir()
    assert (root / OFFLINE).is_dir()
    found = verdicts(tree)
    where = f"{Path(OFFLINE).parent}: Offline is required"
    assert Judged(SERVER, False, "scenario-missing", where) in differing(found)
    assert {item.code for item in differing(replace(found, left_out=left_out))} == set()


@pytest.mark.parametrize("round_name", names())
def test_the_table_is_whole(round_name: str) -> None:
    for entry in table(round_name):
        assert entry.kind in KINDS
        assert entry.code in {*codes(), NOTHING, UNSEEN, OTHERWISE}
        assert entry.results or entry.trees
        assert entry.reason.endswith(".")
        assert entry.source
        assert entry.kind not in ("false alarm", "miss")
        assert re.search(entry.says, entry.shows)
        if entry.code in codes():
            assert codes()[entry.code].severity is Severity.ERROR
        if entry.kind == "stricter on purpose":
            assert RULE.match(entry.source), entry


def test_the_table_has_no_kind_that_was_a_false_alarm() -> None:
    """Kinds that two rounds showed to be no fault."""
    mended = {"audit-time", "log-conflict", "accuracy-files", "performance-files"}
    mended |= {"calibration-missing", "code-missing", "model-unknown", "accuracy-metric"}
    mended |= {"power-not-checked"}
    mended |= {"accuracy-hash-format", "user-conf-open-only", UNSEEN, OTHERWISE, NOTHING}
    for name in names():
        assert not mended & {entry.code for entry in table(name)}
