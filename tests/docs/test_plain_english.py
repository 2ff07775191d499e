"""The check of plain English finds what is planted, and nothing in names and code."""

from pathlib import Path

import pytest

from tests.plain_english import counts, findings, main, phrases

PLANTED = {
    "page.md": "It is fine.\n\nAn accuracy run that was none.\n",
    "code.py": '"""Of the things.\n\nNothing."""\nSENTENCE = "mend it and re-run"\n',
    "attribute.py": 'LIMIT_S = 5\n"""Of a wait, in seconds."""\n',
    "message.py": 'name = "x"\nraise ValueError(f"{name} is no file")\n',
}
FINE = {
    "page.md": "Call `what was told` by name:\n\n    mend it\n\n```\nanew\n```\n".replace(
        "by name", "it"
    ),
    "code.py": '"""A thing. Of course."""\nKEY = "mend"\n# mend it\n',
    "there.md": "There is no file and none was made.\n",
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_phrases_are_found(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(PLANTED[name], encoding="utf-8")
    found = list(findings([tmp_path], phrases()))
    assert found and all(one.path.name == name for one in found)


def test_findings_name_line_and_plain_word(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("One.\n\n`told`\nis told\n", encoding="utf-8")
    (only,) = findings([tmp_path], phrases())
    assert (only.line, only.found) == (4, "is told") and "reads" in only.instead


@pytest.mark.parametrize("name", FINE)
def test_names_and_code_are_not_counted(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FINE[name], encoding="utf-8")
    assert not list(findings([tmp_path], phrases()))


def test_every_phrase_has_a_plain_word() -> None:
    assert all(phrase.instead for phrase in phrases())


def test_counts_are_per_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.md").write_text("anew, anew\n", encoding="utf-8")
    text = counts(findings([tmp_path], phrases()), tmp_path)
    assert text.splitlines() == ["    2 a", "    2 b", "    4 in all"]


def test_the_scope_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0, capsys.readouterr().out
