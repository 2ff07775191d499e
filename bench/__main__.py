"""`make bench`: make the rehearsal's runs if absent, then measure, each ratio within one run.
Whether those runs are valid doesn't matter here.
"""

import subprocess
import sys

from bench import inside, noop
from steps import ROOT
from steps.plan.frozen import frozen_plan
from steps.plan.plan import environment_directory, load


def main() -> None:
    plan = load(frozen_plan(ROOT, []))
    subprocess.run([str(ROOT / "reproduce"), *noop.until_runs(plan)], check=True)
    driver = environment_directory(ROOT, "driver")
    subprocess.run([f"{driver}/bin/python", "-m", "bench.noop"], check=True, cwd=ROOT)
    inside.run("bench.offline_efficiency", ["scenario=Offline"])
    inside.run("bench.server_latency", ["scenario=Server"])
    null = ["experiment=null-engine", "--", "--until", "performance_check"]
    subprocess.run([str(ROOT / "reproduce"), *null], check=True)  # makes Ray's environment
    for name in ("ceiling", "scaling", "routing", "kills", "ratios"):
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
