"""`make bench`: finish the rehearsal if it isn't, then measure, each ratio within one run."""

import subprocess
import sys
from pathlib import Path

from steps.cli import ROOT, frozen_plan
from steps.plan import environment_directory, load


def main() -> None:
    subprocess.run([str(ROOT / "reproduce")], check=True)
    driver = environment_directory(ROOT, "driver")
    subprocess.run([f"{driver}/bin/python", "-m", "bench.noop"], check=True, cwd=ROOT)
    jobs = load(frozen_plan(ROOT, [])).jobs
    run = next(job for job in jobs if job.step == "performance_run")
    artifacts = [f"--{role}={Path(run.inputs[role]).parent}" for role in ("model", "dataset")]
    subprocess.run(
        [
            *(f"{run.environment}/bin/python", "-m", "bench.offline_efficiency"),
            *(f"--config={run.config}", *artifacts),
        ],
        check=True,
        cwd=ROOT,
    )
    null = ["experiment=null-engine", "--", "--until", "performance_check"]
    subprocess.run([str(ROOT / "reproduce"), *null], check=True)  # makes Ray's environment
    for name in ("ceiling", "scaling", "routing", "kills", "ratios"):
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
