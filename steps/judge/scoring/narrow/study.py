"""What the gates of the embedded pictures tell apart: `python -m steps.judge.scoring.narrow.study`.

Draws the first captions with the shipped weights in several ways, scores them with the scorers of
the flow, and writes the tables of docs/explanation/rehearsal-pictures.md. `--reference` prints the
scores that the benchmark's bounds are made of.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy

from steps import ROOT
from steps.base.errors import UserError
from steps.config.engine import DiffusersEngine as Settings
from steps.config.generation import ImageGeneration
from steps.judge.scoring.images import Files, Measured, measure
from steps.prepare import captions, pipeline
from steps.prepare.rehearsal import pages
from steps.prepare.rehearsal.shapes import tokenizer, world
from steps.prepare.samples import LATENTS

WEIGHTS = ROOT / "steps/prepare/rehearsal/shapes/weights"
SCORERS = ROOT / "steps/judge/scoring/narrow/weights"
PAGE = ROOT / "docs/explanation/rehearsal-pictures.md"
START, END = "<!-- study -->", "<!-- end of study -->"

DRAWS, SEED = 400, 5
"""Resamples of the pictures for the interval of FID."""

SECONDS = 3600.0


@dataclass(frozen=True)
class Variant:
    """One way to draw. `shifted`: each picture is judged by the next sample's caption."""

    name: str
    steps: int = 20
    guidance: float = 8.0
    dtype: str = "float32"
    batch: int = 8
    threads: int = 1
    capability: str = ""
    shifted: bool = False


REFERENCE = Variant("fp32, as configured")
VARIANTS = (
    REFERENCE,
    *(
        Variant(f"ATEN_CPU_CAPABILITY={one}", capability=one)
        for one in ("default", "avx2", "avx512")
    ),
    Variant("2 threads", threads=2),
    Variant("batches of 4", batch=4),
    Variant("bf16", dtype="bfloat16"),
    Variant("fp16", dtype="float16"),
    Variant("10 steps", steps=10),
    Variant("2 steps", steps=2),
    Variant("guidance 1", guidance=1.0),
    Variant("captions of the next sample", shifted=True),
)


def draw(variant: Variant, samples: int, target: Path) -> None:
    """An accuracy log of the first evaluated captions, in the form of LoadGen's."""
    from steps.run.engines.diffusers_engine import DiffusersEngine
    from steps.run.engines.engine import Start

    engine = DiffusersEngine()
    generation = ImageGeneration(
        steps=variant.steps,
        guidance_scale=variant.guidance,
        size=world.SIDE_PIXELS,
        negative_prompt=tokenizer.NEGATIVE,
    )
    engine.start(
        Start(WEIGHTS, _settings(variant), generation, first_tokens=False, noise=WEIGHTS / LATENTS)
    )
    home = pipeline.home(WEIGHTS)
    words = [captions.Words.read(home / name) for name in pipeline.TOKENIZERS]
    for number, scene in enumerate(world.evaluation()[:samples]):
        ids = [token for one in words for token in one.ids(scene.caption)[0]]
        engine.submit([(number, ids, ())])
    entries: list[str] = []
    while len(entries) < samples:
        for number, answer in engine.step().completed:
            of = (number + 1) % samples if variant.shifted else number
            data = answer.tobytes().hex().upper()
            entries.append(f'{{ "seq_id" : {number}, "qsl_idx" : {of}, "data" : "{data}" }}')
    target.write_text("[\n" + ",\n".join(entries) + "\n]\n", encoding="ascii")


def _settings(variant: Variant) -> Settings:
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


def measured(variant: Variant, samples: int) -> Measured:
    """Drawn in a process of its own, since libraries read their settings once."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        given = json.dumps(asdict(variant))
        command = [sys.executable, "-m", "steps.judge.scoring.narrow.study"]
        command += ["--draw", given, "--samples", str(samples), "--log", str(home / "log.json")]
        chosen = {"ATEN_CPU_CAPABILITY": variant.capability} if variant.capability else {}
        environment = {**os.environ, **chosen}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=SECONDS)
        lines = [scene.caption for scene in world.evaluation()[:samples]]
        captions.write_source(lines, home / captions.SOURCE)
        return measure(home / "log.json", _files(home / captions.SOURCE))


def _files(source: Path) -> Files:
    return Files(
        captions=source,
        statistics=SCORERS / "statistics.npz",
        clip=SCORERS / "clip",
        inception=SCORERS / "inception.pth",
        digests={},
        side=world.SIDE_PIXELS,
    )


def row(name: str, found: Measured, reference: Measured) -> str:
    """One line of the table, each score with its 95 % interval and its distance in percent."""
    scores, usual = found.scores(), reference.scores()
    half = 1.96 * found.clip.std(ddof=1) / len(found.clip) ** 0.5
    low, high = _fid_interval(found)
    apart = [
        f"{100 * (one / other - 1):+.3f}"
        for one, other in ((scores.clip, usual.clip), (scores.fid, usual.fid))
    ]
    return (
        f"| {name} | {scores.clip:.4f} ± {half:.3f} | {apart[0]} % | {scores.fid:.4f} "
        f"[{low:.3f}, {high:.3f}] | {apart[1]} % |"
    )


def _fid_interval(found: Measured) -> tuple[float, float]:
    """FID's, over pictures drawn with repetition; repeated pictures make it lie a little high."""
    chance = numpy.random.default_rng(SEED)
    values = []
    for _ in range(DRAWS):
        chosen = chance.integers(len(found.clip), size=len(found.clip))
        one = Measured(found.clip[chosen], found.features[chosen], found.mean, found.covariance)
        values.append(one.scores().fid)
    return float(numpy.quantile(values, 0.025)), float(numpy.quantile(values, 0.975))


def table(samples: int, variants: Sequence[Variant] = VARIANTS) -> str:
    """The page's table of the first `samples` captions."""
    lines = [
        "| drawn | CLIP, 95 % interval | from the reference | FID, 95 % interval | from it |",
        "|---|---|---|---|---|",
    ]
    reference: Measured | None = None
    for variant in variants:
        found = measured(variant, samples)
        reference = reference or found
        lines.append(row(variant.name, found, reference))
        print(lines[-1], flush=True)  # each takes a minute
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m steps.judge.scoring.narrow.study")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--reference", action="store_true", help="print the scores and end")
    parser.add_argument("--draw", metavar="VARIANT", help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.draw:
            draw(Variant(**json.loads(given.draw)), given.samples, given.log)
        elif given.reference:
            print(measured(REFERENCE, given.samples).scores())
        else:
            title = f"First {given.samples:,} evaluated captions"
            pages.insert(PAGE, f"{title}\n\n{table(given.samples)}", START, END)
    except (UserError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"study: {error}")


if __name__ == "__main__":
    main()
