"""Configuration of the steps that package results and show them: the cells, and whose they are."""

from typing import Any

from steps.base.strict import Division, Name, Scenario, Strict


class Measurement(Strict):
    """The five fields of a measurement's JSON that the round's checker requires."""

    input_data_types: str
    retraining: str
    starting_weights_filename: str
    weight_data_types: str
    weight_transformations: str


class Quantization(Strict):
    """The tool that made the weights of a precision, and its options."""

    tool: Name
    options: dict[str, Any]


class Package(Strict):
    """A benchmark's name in the submission tree, and the official one that it stands for."""

    name: Name
    official: Name


class Cell(Strict):
    """One point of the matrix: what the submission and the report say about it.

    `system_id` names it in the submission tree, `packages` are the benchmarks that its one set of
    runs is submitted as. `departures` lists, in words, where the cell leaves the rules of its
    round; a tree with any may not be submitted.
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
    """One submitter's tree, of both divisions if its cells are."""

    experiment: Name
    round: Name
    submitter: str
    overrides: tuple[str, ...]
    cells: tuple[Cell, ...]


class ProvenanceConfig(Strict):
    """What a submission was asked for; the rest is in its inputs."""

    experiment: Name
    round: Name
    submitter: str
    overrides: tuple[str, ...]
