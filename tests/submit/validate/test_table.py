"""The document, the codes and their tests say the same."""

from steps.commands.cli import call
from steps.submit.validate.findings import Severity, codes
from tests.submit.validate.damages import DAMAGES
from tests.submit.validate.table import DOCUMENT, OFFICIAL, PASSED, document
from tests.submit.validate.test_damages import OF_LATER_ROUNDS

BOTH = {"performance-scenario", "log-value", "performance-invalid"}
"""Codes of which the official checker finds a part."""


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), (
        "python -m tests.submit.validate.table"
    )


def test_every_row_has_a_code_with_a_test() -> None:
    named = {code for *_, code in (*OFFICIAL, *PASSED)}
    assert named <= set(DAMAGES)
    # What neither table names is of Reprise's own: it must be strict.
    assert all(codes()[code].strict for code in set(DAMAGES) - named - {"tree-layout"})


def test_the_tables_agree_with_the_codes() -> None:
    assert [code for *_, code in OFFICIAL if codes()[code].strict] == []
    assert {code for _, code in PASSED if not codes()[code].strict} <= BOTH


def test_codes_of_later_rounds_are_known() -> None:
    assert set(codes()) >= OF_LATER_ROUNDS


def test_codes_say_what_to_do() -> None:
    for code in codes().values():
        assert code.why.endswith("."), code.name
        assert code.fix.endswith("."), code.name
        assert code.severity in Severity


def test_explain_tells_and_lists(capsys) -> None:  # type: ignore[no-untyped-def]
    assert call(["explain", "accuracy-mode"]) == 0
    told = capsys.readouterr().out
    assert codes()["accuracy-mode"].fix.split(".")[0] in told.replace("\n  ", " ")
    assert call(["explain"]) == 0
    assert capsys.readouterr().out.count("\n") == len(codes())
