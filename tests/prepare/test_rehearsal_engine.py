"""Simulated quantization of the rehearsal model, in the engine's environment (it needs torch)."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, planned
from tests.interpreter import interpreter

pytestmark = pytest.mark.engine

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from steps.base.errors import UserError
from steps.prepare.rehearsal import compress
home, source = Path(sys.argv[1]), Path("steps/prepare/rehearsal/model")
before = load_file(source / "model.safetensors")
found = {}
for format, shape in (("fp8", (1, -1)), ("int2", (-1, compress.GROUP))):
    compress.quantize_simulated(source, home / format, format)
    after = load_file(home / format / "model.safetensors")
    moved = [key for key in before if not torch.equal(after[key], before[key])]
    grids = [grid for key in moved for grid in after[key].view(*shape)]
    found[format] = {"moved": moved, "levels": max(len(grid.unique()) for grid in grids)}
try:
    compress.quantize_simulated(home, home / "none", "fp8")
except UserError as error:
    found["refused"] = str(error)
found["left"] = sorted(path.name for path in home.iterdir())
print(json.dumps(found))
"""


def test_quantizing_rounds_only_decoder_linears(tmp_path: Path) -> None:
    plan = planned()
    run = next(job for job in plan.jobs if job.step == "performance_run")
    python = interpreter(plan, run, tmp_path)
    home = tmp_path / "made"
    home.mkdir()
    done = subprocess.run(
        [python, "-c", SCRIPT, str(home)], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for format, levels in (("fp8", 256), ("int2", 4)):
        assert len(found[format]["moved"]) == 15 * 7
        assert all("_proj.weight" in name for name in found[format]["moved"])
        assert found[format]["levels"] <= levels
    assert "isn't a checkpoint directory" in found["refused"]
    assert found["left"] == ["fp8", "int2"]
