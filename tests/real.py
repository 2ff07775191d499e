"""`make test-real`: everything that `make test` leaves, on real services of this machine.

It installs what Debian has, starts it, runs the tests, stops what it started. Skips that
tests/reviewed.yaml doesn't list fail it, and so does what a part leaves behind. Logs of services
are kept where a part failed. `python -m tests.real FILE...` runs those files only.
"""

import os
import shutil
import subprocess
import sys
import time

from tests import base_image, services
from tests.conftest import ROOT
from tests.programs import PATH, SERVICE_LOGS

LOGS = ROOT / "results/test-real"
"""Where services write their logs; gone after a run in which nothing failed."""

NOTHING = 5
"""pytest's status where none of the files that were named has a test of a part."""

TOGETHER = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
"""Tests share both cores; what measures itself has them alone."""

PARTS: dict[str, tuple[str, ...]] = {
    "engines and systems": (*TOGETHER, "-m", "(engine or system or long or command) and not e2e"),
    "./reproduce as a user runs it": ("-m", "e2e"),
}


def main() -> int:
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    services.install()
    failed, tested = [], False
    with services.running(LOGS):
        base_image.provide(services.ENGINES, LOGS)
        for name, arguments in PARTS.items():
            begun = time.monotonic()
            python = (sys.executable, "-m")
            command = [*python, "tests.leaks", *python, "pytest", "--reviewed", *arguments]
            environment = {**os.environ, "PATH": PATH, SERVICE_LOGS: str(LOGS)}
            done = subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, env=environment, check=False)
            tested |= done.returncode != NOTHING
            if done.returncode not in (0, NOTHING if sys.argv[1:] else 0):
                failed.append(name)
            print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}; logs of services are in {LOGS}", file=sys.stderr)
        return 1
    shutil.rmtree(LOGS)
    if not tested:
        print("nothing that was named has a test of a part", file=sys.stderr)
        return NOTHING
    return 0


if __name__ == "__main__":
    sys.exit(main())
