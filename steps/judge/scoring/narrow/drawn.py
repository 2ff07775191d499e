"""Pictures of the embedded pipeline, drawn and scored in a process of their own: libraries read
their settings once, when they are imported.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy
from numpy.typing import NDArray

from steps import ROOT
from steps.base.errors import UserError
from steps.config.engine import DiffusersEngine as Settings
from steps.config.generation import ImageGeneration
from steps.judge.scoring.images import Files, Measured, measure
from steps.prepare import captions, pipeline
from steps.prepare.rehearsal.shapes import tokenizer, world
from steps.prepare.samples import LATENTS

WEIGHTS = ROOT / "steps/prepare/rehearsal/shapes/weights"
SCORERS = ROOT / "steps/judge/scoring/narrow/weights"
FOUND = "found.npz"

SECONDS = 3600.0
CAPABILITY = "ATEN_CPU_CAPABILITY"
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads sleep at barriers: two that spin there wait for each other on cores that others share."""


@dataclass(frozen=True)
class Variant:
    """One way to draw. `reordered`: the captions come in another order. `shifted`: each picture is
    judged by the next sample's caption. `alike`: it should draw the reference's pictures, so its
    row counts for the spread. `beside`: the row that its pictures are compared with.
    """

    name: str
    steps: int = 20
    guidance: float = 8.0
    dtype: str = "float32"
    batch: int = 8
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    reordered: bool = False
    shifted: bool = False
    alike: bool = False
    beside: str = ""


@dataclass(frozen=True)
class Drawn:
    """`pictures`: (samples, bytes), in the order of the samples."""

    measured: Measured
    pictures: NDArray[numpy.uint8]


def drawn(variant: Variant, samples: int) -> Drawn:
    """The first evaluated captions. Raises UserError if the process fails."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "steps.judge.scoring.narrow.drawn"]
        done = subprocess.run(
            [*command, json.dumps(asdict(variant)), str(samples), scratch],
            cwd=ROOT,
            env={**os.environ, **PATIENT, **variant.environment},
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"{variant.name}: {last}")
        with numpy.load(Path(scratch) / FOUND, allow_pickle=False) as found:
            parts = [found[name] for name in ("clip", "features", "mean", "covariance")]
            return Drawn(Measured(*parts), found["pictures"])


# ---- in the process ------------------------------------------------------------------------------


def _draw(variant: Variant, samples: int, home: Path) -> None:
    """Leaves the pictures and what was measured of them in `home`."""
    pictures = _pictures(variant, samples)
    entries = []
    for number, data in enumerate(pictures):
        of = (number + 1) % samples if variant.shifted else number
        entries.append(
            f'{{ "seq_id" : {number}, "qsl_idx" : {of}, "data" : "{data.hex().upper()}" }}'
        )
    log = home / "log.json"  # in the form of LoadGen's
    log.write_text("[\n" + ",\n".join(entries) + "\n]\n", encoding="ascii")
    lines = [scene.caption for scene in world.evaluation()[:samples]]
    captions.write_source(lines, home / captions.SOURCE)
    found = measure(log, _files(home / captions.SOURCE))
    numpy.savez(
        home / FOUND,
        clip=found.clip,
        features=found.features,
        mean=found.mean,
        covariance=found.covariance,
        pictures=numpy.stack([numpy.frombuffer(data, numpy.uint8) for data in pictures]),
    )


def _pictures(variant: Variant, samples: int) -> list[bytes]:
    from steps.run.engines.diffusers_engine import DiffusersEngine
    from steps.run.engines.engine import Start

    engine = DiffusersEngine()
    asked = generation(variant)
    noise = WEIGHTS / LATENTS
    engine.start(Start(WEIGHTS, settings(variant), asked, first_tokens=False, noise=noise))
    _require_capability(variant.environment.get(CAPABILITY, ""))
    order = list(range(samples))
    if variant.reordered:
        numpy.random.default_rng(0).shuffle(order)
    rows = prompts(samples)
    engine.submit([(number, rows[number], ()) for number in order])
    answers: dict[int, bytes] = {}
    while len(answers) < samples:
        answers.update({number: found.tobytes() for number, found in engine.step().completed})
    return [answers[number] for number in range(samples)]


def prompts(samples: int) -> list[list[int]]:
    """Token ids of the first evaluated captions, for both encoders."""
    home = pipeline.home(WEIGHTS)
    words = [captions.Words.read(home / name) for name in pipeline.TOKENIZERS]
    scenes = world.evaluation()[:samples]
    return [[token for one in words for token in one.ids(scene.caption)[0]] for scene in scenes]


def generation(variant: Variant) -> ImageGeneration:
    return ImageGeneration(
        steps=variant.steps,
        guidance_scale=variant.guidance,
        size=world.SIDE_PIXELS,
        negative_prompt=tokenizer.NEGATIVE,
    )


def settings(variant: Variant) -> Settings:
    placement = {
        "cluster": "none",
        "nodes": 1,
        "engines_per_node": 1,
        "in_process": True,
        "pinned": False,
        "device_variable": "none",
        "prompt_token_weight": 0.0,
        "on_failure": "fail",
        "silence_limit_s": 30.0,
        "degraded_below": 0.85,
    }
    return Settings.model_validate(
        {
            "kind": "diffusers",
            "threads": variant.threads,
            "arguments": {
                "batch_size": variant.batch,
                "batch_timeout_s": 0.0,
                "dtype": variant.dtype,
                "device": "cpu",
                "compile": False,
                "channels_last": False,
                "decode_singly": False,
            },
            "placement": placement,
            "offline_order": "as_issued",
            "environment": {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            "warmup_samples": 1,
            "start_limit_s": 600.0,
            "stall_limit_s": 600.0,
        }
    )


def _require_capability(wanted: str) -> None:
    import torch

    found = str(torch.backends.cpu.get_cpu_capability()).lower()
    if wanted and found != wanted:
        raise UserError(f"PyTorch computes with {found} on this processor, and not with {wanted}")


def _files(source: Path) -> Files:
    return Files(
        captions=source,
        statistics=SCORERS / "statistics.npz",
        clip=SCORERS / "clip",
        inception=SCORERS / "inception.pth",
        digests={},
        side=world.SIDE_PIXELS,
    )


if __name__ == "__main__":
    try:
        _draw(Variant(**json.loads(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3]))
    except UserError as error:
        sys.exit(str(error))
