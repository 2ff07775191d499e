"""Which variables a process reads, in Python and in libraries."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from steps.run.engines import watched
from tests.conftest import ROOT

READS = """
import json, os, sys
from steps.run.engines.watched import watch
found = watch(["GOT", "TAKEN", "ASKED", "DEAD", "COPIED", "TABLE", "AFTER"])
os.environ.get("GOT"); os.environ["TAKEN"]; "ASKED" in os.environ
dict(os.environ), {**os.environ}, os.environ.copy()
dict(os.environ.items()), list(os.environ.values()), os.environ | {}
[name for name in os.environ]
list(os.environ.keys()); os.getenv("AFTER")
def compile_factors():
    getter = lambda: os.getenv("TABLE")
    return getter()
compile_factors()
os.environ["NEW"] = "1"; del os.environ["NEW"]
print(json.dumps(found.states()))
"""


def test_reads_by_name_are_told_from_copies_and_from_silence() -> None:
    names = ("GOT", "TAKEN", "ASKED", "DEAD", "COPIED", "TABLE", "AFTER")
    done = subprocess.run(
        [sys.executable, "-c", READS],
        env={"PATH": "/usr/bin", **dict.fromkeys(names, "1")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {
        **{"GOT": "read", "TAKEN": "read", "ASKED": "read", "AFTER": "read"},
        **{"DEAD": "unread", "COPIED": "unread", "TABLE": "listed"},
    }


def test_a_variable_that_nothing_asked_for_is_unread() -> None:
    found = watched.Watch({"VLLM_SUBSEQUENT_DECODE_STEPS"})
    assert found.states() == {"VLLM_SUBSEQUENT_DECODE_STEPS": "unread"}
    said = list(watched.differences(found.states(), {}))
    assert said == [
        "environment.VLLM_SUBSEQUENT_DECODE_STEPS: nothing in the engine's process read it"
    ]
    assert not list(watched.differences(found.states(), {"VLLM_SUBSEQUENT_DECODE_STEPS": ""}))


def test_a_variable_that_is_said_to_be_unread_and_was_read_is_a_difference() -> None:
    assert list(watched.differences({"A": "read"}, {"A": "gone"})) == [
        "environment.A: engine.unread says that it isn't read, and it was"
    ]


@pytest.mark.parametrize("part", [1, 7, 64 << 20])
def test_a_library_that_holds_the_name_may_read_it(
    tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "PART", part)
    library = tmp_path / "lib hip.so.6"
    library.write_bytes(b"\x7fELF\0HSA_KERNARG_POOL_SIZE\0HIP_FORCE_DEV\0LONGER_HSA_XNACK\0")
    maps = tmp_path / "maps"
    line = "7f00-7f01 r-xp 00000000 08:01 123   "
    maps.write_text(f"{line}{library}\n{line}/gone.so\n{line}[heap]\n", encoding="utf-8")
    names = {"HSA_KERNARG_POOL_SIZE", "HIP_FORCE_DEV_KERNARG", "HSA_XNACK"}
    assert watched.in_libraries(names, maps) == {"HSA_KERNARG_POOL_SIZE"}
    assert watched.in_libraries(set(), maps) == set()
    assert watched.in_libraries(names, tmp_path / "none") == set()
