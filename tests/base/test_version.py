"""Which Reprise made a result: as git says, and never of another checkout."""

import json
import subprocess
from pathlib import Path

import pytest

from steps.base.record import MANIFEST, Origin, Record, combined, publish
from steps.base.step import _origin
from steps.base.version import VERSION, Version
from steps.commands.cli import main
from tests.conftest import ROOT

COMMIT = 40


def git(home: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(home), *who, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("steps/a.py", "conf/a.yaml", "docs/a.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("a\n", encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_commit_and_whether_it_was_changed(checkout: Path) -> None:
    clean = Version.of(checkout)
    assert clean.number == VERSION and clean.changed is False
    assert clean.commit is not None and len(clean.commit) == COMMIT
    assert str(clean) == f"Reprise {VERSION}, commit {clean.commit}"
    (checkout / "docs/a.md").write_text("b\n", encoding="utf-8")
    (checkout / "results").mkdir()
    (checkout / "results/x").touch()
    assert Version.of(checkout) == clean, "no code"
    (checkout / "steps/a.py").write_text("b\n", encoding="utf-8")
    assert Version.of(checkout).changed is True
    assert str(Version.of(checkout)).endswith(", changed")


def test_a_new_file_is_a_change(checkout: Path) -> None:
    (checkout / "conf/new.yaml").touch()
    assert Version.of(checkout).changed is True


def test_a_copy_has_no_commit(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = checkout / "copy"
    copy.mkdir()
    for home in (copy, tmp_path_factory.mktemp("nowhere")):
        assert Version.of(home) == Version(VERSION)
    assert "of no known commit" in str(Version(VERSION))


def test_variables_of_another_repository_are_of_no_account(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Version.of(checkout)
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(ROOT))
    assert Version.of(checkout) == before


def test_the_command_line_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{Version.of(ROOT)}\n"


def test_code_that_changed_since_the_command_was_made_is_not_the_commits() -> None:
    file = ROOT / "steps/base/version.py"
    code, origin = _origin([file], {})
    assert origin.sources.keys() == {"steps/base/version.py"} and code == combined(origin.sources)
    given = {"version": {"number": "1", "commit": "c", "changed": False}, "container": "{}"}
    assert _origin([file], {**given, "code": code})[1].version == Version("1", "c", False)
    late = _origin([file], {**given, "code": "another"})[1]
    assert late.version == Version("1", "c", True) and late.container == "{}"


def test_a_record_keeps_all_of_it(tmp_path: Path) -> None:
    origin = Origin(Version("1", "c", True), {"steps/a.py": "0"}, "{}")
    with publish(tmp_path / "r", step="s", config={}, inputs={}, code="d", origin=origin):
        pass
    read = Record.read(tmp_path / "r" / MANIFEST)
    assert read.origin == origin and read.code == "d"
    fields = json.loads((tmp_path / "r/record.json").read_text(encoding="utf-8"))
    assert fields["format"] == 3 and fields["version"]["commit"] == "c"
