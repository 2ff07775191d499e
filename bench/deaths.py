"""Kill processes of ./reproduce at random: is the dead one named, does the next run continue?

Null engines under the real LoadGen. The fifteen kinds are the victim (a step, LoadGen's
process, an engine's, snakemake, ./reproduce itself) times SIGKILL, SIGSEGV and SIGSTOP; they take
turns, each time at another moment. Each must end with a sentence that names the victim, and leave
no process. If the driver was killed, the next ./reproduce says what was interrupted, and finishes.
"""

import argparse
import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steps import ROOT
from steps.base import processes

EXPERIMENT = "deaths"
COMMAND = (
    *("./reproduce", "experiment=null-engine", f"experiment_name={EXPERIMENT}"),
    *("scenario=Offline", "hardware.engine.placement.silence_limit_s=6"),
    *("--", "--until", "performance_check", "accuracy_run", "compliance_run"),
)
TRIAL = "REPRISE_BENCH_TRIAL"
"""Variable in the environment of a trial's processes, by which leftover ones are found."""

WHATS = ("step", "loadgen", "engine", "snakemake", "reproduce")
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)

LIMIT_S = 180.0
LEFT_S = 15.0
"""How long leftover processes may take to end by themselves, if nothing ends them."""

STEP = re.compile(r"steps\.(?:\w+\.)*(\w+)$")
ENGINE = re.compile(r"steps\.(?:\w+\.)*worker$")


@dataclass(frozen=True)
class Trial:
    what: str
    signal: signal.Signals
    share: float
    """The earliest and latest kill, as shares of an undisturbed run's time."""


@dataclass(frozen=True)
class Outcome:
    """`wrong`: the fault found; `seconds`: from the kill to the end, of the next command if there
    is one.
    """

    wrong: str | None
    seconds: float
    words: str


