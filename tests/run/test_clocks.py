"""Clocks that a site allows to be set: set before a run, reset after it, and after a kill too.

The tools are scripts that print what is recorded; sudo is a script that notes what it is asked.
"""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.commands import cli
from steps.config.accelerators import Vendor
from steps.machine.probes.values import Accelerator
from steps.run import clocks
from steps.schedule.launching import launcher
from tests.conftest import ROOT, planned

AMD: Vendor = "AMD"
POWER = {"perf_determinism_mhz": 1300, "soc_pstate": 0}
SET = ["rocm-smi --setperfdeterminism 1300", "amd-smi set --soc-pstate 0 -g all"]
UNDO = ["rocm-smi --setperfdeterminism 1400", "amd-smi set --soc-pstate 1 -g all"]
"""The recorded MI300X are at 1400 MHz and SoC policy 1."""
LIMIT_S = 60


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A checkout whose steps are ours, on a machine with eight MI300X."""
    (tmp_path / "results").mkdir()
    (tmp_path / "steps").symlink_to(ROOT / "steps")
    tools = tmp_path / "tools"
    tools.mkdir()
    texts = {
        "amd-smi": f"cat {shlex.quote(str(ROOT / 'tests/recorded/amd-smi-static-8xmi300x.json'))}",
        "rocm-smi": f"cat {shlex.quote(str(ROOT / 'tests/recorded/rocm-smi-8xmi300x.json'))}",
        "sudo": f'shift; echo "$*" >> {tmp_path / "asked"}; exit $(cat "$0.status")',
    }
    for name, text in texts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
        (tools / name).chmod(0o755)
    (tools / "sudo.status").write_text("0", encoding="ascii")
    yield tmp_path


def begun(home: Path, *command: str) -> "subprocess.Popen[str]":
    code = (
        "import sys; from pathlib import Path; from steps.run import clocks;"
        f"clocks.ROOT = Path({str(home)!r}); sys.exit(clocks.main(sys.argv[1:]))"
    )
    environment = {**os.environ, "PATH": f"{home / 'tools'}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(POWER), "--", *command],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def asked(home: Path) -> list[str]:
    path = home / "asked"
    return path.read_text(encoding="ascii").splitlines() if path.exists() else []


def state(home: Path) -> Path:
    return clocks.state_of(home, platform.node())


def test_clocks_are_set_before_the_run_and_reset_after_it(checkout: Path) -> None:
    seen = f"cp {state(checkout)} {checkout / 'during'}; exit 3"
    process = begun(checkout, "sh", "-c", seen)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3, said
    assert asked(checkout) == SET + UNDO
    during = json.loads((checkout / "during").read_text(encoding="utf-8"))
    assert [" ".join(command) for command in during["undo"]] == UNDO
    assert not (state(checkout)).exists()
    log = (checkout / clocks.LOG).read_text(encoding="utf-8").splitlines()
    assert [line.partition(" sudo -n ")[2] for line in log] == SET + UNDO
    assert [line for line in said.splitlines() if line.startswith("clocks: sudo -n ")]


def test_a_refusal_of_sudo_is_one_sentence_and_nothing_runs(checkout: Path) -> None:
    (checkout / "tools/sudo.status").write_text("1", encoding="ascii")
    process = begun(checkout, "touch", str(checkout / "ran"))
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1 and "site.sudo=false" in said, said
    assert not (checkout / "ran").exists()
    assert not (state(checkout)).exists()


def test_after_a_kill_the_next_command_resets_them_and_says_so(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process = begun(checkout, "sh", "-c", f"touch {checkout / 'running'}; exec sleep 60")
    until = time.monotonic() + LIMIT_S
    while not (checkout / "running").exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    assert clocks.restore(checkout) == ""  # it runs
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT_S)
    assert asked(checkout) == SET and (state(checkout)).exists()
    monkeypatch.setenv("PATH", f"{checkout / 'tools'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(cli, "ROOT", checkout)
    (checkout / "tools/sudo.status").write_text("1", encoding="ascii")
    cli.main(["ls"])
    said = capsys.readouterr().err
    assert "they can't be reset now" in said and f"type: sudo {UNDO[0]}" in said
    assert (state(checkout)).exists()
    (checkout / "tools/sudo.status").write_text("0", encoding="ascii")
    cli.main(["ls"])
    assert "the last run was killed before it had reset" in capsys.readouterr().err
    assert asked(checkout)[-2:] == UNDO and not (state(checkout)).exists()


def test_what_an_earlier_version_wrote_down_is_reset_too(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file for all machines, as of before there was one for each."""
    monkeypatch.setenv("PATH", f"{checkout / 'tools'}{os.pathsep}{os.environ['PATH']}")
    undo = tuple(tuple(line.split()) for line in UNDO)
    older = checkout / "results/clocks.json"
    for host, there in (("another-node", True), (platform.node(), False)):
        held = clocks.Changed(mark="1-0", host=host, undo=undo)
        older.write_text(held.model_dump_json(), encoding="utf-8")
        assert bool(clocks.restore(checkout)) is not there
        assert older.exists() is there
    assert asked(checkout) == UNDO


def test_what_another_machine_has_just_reset_is_no_complaint(checkout: Path) -> None:
    """Its file is listed and then gone, where several share results/."""
    (checkout / "results/clocks-another-node.json").symlink_to("gone")
    assert clocks.here(checkout) == []
    assert clocks.restore(checkout) == ""


def test_an_end_by_signal_ends_the_run_first_and_then_resets(checkout: Path) -> None:
    process = begun(checkout, "sh", "-c", f"touch {checkout / 'running'}; exec sleep 60")
    until = time.monotonic() + LIMIT_S
    while not (checkout / "running").exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert asked(checkout) == SET + UNDO


def test_only_what_differs_is_set() -> None:
    now = Accelerator(
        vendor=AMD, performance_level="perf_determinism", max_clock_mhz=1300, soc_pstate=1
    )
    power = clocks.Power.model_validate_json(json.dumps(POWER))
    assert [" ".join(one) for one in clocks.wanted(power, now)] == SET[1:]
    auto = now.model_copy(update={"performance_level": "auto", "soc_pstate": None})
    assert [" ".join(one) for one in clocks.wanted(power, auto)] == SET[:1]
    assert list(clocks.undoing(power, auto)) == [("rocm-smi", "--resetperfdeterminism")]
    default = clocks.Power(perf_determinism_mhz=0, soc_pstate=1)
    assert list(clocks.wanted(default, now)) == [("rocm-smi", "--resetperfdeterminism")]
    assert list(clocks.wanted(default, auto)) == []


def test_a_run_is_given_to_it_only_where_the_site_allows_that() -> None:
    chosen = ("experiment=amd-v5.1", "system=amd-mi300x", "benchmark=llama2-70b-99.9")
    for allowed in (False, True):
        plan = planned(*chosen, "scenario=Offline", *(["site.sudo=true"] if allowed else []))
        jobs = {job.step: job for job in plan.jobs}
        words = launcher(jobs["performance_run"], plan, Path("plan.json"))
        assert ("steps.run.clocks" in words) is allowed
        if allowed:
            assert json.loads(words[words.index("steps.run.clocks") + 1]) == {
                "perf_determinism_mhz": 1400,
                "soc_pstate": 1,
            }
        assert "steps.run.clocks" not in launcher(jobs["quantize"], plan, Path("plan.json"))
