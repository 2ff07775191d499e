"""A run of the rules' length in its own process: `python -m steps.commands.tune.final`.

It is the performance run that `./reproduce` would make, by the same code, from the same
configuration, and is published as one. Its watcher can only end it: if it can no longer be VALID,
its measurements stay in its partial directory.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Workspace
from steps.base.step import main
from steps.commands.tune.probe import PROBE
from steps.commands.tune.watching import Watch, Watched
from steps.config.runs import PerformanceRunConfig
from steps.mlperf.loadgen import SAMPLES_FILE
from steps.run.sut.run import Trial, TrialEnded, execute

ENDED = "ended.json"


def step(
    config: PerformanceRunConfig,
    inputs: Mapping[str, Path],
    workspace: Workspace,
    console: Console,
) -> None:
    """As steps.run.performance_run; raises UserError if it was ended early."""
    watch = Watch(Watched.read(inputs[PROBE]))
    try:
        execute("PerformanceOnly", config, inputs, workspace, console, trial=Trial(watch, None))
    except TrialEnded as reason:
        kept = workspace.partial
        assert kept is not None
        kept.mkdir(parents=True, exist_ok=True)
        (workspace.directory / SAMPLES_FILE).replace(kept / SAMPLES_FILE)
        ended = {"ended": str(reason), "measured_s": round(watch.now_s, 3)}
        (kept / ENDED).write_text(json.dumps(ended), encoding="utf-8")
        raise UserError(f"ended after {watch.now_s:.0f} s, because it can't be VALID") from None


if __name__ == "__main__":
    main("performance_run", PerformanceRunConfig, step)
