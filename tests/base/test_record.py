"""What a step leaves behind, whether it ends well or not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steps.base.errors import UserError
from steps.base.record import Manifest, publish, sha256_file, write_atomically

SCRIPT = """
import sys, time
from pathlib import Path
from steps.base.record import publish, write_atomically
with publish(Path(sys.argv[1]), step="s", config={}, inputs={}, code="c") as workspace:
    (workspace.directory / "half").write_text("half")
    print("working", flush=True)
    time.sleep(60)
"""


def made(destination: Path, text: str = "content") -> Manifest:
    with publish(destination, step="s", config={"a": 1}, inputs={}, code="c") as workspace:
        (workspace.directory / "sub").mkdir()
        (workspace.directory / "sub" / "file").write_text(text, encoding="utf-8")
        workspace.result = {"answer": 42}
    return Manifest.read(destination / "manifest.json")


def test_a_finished_step_is_there_as_a_whole(tmp_path: Path) -> None:
    manifest = made(tmp_path / "out")
    assert manifest.result == {"answer": 42}
    assert manifest.file("sub/file").read_text(encoding="utf-8") == "content"
    assert manifest.damage() == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_step_leaves_the_same_manifest(tmp_path: Path) -> None:
    """Times and host live in the record, so a repeated step doesn't make others repeat."""
    made(tmp_path / "out")
    first = sha256_file(tmp_path / "out" / "manifest.json")
    made(tmp_path / "out")
    assert sha256_file(tmp_path / "out" / "manifest.json") == first


def test_a_failing_step_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    made(tmp_path / "out")
    with (
        pytest.raises(RuntimeError),
        publish(tmp_path / "out", step="s", config={}, inputs={}, code="c") as workspace,
    ):
        (workspace.directory / "half").write_text("half", encoding="utf-8")
        raise RuntimeError
    assert Manifest.read(tmp_path / "out" / "manifest.json").damage() == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_killed_step_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.kill()
    process.wait(10)
    assert not (tmp_path / "out").exists()
    made(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "the next run cleans up"


@pytest.mark.parametrize(
    ("new_one", "kept"), [("whole", "new"), ("damaged", "old"), ("gone", "old")]
)
def test_a_kill_between_the_two_renames_loses_nothing(
    tmp_path: Path, new_one: str, kept: str
) -> None:
    out = tmp_path / "out"
    made(out, "new")
    os.rename(out, tmp_path / "aside")
    made(out, "old")
    os.rename(out, tmp_path / ".out.4711.old")
    os.rename(tmp_path / "aside", tmp_path / ".out.4711.tmp")
    if new_one == "damaged":
        (tmp_path / ".out.4711.tmp/manifest.json").write_text("{", encoding="utf-8")
    if new_one == "gone":
        shutil.rmtree(tmp_path / ".out.4711.tmp")
    with (
        pytest.raises(RuntimeError),
        publish(out, step="s", config={}, inputs={}, code="c") as workspace,
    ):
        assert workspace.previous == out
        raise RuntimeError
    assert Manifest.read(out / "manifest.json").file("sub/file").read_text() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("damage", ["change", "truncate", "remove"])
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    path = made(tmp_path / "out").directory / "sub" / "file"
    if damage == "remove":
        path.unlink()
    else:
        path.write_text("Content" if damage == "change" else "cont", encoding="utf-8")
    manifest = Manifest.read(tmp_path / "out" / "manifest.json")
    assert len(manifest.damage()) == 1
    assert str(path) in manifest.damage()[0]
    if damage != "change":
        with pytest.raises(UserError, match=r"is missing|does not match its sha256"):
            manifest.file("sub/file")


def test_a_damaged_manifest_is_one_sentence(tmp_path: Path) -> None:
    made(tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8")[:50], encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        Manifest.read(path)


def test_a_pipe_or_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As root, moving a file over /dev/null would take it from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_what_cant_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "file", "\ud800")
    assert not list(tmp_path.iterdir())
