"""Files and disks that would stop a command or show a traceback."""

import contextlib
import errno
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steps.base.record import sha256_file
from steps.commands import planned as planned_commands
from steps.commands.cli import main
from steps.plan.frozen import frozen_plan
from steps.plan.plan import Plan, freeze, load
from tests.conftest import ROOT, copy_project, planned

OVERRIDES = ["experiment=null-engine", "scenario=Offline"]
LIMIT_S = 60

PLACES: dict[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "directory": lambda path: path.mkdir(),
    "dangling": lambda path: path.symlink_to("/nowhere"),
    "loop": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["unseal", "merge"])
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, place: str
) -> None:
    path = tmp_path / "given"
    PLACES[place](path)
    arguments = {
        "unseal": ["unseal", str(path), str(tmp_path / "out")],
        "merge": ["describe", "system=null-engine", "--merge", str(path)],
    }
    assert main(arguments[command]) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ") and str(path) in text
    assert not (tmp_path / "out").exists()


# ---- what unpacks without end -------------------------------------------------------------------


def package(path: Path, name: str, size: int) -> None:
    with gzip.open(path, "wb", 6) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, _Zeros(size))


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        given = min(size, self._left)
        self._left -= given
        return bytes(given)


def test_an_archive_of_zeros_fills_no_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bomb.tgz"
    package(path, "submission/zeros", 300 << 20)
    assert path.stat().st_size < 1 << 20
    assert main(["unseal", str(path), str(tmp_path / "out")]) == 1
    assert "unpacks to more than 200 times its size" in capsys.readouterr().err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bomb.tgz"]


def test_a_file_of_nothing_but_holes_fills_no_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = tmp_path / "submission"
    inside.mkdir()
    with (inside / "holes").open("wb") as stream:
        stream.truncate(40 << 30)
    path = tmp_path / "sparse.tgz"
    made = ["tar", "-S", "-czf", str(path), "-C", str(tmp_path), "submission/holes"]
    subprocess.run(made, check=True, timeout=LIMIT_S)
    begun = time.monotonic()
    assert main(["unseal", str(path), str(tmp_path / "out")]) == 1
    assert time.monotonic() - begun < LIMIT_S
    assert "unpacks to more than 200 times its size" in capsys.readouterr().err


# ---- a plan after a loss of power ---------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a plan is made from; a plan's own files are written here."""
    for part in ("conf", "envs", "steps"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("damage", ["empty", "zeros", "half", "index empty", "index zeros"])
def test_a_damaged_plan_is_made_again(checkout: Path, damage: str) -> None:
    path = frozen_plan(checkout, OVERRIDES)
    whole = path.read_bytes()
    (index,) = (checkout / "results/plans/index").iterdir()
    victim, kind = (index, damage.split()[1]) if " " in damage else (path, damage)
    held = victim.read_bytes()
    parts = {"empty": b"", "zeros": bytes(len(held)), "half": held[: len(held) // 2]}
    victim.write_bytes(parts[kind])
    assert frozen_plan(checkout, OVERRIDES) == path
    assert path.read_bytes() == whole
    assert load(path).jobs


def test_a_plan_that_is_frozen_again_is_mended(tmp_path: Path) -> None:
    plan: Plan = planned(*OVERRIDES)
    path = freeze(plan, tmp_path)
    path.write_bytes(b"{")
    assert freeze(plan, tmp_path) == path
    assert sha256_file(path)[:12] == path.stem
    json.loads(path.read_text(encoding="utf-8"))


# ---- disks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "a disk that can be written"),
        (errno.EACCES, "give yourself the right"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "dmesg"),
        (errno.ENAMETOOLONG, "fix that"),
    ],
)
def test_a_disk_that_can_t_be_used_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, remedy: str
) -> None:
    def fails(*_: object) -> Path:
        raise OSError(number, os.strerror(number), "results/plans/x.json")

    monkeypatch.setattr(planned_commands, "frozen_plan", fails)
    assert main(OVERRIDES) == 1
    text = capsys.readouterr().err
    assert text.startswith(f"error: results/plans/x.json: {os.strerror(number)}; ")
    assert remedy in text and text.endswith(", and run again\n")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if os.geteuid() or subprocess.run(asked, capture_output=True, timeout=LIMIT_S).returncode:
        pytest.skip("only root mounts a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=LIMIT_S)


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_results_on_a_disk_that_takes_nothing_end_in_a_sentence(
    small: Path, tmp_path: Path, how: str
) -> None:
    root = copy_project(tmp_path / "checkout")
    (root / "results").symlink_to(small)
    if how == "full":
        with contextlib.suppress(OSError), (small / "filler").open("wb", buffering=0) as stream:
            stream.write(bytes(1 << 20))
    else:
        again = ["mount", "-o", "remount,ro", str(small)]
        subprocess.run(again, check=True, timeout=LIMIT_S)
    done = subprocess.run(
        [sys.executable, "-m", "steps.commands.cli", *OVERRIDES],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    words = {"full": "No space left on device", "read-only": "Read-only file system"}[how]
    assert done.stderr.startswith("error: ") and words in done.stderr
    assert len(done.stderr.splitlines()) == 1
