"""What a repeated `./reproduce` costs: its CPU time over that of a bare snakemake no-op.

Both find nothing to do. Ours is the rehearsal up to its runs, none of which needs to be valid. The
bare workflow has one rule that copies a file, as many jobs, the same driver environment.
Measurements alternate; the CPU time of the process and its children is compared, because wall time
on shared cores is noise.
"""

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from steps import ROOT
from steps.plan.frozen import frozen_plan, snakemake
from steps.plan.plan import Plan, load
from steps.plan.registry import STEPS

LIMIT_S = 300

BARE = """\
rule all:
    input: [f"done/{{number}}" for number in range({count})]
rule copy:
    output: "done/{{number}}"
    params: number="{{number}}"
    shell: "echo {{params.number}} > {{output}}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.noop")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    plan = frozen_plan(ROOT, arguments.overrides)
    until = until_runs(load(plan))
    ours = [str(ROOT / "reproduce"), *arguments.overrides, *until]
    cpu_seconds(ours, ROOT, expect="nothing to do")  # warms the caches
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        count = sum(1 for job in load(plan).jobs if job.step in until)
        (home / "Snakefile").write_text(BARE.format(count=count), encoding="utf-8")
        bare = [snakemake(plan)[0], "--cores", "1", "--scheduler", "greedy"]
        cpu_seconds([*bare, "--quiet", "all"], home)
        pairs = []
        for _ in range(arguments.rounds):
            pairs.append(
                (cpu_seconds(ours, ROOT), cpu_seconds(bare, home, expect="Nothing to be done"))
            )
            print(f"./reproduce {pairs[-1][0]:.2f} s   snakemake {pairs[-1][1]:.2f} s", flush=True)
    ratio = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
    print(f"nothing to do, {count} jobs: CPU time of ./reproduce ÷ bare snakemake {ratio:.2f}")


def until_runs(plan: Plan) -> list[str]:
    """Arguments of ./reproduce that leave out judging."""
    steps = dict.fromkeys(
        job.step for job in plan.jobs if STEPS[job.step].stage in ("artifacts", "runs")
    )
    return ["--", "--until", *steps]


def cpu_seconds(command: Sequence[str], home: Path, expect: str = "") -> float:
    """User and system time of the command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        cwd=home,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or expect not in done.stdout:
        raise SystemExit(f"{' '.join(command)} did not end as expected:\n{done.stdout[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
