"""Configuration of the steps that start engines: LoadGen's runs, and a quick run without it."""

from typing import Literal

from pydantic import model_validator
from typing_extensions import Self

from steps.base.strict import Positive, Scenario, Strict
from steps.config.engine import DiffusersEngine, Engine
from steps.config.engine_planned import PlannedEngine
from steps.config.generation import Generation, ImageGeneration
from steps.config.journal import JournalSettings
from steps.config.loadgen import MOST_QUERIES, Loadgen, RunRules
from steps.config.scale import Mark

ComplianceTest = Literal["TEST01", "TEST04", "TEST06", "TEST07", "TEST09"]
"""Those that steps/judge/compliance judges."""


class RunSettings(Strict):
    """What every LoadGen run has, whichever engine serves it.

    `scenario`: LoadGen runs Interactive as Server, with limits of its own. `rules`: what of the
    round the run itself depends on. `loadgen`: what its user.conf says. `journal`: what is noted
    beside it. `rehearsal`: small weights and data, for which no submission takes the run.
    """

    scenario: Scenario
    rules: RunRules
    loadgen: Loadgen
    journal: JournalSettings
    rehearsal: Mark | None = None

    @model_validator(mode="after")
    def loadgen_can_keep_its_samples(self) -> Self:
        queries = self.loadgen.target_qps * self.loadgen.least_ms(self.rules) / 1000
        if queries > MOST_QUERIES:
            raise ValueError(
                f"target_qps {self.loadgen.target_qps:g} is {queries:.2g} queries in the run's "
                f"duration, and LoadGen keeps every one in memory ({MOST_QUERIES:.0e} at most)"
            )
        return self


class RunConfig(RunSettings):
    """Shared by the three LoadGen runs of a scenario.

    `generation`: what an answer is. `engine`: what answers, and on how many accelerators.
    """

    generation: Generation | ImageGeneration
    engine: Engine

    @model_validator(mode="after")
    def engine_makes_what_is_asked(self) -> Self:
        pictures = isinstance(self.generation, ImageGeneration)
        if pictures != isinstance(self.engine, DiffusersEngine):
            made = "tokens" if pictures else "pictures"
            asked = "pictures" if pictures else "tokens"
            raise ValueError(
                f"engine {self.engine.kind} makes {made}, and the benchmark asks for {asked}; "
                "choose another engine"
            )
        return self


class PlannedRunConfig(RunSettings):
    """A run by an engine that Reprise plans but doesn't start.

    `generation`: what an answer is. `engine`: settings that are checked and shown. `test`: a
    compliance run's test; null: any other run. `audit`: that test's audit.config.
    """

    generation: Generation | ImageGeneration
    engine: PlannedEngine
    test: str | None = None
    audit: dict[str, int] | None = None


class PerformanceRunConfig(RunConfig):
    """LoadGen's PerformanceOnly mode."""


class AccuracyRunConfig(RunConfig):
    """LoadGen's AccuracyOnly mode: every sample of the dataset once."""


class ComplianceRunConfig(RunConfig):
    """A compliance test: LoadGen overridden by the test's audit.config, given here as values.

    `test`: which one. `audit`: values by LoadGen's keys, written as audit.config for every model
    and scenario; LoadGen reads it last.
    """

    test: ComplianceTest
    audit: dict[str, int]


class QuickRunConfig(Strict):
    """A few evaluation prompts, answered without LoadGen.

    `samples`: how many of the first ones. `generation`: what an answer is. `engine`: settings of
    the one engine that is started, in the step's own process.
    """

    samples: Positive
    generation: Generation
    engine: Engine
