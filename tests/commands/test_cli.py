"""What `./reproduce` says before anything runs."""

import errno
import fcntl
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.base.errors import UserError
from steps.commands.cli import OTHERS, PLANNED, main
from steps.plan import frozen
from steps.plan.frozen import frozen_plan
from steps.schedule.supervisor import lock
from tests.conftest import ROOT


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in (*PLANNED, *OTHERS))
    assert max(map(len, text.splitlines())) <= 100


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runn", "scenario=Server"]) == 2
    assert "'runn scenario=Server' is not a command" in capsys.readouterr().err


def test_a_command_without_a_plan_gets_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    assert "rehearsal-full" in capsys.readouterr().out
    assert main(["ls", "scenario=Server"]) == 1
    assert capsys.readouterr().err.startswith("error: ls takes no arguments")


# "score" becomes another Python, which its environment's tests start.
@pytest.mark.parametrize("name", [*PLANNED, *(name for name in OTHERS if name != "score")])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself(
    name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main([name, option])
    except SystemExit as ended:  # argparse's way
        status = int(ended.code or 0)
    assert status == 0
    said = capsys.readouterr()
    assert said.err == "" and "./reproduce" in said.out.replace("usage: ", "./reproduce ")


# ---- where the user stands -----------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Stands elsewhere, as `reproduce` says it to the driver."""
    before = Path.cwd()
    monkeypatch.chdir(ROOT)

    def stand() -> Path:
        os.chdir(ROOT)
        monkeypatch.setenv("REPRISE_DIRECTORY", str(tmp_path))
        return tmp_path

    yield stand
    os.chdir(before)


def test_relative_paths_are_from_where_the_user_stands(
    elsewhere: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    home = elsewhere()
    (home / "tree/closed/Acme/systems").mkdir(parents=True)
    assert main(["validate", "tree", "--json", "found.json", "--html", "page.html"]) == 1
    assert json.loads((home / "found.json").read_text())
    assert (home / "page.html").is_file() and not (ROOT / "found.json").exists()
    elsewhere()
    assert main(["describe", "--node", "node.json"]) == 0
    assert (home / "node.json").is_file() and not (ROOT / "node.json").exists()
    elsewhere()
    assert main(["migrate", "tree", "--to", "v6", "--output", "new"]) in (0, 1)
    assert not (ROOT / "new").exists()
    elsewhere()
    capsys.readouterr()
    assert main(["plan", "--site", "absent.yaml"]) == 1
    assert f"{home}/absent.yaml is no file" in capsys.readouterr().err


def test_a_directory_that_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPRISE_DIRECTORY", str(tmp_path / "gone"))
    assert main(["ls"]) == 1
    assert "gone can't be entered (No such file or directory)" in capsys.readouterr().err


def test_the_command_says_where_the_user_stands(tmp_path: Path) -> None:
    """The script itself goes to its checkout."""
    text = (ROOT / "reproduce").read_text(encoding="utf-8")
    head, _, _ = text.partition("python=")
    probe = tmp_path / "reproduce"
    probe.write_text(f'{head}echo "$REPRISE_DIRECTORY $PWD"\n', encoding="utf-8")
    (tmp_path / "user").mkdir()
    done = subprocess.run(
        ["bash", str(probe)], cwd=tmp_path / "user", capture_output=True, text=True, timeout=10
    )
    assert done.stdout.split() == [str(tmp_path / "user"), str(tmp_path)]


# ---- a file system that won't --------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_that_locks_no_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"lies on /.* \(\w+\), which locks no files .*flock"):
        lock(tmp_path)


def test_a_link_to_nowhere_is_named_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(tmp_path / "unmounted/results")
    for call in (lambda: lock(tmp_path), lambda: frozen_plan(tmp_path, [])):
        with pytest.raises(UserError, match=r"is a link to .*unmounted/results, which isn't there"):
            call()
    assert not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "results/x: No space left on device; free some space, and run again"),
        (errno.EROFS, "a disk that can be written"),
        (errno.EACCES, "give yourself the right to it"),
        (errno.EIO, "results/x: Input/output error; look at the disk"),
        (errno.ESTALE, "results/x: Stale file handle; mount its file system again"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), "results/x")

    monkeypatch.setattr(frozen, "digest_files", refuse)
    assert main(["plan", "scenario=Offline"]) == 1
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1
