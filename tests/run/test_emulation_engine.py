"""The numerics of the emulating kernels, and vLLM with them, in the engine's environment."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from steps.base.record import publish
from steps.plan.plan import Job, Plan
from tests.conftest import ROOT, planned
from tests.interpreter import interpreter
from tests.running import command

pytestmark = pytest.mark.engine

LIMIT_S = 300

# MXFP4 against steps/prepare/checkpoint/mxfp4.py, which tests/prepare/test_mxfp4.py compares with
# exact arithmetic; ties, zeros, the least and the largest scales are among the groups.
NUMERICS = """
import numpy as np, torch
from steps.prepare.checkpoint import mxfp4
from steps.prepare.checkpoint.formats import fp8_codes, mxfp4_round_trip, mxfp4_values
generator = np.random.default_rng(0)
groups = generator.standard_normal((4000, 32)) * 2.0 ** generator.integers(-60, 60, (4000, 1))
ties = np.tile([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0], (8, 4)) * 2.0 ** np.arange(8)[:, None]
special = np.concatenate([ties, -ties, np.zeros((1, 32)), np.full((1, 32), 7.9)])
values = np.concatenate([groups, special]).astype(np.float32)
packed, scales = mxfp4.quantize(memoryview(values).cast("B"), "F32", "even")
rows = len(values)
wanted = mxfp4_values(torch.from_numpy(packed.reshape(rows, 16)), torch.from_numpy(scales[:, None]))
found = mxfp4_round_trip(torch.from_numpy(values))
assert torch.equal(found, wanted), (found - wanted).abs().max()
halves = torch.from_numpy(values).bfloat16()
assert mxfp4_round_trip(halves).dtype == torch.bfloat16
assert torch.equal(mxfp4_round_trip(halves).float(), mxfp4_round_trip(halves.float()))
codes = fp8_codes(torch.tensor([0.0, 1.0, 1.0625, 1.1875, -1e9, 1e9]) * 2, torch.tensor(2.0))
assert codes.float().tolist() == [0.0, 1.0, 1.0, 1.25, -448.0, 448.0], codes
print("same")
"""


def quantized(precision: str) -> tuple[Plan, Job]:
    plan = planned("scenario=Offline", f"precision={precision}")
    found = (job for job in plan.jobs if job.step == "quick_run" and job.key.endswith("quantize"))
    return plan, next(found)


def test_the_kernels_round_as_the_formats_say(tmp_path: Path) -> None:
    engine = interpreter(*quantized("mxfp4"), tmp_path)
    done = subprocess.run(
        [engine, "-W", "error", "-c", NUMERICS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.stdout == "same\n", done.stderr


def test_vllm_answers_from_mxfp4_weights_and_says_that_it_emulates(tmp_path: Path) -> None:
    from steps.prepare.checkpoint.layout import open_checkpoint
    from steps.prepare.checkpoint.quantize import Mxfp4Config, mxfp4_transform
    from steps.prepare.checkpoint.stream import rewrite
    from steps.prepare.rehearsal import dataset
    from steps.prepare.rehearsal.tokenizer import NOTES

    source = open_checkpoint(ROOT / "steps/prepare/rehearsal/model")
    settings = Mxfp4Config(activations="mxfp4", scale_calculation_mode="even", exclude=("lm_head",))
    rewrite(source, tmp_path / "weights", mxfp4_transform(source, settings))
    with publish(tmp_path / "model", step="quantize", config={}, inputs={}, code="") as workspace:
        for path in (tmp_path / "weights").iterdir():
            shutil.copy(path, workspace.directory)
    frame = dataset.evaluation(32)
    with publish(tmp_path / "dataset", step="dataset", config={}, inputs={}, code="") as workspace:
        frame.to_pickle(workspace.directory / "evaluation.pkl")
        dataset.calibration(8).to_pickle(workspace.directory / "calibration.pkl")
    plan, job = quantized("mxfp4-streamed")
    config = {**json.loads(job.config), "samples": 32}
    inputs = {role: tmp_path / role / "manifest.json" for role in ("model", "dataset")}
    done = subprocess.run(
        command("quick_run", config, inputs, tmp_path, interpreter(plan, job, tmp_path)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert manifest["result"]["engine"]["kernels"] == "emulated"
    assert "are emulated on the CPU" in (tmp_path / "log").read_text(encoding="utf-8")
    answers = json.loads((tmp_path / "out/answers.json").read_text(encoding="utf-8"))
    right = [
        NOTES.decode(answer).split()[:9] == truth.split()[:9]
        for answer, truth in zip(answers, frame["output"], strict=True)
    ]
    # Four bits cost something, but most answers begin with the right fact; a wrong scale or
    # nibble order leaves none.
    assert sum(right) > 16
