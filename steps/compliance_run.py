"""LoadGen under a compliance test's audit.config."""

from collections.abc import Mapping
from pathlib import Path

from steps.command import main
from steps.console import Console
from steps.record import Workspace
from steps.schema import ComplianceRunConfig
from steps.sut.run import execute


def step(
    config: ComplianceRunConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """The audit.config lies in this run's own directory, so no other run can pick it up."""
    execute("PerformanceOnly", config, inputs, workspace, console, audit=config.audit)


if __name__ == "__main__":
    main("compliance_run", ComplianceRunConfig, step)
