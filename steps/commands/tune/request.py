"""What `./reproduce tune` hands to the process that searches, and what that leaves."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from steps.base.record import canonical_json
from steps.base.strict import Name, Positive, PositiveNumber, Strict
from steps.commands.tune.config import Metric, SearchSettings
from steps.config.checks import PerformanceCheckConfig
from steps.config.runs import PerformanceRunConfig

REQUEST = "request.json"
RESULT = "result.json"
PROBES = "probes"

BAND = 1.645
"""Deviations on either side that hold nine limits in ten."""


class Request(Strict):
    """One cell's search; paths are relative to the checkout.

    `planned`: the cell's performance run as the plan configures it, to the letter, since by its
    text a plan knows a run again.
    `launcher` starts the engine's processes (Job.launcher); `code`: the sources whose digest a
    performance run records. `guess` in queries a second; `guessed_from` says where it comes from.
    `answers`: samples.csv of an accuracy run on the same weights and prompts, None if there is
    none. `home` is the search's directory.
    """

    cell: str
    planned: str
    check: PerformanceCheckConfig
    inputs: dict[str, str]
    launcher: tuple[str, ...]
    code: tuple[str, ...]
    guess: PositiveNumber
    guessed_from: str
    budget_s: PositiveNumber | None
    answers: str | None
    home: str
    settings: SearchSettings

    @property
    def run(self) -> PerformanceRunConfig:
        return PerformanceRunConfig.model_validate_json(self.planned)


def identity(planned: str, context: Sequence[object]) -> str:
    """The name of a search's directory: all that a measurement depends on but the rate.

    `context` is what that is besides the run's configuration, as JSON has it.
    """
    config = json.loads(planned)
    fixed = {**config, "loadgen": {**config["loadgen"], "target_qps": None}}
    return hashlib.sha256(canonical_json([fixed, *context]).encode()).hexdigest()[:12]


OUT_OF_BUDGET = "the budget is spent"
"""Why a search stopped that goes on with a larger budget (Result.stopped)."""


class Result(Strict):
    """`run` is the directory of the VALID run; `budget_s` what the search was given, if anything.

    `limit` and `deviation` (in ln) are the forecast at the end; `metric` is the limit that binds.
    """

    cell: str
    target_qps: PositiveNumber
    run: str
    limit: PositiveNumber
    deviation: PositiveNumber
    metric: Metric | None
    stopped: str
    budget_s: PositiveNumber | None
    probes: Positive
    runs: Positive
    measured_s: PositiveNumber
    start_s: float
    scenario: Name


def result_of(home: Path) -> Result | None:
    """Of a search that has ended; None of one that hasn't."""
    path = home / RESULT
    return Result.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def request_in(home: Path) -> Request | None:
    """Of the search that was begun in a directory; None if none was, or by another version."""
    path = home / REQUEST
    try:
        return Request.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
