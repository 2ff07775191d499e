"""Real engines on several nodes: the rehearsal on two nodes of Ray beside one engine alone.

    python -m bench.nodes [--system rehearsal-cpu-nodes]

Both are `./reproduce` up to the verdicts, Offline. Nodes are raylets of this machine, a vLLM engine
on each, unless the system's `placement.cluster` names a cluster. It compares the entries of
LoadGen's accuracy logs, byte for byte; LoadGen writes them in the order of answers, so their order
doesn't count. Rates are reported, not judged: the nodes share the cores.

Took six minutes and a half on one busy core, and as long again, once, for the environment (4 GB).
"""

import argparse
import subprocess
from dataclasses import dataclass
from pathlib import Path

from steps import ROOT
from steps.base.record import Manifest
from steps.config.results import result_of
from steps.config.run_results import EngineReport, RunResult
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import ANSWERS, DETAIL
from steps.plan.frozen import frozen_plan
from steps.plan.plan import load

ONE = "rehearsal-cpu"
LOG = ANSWERS


@dataclass(frozen=True)
class Found:
    """`entries` of the accuracy log, sorted; `engines` as in the result."""

    entries: list[bytes]
    tokens_per_second: float
    engines: tuple[EngineReport, ...]


def measured(system: str) -> Found:
    """Runs what is missing. Raises CalledProcessError if that fails, or a verdict does."""
    chosen = [f"system={system}", "scenario=Offline"]
    until = ("--", "--until", "accuracy_check", "performance_check")
    subprocess.run([str(ROOT / "reproduce"), *chosen, *until], check=True)
    outputs = {job.step: ROOT / job.output for job in load(frozen_plan(ROOT, chosen)).jobs}
    answers = Manifest.read(outputs["accuracy_run"])
    speed = read_detail(Manifest.read(outputs["performance_run"]).file(DETAIL))
    return Found(
        entries_of(answers.file(LOG)),
        float(speed.get("result_tokens_per_second")),
        result_of(answers, RunResult).engines,
    )


def entries_of(log: Path) -> list[bytes]:
    return sorted(line.rstrip(b",") for line in log.read_bytes().splitlines() if b"{" in line)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.nodes")
    parser.add_argument("--system", default="rehearsal-cpu-nodes")
    system = parser.parse_args().system
    one, several = measured(ONE), measured(system)
    for engine in several.engines:
        print(f"{engine.name}: {engine.samples} answers, {engine.device}")
    print(
        f"Offline tokens/s: {ONE} {one.tokens_per_second:,.0f}, {system} "
        f"{several.tokens_per_second:,.0f}, {several.tokens_per_second / one.tokens_per_second:.2f}"
    )
    same = len(set(one.entries) & set(several.entries))
    print(f"answers: {same:,} of {len(one.entries):,} the same, byte for byte")
    raise SystemExit(0 if several.entries == one.entries else 1)


if __name__ == "__main__":
    main()
