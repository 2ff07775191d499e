"""AMD Quark on mixtures whose experts calibration reaches, and doesn't, in its environment."""

from pathlib import Path

import pytest

from tests import checkpoints
from tests.conftest import planned
from tests.prepare.shapes import EXPERTS, LAYERS, written
from tests.prepare.test_shapes_engine import in_environment

pytestmark = pytest.mark.engine

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from steps.base.errors import UserError
from steps.config.compression import QuarkOptions
from steps.prepare.quantize import quark
generator = torch.Generator().manual_seed(0)
prompts = torch.randint(1, 64, (8, 32), generator=generator).tolist()
found = {}
for path in map(Path, sys.argv[1:]):
    made = path.with_name(f"{path.name}-quark")
    made.mkdir()
    options = QuarkOptions(version="0.13", quant_scheme="w_fp8_a_fp8", kv_cache_dtype="fp8",
                           seq_len=32, exclude_layers=("lm_head", "*.gate"), data_type="float32")
    try:
        found[path.name] = quark.quantize(path, made, options, prompts)
    except UserError as error:
        found[path.name] = str(error)
print(json.dumps(found))
"""


def test_fp8_of_an_expert_that_no_prompt_reached_is_refused(tmp_path: Path) -> None:
    """A router without weights prefers the same two experts for every token."""
    warm = written(tmp_path, mixture=True)
    tensors = {
        name: (dtype, shape, bytes(len(data)) if ".2.block_sparse_moe.gate." in name else data)
        for name, (dtype, shape, data) in checkpoints.read(warm).items()
    }
    config = (warm / "config.json").read_bytes()
    cold = checkpoints.write(tmp_path / "cold", tensors)
    (cold / "config.json").write_bytes(config)
    plan = planned("precision=fp8", "scenario=Offline")
    found = in_environment(plan, "quantize", tmp_path, SCRIPT, str(warm), str(cold))
    count = EXPERTS * LAYERS
    assert found["mixture"]["experts"] == count
    assert found["mixture"]["fewest_tokens_of_an_expert"] > 0
    assert found["cold"].startswith(
        f"no calibration prompt reached 2 of {EXPERTS * LAYERS} experts"
    )
    assert "model.layers.2.block_sparse_moe.experts." in found["cold"]
