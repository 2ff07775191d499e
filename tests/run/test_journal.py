"""The journal beside a run: what it notes of planted causes, and what of it is a disturbance."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.base.record import Manifest, publish
from steps.config.window import Window, WindowBounds
from steps.judge.disturbances import window, window_of
from steps.plan.code import sources
from steps.run.journal import __main__ as writer
from steps.run.journal import accelerators
from steps.run.journal.__main__ import readings
from steps.run.journal.lines import JOURNAL, Device, Journal, Line, Step, read
from steps.run.journal.order import Order
from tests.conftest import ROOT
from tests.running import run_result

RECORDED = ROOT / "tests" / "recorded"


def conf(name: str) -> str:
    """A file of conf/ as JSON."""
    return json.dumps(yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text()))


BOUNDS = WindowBounds.model_validate_json(conf("window"))
ORDER = Order(
    run=os.getpid(),
    cpus=tuple(sorted(os.sched_getaffinity(0))),
    engines_elsewhere=False,
    tool=None,
    tool_limit_s=0.5,
    tool_share=0.5,
    tool_failures=2,
    caches=(),
    passing=(".lock",),
    share=0.01,
)


# ---- the process ----------------------------------------------------------------------------


@contextmanager
def noted(home: Path, order: Order, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A journal's process in home/journal.jsonl; ended at the end."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-S",
            "-m",
            "steps.run.journal",
            str(home / "journal.jsonl"),
            order.text(),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write(f"{time.perf_counter()!r}\n")
        process.stdin.flush()
        yield process
        process.stdin.close()
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


def test_a_file_that_is_compiled_last_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()

    def seconds(begun: float, run: int) -> Iterator[float | None]:
        yield begun + 1.0
        (cache / "new.hsaco").write_text("x")
        yield None  # at once: a line would be too short

    monkeypatch.setattr(writer, "_seconds", seconds)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{time.monotonic()!r}\n"))
    writer.keep(tmp_path / JOURNAL, replace(ORDER, caches=(("Triton", str(cache)),)))
    first, last = read(tmp_path / JOURNAL).lines
    assert not first.compiled and last.others is None
    assert [name for _, name, _ in last.compiled] == ["new.hsaco"]


def tool(home: Path, name: str, script: str) -> dict[str, str]:
    """A program of this name on the PATH; the environment to find it in."""
    path = home / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return {"PATH": f"{path.parent}:{os.environ['PATH']}"}


def test_a_planted_compiled_file_is_named_with_its_second(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "a").mkdir(parents=True)
    (cache / "a" / "old.hsaco").write_text("x")
    order = replace(ORDER, caches=(("Triton", str(cache)), ("AITER", str(tmp_path / "none"))))
    with noted(tmp_path, order):
        time.sleep(1.3)
        (cache / "b").mkdir()
        (cache / "b" / "new.hsaco").write_text("x")
        (cache / "b" / "new.lock").write_text("x")
        time.sleep(0.2)
    journal = read(tmp_path / "journal.jsonl")
    (found,) = [one for one in window(journal, 2, BOUNDS).disturbances if one.by == "compiled"]
    assert 1.0 <= found.from_s <= 3.0
    assert found.words == "a file appeared in the cache of Triton (new.hsaco)"


def test_a_file_that_is_compiled_last_is_named(tmp_path: Path) -> None:
    """Just after a line, so that too little time is left for another one of all columns."""
    cache, path = tmp_path / "cache", tmp_path / "journal.jsonl"
    cache.mkdir()
    with noted(tmp_path, replace(ORDER, caches=(("Triton", str(cache)),))):
        limit = time.monotonic() + 10
        while not path.exists() or "\n" not in path.read_text():
            assert time.monotonic() < limit
            time.sleep(0.005)
        (cache / "last.hsaco").write_text("x")
    journal = read(path)
    (found,) = [name for line in journal.lines for _, name, _ in line.compiled]
    assert found == "last.hsaco"
    (said,) = [one for one in window(journal, 2, BOUNDS).disturbances if one.by == "compiled"]
    assert said.words == "a file appeared in the cache of Triton (last.hsaco)"


def test_a_stopped_run_is_named_with_its_seconds(tmp_path: Path) -> None:
    """A run's process in the place of an engine: what counts is that the run is stopped."""
    script = "import time\nwhile True: time.sleep(0.1)"
    child = subprocess.Popen([sys.executable, "-c", script])
    try:
        with noted(tmp_path, ORDER):
            time.sleep(1.2)
            child.send_signal(signal.SIGSTOP)
            time.sleep(3)
            child.send_signal(signal.SIGCONT)
            time.sleep(1.2)
    finally:
        child.kill()
        child.wait()
    journal = read(tmp_path / "journal.jsonl")
    (found,) = [one for one in window(journal, 2, BOUNDS).disturbances if one.by == "stopped"]
    assert found.words == "a process of the run was stopped by a signal"
    assert 0 <= found.from_s <= 2.5
    assert 2 <= found.to_s - found.from_s <= 5


