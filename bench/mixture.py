"""`python -m bench.mixture --weights DIR [--fp8 DIR]`: what the gate of rehearsal-mixtral notices.

DIR is the artifact of the step upcycle, and with --fp8 that of quantize. Right weights answer the
first evaluation prompts with right, wrong and no stop sequences; weights with an expert broken or
in another's place answer them with right ones. Prints each metric in percent of the right weights'
[95 % interval, paired bootstrap], and which bounds of the gate are missed.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.answers import answered
from steps import ROOT
from steps.base.bootstrap import ratio_interval
from steps.config.checks import AccuracyCheckConfig, Gates
from steps.judge.scoring import code
from steps.judge.scoring.metrics import gsm8k_match
from steps.judge.scoring.sandbox import Sandbox
from steps.plan.frozen import frozen_plan
from steps.plan.plan import Plan, load
from steps.prepare.checkpoint.layout import read_shard
from steps.prepare.rehearsal.mixed import dataset
from steps.prepare.rehearsal.mixed.tasks import VOCABULARY
from steps.prepare.rehearsal.tokenizer import END

LIMIT_S = 3600.0
ROUGES = ("rouge1", "rouge2", "rougeL")
LAYER = 7

Weights = dict[str, bytes]
"""The bytes of each tensor; shapes don't change."""

Found = dict[str, np.ndarray]
"""Values by metric, one a sample that it applies to."""

Ran = dict[tuple[str, str, str], bool]
"""Whether a program passed, by its sample's id and tests, and the answer."""


def exchanged(weights: Weights, one: int, other: int, layers: str = "") -> Weights:
    """Two experts in each other's place: in every layer, or where the name has `layers`."""
    first, second = f".experts.{one}.", f".experts.{other}."
    there = {name: name.replace(first, second) for name in weights if layers in name}
    pairs = {name: place for name, place in there.items() if name != place}
    back = {place: name for name, place in pairs.items()}
    return {name: weights[{**pairs, **back}.get(name, name)] for name in weights}


