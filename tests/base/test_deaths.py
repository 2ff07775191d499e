"""A job whose process a signal ended: who says so, and what it says."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steps.base.deaths import Memory, sentence, signal_of
from tests.conftest import ROOT

LIMIT_S = 120

SNAKEFILE = """
import sys
sys.path.insert(0, {root!r})
from snakemake.logging import logger
from steps.base.deaths import Deaths
DEATHS = Deaths()
def tell_of_death(record):
    if words := DEATHS.heard(record):
        print("error:", words, file=sys.stderr, flush=True)
    return True
logger.addFilter(tell_of_death)
shell.prefix("set -euo pipefail; exec ")
rule performance_run:
    output: "runs/x/manifest.json"
    log: "logs/x.log"
    shell: "{python} -c {code:q}"
"""


def told(home: Path, code: str) -> "subprocess.CompletedProcess[str]":
    """What a job of Snakemake that runs this code leads to."""
    text = SNAKEFILE.replace("{root!r}", repr(str(ROOT))).replace("{python}", sys.executable)
    (home / "Snakefile").write_text(text.replace("{code:q}", f"'{code}'"), encoding="utf-8")
    (home / "logs").mkdir()
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all", "--nolock"],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM], ids=str
)
def test_a_job_that_a_signal_ended_is_named_with_its_log(
    tmp_path: Path, number: signal.Signals
) -> None:
    done = told(tmp_path, f"import os; os.kill(os.getpid(), {int(number)})")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert f"error: performance_run: its process was ended by {number.name}: " in line
    assert "logs/x.log" in line and "the next run starts again" in line
    assert (tmp_path / "logs/x.log").read_text(encoding="utf-8").strip() == line


def test_a_job_that_said_itself_what_is_wrong_is_left_alone(tmp_path: Path) -> None:
    done = told(tmp_path, "raise SystemExit(143)")
    assert done.returncode == 1 and "error:" not in done.stderr


def memory(home: Path) -> Memory:
    """Of a machine with both counters, at none."""
    (home / "proc/self").mkdir(parents=True)
    (home / "group/job").mkdir(parents=True)
    (home / "proc/self/cgroup").write_text("0::/job\n")
    (home / "group/job/memory.max").write_text("8589934592\n")
    count(home, group=0, machine=4)
    return Memory(home / "proc", home / "group")


def count(home: Path, group: int, machine: int) -> None:
    (home / "group/job/memory.events").write_text(f"low 0\noom 1\noom_kill {group}\n")
    (home / "proc/vmstat").write_text(f"nr_free_pages 5\noom_kill {machine}\n")


def test_the_kernel_s_counters_say_whether_memory_was_short(tmp_path: Path) -> None:
    found = memory(tmp_path)
    assert "show enough memory" in found.cause()
    count(tmp_path, group=1, machine=5)
    assert "memory.events rose by 1, memory.max is 8.0 GiB" in found.cause()
    count(tmp_path, group=1, machine=6)
    assert "vmstat rose by 1" in found.cause()
    assert "show enough memory" in found.cause()


def test_counters_that_can_t_be_read_leave_the_likely_cause(tmp_path: Path) -> None:
    assert "most likely the kernel" in Memory(tmp_path, tmp_path).cause()


def test_control_groups_of_the_first_version_are_read(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("5:cpu,memory:/a\n3:pids:/a\n")
    place = tmp_path / "memory/a"
    place.mkdir(parents=True)
    (place / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    found = Memory(tmp_path, tmp_path)
    (place / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert "memory.oom_control rose by 2" in found.cause()


def test_a_shell_s_status_is_a_signal_only_where_a_step_couldn_t_answer_it() -> None:
    assert signal_of(-9) == signal_of(137) == signal.SIGKILL
    assert signal_of(139) == signal.SIGSEGV
    assert signal_of(-15) == signal.SIGTERM and signal_of(143) is None
    assert signal_of(0) is signal_of(1) is signal_of(2) is signal_of(130) is signal_of(255) is None


def test_a_crash_is_told_from_a_kill() -> None:
    text = sentence("quantize", signal.SIGSEGV, "x.log", "memory", "nothing was kept")
    assert "SIGSEGV: native code crashed" in text and "memory" not in text
