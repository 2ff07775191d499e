"""Locks: read as they stand, refreshed without another version."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.base.locks import agree, entries, normal, of_environment, overlaid_text, packages
from steps.commands import relock
from tests import wheels
from tests.conftest import ROOT

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,5}([-_.][A-Za-z0-9]{1,4}){0,2}", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}(\+cpu)?", fullmatch=True)
DIGESTS = st.lists(st.binary(max_size=3).map(lambda b: hashlib.sha256(b).hexdigest()), max_size=3)


@st.composite
def written(draw: st.DrawFn) -> str:
    """A package as pip, uv or a hand write it."""
    name, version, digests = draw(NAMES), draw(VERSIONS), draw(DIGESTS)
    marker = draw(st.sampled_from(["", " ; python_version >= '3.10'"]))
    between = draw(st.sampled_from([" \\\n    ", " "]))
    return between.join([f"{name}=={version}{marker}", *(f"--hash=sha256:{d}" for d in digests)])


REMARKS = st.sampled_from(["", "# a remark", "--no-index", "-f /wheels", "    # via x"])


@given(st.lists(written() | REMARKS), st.sampled_from(["", "\n"]))
def test_entries_are_the_lock_itself(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], end: str
) -> None:
    lock = tmp_path_factory.mktemp("lock") / "x.lock"
    text = "\n".join(parts) + end
    lock.write_text(text, encoding="utf-8")
    found = entries(lock)
    assert "".join(entry.text for entry in found) == text
    wanted = [part for part in parts if "==" in part.partition(" ;")[0] and "#" not in part]
    assert [(entry.name, entry.version) for entry in found if entry.name] == [
        (normal(part.partition("==")[0]), part.partition("==")[2].split()[0]) for part in wanted
    ]
    assert [len(entry.digests) for entry in found if entry.name] == [
        part.count("--hash") for part in wanted
    ]


@pytest.mark.parametrize("lock", sorted(ROOT.glob("envs/*.lock")), ids=lambda lock: lock.stem)
def test_every_locked_package_has_digests(lock: Path) -> None:
    assert packages(lock)
    assert not [entry.text for entry in entries(lock) if not entry.name or not entry.digests]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a folder of wheels and uv; refreshing looks nowhere else."""
    home = wheels.checkout(tmp_path / "home")
    wheels.share_installer(home)
    wheels.wheel(home / "wheels")
    monkeypatch.setattr(relock, "ROOT", home)
    return home


def test_where_no_index_gives_digests_those_of_the_lock_stay(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "# kept\n" + wheels.locked(home / "wheels/tiny-1.0-py3-none-any.whl")
    (home / "envs/x.lock").write_text(text, encoding="utf-8")
    assert relock.main(["x"]) == 0
    assert capsys.readouterr().out == "envs/x.lock: unchanged\n"
    assert (home / ".envs/install.log").is_file()
    assert (home / "envs/x.lock").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tiny==1.0\n", "no index gives a digest of tiny==1.0"),
        ("tiny==2.0\n", "tiny==2.0"),
        ("tiny>=1\n", "x.lock, line 1: 'tiny>=1' pins no version"),
    ],
)
def test_what_cant_be_refreshed_stays_and_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (home / "envs/x.lock").write_text(text, encoding="utf-8")
    assert relock.main(["x"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and words in errors
    assert (home / "envs/x.lock").read_text(encoding="utf-8") == text


def test_digests_are_exchanged_and_names_and_versions_stay(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    lock.write_text(f"Ti.ny==1.0 --hash=sha256:{'1' * 64}\nb==2+cpu\n", encoding="utf-8")
    first, second = entries(lock)
    new = {"ti-ny": ["f" * 64, "e" * 64], "b": []}
    assert relock.written(first, new, lock) == (
        f"Ti.ny==1.0 \\\n    --hash=sha256:{'e' * 64} \\\n    --hash=sha256:{'f' * 64}\n"
    )
    with pytest.raises(UserError, match="no index gives a digest of b==2"):
        relock.written(second, new, lock)


def test_a_later_locks_package_takes_the_place_of_an_earlier_ones(tmp_path: Path) -> None:
    own, other = tmp_path / "cpu.lock", tmp_path / "loadgen-6.0.15.lock"
    own.write_text(
        "torch==2.0 --hash=sha256:aa\nMLCommons_LoadGen==5.1.2 \\\n    --hash=sha256:bb\n"
    )
    other.write_text("mlcommons-loadgen==6.0.15 --hash=sha256:cc")
    assert agree([own]) and not agree([own, other])
    whole = tmp_path / "whole.lock"
    whole.write_text(overlaid_text([own, other]))
    assert packages(whole) == {"torch": "2.0", "mlcommons-loadgen": "6.0.15"}
    assert "bb" not in whole.read_text()


def test_the_locks_of_an_environment_follow_from_its_name() -> None:
    assert of_environment("cpu-cluster") == ["cpu-cluster"]
    assert of_environment("cpu-cluster-loadgen-6.0.15") == ["cpu-cluster", "loadgen-6.0.15"]
    assert of_environment("loadgen-6.0.15") == ["loadgen-6.0.15"]
