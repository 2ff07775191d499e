"""A measured run behind a gate: it starts only if every gate holds, and says why it doesn't."""

import subprocess
import sys
from pathlib import Path

from steps.base.record import publish
from steps.config.verdicts import Complaint, QuickVerdict, as_result
from tests.conftest import ROOT


def verdict(home: Path, *complaints: Complaint) -> Path:
    """The manifest of a quick check."""
    numbers = {"ratio": 50.0, "low": 40.0, "high": 60.0, "minimum": 98.0, "gigabytes": 0.1}
    with publish(home, step="quick_check", config={}, inputs={}, code="") as workspace:
        found = QuickVerdict(
            holds=not complaints,
            complaints=complaints,
            after="quantize",
            samples=8,
            score=40.0,
            **numbers,
        )
        workspace.result = as_result(found)
    return home / "manifest.json"


def run_behind(*gates: Path, log: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "print('ran')"]
    arguments = ["performance_run", str(log), *map(str, gates), "--", *command]
    return subprocess.run(
        [sys.executable, "-m", "steps.run.gate", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_run_starts_only_if_every_gate_holds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    good = verdict(tmp_path / "good")
    lost = Complaint(code="quick", words="50 % are kept", fix="mend the compression")
    bad = verdict(tmp_path / "bad", lost)
    assert run_behind(good, log=log).stdout == "ran\n"
    assert not log.exists()
    done = run_behind(good, bad, log=log)
    assert (done.returncode, done.stdout) == (1, "")
    said = f"error: performance_run: not run, because {tmp_path}/bad failed: 50 % are kept; "
    assert done.stderr == f"{said}mend the compression\n" == log.read_text(encoding="utf-8")
    done = run_behind(tmp_path / "none/manifest.json", log=log)
    assert done.returncode == 1 and "is missing" in done.stderr and "Traceback" not in done.stderr