def test_a_throttle_in_a_tools_answers_is_named(tmp_path: Path) -> None:
    answers = tmp_path / "answers.csv"
    answers.write_text((RECORDED / "nvidia-smi-state-8xh100.csv").read_text())
    environment = tool(tmp_path, "nvidia-smi", f"cat '{answers}'")
    with noted(tmp_path, replace(ORDER, tool="nvidia-smi", tool_share=1.0), **environment):
        time.sleep(2.2)
        throttled = RECORDED / "nvidia-smi-state-throttled.csv"
        answers.write_text(throttled.read_text())
        time.sleep(3)
    journal = read(tmp_path / "journal.jsonl")
    assert len(journal.lines[-1].accelerators or journal.lines[-2].accelerators) == 8
    (found,) = [one for one in window(journal, 2, BOUNDS).disturbances if one.by == "throttle"]
    assert found.words == "accelerator 5 was throttled (hw slowdown, hw thermal slowdown)"
    assert found.from_s >= 1


def test_a_tool_that_hangs_costs_a_column(tmp_path: Path) -> None:
    environment = tool(tmp_path, "amd-smi", "sleep 60")
    with noted(tmp_path, replace(ORDER, tool="amd-smi"), **environment):
        time.sleep(5.3)
    lines = read(tmp_path / "journal.jsonl").lines
    assert len(lines) >= 4, "the others are noted"
    (said,) = filter(None, (line.unanswered for line in lines))
    assert said == "amd-smi gave no answer in 0.5 s; it is no longer asked"


@pytest.mark.parametrize(
    "script", ["exit 3", "echo '[{\"gpu\": ['", "echo; echo", "cat /dev/zero | head -c 300000"]
)
@pytest.mark.parametrize("name", ["amd-smi", "rocm-smi", "nvidia-smi"])
def test_a_tool_that_answers_nonsense_costs_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, script: str
) -> None:
    monkeypatch.setenv("PATH", tool(tmp_path, name, script)["PATH"])
    asked = accelerators.Accelerators(name, 10, 1.0, 2)
    said: dict[str, Any] = {}
    limit = time.monotonic() + 20
    while not said and time.monotonic() < limit:
        said = asked.read()
        time.sleep(0.02)
    assert list(said) == ["unanswered"] and said["unanswered"].startswith(name)
    assert asked.read() == {}


