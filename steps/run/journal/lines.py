"""A journal read back."""

from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from steps.base.errors import UserError
from steps.base.strict import Strict

JOURNAL = "journal.jsonl"
"""The file in a run's directory: one line per second, then the engine's slow steps."""


class Device(Strict):
    """One accelerator: see steps.run.journal.accelerators.Device."""

    mhz: float | None = None
    memory_mhz: float | None = None
    w: float | None = None
    c: float | None = None
    used_mib: float | None = None
    throttled: tuple[str, ...] = ()
    violations: dict[str, float] = Field(default_factory=dict)
    errors: float | None = None


class Line(Strict):
    """The values read at second `s` of the test, for the time since the last line; None: a missing
    column. Columns are explained where they are read: steps/run/journal/host.py, accelerators.py,
    caches.py. `missing` says why columns are missing, `unanswered` why accelerators' end.
    """

    s: float
    missing: tuple[str, ...] = ()
    others: float | None = None
    own: float | None = None
    steal: float | None = None
    busy: str = ""
    runnable: int | None = None
    stopped: int = 0
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    io_pressure: float | None = None
    available_mb: float | None = None
    swap_used_mb: float | None = None
    swapped_mb: float | None = None
    faults: float | None = None
    major_faults: float | None = None
    hottest_c: float | None = None
    mhz: float | None = None
    accelerators: tuple[Device, ...] = ()
    unanswered: str = ""
    compiled: tuple[tuple[str, str, float], ...] = ()


class Step(Strict):
    """A step of engine `step` that took `took_s`, `times` the median of the steps before it, and
    ended at second `s` of the test."""

    step: int
    s: float
    took_s: float
    times: float


class Journal(NamedTuple):
    """Lines and slow steps, in order."""

    lines: tuple[Line, ...]
    steps: tuple[Step, ...]


def read(path: Path) -> Journal:
    """Raises UserError for a file that isn't a journal; a killed process's file is one."""
    lines: list[Line] = []
    steps: list[Step] = []
    try:
        whole = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({error}): disturbances of the run are unknown"
        ) from error
    for number, text in enumerate(whole[:-1], start=1):  # the last isn't whole, or empty
        try:
            if text.startswith('{"step"'):
                steps.append(Step.model_validate_json(text))
            else:
                lines.append(Line.model_validate_json(text))
        except ValidationError as error:
            raise UserError(
                f"{path}, line {number}, isn't a line of a journal: disturbances of the run "
                "are unknown"
            ) from error
    if not lines:
        raise UserError(f"{path} is empty: disturbances of the run are unknown")
    return Journal(tuple(lines), tuple(steps))
