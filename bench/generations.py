"""`python -m bench.generations --v0 DIR`: the same prompts through two generations of vLLM.

Both by our engine class, on the rehearsal's weights: today's V1, and V0 as `bench.v0_environment`
makes it, the generation of AMD's v5.1 images. Says how many answers are equal token for token, and
of each other one how near V1's probabilities were of the two tokens at which they part.

With `--source`, the tree that `python -m bench.patches --tree DIR` writes, V0 is AMD's patched one,
with its scheduler switched on; the compiled parts are those of the environment.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.answers import answered
from steps import ROOT
from steps.plan.frozen import frozen_plan
from steps.plan.plan import load

LIMIT_S = 3600.0

NEAR = 0.25
"""A near tie: log-probabilities that differ by no more. Logits are bfloat16, whose step is 0.125 at
16 to 32, and each of the two has been rounded."""

LEAST_EQUAL = 0.95

STOPPED, SEQUENCE = 96, slice(5, 8)
"""So many prompts are asked again, to stop at these tokens of their answers."""

Parted = tuple[int, list[int], int, int]
"""An answer's number, the tokens before the one at which it parts, V0's token and V1's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--v0", type=Path, help="environment of bench.v0_environment")
    parser.add_argument("--source", type=Path, help="AMD's patched vLLM, of bench.patches --tree")
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--scenario", choices=("Offline", "Server"), default="Server")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.answer)
        return
    if options.v0 is None:
        parser.error("--v0 names no environment; python -m bench.v0_environment makes one")
    with tempfile.TemporaryDirectory() as home:
        compare(options, Path(home))


def compare(options: argparse.Namespace, home: Path) -> None:
    from steps.prepare.rehearsal import dataset

    plan = load(frozen_plan(ROOT, [f"scenario={options.scenario}"]))
    job = next(job for job in plan.jobs if job.step == "performance_run")
    frame = dataset.evaluation(options.prompts)
    truth = [[*tokens, 2] for tokens in frame["tok_output"]]
    task = {
        "config": json.loads(job.config),
        "weights": str(ROOT / "steps/prepare/rehearsal/model"),
        "prompts": [list(map(int, tokens)) for tokens in frame["tok_input"]],
        "first_tokens": options.scenario != "Offline",
    }
    older = json.loads(json.dumps(task))
    older["config"]["engine"]["environment"]["VLLM_USE_V1"] = "0"
    older["config"]["engine"]["arguments"]["enable_chunked_prefill"] = False
    today = ROOT / job.environment / "bin/python"
    v1 = asked(today, task, home, "")
    above = ""
    if options.source:
        older["config"]["engine"]["environment"] |= SCHEDULER
        above = str(overlaid(options.source, options.v0, home / "amds"))
    v0 = asked(options.v0 / "bin/python", older, home, above)
    wrong = 0
    for name, found in (("V1", v1), ("V0", v0)):
        right = sum(a == b for a, b in zip(found["answers"], truth, strict=True))
        print(f"{name}: {found['identity']}, {right} of {len(truth)} as in the dataset")
        print(f"{name}: {found['steps']} steps, from {found['source']}")
        stopped, asked_to = found["stopped"]
        print(f"{name}: {stopped} of {asked_to} end with their stop sequence")
        wrong += asked_to - stopped
        if task["first_tokens"]:
            pairs = zip(found["first"], found["answers"], strict=True)
            others = sum(first != answer[0] for first, answer in pairs)
            print(f"{name}: {others} first tokens that aren't the answer's")
            wrong += others
    parted = list(partings(v0["answers"], v1["answers"]))
    equal = len(truth) - len(parted)
    print(f"equal token for token: {equal} of {len(truth)} ({equal / len(truth):.1%})")
    far = 0
    if parted:
        gaps = asked(today, {**task, "parted": parted}, home, "")["gaps"]
        for (number, before, old, new), gap in zip(parted, gaps, strict=True):
            word = "a near tie" if gap <= NEAR else "NOT a near tie"
            print(f"prompt {number}: parts after {len(before)} tokens at {old} and {new}: V1's "
                  f"log-probabilities differ by {gap:.3f}, {word}")  # fmt: skip
        far = sum(gap > NEAR for gap in gaps)
    sys.exit(bool(wrong or far) or equal < LEAST_EQUAL * len(truth))


SCHEDULER = {
    "VLLM_LLAMA2_MLPERF_SCHED": "1",
    "VLLM_LLAMA2_MLPERF_MAX_TARGET_DECODE_BATCH": "96",
    "VLLM_LLAMA2_MLPERF_MIN_TARGET_DECODE_BATCH": "64",
    "VLLM_LLAMA2_MLPERF_STEP_DECODE_BATCH": "16",
    "VLLM_LLAMA2_MLPERF_MIN_REQUIRE_PREFILL_QUERY": "8",
}
"""AMD's scheduler, with batches that the rehearsal's 128 places hold."""

