"""Configuration of the steps that package results and show them: the cells, and whose they are."""

from typing import Any

from pydantic import ConfigDict

from steps.base.strict import Division, Name, NotNegative, PositiveNumber, Scenario, Strict
from steps.config.results import Result
from steps.config.scale import StandIn


class Measurement(Strict):
    """The five fields of a measurement's JSON that the round's checker requires, as texts.

    `input_data_types`: of what the engine is given. `retraining`: "Yes" or "No".
    `starting_weights_filename`: where the source weights are from. `weight_data_types`: of the
    weights that run. `weight_transformations`: what was done to them.
    """

    input_data_types: str
    retraining: str
    starting_weights_filename: str
    weight_data_types: str
    weight_transformations: str


class Quantization(Strict):
    """What made the weights of a precision.

    `tool`: the benchmark's quantizer. `options`: what it was given; texts of the submission quote
    it.
    """

    tool: Name
    options: dict[str, Any]


class Package(Strict):
    """A benchmark in the submission tree.

    `name`: of its folder. `official`: the benchmark of the round that it stands for.
    """

    name: Name
    official: Name


class Cell(Strict):
    """One point of the matrix: what the submission and the report say about it.

    `system`: a name of `conf/system/`. `benchmark`: a name of `conf/benchmark/`. `compression`: a
    name of `conf/compression/`. `precision`: a name of `conf/precision/`. `scenario`: of its runs.
    `system_id`: names it in the submission tree. `division`: where it is submitted. `packages`: the
    benchmarks that its one set of runs is submitted as. `measurement`: fields of the JSON beside
    it. `quantization`: what made its weights. `emulated`: its format was computed by software, not
    by the accelerator. `compliance_tests`: those whose runs it needs. `departures`: in words, where
    the cell leaves the rules of its round; a tree with any may not be submitted.
    `replaced`: what stands in for what in a dress rehearsal; empty: it is none. `expected_s`:
    machine-seconds of its runs on the system that is rehearsed for, as they are estimated; null:
    not known.
    """

    system: Name
    benchmark: Name
    compression: Name
    precision: Name
    scenario: Scenario
    system_id: Name
    division: Division
    packages: tuple[Package, ...]
    measurement: Measurement
    quantization: Quantization
    emulated: bool
    compliance_tests: tuple[Name, ...]
    departures: tuple[str, ...]
    replaced: tuple[StandIn, ...] = ()
    expected_s: PositiveNumber | None = None

    @property
    def key(self) -> str:
        """Path of the cell below `runs/` and `verdicts/`."""
        parts = (self.system, self.benchmark, self.compression, self.precision, self.scenario)
        return "/".join(parts)

    def role(self, step: str, test: str = "") -> str:
        """Name of a run or verdict of this cell among the inputs of submission and report.

        Of several compliance tests each lies below the cell, one alone in it.
        """
        below = f"/{test}" if test and len(self.compliance_tests) > 1 else ""
        return f"{self.key}{below}/{step}"


class SubmissionConfig(Strict):
    """One submitter's tree, of both divisions if its cells are.

    `experiment`: its name. `round`: whose layout and rules the tree has. `submitter`: its folder in
    the tree. `overrides`: what was typed, as it was typed. `cells`: what is in it.
    """

    experiment: Name
    round: Name
    submitter: str
    overrides: tuple[str, ...]
    cells: tuple[Cell, ...]


class Redaction(Strict):
    """How often something of a kind was replaced in a document; never its value."""

    file: str
    kind: str
    count: int


class SubmissionResult(Result):
    """`departures`: where cells leave the rules of their round; `errors`: of the validator; with
    any of either the tree may not be submitted. `files`: how many it has."""

    divisions: tuple[Division, ...]
    submitter: str
    departures: tuple[str, ...]
    errors: NotNegative
    redactions: tuple[Redaction, ...]
    may_be_submitted: bool
    files: NotNegative


class ProvenanceConfig(Strict):
    """What a submission was asked for; the rest is in its inputs.

    `experiment`: its name. `round`: of the rules that it follows. `submitter`: its folder in the
    tree. `overrides`: what was typed, as it was typed.
    """

    experiment: Name
    round: Name
    submitter: str
    overrides: tuple[str, ...]


class ProvenanceResult(Result):
    """How many things of each kind the statement names, by the kind."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, NotNegative]
