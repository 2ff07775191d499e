"""LoadGen's performance run of one scenario."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.runs import PerformanceRunConfig
from steps.run.sut.run import execute


def step(
    config: PerformanceRunConfig,
    inputs: Mapping[str, Path],
    workspace: Workspace,
    console: Console,
) -> None:
    """Leaves LoadGen's logs; performance_check decides whether they are valid."""
    execute("PerformanceOnly", config, inputs, workspace, console)


if __name__ == "__main__":
    main("performance_run", PerformanceRunConfig, step)
