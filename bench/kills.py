"""Kill an engine or a node at random moments of a run: hangs, lost samples, double answers.

Null engines under the real LoadGen. Nodes are those of a Ray cluster on this machine; a node is its
raylet and all processes below it. It is killed by SIGKILL, or by SIGSTOP like a machine that falls
silent and closes no connection. What a run must do follows from its configuration: end at once and
name an engine, or answer every sample once.

The sixteen kinds (scenario, engine or node, what a failure means, signal) take turns, each time at
another moment: forty trials are twenty of an engine and twenty of a node.
"""

import argparse
import contextlib
import csv
import itertools
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import subjects
from steps import ROOT
from steps.base.record import MANIFEST, Manifest
from steps.base.strict import Scenario
from steps.config.results import result_of
from steps.config.run_results import RunResult
from steps.mlperf.loadgen import SAMPLES_FILE
from steps.plan.plan import environment_directory

SAMPLES = 512
QUERIES = 2048
QPS = 400.0
RUN_S = 5.0
"""About how long a run takes."""

LIMIT_S = 180.0
SILENCE_LIMIT_S = 6.0
AT_ONCE_S = 20.0
"""Limit from the moment a death can be known to the end of the process, on a busy machine."""


RAYLET = re.compile(r"\S*/raylet/raylet ").match


@dataclass(frozen=True)
class Trial:
    scenario: Scenario
    what: str
    on_failure: str
    signal: signal.Signals
    delay_s: float


@dataclass(frozen=True)
class Outcome:
    """`wrong`: what differed from the configuration; `seconds` from the kill to the end."""

    wrong: str | None
    seconds: float
    words: str


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Process ids below one, with their command lines."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text(encoding="ascii").split()]
        except OSError:
            continue
        for child in children:
            try:
                line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            yield child, line
            yield from descendants(child)


def victims(pid: int, what: str, *, head: bool) -> list[list[int]]:
    """The processes of each engine, or of each node; the head's too if asked for."""
    found = list(descendants(pid))
    if what == "engine":
        return [[child] for child, line in found if "steps.run.engines.worker" in line]
    raylets = [child for child, line in found if RAYLET(line) and (head or "--head" not in line)]
    return [[raylet, *(child for child, _ in descendants(raylet))] for raylet in raylets]


def config_of(trial: Trial) -> dict[str, Any]:
    on_nodes = trial.what == "node"
    changes: Mapping[str, Any] = {
        **subjects.counts(SAMPLES, QUERIES, QPS),
        "engine": {
            "arguments": {"max_num_seqs": 64, "tpot_ms": 2, "output_tokens_mean": 150},
            "placement": {
                "cluster": "local" if on_nodes else "none",
                "nodes": 3 if on_nodes else 1,
                "engines_per_node": 1 if on_nodes else 3,
                "on_failure": trial.on_failure,
                "silence_limit_s": SILENCE_LIMIT_S,
            },
        },
    }
    config: dict[str, Any] = subjects.config(trial.scenario, changes).model_dump(mode="json")
    return config


def attempt(trial: Trial, inputs: Mapping[str, Path], home: Path) -> Outcome:
    python = ROOT / environment_directory(ROOT, "cluster") / "bin/python"
    process = subprocess.Popen(
        [
            *(str(python), "-m", "steps.run.performance_run"),
            *("--config", json.dumps(config_of(trial))),
            *("--input", *(f"{role}={path}" for role, path in inputs.items())),
            *("--output", str(home / "out" / MANIFEST), "--log", str(home / "log")),
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    struck: list[int] = []
    try:
        begun = time.monotonic()
        while not list(home.glob(".out.*/mlperf_log_detail.txt")):
            if process.poll() is not None or time.monotonic() - begun > LIMIT_S:
                return Outcome("the run did not begin", 0.0, "")
            time.sleep(0.05)
        time.sleep(trial.delay_s)
        targets = victims(process.pid, trial.what, head=trial.on_failure == "fail")
        if process.poll() is not None or not targets:
            return Outcome(f"no {trial.what} was left to kill", 0.0, "")
        struck = random.choice(targets)
        for target in struck:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, trial.signal)
        killed = time.monotonic()
        try:
            _, text = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            return Outcome("HANG", LIMIT_S, "")
        seconds = time.monotonic() - killed
        return judged(trial, process.returncode, text, seconds, home / "out")
    finally:
        process.kill()
        process.wait()
        for target in struck:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL)


def judged(trial: Trial, status: int, text: str, seconds: float, output: Path) -> Outcome:
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    words = lines[-1] if lines else ""
    if trial.on_failure == "fail" and status:
        named = re.search(r"engine \d+ .*the run is void", words)
        wrong = None if named else "not named"
        wrong = wrong or ("not at once" if seconds > AT_ONCE_S else None)
        return Outcome(
            wrong or ("something was published" if output.exists() else None), seconds, words
        )
    if status:
        return Outcome(f"status {status}: {words}", seconds, words)
    manifest = Manifest.read(output / MANIFEST)
    with manifest.file(SAMPLES_FILE).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    answered = sum(1 for row in rows if row["completed_s"])
    ran = result_of(manifest, RunResult)
    given, failures = sum(engine.samples for engine in ran.engines), ran.failures
    if answered != len(rows) or given != len(rows):
        return Outcome(f"{len(rows)} asked, {answered} answered, {given} given", seconds, words)
    if trial.on_failure == "fail" and not failures:
        return Outcome(None, seconds, "the run had ended already")
    return Outcome(None if failures else "no failure was noted", seconds, "; ".join(failures))


def every_kind(whats: Sequence[str]) -> Iterator[tuple[Scenario, str, str, signal.Signals]]:
    """Kinds in an order in which a few trials cover each value."""
    signals = (signal.SIGKILL, signal.SIGSTOP)
    scenarios: tuple[Scenario, ...] = ("Offline", "Server")
    for number, what, on_failure in itertools.product((0, 1), whats, ("fail", "redispatch")):
        for turn, scenario in enumerate(scenarios):
            yield scenario, what, on_failure, signals[(number + turn) % 2]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.kills")
    parser.add_argument("--trials", type=int, default=40, help="over all kinds in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", default="engine,node")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    kinds = itertools.cycle(every_kind(arguments.what.split(",")))
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        inputs = subjects.artifacts(Path(folder) / "artifacts", SAMPLES)
        for number, kind in enumerate(itertools.islice(kinds, arguments.trials)):
            trial = Trial(*kind, delay_s=random.uniform(0, 0.7 * RUN_S))
            home = Path(folder) / str(number)
            home.mkdir()
            outcome = attempt(trial, inputs, home)
            wrong += outcome.wrong is not None
            says = outcome.wrong or "as configured"
            print(
                f"{number + 1:>3} {trial.scenario:<8} {trial.what:<7} {trial.on_failure:<11} "
                f"{trial.signal.name} after {trial.delay_s:.2f} s: {says}, "
                f"{outcome.seconds:.1f} s later; {outcome.words}",
                flush=True,
            )
    print(f"{arguments.trials} kills: {wrong} not as configured")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
