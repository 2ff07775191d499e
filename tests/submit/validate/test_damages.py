"""Every code is found where it should be, and a valid tree has none of the errors."""

from collections.abc import Callable
from pathlib import Path

import pytest

from steps.submit.validate.findings import Severity, codes
from steps.submit.validate.submission import Report, validate
from tests.submit.validate.damages import DAMAGES

OF_LATER_ROUNDS = {"compliance-not-checked", "endpoint-not-checked"}


def judged(root: Path) -> Report:
    return validate(root, "v5.1", processes=1)


def test_a_valid_tree_holds_and_its_results_are_told(valid_tree: Path) -> None:
    report = judged(valid_tree)
    assert report.valid(), report.findings
    # The fine-tuned model of the open division reports what it reached.
    assert {finding.code for finding in report.findings} == {"accuracy-low"}
    rows = {(row.model, row.scenario): (row.result, row.units) for row in report.rows}
    assert rows == {
        ("llama2-70b-99", "Offline"): (12040.0, "Tokens/s"),
        ("llama2-70b-99", "Server"): (12040.0, "Tokens/s"),
        ("llama2-70b-99", "Interactive"): (12040.0, "Tokens/s"),
        ("stable-diffusion-xl", "Offline"): (40.0, "Samples/s"),
        ("stable-diffusion-xl", "Server"): (40.0, "Queries/s"),
        ("my-405b", "Offline"): (12040.0, "Tokens/s"),
    }
    assert all(row.valid for row in report.rows)


def test_every_code_has_a_damage() -> None:
    assert set(DAMAGES) == set(codes()) - OF_LATER_ROUNDS


@pytest.mark.parametrize("code", DAMAGES)
def test_damage_is_found(code: str, fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    before = judged(root).findings
    DAMAGES[code](root)
    report = judged(root)
    found = [item for item in report.findings if item not in before and item.code == code]
    assert found, [item for item in report.findings if item not in before]
    assert found[0].severity == codes()[code].severity
    assert report.valid() == all(item.severity != Severity.ERROR for item in report.findings)


def test_validating_leaves_the_tree_as_it_was(valid_tree: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        found = {}
        for path in sorted(valid_tree.rglob("*")):
            status = path.stat()
            found[str(path)] = (status.st_mtime_ns, status.st_size)
        return found

    before = state()
    judged(valid_tree)
    assert state() == before