NO_GPU = """

def on_gfx1x() -> bool:
    return False


on_mi3xx = on_gfx9 = on_gfx1x
"""
"""AMD's configuration asks for the GPU's name on every platform."""


def overlaid(source: Path, v0: Path, home: Path) -> Path:
    """AMD's Python source with what the environment's vLLM has compiled; returns its directory."""
    (installed,) = v0.glob("lib/python3*/site-packages/vllm")
    shutil.copytree(source / "vllm", home / "vllm")
    for path in (*installed.glob("*.so"), installed / "_version.py"):
        shutil.copy(path, home / "vllm")
    with (home / "vllm/platforms/rocm.py").open("a", encoding="utf-8") as stream:
        stream.write(NO_GPU)
    return home


def partings(older: Sequence[Sequence[int]], newer: Sequence[Sequence[int]]) -> Iterator[Parted]:
    for number, (a, b) in enumerate(zip(older, newer, strict=True)):
        if a != b:
            at = next(n for n in range(max(len(a), len(b))) if a[n : n + 1] != b[n : n + 1])
            # Both end by a token, so neither is the beginning of the other.
            yield number, list(a[:at]), a[at], b[at]


def asked(python: Path, task: Mapping[str, Any], home: Path, above: str) -> Any:
    """What `answer` finds in another environment; `above`: a directory before its packages."""
    path = home / "task.json"
    path.write_text(json.dumps(task), encoding="utf-8")
    command = [str(python), "-m", "bench.generations", "--answer", str(path)]
    where = os.pathsep.join(filter(None, (above, str(ROOT))))
    environment = {**os.environ, "PYTHONPATH": where}
    subprocess.run(command, check=True, timeout=LIMIT_S, env=environment, cwd=home)
    return json.loads(path.with_suffix(".found").read_text(encoding="utf-8"))


def answer(path: Path) -> None:
    """In an engine's environment: answers, first tokens and identity; or the gaps of partings."""
    from steps.config.runs import PerformanceRunConfig
    from steps.run.engines.engine import Start, asked, started

    task = json.loads(path.read_text(encoding="utf-8"))
    config = PerformanceRunConfig.model_validate_json(json.dumps(task["config"]))
    prompts, weights = task["prompts"], Path(task["weights"])
    start = Start(weights, config.engine, config.generation, bool(task["first_tokens"]))
    engine = started(start, prompts[:2])
    if "parted" in task:
        found: dict[str, Any] = {"gaps": list(gaps(engine, prompts, task["parted"]))}
    else:
        numbers = range(len(prompts))
        engine.submit(asked(numbers, numbers, prompts, []))
        first: dict[int, int] = {}
        whole: dict[int, list[int]] = {}
        steps = 0
        while len(whole) < len(prompts):
            events = engine.step()
            steps += 1
            first.update(events.first)
            whole.update((number, tokens.tolist()) for number, tokens in events.completed)
        found = {"answers": [whole[n] for n in numbers], "first": [first.get(n) for n in numbers]}
        found |= {"identity": engine.identity(), "steps": steps, "source": _source()}
        found["stopped"] = stopped(engine, prompts[:STOPPED], found["answers"][:STOPPED])
    path.with_suffix(".found").write_text(json.dumps(found), encoding="utf-8")


def stopped(engine: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[int]:
    """Asked again with a sequence out of the middle of each answer: how many end with it as they
    should, and of how many."""
    stops = [answer[SEQUENCE] or answer[-1:] for answer in answers]
    found = answered(engine, prompts, stops)
    wanted = [cut(answer, stop) for answer, stop in zip(answers, stops, strict=True)]
    return [sum(a == b for a, b in zip(found, wanted, strict=True)), len(prompts)]


def cut(answer: list[int], stop: list[int]) -> list[int]:
    ends = range(len(stop) + 1, len(answer) + 1)
    return next((answer[:end] for end in ends if answer[end - len(stop) : end] == stop), answer)


def _source() -> str:
    import vllm

    return str(Path(vllm.__file__).parent.parent)


def gaps(engine: Any, prompts: Sequence[list[int]], parted: Sequence[Parted]) -> Iterator[float]:
    """How far apart V1's log-probabilities are of the two tokens, prompt by prompt."""
    from vllm import SamplingParams

    for number, before, old, new in parted:
        parameters = SamplingParams(temperature=0.0, max_tokens=1, logprobs=20, detokenize=False)
        prompt = {"prompt_token_ids": [*prompts[number], *before]}
        engine._engine.add_request(f"parting {number}", prompt, parameters)
        outputs: list[Any] = []
        while not outputs or not outputs[-1].finished:
            outputs += engine._engine.step()
        (likely,) = outputs[-1].outputs[0].logprobs
        values = [
            likely[token].logprob if token in likely else float("-inf") for token in (old, new)
        ]
        yield abs(values[0] - values[1])


if __name__ == "__main__":
    main()
