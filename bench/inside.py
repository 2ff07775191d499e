"""Benches of the real engine: begun in any environment, measured in the engine's own."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import Self

from steps import ROOT
from steps.base import threads
from steps.base.record import MANIFEST
from steps.config.runs import PerformanceRunConfig
from steps.plan.frozen import frozen_plan
from steps.plan.plan import load
from steps.run.engines import pinning


@dataclass(frozen=True)
class Subject:
    """A measurement's subject: one configuration on one model and dataset (their manifests)."""

    config: PerformanceRunConfig
    model: Path
    dataset: Path

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """The subject that the command line of `run` names."""
        config = PerformanceRunConfig.model_validate_json(arguments.config)
        return cls(config, arguments.model / MANIFEST, arguments.dataset / MANIFEST)

    def engine_environment(self) -> None:
        """Set its engine's variables in this process; call it before vLLM is imported."""
        threads.take(self.config.engine.threads)
        os.environ.update(self.config.engine.environment)

    def engine_place(self) -> None:
        """Threads and CPUs of this process, for an engine that no run starts: as in a run."""
        threads.told(self.config.engine.threads)
        cpus = pinning.apart(self.config.engine).engine
        if cpus:
            pinning.keep_to(cpus)

    @property
    def inputs(self) -> dict[str, Path]:
        return {"model": self.model, "dataset": self.dataset}


def parser(module: str) -> argparse.ArgumentParser:
    """Without --config, a bench calls `run`, which names its subject."""
    found = argparse.ArgumentParser(prog=f"python -m {module}")
    found.add_argument("--config", help="JSON of a performance_run")
    found.add_argument("--model", type=Path, help="directory of the artifact")
    found.add_argument("--dataset", type=Path, help="directory of the artifact")
    return found


def run(module: str, overrides: Sequence[str], given: Sequence[str] = ()) -> None:
    """Run the bench in the environment of these overrides' performance run; makes its inputs."""
    needed = ("environment", "model", "dataset")
    made = [str(ROOT / "reproduce"), *overrides, "--", "--until", *needed]
    subprocess.run(made, check=True, stdout=sys.stderr)
    jobs = load(frozen_plan(ROOT, list(overrides))).jobs
    job = next(job for job in jobs if job.step == "performance_run")
    artifacts = [f"--{role}={Path(job.inputs[role]).parent}" for role in ("model", "dataset")]
    command = [f"{job.environment}/bin/python", "-m", module, f"--config={job.config}"]
    done = subprocess.run([*command, *artifacts, *given], cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{module} ended with status {done.returncode}")
