"""LoadGen's accuracy run of one scenario: every sample of the dataset once."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.runs import AccuracyRunConfig
from steps.run.sut.run import execute


def step(
    config: AccuracyRunConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Leaves LoadGen's logs with every answer; accuracy_check scores them."""
    execute("AccuracyOnly", config, inputs, workspace, console)


if __name__ == "__main__":
    main("accuracy_run", AccuracyRunConfig, step)
