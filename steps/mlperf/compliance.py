"""A compliance test of a round: the data of the round's file, and what it means."""

from typing import Literal

from steps.base.errors import UserError
from steps.base.strict import Positive, PositiveNumber, Strict


class Test(Strict):
    """A compliance test of a round, and what it must show.

    `min_samples`: answers that its run has to log. `audit`: its audit.config, by LoadGen's keys.
    `speed` bounds the speed of its run over the performance run's, by "minimum", "maximum" (both
    inclusive) and "below". `delta_percent`: how far metrics may move where answers may differ.
    `bounds`: by benchmark, "minimum" and "maximum" (both inclusive) of what the test counts, and
    "samples", how many answers it needs.
    """

    min_samples: Positive
    audit: dict[str, int]
    speed: dict[Literal["minimum", "maximum", "below"], PositiveNumber]
    delta_percent: dict[str, PositiveNumber | dict[str, PositiveNumber]]
    bounds: dict[str, dict[Literal["minimum", "maximum", "samples"], PositiveNumber]]

    def settings(self) -> dict[str, object]:
        """The settings that the audit.config gives a run, by the keys of LoadGen's log."""
        return {
            f"effective_performance_issue_{kind}": bool(
                self.audit.get(f"performance_issue_{kind}", 0)
            )
            for kind in ("same", "unique")
        }

    @property
    def logs_answers(self) -> bool:
        return self.audit.get("accuracy_log_sampling_target", 0) > 0

    def fast_enough(self, measured: float, reference: float) -> bool:
        """Whether the speed of the test's run is allowed beside the performance run's."""
        bounds = self.speed
        return (
            reference * bounds.get("minimum", 0.0) <= measured
            and ("maximum" not in bounds or measured <= reference * bounds["maximum"])
            and ("below" not in bounds or measured < reference * bounds["below"])
        )

    def allowed(self) -> str:
        """The bounds as a sentence's part."""
        if "below" in self.speed:
            return f"less than {self.speed['below']:.0%}"
        return f"{self.speed['minimum']:.0%} to {self.speed['maximum']:.0%}"

    def delta(self, official: str, metric: str) -> float:
        """By how many percent a metric may differ; `official` is the benchmark. Raises UserError if
        the round doesn't say."""
        level = "*-99.9" if official.endswith("-99.9") else "*"
        for name in (official, level):
            found = self.delta_percent.get(name)
            if isinstance(found, dict):
                found = found.get(metric)
            if found is not None:
                return found
        raise UserError(
            f"the round says for neither {official} nor {level!r} how far {metric} may move; add "
            "it to the test's delta_percent"
        )

    def moved(self, official: str, metric: str, before: float, after: float) -> str:
        """Which metric moved too far from the accuracy run's, as a message; "" if none."""
        allowed = self.delta(official, metric)
        if before != 0 and after != 0 and abs(1 - before / after) * 100 <= allowed:
            return ""
        return f"{metric} is {before:g} before and {after:g} after, {allowed:g} % are allowed"

    def missed(self, official: str, value: float) -> str:
        """The bound of the test that `value` misses, as a message; "" if none."""
        bounds = self.bounds[official]
        if not value >= bounds["minimum"]:
            return f"at least {bounds['minimum']:g} is required"
        if "maximum" in bounds and not value <= bounds["maximum"]:
            return f"at most {bounds['maximum']:g} is allowed"
        return ""

    def samples(self, official: str) -> int:
        """How many answers the test must log."""
        return int(self.bounds.get(official, {}).get("samples", self.min_samples))
