"""Fine-tuning for tests: short, of real weights, by the step's own code in its environment."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, planned
from tests.interpreter import interpreter

SCRIPT = """
import json, sys
from pathlib import Path
from steps.base.console import Console
from steps.prepare.finetune import adapters
from steps.config.compression import FinetuneConfig
config, model, home = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
home.mkdir(exist_ok=True)
made = adapters.train(
    FinetuneConfig.model_validate_json(config), model, home / "state", Console(home / "log"),
    sorted(home.parent.glob("8192.jsonl")),
)
adapters.merge(model, made.directory, home / "merged")
(home / "described.json").write_text(json.dumps(made.described))
"""

STEPS = 4


def finetune_python(home: Path) -> str:
    """The Python that fine-tuning jobs have."""
    plan = planned("compression=finetuned", "scenario=Offline")
    job = next(job for job in plan.jobs if job.step == "finetune")
    return interpreter(plan, job, home)


def settings(**changes: Any) -> str:
    """The rehearsal's, for STEPS steps on notes, with checkpoints after every second one."""
    plan = planned("compression=finetuned", "scenario=Offline")
    job = next(job for job in plan.jobs if job.step == "finetune")
    short = {
        "data": {"kind": "notes", "training_samples": 2 * STEPS, "validation_samples": 2},
        "lora": {"rank": 4, "alpha": 4},
        "per_device_train_batch_size": 2,
        "save_steps": 2,
    }
    return json.dumps({**json.loads(job.config), **short, **changes})


def one_step_on_ruler(directory: Path, processes: int) -> str:
    """On samples as RULER writes them, of words that tests.prepare.shapes knows."""
    written = directory / "8192.jsonl"
    sample = {"input": "a b c d e f", "outputs": ["g h", "i"]}
    written.write_text((json.dumps(sample) + "\n") * 9, encoding="utf-8")
    ruler = {
        "kind": "ruler",
        "training_samples_per_set": 8,
        "validation_samples_per_set": 1,
        "end": " j",
    }
    return settings(data=ruler, processes=processes, checkpoint_step=1, warmup_ratio=0.0)


def begun(python: str, *arguments: str) -> "subprocess.Popen[str]":
    """Arguments: settings, the model, a directory for `state`, `merged` and `described.json`."""
    return subprocess.Popen(
        [python, "-c", SCRIPT, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trained(python: str, *arguments: str) -> Any:
    """`begun`, to its end: what the step would describe."""
    process = begun(python, *arguments)
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    return json.loads((Path(arguments[-1]) / "described.json").read_text(encoding="utf-8"))
