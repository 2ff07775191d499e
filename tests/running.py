"""A run step as Snakemake starts it, watched from outside: its engines' processes, its end."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas

from steps.base.record import Manifest, publish
from steps.plan.registry import STEPS
from tests.conftest import ROOT

LIMIT_S = 120


def artifacts_of(home: Path, samples: int) -> dict[str, Path]:
    """A model and a dataset for engines that read no weights: manifests by role."""
    with publish(home / "model", step="model", config={}, inputs={}, code="") as workspace:
        (workspace.directory / "model.safetensors").write_bytes(b"x")
        workspace.result = {"name": "tiny", "simulated": False}
    # Engines may have an older pandas, which reads no columns of the newer one's strings.
    columns = pandas.Index(["tok_input"], dtype=object)
    prompts = pandas.DataFrame([[[1, 4, 10 + n]] for n in range(samples)], columns=columns)
    with publish(home / "dataset", step="dataset", config={}, inputs={}, code="") as workspace:
        for name in ("evaluation.pkl", "calibration.pkl"):
            prompts.to_pickle(workspace.directory / name)
    return {role: home / role / "manifest.json" for role in ("model", "dataset")}


def run_result(**changes: object) -> dict[str, Any]:
    """A LoadGen run's result, as its manifest has it."""
    return {
        "mode": "PerformanceOnly",
        "scenario": "Offline",
        "engine": {"name": "null", "version": "1", "device": "none"},
        "loadgen_version": "5.1.2",
        "samples": 64,
        "output_tokens": 640,
        "duration_s": 60.0,
        **changes,
    }


def command(
    step: str,
    config: object,
    inputs: Mapping[str, Path],
    home: Path,
    python: str = sys.executable,
) -> list[str]:
    """A step as Snakemake starts it; its result goes to `out` of `home`, its words to `log`."""
    return [
        *(python, "-m", STEPS[step].module, "--config", json.dumps(config)),
        *("--input", *(f"{role}={path}" for role, path in inputs.items())),
        *("--output", str(home / "out/manifest.json"), "--log", str(home / "log")),
    ]


class Running:
    """A run step's command, and its engines' processes."""

    def __init__(
        self,
        step: str,
        config: dict[str, Any],
        inputs: dict[str, Path],
        home: Path,
        engines: int,
        python: str = sys.executable,
    ) -> None:
        self.home = home
        self._expected = engines
        self.process = subprocess.Popen(
            command(step, config, inputs, home, python),
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.engines: list[int] = []

    def wait_until_running(self) -> None:
        """Until LoadGen has begun its test."""
        limit = time.monotonic() + LIMIT_S
        while not list(self.home.glob(".out.*/mlperf_log_detail.txt")):
            assert time.monotonic() < limit
            assert self.process.poll() is None, self.process.communicate()[1]
            self._look_for_engines()
            time.sleep(0.02)
        self._look_for_engines()
        assert len(self.engines) == self._expected

    def _look_for_engines(self) -> None:
        """All are there before LoadGen begins; a short run may be over when this looks again."""
        if len(self.engines) < self._expected:
            self.engines = [
                pid
                for pid in below(self.process.pid)
                if "steps.run.engines.worker" in command_of(pid)
            ]

    def first_engine(self) -> int:
        """As soon as its process is there, long before it is ready."""
        limit = time.monotonic() + LIMIT_S
        while True:
            for pid in below(self.process.pid):
                if "steps.run.engines.worker" in command_of(pid):
                    return pid
            assert time.monotonic() < limit
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.02)

    def ended(self) -> tuple[int, str]:
        _, text = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, text

    def manifest(self) -> Manifest:
        return Manifest.read(self.home / "out/manifest.json")


def below(pid: int) -> list[int]:
    """Processes that one has started, and theirs, oldest first."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in listed for child in path.read_text().split()]
    return sorted([*children, *(pid for child in children for pid in below(child))])


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
