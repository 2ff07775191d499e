"""Importance measured on the rehearsal model by transformers, in the engine's environment."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, planned
from tests.interpreter import interpreter

pytestmark = pytest.mark.engine

IDLE = 5
"""The layer whose outputs are set to zero: what enters it leaves it."""

SCRIPT = f"""
import json, shutil, sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from steps.prepare.prune.importance import measure
model = Path(sys.argv[1])
shutil.copytree("steps/prepare/rehearsal/model", model)
weights = load_file(model / "model.safetensors")
for name in ("self_attn.o_proj", "mlp.down_proj"):
    weights[f"model.layers.{IDLE}.{{name}}.weight"].zero_()
save_file(weights, model / "model.safetensors", metadata={{"format": "pt"}})
found = measure(model, [[1, 20, 30, 40, 50], [1, 60, 70], [1, 80]], "float32", "cpu")
least = found.least("ffn_output", 1), found.least("angular_distance", 1)
print(json.dumps({{
    "ffn_output": found.ffn_output.tolist(),
    "angular_distance": found.angular_distance.tolist(),
    "least": [block.first for block in least],
}}))
"""


def test_a_layer_that_does_nothing_is_the_least_important(tmp_path: Path) -> None:
    plan = planned()
    run = next(job for job in plan.jobs if job.step == "performance_run")
    done = subprocess.run(
        [interpreter(plan, run, tmp_path), "-c", SCRIPT, str(tmp_path / "model")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["least"] == [IDLE, IDLE]
    sums, distances = found["ffn_output"], found["angular_distance"]
    assert sums[IDLE] == 0 and distances[IDLE][IDLE + 1] < 1e-6
    assert len(distances) == len(sums) + 1 == 16
    others = [layer for layer in range(15) if layer != IDLE]
    assert all(sums[layer] > 0 and distances[layer][layer + 1] > 1e-3 for layer in others)
