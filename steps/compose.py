"""The only module that knows Hydra: overrides in, one resolved dictionary per cell out."""

import itertools
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from steps.errors import UserError
from steps.registry import AXES


def compose(conf: Path, overrides: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Compose every cell of the matrix.

    An override of an axis (`precision=bf16,fp8`, `scenario=glob(*)`) replaces that axis of the
    experiment's matrix; any other override holds for all cells. Returns the experiment's name and
    one dictionary per cell, in matrix order. Raises UserError for anything that Hydra refuses.
    """
    fixed, axes = _split(conf, overrides)
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        base = _one(fixed, "the configuration")
        matrix = {**{axis: base["matrix"][axis] for axis in AXES}, **axes}
        for axis, values in matrix.items():
            if not values:
                raise UserError(f"axis {axis} has no value; give at least one, as {axis}=NAME")
        cells = []
        for point in itertools.product(*(matrix[axis] for axis in AXES)):
            chosen = [f"{axis}={value}" for axis, value in zip(AXES, point, strict=True)]
            cells.append(_one([*fixed, *chosen], " ".join(chosen)))
    return str(base["experiment_name"]), cells


def _split(conf: Path, overrides: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Overrides that hold for all cells, and the values of the axes that were overridden."""
    fixed: list[str] = []
    axes: dict[str, list[str]] = {}
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise UserError(f"override {text!r} is not KEY=VALUE as Hydra reads it") from error
        if not override.key_or_group:
            raise UserError(f"override {text!r} names no key; write KEY=VALUE")
        if override.key_or_group in AXES:
            axes[override.key_or_group] = _values(conf, override)
        elif override.is_sweep_override():
            raise UserError(
                f"{override.key_or_group} can't be swept; only {', '.join(AXES)} take lists: "
                "run once per value instead"
            )
        else:
            fixed.append(text)
    return fixed, axes


def _values(conf: Path, override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.value())]
    value = override.value()
    if isinstance(value, Glob):
        folder = conf / override.key_or_group
        return cast(list[str], value.filter(sorted(path.stem for path in folder.glob("*.yaml"))))
    return list(override.sweep_string_iterator())


def _one(overrides: list[str], what: str) -> dict[str, Any]:
    try:
        config = hydra_compose("config", overrides=overrides)
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        message = " ".join(str(error).split())
        raise UserError(f"{what} can't be composed: {message}") from error
