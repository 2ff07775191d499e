"""Every fault that published rounds held (bench/differences.yaml) is one that a test plants."""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.rounds import Entry, table
from steps.mlperf.rounds import names
from steps.submit.validate.findings import codes
from steps.submit.validate.submission import validate
from tests.submit.validate import trees
from tests.submit.validate.damages import (
    ACCURACY_LOG,
    ANSWERS,
    DAMAGES,
    DETAIL,
    PERFORMANCE,
    SCORES,
    TEST01,
    TEST06,
    Damage,
    copy,
    each,
    log,
    replace,
    write,
)
from tests.submit.validate.trees import OFFLINE, SERVER

RUN_OF_TEST01 = f"{TEST01}/{PERFORMANCE}/{DETAIL}"


def hash_of(log_of_another: str, scores: str) -> Damage:
    """accuracy.txt names the digest of a log that isn't its own."""

    def damage(root: Path) -> None:
        digest = hashlib.sha256((root / log_of_another).read_bytes()).hexdigest()
        text = (root / scores).read_text(encoding="utf-8")
        trees.write(root / scores, re.sub(r"hash=\w+", f"hash={digest}", text))

    return damage


def hash_too(of_another: str, scores: str) -> Damage:
    """accuracy.txt names the digest of another's too."""

    def damage(root: Path) -> None:
        (other,) = re.findall(r"hash=\w+", (root / of_another).read_text(encoding="utf-8"))
        with (root / scores).open("a", encoding="utf-8") as stream:
            stream.write(f"{other}\n")

    return damage


TRAPS: dict[tuple[str, str], Damage] = {
    ("compliance-log", "it has 0 answers"): write(f"{TEST06}/accuracy/{ANSWERS}", "[\n]\n"),
    ("accuracy-mode", "a compliance test's run"): each(
        log(ACCURACY_LOG, "effective_test_mode", "PerformanceOnly"),
        log(ACCURACY_LOG, "effective_accuracy_log_sampling_target", 100),
    ),
    ("audit-copied-log", "accuracy.txt's hash is that of the TEST06 log"): hash_of(
        f"{TEST06}/accuracy/{ANSWERS}", f"{SERVER}/accuracy/{SCORES}"
    ),
    ("audit-copied-log", "has the hash of the accuracy log of"): hash_too(
        f"{SERVER}/accuracy/{SCORES}", f"{OFFLINE}/accuracy/{SCORES}"
    ),
    ("audit-copied-log", ": its [A-Za-z0-9]+ run has the times of one of"): copy(
        f"{SERVER}/{PERFORMANCE}/{DETAIL}", RUN_OF_TEST01
    ),
    ("audit-copied-log", "its TEST01 run has the times of one of"): copy(
        f"{SERVER}/{PERFORMANCE}/{DETAIL}", RUN_OF_TEST01
    ),
    ("compliance-settings", "no answer was logged"): log(
        RUN_OF_TEST01, "effective_accuracy_log_sampling_target", 0
    ),
    ("compliance-settings", "TEST01 sets False"): log(
        RUN_OF_TEST01, "effective_performance_issue_same", True
    ),
    ("accuracy-sample-count", "gen_num is 4761"): replace(
        f"{OFFLINE}/accuracy/{SCORES}", "24576", "4761"
    ),
}
"""By code and words of the table, where the code's own damage has other words."""


def entries() -> Iterator[Entry]:
    for name in names():
        yield from (entry for entry in table(name) if entry.code in codes())


def said(root: Path, code: str) -> list[str]:
    found = validate(root, "v5.1", processes=1).findings
    return [f"{one.path}: {one.what}" for one in found if one.code == code]


@pytest.mark.parametrize(("code", "words"), TRAPS)
def test_a_published_trap_is_found(code: str, words: str, fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    before = said(root, code)
    TRAPS[code, words](root)
    found = [line for line in said(root, code) if line not in before]
    assert any(re.search(words, line) for line in found), found


def test_every_published_fault_is_planted(fresh_tree: Callable[[], Path]) -> None:
    """By its own trap, or by the damage of its code, in its words."""
    left = [entry for entry in entries() if (entry.code, entry.says) not in TRAPS]
    found = {}
    for code in {entry.code for entry in left} & set(DAMAGES):
        root = fresh_tree()
        DAMAGES[code](root)
        found[code] = said(root, code)
    unseen = [
        (entry.code, entry.says)
        for entry in left
        if not any(re.search(entry.says, line) for line in found.get(entry.code, []))
    ]
    assert unseen == []


def test_every_trap_is_one_that_was_published() -> None:
    assert set(TRAPS) <= {(entry.code, entry.says) for entry in entries()}
