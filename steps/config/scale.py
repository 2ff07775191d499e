"""The scale of an experiment: as its files say it, or as a dress rehearsal on a CPU.

A dress rehearsal keeps cells, names, order, tests and tree. What stands in for what is in
conf/scale/, which every composition reads last.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from steps.base.errors import UserError, explain
from steps.base.record import canonical_json
from steps.base.strict import Name, Strict

SCALE = "scale"
"""The group of `conf/`, and its key in a composed cell."""

Mark = Literal["dress rehearsal"]
"""Stands in the configuration of every run and verdict of one, and so in its record."""

NONE = "none"
"""The scale of an experiment as its files say it."""

OWN = ("hardware", "engine", "length")
"""Groups in whose place a scale puts its own."""

DRESS: Mark = "dress rehearsal"


class StandIn(Strict):
    """`what`: is replaced. `by`: what stands in for it. `why`: a CPU can't have it. `settings`:
    those that it changes, by the names that `show` prints, each with all below it."""

    what: str
    by: str
    why: str
    settings: tuple[str, ...]


class Scale(Strict):
    """`name`: the file's name. `suffix`: of the experiment's name, so that its results lie beside
    those of the machine that is rehearsed for. `replaced`: what stands in for what; empty: it is no
    rehearsal."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: Name
    suffix: str = Field(pattern=r"^(-[a-z0-9-]+)?$")
    replaced: dict[Name, StandIn]

    @property
    def rehearsed(self) -> bool:
        return bool(self.replaced)


def scale_of(composed: Mapping[str, Any]) -> Scale:
    """Raises UserError for an unknown key or a wrong value."""
    try:
        return Scale.model_validate_json(canonical_json(composed[SCALE]))
    except ValidationError as error:
        raise UserError(f"scale: {explain(error)}; fix it in conf/scale/") from error


def require_scaled(
    conf: Path, overrides: Sequence[str], points: Sequence[Mapping[str, str]]
) -> None:
    """Raises UserError for a cell that has nothing to be rehearsed on."""
    there = sorted(path.stem for path in (conf / SCALE).glob("*.yaml"))
    chosen = [text.partition("=")[2] for text in overrides if text.startswith(f"{SCALE}=")]
    for name in chosen:
        if name == NONE:
            continue
        if name not in there:
            raise UserError(f"there is no scale {name!r}; there are {', '.join(there)}")
        _refuse_groups(name, overrides)
        for axis in ("benchmark", "compression"):
            _require(conf / SCALE / axis / name, name, axis, points)


def _refuse_groups(name: str, overrides: Sequence[str]) -> None:
    for text in overrides:
        if text.partition("=")[0] in OWN:
            raise UserError(
                f"{text} has no effect: scale={name} has its own (conf/scale/{name}.yaml); leave "
                "it out, or set single values with set.NAME=VALUE"
            )


def _require(folder: Path, name: str, axis: str, points: Sequence[Mapping[str, str]]) -> None:
    there = sorted(path.stem for path in folder.glob("*.yaml"))
    lacking = sorted({point[axis] for point in points} - {*there, "none"})
    if lacking:
        raise UserError(
            f"scale={name} has nothing small for {axis} {', '.join(lacking)}: conf/scale/{axis}/"
            f"{name}/ has {', '.join(there)}; choose among the cells with {axis}=NAME"
        )
