"""TEST01 and TEST04: the speed of a test's run against that of the performance run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steps.base.errors import UserError
from steps.mlperf.compliance import Test
from steps.mlperf.detail import Detail, read_detail
from steps.mlperf.loadgen import DETAIL

RATES: Mapping[str, str] = {
    "Offline": "result_samples_per_second",
    "Server": "result_completed_samples_per_sec",
}


class IncomparableError(UserError):
    """Logs that can be read, of runs that prove nothing together."""


@dataclass(frozen=True)
class Speeds:
    """Samples per second of both runs."""

    rule: Test
    reference: float
    measured: float

    def passed(self) -> bool:
        return self.rule.fast_enough(self.measured, self.reference)

    def text(self) -> str:
        """verify_performance.txt as the official scripts print it."""
        verdict = "TEST PASS" if self.passed() else "TEST FAIL: Test score invalid"
        return (
            f"Verifying performance.\nReference score = {self.reference}\n"
            f"Test score = {self.measured}\n{verdict}\n"
        )


def compare_speeds(rule: Test, performance: Path, run: Path) -> Speeds:
    """Directories of LoadGen's logs. Raises IncomparableError if they prove nothing."""
    reference, measured = _valid(performance), _valid(run)
    scenario, other = (str(log.values.get("effective_scenario")) for log in (reference, measured))
    if other != scenario:
        raise IncomparableError(
            f"{run} is a run of {other}, {performance} of {scenario}; compare runs of one scenario"
        )
    if scenario not in RATES:
        raise IncomparableError(
            f"{performance} is a run of {scenario!r}; only Offline and Server are known"
        )
    key = "effective_target_latency_ns"
    if scenario == "Server" and measured.values.get(key) != reference.values.get(key):
        raise IncomparableError(
            f"{run} was judged by another target latency than {performance}; run the test with the "
            "settings of the performance run"
        )
    for name, value in rule.settings().items():
        if measured.values.get(name) != value:
            raise IncomparableError(
                f"{run}: {name} is {measured.values.get(name)}, the test needs {value}; place the "
                "test's audit.config where LoadGen looks for it"
            )
    return Speeds(rule, _rate(reference, scenario), _rate(measured, scenario))


def _valid(directory: Path) -> Detail:
    detail = read_detail(directory / DETAIL)
    validity = detail.values.get("result_validity")
    if validity != "VALID":
        raise IncomparableError(
            f"{detail.path}: the result is {validity or 'missing'}, not VALID; run it again"
        )
    return detail


def _rate(detail: Detail, scenario: str) -> float:
    rate = detail.values.get(RATES[scenario])
    if not isinstance(rate, int | float) or not math.isfinite(rate) or rate <= 0:
        raise UserError(f"{detail.path} has no {RATES[scenario]}; run it again")
    return rate
