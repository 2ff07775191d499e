"""config.json in both forms of transformers: version 5 has `rope_parameters` and `dtype`, version 4
reads `rope_theta`, `rope_scaling` and `torch_dtype`.

Version 4 leaves what it doesn't know alone and takes its defaults: a base of 10,000 for the rotary
embeddings, without an error. The rehearsal model then answers 23 of 32 prompts right instead of 32.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.untrusted import json_of
from steps.prepare.checkpoint.layout import CONFIG

ROPE, THETA, SCALING = "rope_parameters", "rope_theta", "rope_scaling"
TYPE, PLAIN = "rope_type", "default"
THETA_OF_4 = 10000.0
"""What version 4 takes for a base that config.json doesn't state."""

READS_DTYPE = (4, 56)
"""The first version that reads `dtype`."""


def both_forms(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with each of these settings in both forms; what one form can't say stays alone."""
    written = dict(config)
    for known, other in (("dtype", "torch_dtype"), ("torch_dtype", "dtype")):
        if written.get(known) is not None and other not in written:
            written[other] = written[known]
    new = config.get(ROPE)
    if isinstance(new, Mapping):
        written |= _older(new)
    elif THETA in config or config.get(SCALING):
        written[ROPE] = _newer(config)
    return written


def _older(new: Mapping[str, Any]) -> dict[str, Any]:
    """What version 4 reads of rope_parameters; nothing for those of several kinds of layers."""
    if THETA not in new or any(isinstance(value, Mapping) for value in new.values()):
        return {}
    rest = {key: value for key, value in new.items() if key != THETA}
    found: dict[str, Any] = {THETA: new[THETA]}
    if "partial_rotary_factor" in rest:
        found["partial_rotary_factor"] = rest.pop("partial_rotary_factor")
    found[SCALING] = None if rest.get(TYPE, PLAIN) == PLAIN else rest
    return found


def _newer(config: Mapping[str, Any]) -> dict[str, Any]:
    scaling = dict(config.get(SCALING) or {})
    if "type" in scaling:  # the name before rope_type
        scaling.setdefault(TYPE, scaling.pop("type"))
    return {THETA: config.get(THETA, THETA_OF_4), TYPE: PLAIN, **scaling}


def dtype_keyword(transformers: str) -> str:
    """What `from_pretrained` calls the weights' dtype."""
    return "dtype" if _version(transformers) >= READS_DTYPE else "torch_dtype"


def _version(transformers: str) -> tuple[int, ...]:
    return tuple(int(part) for part in transformers.split(".")[:2] if part.isdecimal())


def misread(config: Mapping[str, Any], transformers: str, *, dtype: bool = True) -> str | None:
    """How this version of transformers would misread a config.json, in a sentence; None if not.

    `dtype`: whether the reader takes the weights' dtype from it.
    """
    version = _version(transformers)
    if version >= (5,):
        return None
    new = config.get(ROPE)
    if isinstance(new, Mapping):
        wanted = _older(new)
        if not wanted:
            return f"{ROPE} of several kinds of layers, unknown to transformers {transformers}"
        theta, scaling = config.get(THETA, THETA_OF_4), config.get(SCALING)
        if theta != wanted[THETA] or (scaling or None) != wanted[SCALING]:
            return (
                f"the rotary embeddings of {ROPE} alone ({THETA} {wanted[THETA]:g}), and "
                f"transformers {transformers} would take {THETA} {theta:g}"
            )
    if dtype and version < READS_DTYPE and config.get("dtype") and not config.get("torch_dtype"):
        return f"the dtype as `dtype` alone, and transformers {transformers} would take float32"
    return None


def refuse_misread(directory: Path, transformers: str, *, dtype: bool = True) -> None:
    """Raises UserError for weights whose config.json this version of transformers would misread."""
    try:
        config = json_of((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{directory / CONFIG} can't be read ({error}); restore it") from error
    if reason := misread(config, transformers, dtype=dtype):
        raise UserError(
            f"{directory / CONFIG} has {reason}; it was written by transformers 5: write "
            f"{THETA}, {SCALING} and torch_dtype beside it"
        )
