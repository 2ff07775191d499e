"""`make bench`: make what the measurements need, then measure in the engine's environment."""

import subprocess

from steps.cli import ROOT, frozen_plan
from steps.plan import load

OVERRIDES = ["experiment=rehearsal", "scenario=Offline"]


def main() -> None:
    needed = ["environment", "model", "dataset"]
    subprocess.run(
        [str(ROOT / "reproduce"), "run", *OVERRIDES, "--", "--until", *needed], check=True
    )
    plan = frozen_plan(ROOT, OVERRIDES)
    run = next(job for job in load(plan).jobs if job.step == "performance_run")
    python = ROOT / run.environment / "bin/python"
    subprocess.run([str(python), "-m", "bench.offline_efficiency", str(plan)], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
