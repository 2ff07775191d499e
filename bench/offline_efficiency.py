"""What LoadGen and our harness cost: LoadGen Offline tokens/s over raw vLLM generate tokens/s.

Same weights, samples, engine arguments and environment; measurements alternate, so that a machine
that speeds up or slows down does so for both. Each is a process of its own, forked from one that
has vLLM imported already.
"""

import argparse
import multiprocessing
import multiprocessing.connection
import os
import statistics
import tempfile
import time
from pathlib import Path

from steps import schema
from steps.console import Console
from steps.loadgen_log import read_detail
from steps.plan import Job, load
from steps.record import Manifest, Workspace
from steps.sut import samples
from steps.sut.run import execute

ROUNDS = 3
LIMIT_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.offline_efficiency")
    parser.add_argument("plan", type=Path)
    arguments = parser.parse_args()
    job = next(job for job in load(arguments.plan).jobs if job.step == "performance_run")
    config = schema.PerformanceRunConfig.model_validate_json(job.config)
    os.environ.update(config.engine.environment)
    import vllm  # noqa: F401  (imported once, inherited by every fork)

    kinds = [kind for _ in range(ROUNDS) for kind in ("raw", "loadgen")] + ["raw"]
    found: dict[str, list[float]] = {"raw": [], "loadgen": []}
    for kind in kinds:
        rate = _forked(kind, config, job)
        found[kind].append(rate)
        print(f"{kind:<8} {rate:8,.0f} tokens/s", flush=True)
    # Each LoadGen measurement against the mean of the raw ones before and after it.
    ratios = [
        rate / statistics.fmean(found["raw"][i : i + 2]) for i, rate in enumerate(found["loadgen"])
    ]
    print(
        f"LoadGen Offline ÷ raw generate: {statistics.median(ratios):.3f} "
        f"(of {', '.join(f'{ratio:.3f}' for ratio in ratios)})"
    )


def _forked(kind: str, config: schema.PerformanceRunConfig, job: Job) -> float:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(kind, config, job, sender))
    process.start()
    if not receiver.poll(LIMIT_S):
        process.kill()
        raise SystemExit(f"{kind} gave no result within {LIMIT_S:.0f} s")
    rate = float(receiver.recv())
    process.join()
    return rate


def _measure(
    kind: str,
    config: schema.PerformanceRunConfig,
    job: Job,
    sender: multiprocessing.connection.Connection,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        console = Console(Path(folder) / "log")
        measured = _raw(config, job) if kind == "raw" else _loadgen(config, job, folder, console)
        sender.send(measured)
        sender.close()
    os._exit(0)


def _loadgen(config: schema.PerformanceRunConfig, job: Job, folder: str, console: Console) -> float:
    inputs = {role: Path(path) for role, path in job.inputs.items()}
    execute("PerformanceOnly", config, inputs, Workspace(Path(folder)), console)
    detail = read_detail(Path(folder) / "mlperf_log_detail.txt")
    return float(detail.get("result_tokens_per_second"))


def _raw(config: schema.PerformanceRunConfig, job: Job) -> float:
    from vllm import LLM, SamplingParams

    weights = Manifest.read(Path(job.inputs["model"])).directory
    prompts = samples.load(Path(job.inputs["dataset"]))
    engine = LLM(
        model=str(weights),
        skip_tokenizer_init=True,
        disable_log_stats=True,
        **config.engine.arguments.model_dump(),
    )
    parameters = SamplingParams(
        temperature=0.0,
        min_tokens=config.generation.min_tokens,
        max_tokens=config.generation.max_tokens,
        stop_token_ids=[config.generation.eos_token_id],
        detokenize=False,
    )

    def generate(token_ids: list[list[int]]) -> int:
        requests = [{"prompt_token_ids": ids} for ids in token_ids]
        outputs = engine.generate(requests, parameters, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    generate(prompts.calibration[: config.engine.warmup_samples])
    begun = time.perf_counter()
    return generate(prompts.evaluation) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
