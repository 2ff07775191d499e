"""`make bench`: make what the measurements need, then measure in the engine's environment."""

import subprocess
from pathlib import Path

from steps.cli import ROOT, frozen_plan
from steps.plan import load

OVERRIDES = ["experiment=rehearsal", "scenario=Offline"]


def main() -> None:
    needed = ["environment", "model", "dataset"]
    subprocess.run(
        [str(ROOT / "reproduce"), "run", *OVERRIDES, "--", "--until", *needed], check=True
    )
    jobs = load(frozen_plan(ROOT, OVERRIDES)).jobs
    run = next(job for job in jobs if job.step == "performance_run")
    artifacts = [f"--{role}={Path(run.inputs[role]).parent}" for role in ("model", "dataset")]
    subprocess.run(
        [
            *(str(ROOT / run.environment / "bin/python"), "-m", "bench.offline_efficiency"),
            *(f"--config={run.config}", *artifacts),
        ],
        check=True,
        cwd=ROOT,
    )


if __name__ == "__main__":
    main()