def test_the_journal_ends_with_a_run_that_dies(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys, time\n"
        "from dataclasses import replace\n"
        "from tests.run.test_journal import ORDER\n"
        "order = replace(ORDER, run=os.getpid())\n"
        "words = [sys.executable, '-S', '-m', 'steps.run.journal', sys.argv[1], order.text()]\n"
        "child = subprocess.Popen(words, stdin=subprocess.PIPE, text=True)\n"
        "child.stdin.write(f'{time.perf_counter()!r}\\n'); child.stdin.flush()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "journal.jsonl")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert run.stdout is not None
    lines = [run.stdout.readline(), run.stdout.readline()]
    pid = int(next(line for line in lines if line.strip() != "ready"))
    time.sleep(1.5)
    run.kill()
    run.wait()
    limit = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < limit, "the journal outlived its run"
        time.sleep(0.05)
    assert read(tmp_path / "journal.jsonl").lines


def test_a_machine_that_tells_nothing_costs_columns_and_a_sentence_each(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    found = [reading.missing() for reading in readings(ORDER, tmp_path)]
    assert [words for words in found if words] == [
        f"{tmp_path}/proc/stat has no values of this run's CPUs: "
        "others, steal and busy are missing",
        f"{tmp_path}/proc/pressure can't be read: cpu, memory and io pressure are missing",
        f"{tmp_path}/proc/meminfo can't be read: memory is missing",
        "sysfs shows no temperature and no frequency of processors",
    ]
    for reading in readings(ORDER, tmp_path):
        for _ in range(2):
            columns = reading.read()
            Line.model_validate_json(json.dumps({"s": 1.0, **columns}))


def test_sensors_are_read(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    files = {
        "class/hwmon/hwmon0/temp1_input": "61500",
        "class/thermal/thermal_zone0/temp": "48000",
        "class/thermal/thermal_zone1/temp": "not a number",
        f"devices/system/cpu/cpu{ORDER.cpus[0]}/cpufreq/scaling_cur_freq": "3100000",
    }
    for name, text in files.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(text + "\n")
    sensors = readings(ORDER, tmp_path)[3]
    assert sensors.missing() is None
    assert sensors.read() == {"hottest_c": 61.5, "mhz": 3100}


# ---- tools' answers -------------------------------------------------------------------------


def test_answers_of_tools_are_read() -> None:
    h100 = accelerators.nvidia_smi((RECORDED / "nvidia-smi-state-8xh100.csv").read_text())
    assert h100[0] == {
        **{"mhz": 1980, "memory_mhz": 2619, "w": 688.12, "c": 64, "used_mib": 76012},
        **{"errors": 0, "throttled": ["sw power cap"]},
    }
    (amd, throttled) = accelerators.amd_smi((RECORDED / "amd-smi-metric-2xmi325x.json").read_text())
    counted = amd.pop("violations")
    assert (counted["ppt"], sum(counted.values())) == (41, 41)
    assert amd == {
        **{"mhz": 1702, "memory_mhz": 2000, "w": 941, "c": 71, "used_mib": 240120},
        **{"errors": 0, "throttled": ["ppt"]},
    }
    assert throttled["throttled"] == ["socket thermal", "hbm thermal"]
    (rocm,) = accelerators.rocm_smi((RECORDED / "rocm-smi-state-1xmi300x.json").read_text())
    assert rocm == {"mhz": 1398, "memory_mhz": 1300, "w": 702, "c": 68, "used_mib": 180000}


# ---- the verdict ----------------------------------------------------------------------------


def lines(count: int, **columns: Any) -> tuple[Line, ...]:
    return tuple(Line(s=float(n), others=0.05, steal=0.0, **columns) for n in range(1, count + 1))


def changed(journal: tuple[Line, ...], first: int, last: int, **columns: Any) -> tuple[Line, ...]:
    """Of the seconds from `first` to `last`, the last one included."""
    return tuple(
        line.model_copy(update=columns) if first <= line.s <= last else line for line in journal
    )


def test_other_processes_and_what_they_cost_are_words() -> None:
    busy = changed(lines(60), 27, 50, others=1.3)
    steps = (
        Step(step=0, s=31.5, took_s=0.9, times=30.2),
        Step(step=0, s=55.0, took_s=0.2, times=9),
    )
    (found,) = window(Journal(busy, steps), 2, BOUNDS).disturbances
    assert str(found) == (
        "from second 26 to 50 other processes took 1.3 of 2 cores; a step took 30 times its "
        "median then"
    )
    assert found.cost is not None and found.cost.lost_s == 0.87


def test_an_idle_machine_is_clean() -> None:
    journal = Journal(
        changed(lines(600), 300, 300, others=2.0, faults=9e5, major_faults=3.0, cpu_pressure=0.9),
        (Step(step=0, s=9.0, took_s=0.4, times=12.0),),
    )
    assert window(journal, 2, BOUNDS).clean


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"steal": 0.5}, "the hypervisor took 0.5 of 2 cores"),
        ({"memory_pressure": 0.4}, "every process waited for memory 40 % of the time"),
        ({"swapped_mb": 120.0}, "120 MB a second were swapped"),
        ({"stopped": 3}, "3 processes of the run were stopped by a signal"),
        (
            {
                "accelerators": (
                    Device(throttled=("ppt",)),
                    Device(throttled=("hbm thermal", "ppt")),
                )
            },
            "accelerator 1 was throttled (hbm thermal)",
        ),
    ],
)
def test_each_cause_is_named_with_its_seconds(columns: dict[str, Any], words: str) -> None:
    quiet = {"accelerators": (Device(throttled=("ppt",)), Device())}
    journal = Journal(changed(lines(40, **quiet), 11, 20, **columns), ())
    (found,) = window(journal, 2, BOUNDS).disturbances
    assert (found.words, found.from_s, found.to_s) == (words, 10.0, 20.0)


def test_errors_are_those_that_came_in_the_window() -> None:
    before = lines(10, accelerators=(Device(errors=7.0), Device(errors=0.0)))
    journal = changed(before, 6, 10, accelerators=(Device(errors=7.0), Device(errors=2.0)))
    (found,) = window(Journal(journal, ()), 2, BOUNDS).disturbances
    assert found.words == "accelerator 1 had 2 errors of memory that can't be corrected"
    assert window(Journal(before, ()), 2, BOUNDS).clean


