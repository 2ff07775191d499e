"""A stranger's text on our terminal: shown, never obeyed."""

import io
import json
import os
import subprocess
import sys
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.console import plain_output
from steps.base.errors import OBEYED, plain, shown
from steps.commands.cli import main
from tests.submit.validate import trees

HOSTILE = {
    "colour": "a\x1b[31mred",
    "title": "a\x1b]0;owned\x07b",
    "eight bit": "a\x9b31mred",
    "line": "a\nerror: all is well",
    "return": "a\rclosed: holds",
    "backspace": "bad\x08\x08\x08good",
    "right to left": "a\u202etxt.exe",
    "separator": "a\u2028error: x",
    "bytes": os.fsdecode(b"a\xff\xfe"),
}


def obeyed(text: str) -> list[str]:
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in OBEYED]


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not obeyed(plain(text))
    assert not {"\n", "\t"} & set(shown(text))
    assert plain(plain(text)) == plain(text)


@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_json_that_is_printed_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "".join(HOSTILE.values()) + "\U000e0041"}
    with plain_output():
        print(json.dumps(value, ensure_ascii=False))
    said = capsys.readouterr().out
    assert not obeyed(said)
    assert json.loads(said) == value


def left_over(tree: Path, name: str) -> None:
    """A file of no result, which migrate leaves out."""
    folder = tree / "closed/Example/measurements/nosys/nomodel/Offline"
    folder.mkdir(parents=True)
    (folder / name).write_text("x", encoding="utf-8")


def in_a_description(tree: Path, name: str) -> None:
    path = next((tree / "closed/Example/systems").iterdir())
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("available", shown(name)), encoding="utf-8")


def as_a_system(tree: Path, name: str) -> None:
    path = next((tree / "closed/Example/results").iterdir())
    path.rename(path.with_name(name))


def as_a_submitter(tree: Path, name: str) -> None:
    (tree / "closed/Example").rename(tree / "closed" / name)


def in_a_log(tree: Path, name: str) -> None:
    path = next(tree.rglob("mlperf_log_detail.txt"))
    line = ':::MLLOG {"key": "result_validity", "value": "%s", "time_ms": 1, "metadata": '
    line += '{"is_error": true, "is_warning": false}}\n'
    escaped = shown(name).replace("\\x", "\\u00")
    text = line % escaped + path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")


CHANGES = (left_over, in_a_description, as_a_system, as_a_submitter, in_a_log)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("command", ["validate", "validate --json", "migrate"])
def test_a_tree_moves_no_cursor(
    tmp_path: Path,
    name: str,
    change: Callable[[Path, str], None],
    command: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = tmp_path / "tree"
    trees.build(tree)
    change(tree, name)
    more = ["--round", "v6.0", "--output", str(tmp_path / "new")] if command == "migrate" else []
    first, *flags = command.split()
    main([first, str(tree), *flags, *more])
    said = capsys.readouterr()
    assert not obeyed(said.out + said.err)
    for line in (said.out + said.err).splitlines():
        assert line not in ("error: all is well", "error: x")


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "command",
    [
        ["validate"],
        ["migrate", "--round", "v6.0", "--output", "new"],
        ["compare", "results/none"],
        ["unseal", "out"],
        ["unbundle", "out"],
        ["explain"],
        ["compliance", "TEST01"],
        ["describe", "--merge"],
        ["diff"],
        ["run"],
        ["plan"],
        ["seal", "--output", "out"],
        [],
    ],
)
def test_no_command_obeys_what_it_is_given(
    command: list[str],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    main([*command[:1], name, *command[1:]])
    said = capsys.readouterr()
    assert said.err
    assert not obeyed(said.out + said.err)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_no_archive_moves_a_cursor(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("unseal", "unbundle"):
        with tarfile.open(tmp_path / "file", "w:gz") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        assert main([command, str(tmp_path / "file"), str(tmp_path / "out")]) == 1
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert not obeyed(said.out + said.err)


def test_a_steps_last_words_are_plain_too(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from steps.base.console import Console\n"
    program += "Console(Path(sys.argv[1])).say('error: \\x1b[2J of a file')"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")], capture_output=True, text=True
    )
    assert done.stderr == "error: \\u001b[2J of a file\n"
