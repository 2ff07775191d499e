"""Training goes on from where it was killed, to the same weights; in two processes too."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from steps.prepare.checkpoint.layout import Checkpoint, open_checkpoint
from steps.prepare.prune.block import Block, prune
from tests.conftest import ROOT
from tests.prepare.finetuning import (
    STEPS,
    begun,
    finetune_python,
    one_step_on_ruler,
    settings,
    trained,
)
from tests.prepare.shapes import pruned_shape

pytestmark = pytest.mark.engine

# What peft itself makes of the same adapters.
PEFTS = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
worst = {}
for model, home in json.loads(sys.argv[1]):
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    wanted = PeftModel.from_pretrained(base, f"{home}/state/adapters").merge_and_unload()
    found = AutoModelForCausalLM.from_pretrained(f"{home}/merged", dtype=torch.float32)
    worst[home] = max(
        ((one - other).abs() / other.abs().clamp(min=1e-3)).max().item()
        for one, other in zip(found.parameters(), wanted.parameters(), strict=True)
    )
print(json.dumps(worst))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return finetune_python(tmp_path_factory.mktemp("plan"))


def content(checkpoint: Checkpoint) -> dict[str, bytes]:
    found = {}
    for tensor in checkpoint.tensors:
        with tensor.path.open("rb") as stream:
            stream.seek(tensor.offset)
            found[tensor.name] = stream.read(tensor.size)
    return found


def merged(home: Path) -> dict[str, bytes]:
    return content(open_checkpoint(home / "merged"))


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, python: str) -> None:
    model = tmp_path / "model"
    prune(ROOT / "steps/prepare/rehearsal/model", model, Block(2, 13))
    whole = trained(python, settings(), str(model), str(tmp_path / "whole"))
    assert whole["steps"] == STEPS and np.isfinite(whole["validation_loss"])
    process = begun(python, settings(), str(model), str(tmp_path / "killed"))
    kept = tmp_path / "killed/state/checkpoint-2/trainer_state.json"
    deadline = time.monotonic() + 200
    while not kept.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    # A checkpoint that was being written when the end came is none.
    (tmp_path / "killed/state/checkpoint-3").mkdir(exist_ok=True)
    assert not (tmp_path / "killed/merged").exists()
    again = trained(python, settings(), str(model), str(tmp_path / "killed"))
    assert again["validation_loss"] == whole["validation_loss"]
    assert merged(tmp_path / "killed") == merged(tmp_path / "whole")
    source, found = content(open_checkpoint(model)), merged(tmp_path / "whole")
    moved = {name for name in source if source[name] != found[name]}
    assert moved == {name for name in source if "_proj" in name}, "nothing but linear layers"


def test_both_shapes_are_fine_tuned_on_rulers_samples_and_merged(
    tmp_path: Path, python: str
) -> None:
    """The one of 405B's proportions by two processes, of which each has its share of a batch."""
    pairs = []
    for mixture in (False, True):
        model = pruned_shape(tmp_path, mixture)
        home = tmp_path / f"{model.name}-trained"
        chosen = one_step_on_ruler(tmp_path, processes=1 if mixture else 2)
        described = trained(python, chosen, str(model), str(home))
        assert described["steps"] == 1 and described["training_samples"] == 8
        source, found = content(open_checkpoint(model)), merged(home)
        moved = {name for name in source if source[name] != found[name]}
        assert moved and all("self_attn" in name or "mlp" in name for name in moved)
        pairs.append((str(model), str(home)))
    done = subprocess.run(
        [python, "-c", PEFTS, json.dumps(pairs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for home, worst in json.loads(done.stdout.splitlines()[-1]).items():
        assert worst < 2**-7, f"{home}: the merged weights are rounded to bf16 and no more"


def test_a_learning_rate_without_bounds_is_named(tmp_path: Path, python: str) -> None:
    model = tmp_path / "model"
    prune(ROOT / "steps/prepare/rehearsal/model", model, Block(2, 13))
    wild = settings(learning_rate=1e30, warmup_ratio=0.0, max_grad_norm=1e30)
    process = begun(python, wild, str(model), str(tmp_path / "home"))
    process.communicate(timeout=300)
    assert process.returncode
    last = (tmp_path / "home/log").read_text(encoding="utf-8").splitlines()[-1]
    assert "UserError: the loss of step" in last and "learning_rate" in last