def test_a_machine_that_stood_still_and_steps_alone_are_named() -> None:
    still = tuple(line for line in lines(30) if not 11 <= line.s <= 15)
    (found,) = window(Journal(still, ()), 2, BOUNDS).disturbances
    assert (found.by, found.from_s, found.to_s) == ("still", 10.0, 16.0)
    steps = (Step(step=3, s=13.2, took_s=3.1, times=45.0),)
    (found,) = window(Journal(lines(30), steps), 2, BOUNDS).disturbances
    assert str(found) == (
        "from second 10 to 13 a step of the engine took 3.1 s, 45 times the median, with nothing "
        "else to explain it"
    )


COLUMN = st.none() | st.floats(0, 500)


@given(
    st.lists(st.tuples(st.floats(0.01, 9), COLUMN, COLUMN, COLUMN, st.integers(0, 9)), max_size=40),
    st.lists(st.tuples(st.floats(0, 300), st.floats(0.05, 60), st.floats(8, 1e6)), max_size=20),
    st.integers(1, 512),
)
def test_whatever_a_journal_holds_the_window_is_in_it_and_survives_json(
    rows: list[tuple[float, Any, Any, Any, int]], slow: list[tuple[float, float, float]], cores: int
) -> None:
    noted_lines, at = [], 0.0
    for passed, others, steal, pressure, stopped in rows:
        at += passed
        noted_lines.append(
            Line(s=at, others=others, steal=steal, memory_pressure=pressure, stopped=stopped)
        )
    steps = tuple(Step(step=0, s=s, took_s=took, times=times) for s, took, times in slow)
    found = window(Journal(tuple(noted_lines), steps), cores, BOUNDS)
    assert len(found.disturbances) <= BOUNDS.most
    for one in found.disturbances:
        assert 0 <= one.from_s <= one.to_s + 0.1
    again = Window.model_validate_json(found.model_dump_json())
    assert again == found


@pytest.mark.parametrize(
    "text", ["", "\x00\xff", "[1]\n", '{"s": "soon"}\n', '{"s": 1.0, "x": 2}\n']
)
def test_what_is_no_journal_is_told_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="are unknown"):
        read(path)
    said: list[str] = []
    run = run_of(tmp_path / "run", text.encode("latin-1"), whole_s=1.0)
    assert window_of(run, BOUNDS, said.append) is None
    assert len(said) == 1 and "are unknown" in said[0]


def run_of(home: Path, journal: bytes, whole_s: float) -> Manifest:
    """A published run on two CPUs with this journal."""
    with publish(home, step="performance_run", config={}, inputs={}, code="") as workspace:
        (workspace.directory / JOURNAL).write_bytes(journal)
        workspace.result = run_result(journal={"cores": 2, "whole_s": whole_s})
    return Manifest.read(home / "manifest.json")


def test_another_bound_judges_the_same_run_otherwise(tmp_path: Path) -> None:
    busy = changed(lines(60), 27, 50, others=0.5)
    text = "".join(line.model_dump_json(exclude_defaults=True) + "\n" for line in busy)
    run, said = run_of(tmp_path / "run", text.encode(), whole_s=60.4), list[str]()
    judged = window_of(run, BOUNDS, said.append)
    assert judged is not None and not judged.clean
    assert said == [
        "the run was disturbed: from second 26 to 50 other processes took 0.5 of 2 cores"
    ]
    wider = BOUNDS.model_copy(update={"processes": 0.3})
    judged = window_of(run, wider, said.append)
    assert judged is not None and judged.clean and len(said) == 1
    for step in ("performance_run", "accuracy_run", "compliance_run", "quick_run"):
        assert not set(sources(step, ROOT)) & {
            "steps/config/window.py",
            "steps/judge/disturbances.py",
            "conf/window.yaml",
        }


def test_a_journal_that_ends_long_before_its_run_says_nothing(tmp_path: Path) -> None:
    run, said = run_of(tmp_path / "run", b'{"s": 1.0}\n', whole_s=60.0), list[str]()
    assert window_of(run, BOUNDS, said.append) is None
    assert "ends at second 1 of 60" in said[0]


def test_a_killed_journals_last_line_may_be_half(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"s": 1.0, "others": 0.5}\n{"s": 2.0, "oth', encoding="utf-8")
    assert len(read(path).lines) == 1
