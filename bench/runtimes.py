"""The cost of a container: Offline tokens/s of the rehearsal in it over those without.

    python -m bench.runtimes docker [podman ...] [--rounds 3]

Runs of the same job alternate. The accuracy logs of both must be the same, byte for byte.
"""

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import ratios as kept
from steps import ROOT
from steps.base.record import sha256_file
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import ANSWERS
from steps.plan.frozen import frozen_plan
from steps.plan.plan import Job, load
from steps.plan.registry import STEPS

NATIVE = "native"
DETAIL = "out/mlperf_log_detail.txt"
LIMIT_S = 1800


def made(runtime: str) -> tuple[Job, str]:
    """The rehearsal's Offline performance run in this runtime, and the digest of its answers.

    Makes what the run needs; its results replace those of another runtime.
    """
    chosen = ["scenario=Offline", f"runtime={runtime}"]
    subprocess.run(
        [str(ROOT / "reproduce"), *chosen, "--", "--until", "accuracy_check"], check=True
    )
    found = {job.step: job for job in load(frozen_plan(ROOT, chosen)).jobs}
    answers = ROOT / Path(found["accuracy_run"].output).parent / ANSWERS
    return found["performance_run"], sha256_file(answers)


def rate(job: Job, home: Path) -> float:
    """LoadGen's tokens per second for the job's command, with its results in `home`."""
    command = [
        *(*job.launcher, "-m", STEPS[job.step].module, "--config", job.config),
        *("--input", *(f"{role}={path}" for role, path in job.inputs.items())),
        *("--output", str(home / "out/manifest.json"), "--log", str(home / "log")),
    ]
    subprocess.run(command, cwd=ROOT, check=True, timeout=LIMIT_S)
    return float(read_detail(ROOT / home / DETAIL).get("result_tokens_per_second"))


def compare(runtimes: Sequence[str], rounds: int, folder: Path) -> None:
    """Raises SystemExit if an answer differs."""
    planned = {name: made(name) for name in (NATIVE, *runtimes)}
    rates: dict[str, list[float]] = {name: [] for name in planned}
    for number in range(rounds):
        for name, (job, _) in planned.items():
            rates[name].append(rate(job, folder / f"{name}-{number}"))
    answers = planned[NATIVE][1]
    for name in runtimes:
        ratios = [one / other for one, other in zip(rates[name], rates[NATIVE], strict=True)]
        same = "the same" if planned[name][1] == answers else "DIFFERENT"
        print(
            f"{name} ÷ native: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to "
            f"{max(ratios):.3f} in {rounds} rounds; answers are {same}"
        )
        kept.keep(f"runtime-{name}", f"Offline tokens/s in {name} ÷ native", 1.0, {name: ratios})
    if any(planned[name][1] != answers for name in runtimes):
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.runtimes")
    parser.add_argument("runtimes", nargs="+", choices=("docker", "podman"))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    # Below results/, which a container sees.
    with tempfile.TemporaryDirectory(dir=ROOT / "results") as folder:
        compare(given.runtimes, given.rounds, Path(folder).relative_to(ROOT))


if __name__ == "__main__":
    main()