class Run:
    """A ./reproduce, with its output in a file."""

    def __init__(self, home: Path, number: int) -> None:
        self.said = home / f"{number}-{time.monotonic_ns()}"
        self._stream = self.said.open("wb")
        self.process = subprocess.Popen(
            COMMAND,
            cwd=ROOT,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, TRIAL: str(number)},
            start_new_session=True,
        )

    def ended(self, limit_s: float = LIMIT_S) -> int | None:
        """Its status; None if it doesn't end."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None

    def words(self) -> str:
        return self.said.read_text(encoding="utf-8", errors="replace")

    def holds(self) -> bool:
        """Whether it has begun: before that, there is nothing to interrupt."""
        with contextlib.suppress(OSError):
            held = (ROOT / "results/.lock").read_text(encoding="ascii", errors="replace")
            return held.startswith(f"{self.process.pid}-")
        return False

    def snakemake(self) -> list[int]:
        return processes.children(self.process.pid)

    def steps(self) -> list[int]:
        return [pid for driver in self.snakemake() for pid in processes.children(driver)]


def module(pid: int) -> str:
    words = processes.command(pid)
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def victims(run: Run, what: str) -> list[int]:
    if what == "reproduce":
        return [run.process.pid] if run.holds() else []
    if what == "snakemake":
        return run.snakemake()
    steps = [pid for pid in run.steps() if STEP.match(module(pid))]
    if what == "step":
        return steps
    if what == "loadgen":
        testing = list((ROOT / "results" / EXPERIMENT / "runs").rglob(".*/mlperf_log_detail.txt"))
        return [pid for pid in steps if module(pid).endswith("_run") and testing]
    return [pid for step in steps for pid in processes.below(step) if ENGINE.match(module(pid))]


def struck(run: Run, trial: Trial, whole_s: float) -> tuple[int, str] | None:
    """The process and its step; None if the run ended before."""
    begun, chosen = time.monotonic(), trial.share * whole_s
    while run.process.poll() is None and time.monotonic() - begun < LIMIT_S:
        found = victims(run, trial.what) if time.monotonic() - begun >= chosen else []
        if found:
            pid = random.choice(found)
            step = module(pid).rpartition(".")[2]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, trial.signal)
                return pid, step
        time.sleep(0.02)
    return None


def named(trial: Trial, pid: int, step: str, words: str) -> bool:
    """Whether a sentence names what died."""
    name = trial.signal.name
    ended = rf"stopped for \d+ s \({name}\)" if name == "SIGSTOP" else f"ended by {name}"
    silent = ".*gave no sign of life" if name == "SIGSTOP" else f"was killed by {name}"
    by_what = {
        "engine": rf"\w+: engine \d+ {silent}.*(void|at start)",
        "snakemake": rf"snakemake \(process {pid}\) .*{ended}.*(cut short|no step)",
    }
    return bool(re.search(f"error: {by_what.get(trial.what, f'{step}: .*{ended}')}", words))


def left(number: int) -> list[int]:
    """Processes of a trial that still exist."""
    found = processes.with_variable(TRIAL, str(number))
    return [pid for pid in found if processes.state(pid) not in processes.GONE]


def gone(what: str) -> str:
    return f"no {what} was there"


def attempt(trial: Trial, number: int, home: Path, whole_s: float) -> Outcome:
    shutil.rmtree(ROOT / "results" / EXPERIMENT, ignore_errors=True)
    run = Run(home, number)
    try:
        found = struck(run, trial, whole_s)
        if found is None:
            return Outcome(gone(trial.what), 0.0, run.words()[-200:])
        begun = time.monotonic()
        if trial.what == "reproduce":
            return after(trial, run, number, home)
        status = run.ended()
        seconds = time.monotonic() - begun
        words = run.words()
        said = [line for line in words.splitlines() if line.startswith("error: ")]
        text = said[0] if said else words[-200:]
        if status is None:
            return Outcome("HANG", seconds, text)
        if trial.what == "engine" and not status and finished(run, status) is None:
            return Outcome(None, seconds, "its run had ended already")
        if not named(trial, *found, words):
            return Outcome(f"not named (status {status})", seconds, words[-400:])
        if still := left(number):
            return Outcome(f"processes {still} are left", seconds, text)
        if trial.what == "snakemake":
            again = Run(home, number)
            status = again.ended()
            return Outcome(finished(again, status), seconds, text)
        return Outcome(None if status else "status 0", seconds, text)
    finally:
        processes.killed(left(number), LEFT_S)
        run.process.wait()


def after(trial: Trial, run: Run, number: int, home: Path) -> Outcome:
    """Check the ./reproduce after one that was killed itself: its messages and results."""
    begun = time.monotonic()
    again = Run(home, number)
    status = again.ended()
    seconds = time.monotonic() - begun
    what = "was stopped" if trial.signal == signal.SIGSTOP else "was killed"
    sentence = rf"the last ./reproduce \(process {run.process.pid}\) {what}.*(cut short|no step)"
    words = again.words()
    said = [line for line in words.splitlines() if line.startswith("the last ./reproduce")]
    wrong = finished(again, status)
    if not re.search(sentence, words):
        wrong = "the next one doesn't say so"
    if wrong is None and (still := left(number)):
        wrong = f"processes {still} are left"
    return Outcome(wrong, seconds, said[0] if said and wrong is None else words[-400:])


def finished(run: Run, status: int | None) -> str | None:
    if status is None:
        return "the next one hangs"
    done = list(
        (ROOT / "results" / EXPERIMENT / "verdicts").rglob("performance_check/manifest.json")
    )
    return None if status == 0 and done else f"the next one ends with {status}"


def table(outcomes: Sequence[tuple[Trial, Outcome]]) -> str:
    """One row per kind: trials, right ones, seconds to the end."""
    kinds: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for trial, outcome in outcomes:
        kinds[trial.what, trial.signal.name].append(outcome)
    rows = [
        "| struck | signal | trials | right | seconds, median | longest |",
        "|---|---|---|---|---|---|",
    ]
    for (what, name), found in sorted(kinds.items()):
        seconds = [one.seconds for one in found]
        right = sum(one.wrong is None for one in found)
        rows.append(
            f"| {what} | {name} | {len(found)} | {right} | {statistics.median(seconds):.1f} | "
            f"{max(seconds):.1f} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.deaths")
    parser.add_argument("--trials", type=int, default=100, help="over all kinds in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", default=",".join(WHATS))
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    kinds = itertools.cycle(itertools.product(SIGNALS, arguments.what.split(",")))
    outcomes: list[tuple[Trial, Outcome]] = []
    # Told to end before all are done, it says what it has seen.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        take(itertools.islice(kinds, arguments.trials), outcomes)
    shutil.rmtree(ROOT / "results" / EXPERIMENT, ignore_errors=True)
    wrong = sum(outcome.wrong is not None for _, outcome in outcomes)
    print(table(outcomes))
    print(f"{len(outcomes)} kills: {wrong} not as they should be")
    raise SystemExit(1 if wrong else 0)


def take(
    kinds: Iterable[tuple[signal.Signals, str]], outcomes: list[tuple[Trial, Outcome]]
) -> None:
    """One trial after the other; each is printed and added to the outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.rmtree(ROOT / "results" / EXPERIMENT, ignore_errors=True)
        Run(home, -1).ended(10 * LIMIT_S)  # makes what is shared
        shutil.rmtree(ROOT / "results" / EXPERIMENT, ignore_errors=True)
        begun, whole = time.monotonic(), Run(home, -1)
        if status := whole.ended():
            raise SystemExit(f"undisturbed it ends with {status}: {whole.words()}")
        whole_s = time.monotonic() - begun
        print(f"undisturbed: {whole_s:.1f} s", flush=True)
        for number, (name, what) in enumerate(kinds):
            trial = Trial(what, name, random.uniform(0, 0.9))
            outcome = attempt(trial, number, home, whole_s)
            while outcome.wrong == gone(what) and trial.share > 0.01:  # it was over already
                trial = replace(trial, share=trial.share / 2)
                outcome = attempt(trial, number, home, whole_s)
            outcomes.append((trial, outcome))
            print(
                f"{number + 1:>3} {what:<9} {name.name} at {trial.share:.0%}: "
                f"{outcome.wrong or 'right'}, {outcome.seconds:.1f} s; {outcome.words}",
                flush=True,
            )


if __name__ == "__main__":
    main()
