"""LoadGen under a compliance test's audit.config."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.runs import ComplianceRunConfig
from steps.run.sut.run import execute


def step(
    config: ComplianceRunConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """The audit.config is in this run's own directory, so no other run can read it."""
    execute("PerformanceOnly", config, inputs, workspace, console, audit=config.audit)


if __name__ == "__main__":
    main("compliance_run", ComplianceRunConfig, step)
