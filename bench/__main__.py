"""`make bench`: finish the rehearsal if it isn't, then measure, each ratio within one run."""

import subprocess
import sys

from bench import inside
from steps import ROOT
from steps.plan.plan import environment_directory


def main() -> None:
    subprocess.run([str(ROOT / "reproduce")], check=True)
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
