"""config.json in the forms of transformers 4 and 5."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.prepare.checkpoint import config_forms
from steps.prepare.checkpoint.config_forms import both_forms, misread, refuse_misread
from steps.prepare.checkpoint.layout import open_checkpoint
from steps.prepare.checkpoint.stream import rewrite
from steps.prepare.prune.block import Block, prune_transform
from tests import checkpoints
from tests.conftest import ROOT

LLAMA3 = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
OLD, NEW = "4.52.4", "5.19.0"


def as_version_4_reads(config: dict[str, Any]) -> tuple[object, ...]:
    """Base, scaling and dtype, with the defaults of version 4."""
    return (
        config.get("rope_theta", 10000.0),
        config.get("rope_scaling") or None,
        config.get("torch_dtype", "float32"),
    )


def as_version_5_reads(config: dict[str, Any]) -> dict[str, Any]:
    """rope_parameters; a rope_scaling takes their place, and the base is added."""
    found = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    found.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    found.setdefault("rope_type", "default")
    return found


scalings = st.sampled_from([None, LLAMA3, {"rope_type": "linear", "factor": 2.0}])
thetas = st.floats(1000, 1e7)


@given(thetas, scalings, st.sampled_from(["bfloat16", "float16"]))
def test_what_version_5_writes_version_4_reads_right(
    theta: float, scaling: dict[str, Any] | None, dtype: str
) -> None:
    rope = {"rope_theta": theta, **(scaling or {"rope_type": "default"})}
    config = {"rope_parameters": rope, "dtype": dtype}
    written = both_forms(config)
    assert as_version_4_reads(written) == (theta, scaling, dtype)
    assert as_version_5_reads(written) == rope
    assert misread(written, OLD) is None and misread(written, NEW) is None
    assert both_forms(written) == written
    assert misread(config, NEW) is None
    # 10,000 with nothing else is what version 4 takes by itself.
    assert (misread(config, OLD, dtype=False) is None) == (theta == 10000 and scaling is None)


@given(thetas, scalings)
def test_what_version_4_writes_version_5_reads_right(
    theta: float, scaling: dict[str, Any] | None
) -> None:
    config = {"rope_theta": theta, "rope_scaling": scaling, "torch_dtype": "float16"}
    written = both_forms(config)
    assert written["rope_parameters"] == as_version_5_reads(config)
    assert as_version_4_reads(written) == (theta, scaling, "float16")
    assert written["dtype"] == "float16"


def test_earlier_names_and_what_has_no_older_form() -> None:
    linear = both_forms({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}})
    assert linear["rope_parameters"]["rope_type"] == "linear"
    kinds = {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}
    assert both_forms(kinds) == kinds
    assert "several kinds of layers" in str(misread(kinds, OLD))
    assert both_forms({"model_type": "x"}) == {"model_type": "x"}
    assert misread({"model_type": "x"}, OLD) is None


def test_dtype_alone_is_misread_before_4_56() -> None:
    assert "would take float32" in str(misread({"dtype": "bfloat16"}, OLD))
    assert misread({"dtype": "bfloat16"}, OLD, dtype=False) is None
    assert misread({"dtype": "bfloat16"}, "4.57.3") is None


def test_a_config_of_one_form_is_refused_where_it_would_be_misread(tmp_path: Path) -> None:
    rope = {"rope_theta": 1e6, "rope_type": "default"}
    (tmp_path / "config.json").write_text(json.dumps({"rope_parameters": rope}))
    refuse_misread(tmp_path, NEW)
    with pytest.raises(UserError) as caught:
        refuse_misread(tmp_path, OLD)
    assert "transformers 4.52.4 would take rope_theta 10000" in str(caught.value)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        refuse_misread(tmp_path, OLD)


def test_the_shipped_model_has_both_forms() -> None:
    refuse_misread(ROOT / "steps/prepare/rehearsal/model", OLD)


def test_a_rewritten_checkpoint_has_both_forms(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "source", checkpoints.llama(3), shards=2)
    path = source / config_forms.CONFIG
    config = json.loads(path.read_text())
    rope = {"rope_theta": 5e5, **LLAMA3}
    path.write_text(json.dumps({**config, "rope_parameters": rope}))
    checkpoint = open_checkpoint(source)
    (tmp_path / "out").mkdir()
    rewrite(checkpoint, tmp_path / "out", prune_transform(checkpoint, Block(1, 1)))
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["rope_theta"] == 5e5 and written["rope_scaling"] == LLAMA3
    refuse_misread(tmp_path / "out", OLD)
