"""Training goes on from where it was killed, to the same weights; adapters are merged."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, planned
from tests.interpreter import interpreter

pytestmark = pytest.mark.engine

SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
from safetensors.torch import load_file
from steps.rehearsal import train
home = Path(sys.argv[1])
recipe = replace(train.FINE_TUNE, phases=(train.Phase(3_000),), batch_tokens=512, warmup_steps=2)
model = Path("steps/rehearsal/model")
train.SNAPSHOT_S = 0  # a state after every step
class Killed(Exception):
    pass
def killer(limit):
    seen = []
    def report(tokens):
        seen.append(tokens)
        if len(seen) == limit:
            raise Killed
    return report
found = {}
for name, lora in (("full", None), ("lora", (4, 4))):
    train.fine_tune(model, home / f"{name}-whole", recipe, lora=lora)
    state = home / f"{name}.state"
    try:
        train.fine_tune(model, home / f"{name}-resumed", recipe, lora=lora, state=state,
                        report=killer(3))
    except Killed:
        found[f"{name} left nothing"] = not (home / f"{name}-resumed").exists()
    steps = torch.load(state, weights_only=True)["steps"]
    found[f"{name} kept"] = steps
    train.fine_tune(model, home / f"{name}-resumed", recipe, lora=lora, state=state)
    whole, resumed, source = (
        load_file(path / "model.safetensors")
        for path in (home / f"{name}-whole", home / f"{name}-resumed", model)
    )
    found[f"{name} same"] = all(torch.equal(whole[key], resumed[key]) for key in whole)
    found[f"{name} names"] = whole.keys() == source.keys()
    moved = [key for key in source if not torch.equal(whole[key], source[key])]
    found[f"{name} moved"] = sum("_proj" in key for key in moved)
    found[f"{name} others"] = sum("_proj" not in key for key in moved)
other = replace(recipe, seed=1)
train.fine_tune(model, home / "other", other, state=home / "full.state")
found["another recipe starts anew"] = not torch.equal(
    load_file(home / "other/model.safetensors")["model.norm.weight"],
    load_file(home / "full-whole/model.safetensors")["model.norm.weight"],
)
print(json.dumps(found))
"""


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    plan = planned("compression=finetuned", "scenario=Offline")
    job = next(job for job in plan.jobs if job.step == "finetune")
    done = subprocess.run(
        [interpreter(plan, job, tmp_path), "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    projections = 15 * 7
    for name in ("full", "lora"):
        assert found[f"{name} left nothing"]
        assert found[f"{name} kept"] == 2
        assert found[f"{name} same"] and found[f"{name} names"]
        assert found[f"{name} moved"] == projections
    assert found["lora others"] == 0, "adapters leave embeddings and norms alone"
    assert found["full others"] > 0
    assert found["another recipe starts anew"]
