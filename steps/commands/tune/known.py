"""Where to begin a search: what is known about the rate before anything is measured. The first
available of: an earlier search of the same cell, the plan's own Offline throughput, published
results on the same accelerator, the configured rate.
"""

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from steps.commands.tune.request import RESULT, result_of
from steps.config import verdicts
from steps.config.verdicts import PerformanceVerdict
from steps.mlperf.published import table
from steps.mlperf.published.result import Result as Published
from steps.mlperf.published.result import short_name
from steps.plan.plan import Job, Plan

SERVER_SHARE = 0.85
"""The share of Offline throughput that v5.1's Server results on AMD GPUs reached (81 to 93 %)."""

TOKENS = "TOKENS_PER_SAMPLE"
"""Among a result's accuracy metrics: the tokens per sample."""


def first_rate(root: Path, plan: Plan, job: Job) -> tuple[float, str]:
    """A rate for a performance run of the plan, and where it comes from."""
    config = json.loads(job.config)
    scenario = str(config["scenario"])
    configured = float(config["loadgen"]["target_qps"]), "the configured rate"
    if before := earlier(root, job.key):
        return before
    published = _Published.of(plan, job)
    offline = _offline(root, plan, job)
    if offline is None:
        return published.scaled(scenario) or configured
    share = published.share_of_offline(scenario)
    if share is not None:
        return share * offline, f"Offline throughput, of which published results reach {share:.0%}"
    if SERVER_SHARE * offline < configured[0]:
        return SERVER_SHARE * offline, f"{SERVER_SHARE:.0%} of Offline throughput"
    return configured


def earlier(root: Path, key: str) -> tuple[float, str] | None:
    """What the latest search of this cell found, in whichever experiment and whatever has changed
    since."""
    paths = [*(root / "results").glob(f"*/tune/{key}/*/{RESULT}")]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            found = result_of(path.parent)
        except ValueError:  # of a version with other fields
            continue
        if found is not None:
            return found.target_qps, "an earlier search"
    return None


def _offline(root: Path, plan: Plan, job: Job) -> float | None:
    """Samples a second of the cell's Offline run, if the plan has made it."""
    below = job.key.rsplit("/", 1)[0]
    for other in plan.jobs:
        if (other.step, other.key) != ("performance_check", f"{below}/Offline"):
            continue
        if (root / other.output).is_file():
            return verdicts.read(root / other.output, PerformanceVerdict).samples_per_second
    return None


class _Published:
    """Published results of one benchmark on one accelerator; `count`: of the system at hand."""

    def __init__(self, rows: Sequence[Published], count: int, name: str) -> None:
        self._rows, self._count, self._name = rows, count, name

    @classmethod
    def of(cls, plan: Plan, job: Job) -> "_Published":
        system, benchmark, *_, precision, _ = job.key.split("/")
        need = next((one for one in plan.requirements if one.system == system), None)
        if need is None or need.model is None or need.hardware is None:
            return cls((), 0, "")
        name, model = short_name(need.model), table.model_of(benchmark)
        rows = [
            row
            for row in table.load_all()
            if set(row.gpus) == {name}
            and table.model_of(row.benchmark) == model
            and row.division == "closed"
            and row.precision.split(":")[0].lower() == precision.lower()
            and _samples_per_s(row) is not None
        ]
        return cls(rows, need.accelerators, name)

    def scaled(self, scenario: str) -> tuple[float, str] | None:
        """The median of the results with the nearest number of accelerators, by their number."""
        each = [(_count(row), rate) for row, rate in self._of(scenario)]
        if not each:
            return None
        nearest = min({count for count, _ in each}, key=lambda n: abs(math.log(n / self._count)))
        rate = statistics.median(rate / count for count, rate in each if count == nearest)
        words = f"published on {nearest} {self._name}"
        return rate * self._count, words + ("" if nearest == self._count else ", scaled")

    def share_of_offline(self, scenario: str) -> float | None:
        """The median share of Offline throughput that one system reaches in a scenario."""
        offline = {_system(row): rate for row, rate in self._of("Offline")}
        shares = [
            rate / offline[_system(row)]
            for row, rate in self._of(scenario)
            if _system(row) in offline
        ]
        return statistics.median(shares) if shares else None

    def _of(self, scenario: str) -> Iterator[tuple[Published, float]]:
        for row in self._rows:
            rate = _samples_per_s(row)
            if row.scenario == scenario and rate is not None:
                yield row, rate


def _system(row: Published) -> tuple[str, ...]:
    return row.round, row.submitter, row.platform, row.model


def _count(row: Published) -> int:
    return sum(row.gpus.values())


def _samples_per_s(row: Published) -> float | None:
    """None if the source doesn't give the tokens per sample."""
    if not row.comparable:
        return None
    if row.unit != "Tokens/s":
        return row.number
    tokens = row.accuracy.get(TOKENS)
    return row.number / tokens if tokens else None