def shifted(weights: Weights) -> Weights:
    """Each router sends tokens to the expert after the right one."""
    return {
        name: data[-len(data) // 8 :] + data[: -len(data) // 8] if ".gate." in name else data
        for name, data in weights.items()
    }


def crossed(weights: Weights) -> Weights:
    """The gate and up projections of one expert of one layer, taken for each other."""
    expert = f"model.layers.{LAYER}.block_sparse_moe.experts.0."
    one, other = f"{expert}w1.weight", f"{expert}w3.weight"
    return {**weights, one: weights[other], other: weights[one]}


def dropped(weights: Weights) -> Weights:
    """One expert of every layer adds nothing."""
    return {
        name: bytes(len(data)) if ".experts.0.w2." in name else data
        for name, data in weights.items()
    }


BROKEN: Mapping[str, Callable[[Weights], Weights]] = {
    "experts 0 and 2 exchanged in every layer": partial(exchanged, one=0, other=2),
    f"the same in layer {LAYER} alone": partial(
        exchanged, one=0, other=2, layers=f".layers.{LAYER}."
    ),
    "experts 0 and 1, which are a team, exchanged": partial(exchanged, one=0, other=1),
    "routers off by one": shifted,
    f"w1 and w3 of one expert crossed, layer {LAYER}": crossed,
    "expert 0 of every layer adds nothing": dropped,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--fp8", type=Path)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.answer)
        return
    if options.weights is None:
        parser.error("--weights names no mixture")
    with tempfile.TemporaryDirectory() as home:
        compare(options, Path(home))


def compare(options: argparse.Namespace, home: Path) -> None:
    chosen = ["experiment=rehearsal-mixtral", "precision=bf16,fp8", "scenario=Offline"]
    plan = load(frozen_plan(ROOT, chosen))
    frame = dataset.evaluation(options.samples)
    right = [list(map(int, stop)) for stop in frame["tok_stop_sequence"]]
    tried: list[tuple[str, Path, str, list[list[int]]]] = [
        ("right", options.weights, "bf16", right),
        ("no stop sequence", options.weights, "bf16", [[END] for _ in right]),
        ("its first token alone", options.weights, "bf16", [stop[:1] for stop in right]),
    ]
    for number, (name, change) in enumerate(BROKEN.items()):
        tried.append((name, written(options.weights, home / str(number), change), "bf16", right))
    if options.fp8:
        tried.append(("FP8", options.fp8, "fp8", right))
    reference: Found | None = None
    ran: Ran = {}
    for name, weights, precision, stops in tried:
        found = scored(frame, answers(plan, precision, weights, frame, stops, home), ran)
        reference = reference or found
        print(f"| {name} | {' | '.join(shown(found, reference, gate(plan)))} |", flush=True)


def written(source: Path, home: Path, change: Callable[[Weights], Weights]) -> Path:
    home.mkdir()
    for path in source.iterdir():
        if path.name != "model.safetensors":
            (home / path.name).symlink_to(path.resolve())
    shard = read_shard(source / "model.safetensors")
    content = shard.path.read_bytes()
    changed = change(
        {one.name: content[one.offset : one.offset + one.size] for one in shard.tensors}
    )
    head = content[: shard.tensors[0].offset]
    body = b"".join(changed[one.name] for one in shard.tensors)
    (home / "model.safetensors").write_bytes(head + body)
    return home


def gate(plan: Plan) -> Gates:
    job = next(job for job in plan.jobs if job.step == "accuracy_check")
    config = AccuracyCheckConfig.model_validate_json(job.config)
    found = config.gates[config.required]
    assert isinstance(found, Gates)
    return found


def answers(
    plan: Plan,
    precision: str,
    weights: Path,
    frame: Any,
    stops: list[list[int]],
    home: Path,
    arguments: Mapping[str, int] | None = None,
) -> list[list[int]]:
    """The engine of this precision's accuracy run answers, in its environment. `arguments`: of the
    engine, in place of the run's own.
    """
    job = next(
        job for job in plan.jobs if job.step == "accuracy_run" and f"/{precision}/" in job.key
    )
    config = json.loads(job.config)
    config["engine"]["arguments"] |= arguments or {}
    task = {
        "config": config,
        "weights": str(weights.resolve()),
        "prompts": [list(map(int, tokens)) for tokens in frame["tok_input"]],
        "stops": stops,
    }
    path = home / "task.json"
    path.write_text(json.dumps(task), encoding="utf-8")
    python = ROOT / job.environment / "bin/python"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [str(python), "-m", "bench.mixture", "--answer", str(path)]
    subprocess.run(command, check=True, timeout=LIMIT_S, env=environment, cwd=ROOT)
    found: list[list[int]] = json.loads(path.with_suffix(".found").read_text(encoding="utf-8"))
    return found


def answer(path: Path) -> None:
    """In an engine's environment."""
    from steps.config.runs import AccuracyRunConfig
    from steps.run.engines.engine import Start, started

    task = json.loads(path.read_text(encoding="utf-8"))
    config = AccuracyRunConfig.model_validate_json(json.dumps(task["config"]))
    prompts = task["prompts"]
    start = Start(Path(task["weights"]), config.engine, config.generation, first_tokens=False)
    engine = started(start, prompts[:2])
    found = answered(engine, prompts, task["stops"])
    path.with_suffix(".found").write_text(json.dumps(found), encoding="utf-8")


def scored(frame: Any, given: list[list[int]], ran: Ran) -> Found:
    """As the official scorer judges each answer. Programs that are in `ran` aren't run again."""
    from steps.mlperf.rouge import Rouge  # whose libraries the engine's environment lacks

    rouge, sandbox = Rouge(), Sandbox.find()
    rows = list(zip(frame.to_dict("records"), map(VOCABULARY.decode, given), strict=True))

    notes = [(row["gt_output"], text) for row, text in rows if row["dataset"] == "OpenOrca"]
    rouges = np.array([rouge.score(ROUGES, truth, text) for truth, text in notes]) * 100
    numbers = [
        gsm8k_match(row["gt_output"], text) for row, text in rows if row["dataset"] == "GSM8K"
    ]
    programs = [
        (row["id"], row["gt_output"], text) for row, text in rows if row["dataset"] == "MBXP"
    ]
    new = [program for program in dict.fromkeys(programs) if program not in ran]
    with ThreadPoolExecutor(2) as pool:
        ended = pool.map(
            lambda program: code.passes(program[0], program[1], program[2], sandbox), new
        )
        ran.update(zip(new, ended, strict=True))
    return {
        **{name: rouges[:, column] for column, name in enumerate(ROUGES)},
        "gsm8k": np.array(numbers),
        "mbxp": np.array([100.0 * ran[program] for program in programs]),
        "tokens_per_sample": np.array([float(len(ids)) for ids in given]),
    }


def shown(found: Found, reference: Found, bounds: Gates) -> list[str]:
    cells, missed = [], []
    for name, values in found.items():
        ratio, low, high = ratio_interval(values, reference[name])
        cells.append(f"{ratio:.2f} [{low:.2f}, {high:.2f}]")
        mean = float(values.mean())
        if name == "tokens_per_sample":
            wanted = bounds.tokens_per_sample
            outside = abs(mean - wanted) > bounds.tokens_per_sample_tolerance * wanted
        else:
            outside = mean < bounds.factor * bounds.reference[name]
        missed += [name] if outside else []
    return [*cells, ", ".join(missed) or "passes"]


if __name__ == "__main__":
    main()
