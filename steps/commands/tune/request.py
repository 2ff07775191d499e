"""The request of `./reproduce tune` to the searching process, and its result."""

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
"""Deviations on either side that contain the limit nine times in ten."""


class Request(Strict):
    """One cell's search; paths are relative to the checkout.

    `planned`: the cell's performance run exactly as the plan configures it, because a plan
    identifies a run by this text. `launcher` starts the engine's processes (Job.launcher); `code`:
    the sources whose digest a performance run records; `container`: Job.container. `guess` in
    queries a second; `guessed_from` says where it comes from. `answers`: samples.csv of an accuracy
    run on the same weights and prompts, None without one. `home` is the search's directory.
    """

    cell: str
    planned: str
    check: PerformanceCheckConfig
    inputs: dict[str, str]
    launcher: tuple[str, ...]
    code: tuple[str, ...]
    container: str = ""
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
    """The name of a search's directory: a digest of everything but the rate that a measurement
    depends on. `context` is the part besides the run's configuration, as JSON values.
    """
    config = json.loads(planned)
    fixed = {**config, "loadgen": {**config["loadgen"], "target_qps": None}}
    return hashlib.sha256(canonical_json([fixed, *context]).encode()).hexdigest()[:12]


OUT_OF_BUDGET = "the budget is spent"
"""Why a search stopped that continues with a larger budget (Result.stopped)."""


class Result(Strict):
    """`run` is the directory of the VALID run; `budget_s` the search's budget, if any.

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
    """The result of a search that has ended; None before."""
    path = home / RESULT
    return Result.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def request_in(home: Path) -> Request | None:
    """The request of the search begun in a directory; None without one, or from another version."""
    path = home / REQUEST
    try:
        return Request.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
