"""One probe in its own process: `python -m steps.commands.tune.probe`. It isn't a result."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.record import Workspace
from steps.base.step import main
from steps.commands.tune.watching import Watch, Watched
from steps.config.run_results import ProbeResult
from steps.config.runs import PerformanceRunConfig
from steps.run.sut.run import Trial, TrialEnded, execute

PROBE = "probe"
"""Role of the input with the Watched."""


def step(
    config: PerformanceRunConfig,
    inputs: Mapping[str, Path],
    workspace: Workspace,
    console: Console,
) -> None:
    """Leaves samples.csv, and LoadGen's logs if it went to its end. Seeds are the probe's own."""
    watched = Watched.read(inputs[PROBE])
    watch = Watch(watched)
    trial = Trial(watch, watched.probe.seed)
    try:
        ran = execute("PerformanceOnly", config, inputs, workspace, console, trial=trial)
        ended, measured_s = "complete", ran.duration_s
    except TrialEnded as reason:
        ended, measured_s = str(reason), watch.now_s
    probed = ProbeResult.model_validate({"ended": ended, "measured_s": round(measured_s, 3)})
    workspace.result |= probed.dumped()


if __name__ == "__main__":
    main("tune_probe", PerformanceRunConfig, step)
