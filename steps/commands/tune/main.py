"""The search, in the environment that has numpy: `python -m steps.commands.tune.main REQUEST...`.

Several requests are several scenarios that share a budget: the next probe goes to the search with
the most to gain per second.
"""

import csv
import math
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence

import numpy as np

from steps import ROOT
from steps.base.console import plain_output
from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.commands.tune.arrivals import Length
from steps.commands.tune.journal import RUN, Journal
from steps.commands.tune.measure import METRICS, Limits, Measurement, Probe
from steps.commands.tune.order import order
from steps.commands.tune.plot import draw
from steps.commands.tune.request import PROBES, RESULT, Request, Result
from steps.commands.tune.search import Outcome, Search, rounded
from steps.commands.tune.tail import Traffic


class Task:
    """One scenario's search under way."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.journal = Journal(ROOT, request)
        rules = request.check.rules
        if rules.ttft_ms is None or rules.tpot_ms is None:
            raise UserError(f"{request.cell} has no limits of TTFT and TPOT to search by")
        self.limits = Limits(rules.ttft_ms / 1000, rules.tpot_ms / 1000)
        length = Length.of(request.run, rules.seeds.schedule_rng_seed)
        self.search = Search(
            request.settings,
            length,
            self.limits,
            request.guess,
            request.budget_s,
            traffic=traffic(request, length),
        )
        self._steps: Generator[Probe, Measurement, Outcome] = self.search.run()
        self.asked: Probe | None = None
        self.outcome: Outcome | None = None
        self.error: UserError | None = None

    def advance(self) -> None:
        """Make the requested probe, and get the next request."""
        try:
            if self.asked is None:
                self.asked = next(self._steps)
            measured = self.journal.measure(self.asked, self.search.cut_s(self.asked))
            say(self.line(measured))
            begun = time.monotonic()
            self.asked = self._steps.send(measured)
            self.search.between_s += time.monotonic() - begun
        except StopIteration as stop:
            self.outcome = stop.value
        except UserError as error:
            self.error = error

    @property
    def done(self) -> bool:
        return self.outcome is not None or self.error is not None

    def gain_per_s(self) -> float:
        """The expected gain of the next step, as a share of the result, per second it takes."""
        search = self.search
        if search.forecast is None or search.best is None:
            return math.inf  # without a result, nothing is worth more
        gain = max(search.forecast.limit / search.best.probe.rate - 1, 0.0)
        return gain / search.length.duration_s(search.forecast.limit)

    def line(self, measured: Measurement) -> str:
        probe, forecast = measured.probe, self.search.forecast
        kind = "run" if probe.final else "probe"
        how: str = "" if measured.ended == "complete" else measured.ended
        if measured.valid is not None:
            how = "VALID" if measured.valid else "not valid"
        tails = " ".join(
            f"{metric.upper()} {_milliseconds(measured.tail(metric))}/"
            f"{_milliseconds(self.limits.of(metric))} ms"
            for metric in METRICS
        )
        known = f", limit before it {forecast.limit:.4g}" if forecast else ""
        return (
            f"{self.request.run.scenario} {kind} {probe.number}: {probe.rate:g} qps, "
            f"{len(measured.samples):,} queries in {measured.measured_s:.0f} s, "
            f"{tails} {how}{known}"
        )


def _milliseconds(seconds: float) -> str:
    """A dash if too few were answered before a probe was ended."""
    return f"{1000 * seconds:,.0f}" if math.isfinite(seconds) else "-"


def traffic(request: Request, length: Length) -> Traffic | None:
    """Tokens of each answer of a run, in LoadGen's order; None if no accuracy run has them."""
    if request.answers is None:
        return None
    with (ROOT / request.answers).open(encoding="utf-8", newline="") as stream:
        rows = [(int(r["sample_index"]), int(r["output_tokens"])) for r in csv.DictReader(stream)]
    tokens: np.ndarray = np.zeros(len(rows), dtype=np.int64)
    for index, count in rows:
        tokens[index] = count
    seeds = request.check.rules.seeds

    def dealt(queries: int) -> np.ndarray:
        indices = order(seeds, len(tokens), length.sample_count, length.min_queries, queries)
        result: np.ndarray = tokens[indices]
        return result

    return dealt


def say(text: str) -> None:
    print(text, flush=True)


def main(paths: Sequence[str]) -> int:
    """0 if every search found a rate, else 1."""
    requests = [
        Request.model_validate_json((ROOT / path).read_text(encoding="utf-8")) for path in paths
    ]
    tasks = [Task(request) for request in requests]
    for task in tasks:
        known = "known" if task.request.answers else "not known before"
        say(
            f"{task.request.cell}: from {rounded(task.request.guess):g} qps "
            f"({task.request.guessed_from}), answers' lengths {known}"
        )
    while open_tasks := [task for task in tasks if not task.done]:
        chosen = max(open_tasks, key=lambda task: task.gain_per_s())
        others = [task.search for task in tasks if task is not chosen]
        chosen.search.elsewhere_s = sum(search.spent_s for search in others)
        chosen.advance()
    failed = 0
    for task in tasks:
        if task.search.probes:
            draw(
                ROOT / task.request.home,
                task.request.cell,
                task.search.probes,
                task.limits,
                task.search.forecast,
            )
        if task.outcome is None:
            failed += 1
            print(f"error: {task.request.cell}: {task.error}", file=sys.stderr, flush=True)
        else:
            _finish(task, task.outcome)
    return 1 if failed else 0


def _finish(task: Task, outcome: Outcome) -> None:
    request, probes = task.request, task.search.probes
    run = f"{request.home}/{PROBES}/{task.journal.directory(outcome.final.probe).name}/{RUN}"
    result = Result(
        cell=request.cell,
        scenario=request.run.scenario,
        target_qps=outcome.final.probe.rate,
        run=run,
        limit=outcome.limit.limit,
        deviation=outcome.limit.deviation,
        metric=outcome.limit.metric,
        stopped=outcome.stopped,
        budget_s=request.budget_s,
        probes=len(probes),
        runs=sum(probe.probe.final for probe in probes),
        measured_s=sum(probe.measured_s for probe in probes),
        start_s=sum(probe.start_s for probe in probes),
    )
    write_atomically(ROOT / request.home / RESULT, result.model_dump_json(indent=1) + "\n")


def guarded(body: Callable[[], int]) -> int:
    """The exit status of a search, however it ends."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return body()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; measurements are kept, the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    with plain_output():
        raise SystemExit(guarded(lambda: main(sys.argv[1:])))
