"""What our harness adds to Server's time to first token: the whole SUT beside the bare engine.

Queries come at 80 % of the Offline speed, which is measured first, at the times and in the order of
LoadGen's own schedule. `bare` is a loop around vLLM's `LLMEngine` in its own process: it adds due
queries, steps, and notes when a first token comes. `in process` and `own process` are the SUT under
the real LoadGen, with the engine where `placement` says. All three have the same weights, arguments
and sampling, and take turns. Times count from the scheduled time, percentiles are LoadGen's.

    python -m bench.server_latency [--rounds 5] [--queries 2048]

A measurement takes the queries' time (2,048 at 75 queries/s: 27 s) and the engine's start: five
rounds of three take about 12 minutes on two quiet cores. On a busy machine its other work decides
the tail; the medians over the rounds are the result, and the spread of the bare driver's own values
is shown beside them.
"""

import csv
import gc
import importlib
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import inside, ratios
from bench.forks import forked
from steps.base.console import Console
from steps.base.record import Manifest, Workspace
from steps.commands.tune.arrivals import arrivals
from steps.config.generation import Generation
from steps.config.layers import merged
from steps.config.runs import PerformanceRunConfig
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import DETAIL, SAMPLES_FILE
from steps.prepare import samples
from steps.run.sut.run import execute

MODULE = "bench.server_latency"
SHARE = 0.8
"""The rate of queries as a share of Offline's samples per second."""

LIMIT_MS = 5.0
PERCENTILES = (50, 99)
KINDS: dict[str, dict[str, Any]] = {
    "in process": {"in_process": True},
    "own process": {"in_process": False},
}


@dataclass(frozen=True)
class Traffic:
    """Sample indices in LoadGen's order, and when each query is due, in s since the first one."""

    order: list[int]
    due_s: list[float]


@dataclass(frozen=True)
class Latency:
    """Time to first token in ms by percentile; `traffic` is the queries behind it."""

    ttft_ms: dict[int, float]
    order: list[int]
    seed: int


def changed(
    config: PerformanceRunConfig, queries: int, qps: float, placement: dict[str, Any]
) -> PerformanceRunConfig:
    """A run of this many queries, whole copies of the sample set, of any duration."""
    changes = {
        "loadgen": {"target_qps": qps, "min_duration_ms": 1, "min_query_count": queries},
        "engine": {"placement": placement},
    }
    text = merged(config.model_dump(mode="json"), changes)
    return PerformanceRunConfig.model_validate(text, strict=False)


def offline(subject: inside.Subject, queries: int, home: Path, console: Console) -> float:
    """Samples a second."""
    config = changed(subject.config, queries, 1.0, KINDS["in process"])
    config = config.model_copy(update={"scenario": "Offline"})
    execute("PerformanceOnly", config, subject.inputs, Workspace(home), console)
    rate = read_detail(home / DETAIL).get("result_samples_per_second")
    return float(rate)


def server(
    config: PerformanceRunConfig, subject: inside.Subject, home: Path, console: Console
) -> Latency:
    """LoadGen's own figures for the whole SUT."""
    execute("PerformanceOnly", config, subject.inputs, Workspace(home), console)
    detail = read_detail(home / DETAIL)
    with (home / SAMPLES_FILE).open(encoding="utf-8", newline="") as stream:
        order = [int(row["sample_index"]) for row in csv.DictReader(stream)]
    key = "result_first_token_{}.00_percentile_latency_ns"
    ttft_ms = {p: detail.get(key.format(p)) / 1e6 for p in PERCENTILES}
    return Latency(ttft_ms, order, int(detail.get("effective_schedule_rng_seed")))


def bare(
    config: PerformanceRunConfig,
    subject: inside.Subject,
    traffic: Traffic,
    home: Path,
    console: Console,
) -> dict[int, float]:
    """Time to first token in ms by percentile, of a loop around the engine."""
    from vllm import EngineArgs, LLMEngine, SamplingParams
    from vllm.sampling_params import RequestOutputKind

    subject.engine_place()
    generation, prompts = config.generation, samples.load(subject.dataset)
    engine = LLMEngine.from_engine_args(
        EngineArgs(
            model=str(Manifest.read(subject.model).directory),
            skip_tokenizer_init=True,
            disable_log_stats=True,
            **config.engine.arguments.model_dump(exclude_none=True),
        )
    )
    assert isinstance(generation, Generation)
    parameters = SamplingParams(
        temperature=0.0,
        min_tokens=generation.min_tokens,
        max_tokens=generation.max_tokens,
        stop_token_ids=list(generation.ends),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        stream_interval=generation.max_tokens,
    )

    def play(token_ids: Sequence[list[int]], due_s: Sequence[float]) -> list[float]:
        """When each query's first token came, in s since the first one was due."""
        first_s = [0.0] * len(due_s)
        begun, at, running = time.perf_counter(), 0, 0
        while at < len(due_s) or running:
            now = time.perf_counter() - begun
            while at < len(due_s) and due_s[at] <= now:
                engine.add_request(str(at), {"prompt_token_ids": token_ids[at]}, parameters)
                at, running = at + 1, running + 1
            if not running:
                time.sleep(max(due_s[at] - (time.perf_counter() - begun), 0))
                continue
            for output in engine.step():
                number = int(output.request_id)
                if not first_s[number]:
                    first_s[number] = time.perf_counter() - begun
                running -= output.finished
        return first_s

    warmup = prompts.calibration[: config.engine.warmup_samples]
    play(warmup, [0.0] * len(warmup))
    gc.collect()
    gc.freeze()
    first_s = play([prompts.evaluation[index] for index in traffic.order], traffic.due_s)
    waited = sorted(first - due for first, due in zip(first_s, traffic.due_s, strict=True))
    return {p: 1000 * waited[len(waited) * p // 100] for p in PERCENTILES}


def measure(subject: inside.Subject, queries: int, rounds: int) -> None:
    """Prints every round, then the medians; keeps the added times."""
    speed = forked(partial(offline, subject, queries))
    qps = SHARE * speed
    runs = {name: changed(subject.config, queries, qps, kind) for name, kind in KINDS.items()}
    first = forked(partial(server, runs["in process"], subject))  # for its order; not counted
    due_s = arrivals(first.seed, qps, len(first.order)).tolist()
    traffic = Traffic(first.order, due_s)
    print(
        f"Offline {speed:.1f} samples/s, Server {len(due_s):,} queries at {qps:.1f} a second; time "
        f"to first token in ms, p50 / p99; load average {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    found: dict[str, list[dict[int, float]]] = {name: [] for name in ("bare", *KINDS)}
    for number in range(1, rounds + 1):
        found["bare"].append(forked(partial(bare, runs["in process"], subject, traffic)))
        for name, config in runs.items():
            latency = forked(partial(server, config, subject))
            if latency.order != traffic.order:
                raise SystemExit(f"LoadGen sent {name} other samples than before")
            found[name].append(latency.ttft_ms)
        columns = [
            f"{name} {values[-1][50]:.1f} / {values[-1][99]:.1f}" for name, values in found.items()
        ]
        print(f"{number}: {'; '.join(columns)}; load {os.getloadavg()[0]:.1f}", flush=True)
    added = {
        p: {
            name: [
                ours[p] - plain[p] for ours, plain in zip(found[name], found["bare"], strict=True)
            ]
            for name in KINDS
        }
        for p in PERCENTILES
    }
    title = f"p99 time to first token at {SHARE:.0%} of Offline, ms added to the bare engine's"
    ratios.keep("server-latency", title, LIMIT_MS, added[99])
    for p in PERCENTILES:
        alone = sorted(each[p] for each in found["bare"])
        columns = [
            f"{name} adds {statistics.median(more):+.1f} ({min(more):+.1f} to {max(more):+.1f})"
            for name, more in added[p].items()
        ]
        print(
            f"p{p}: bare median {statistics.median(alone):.1f} ms ({alone[0]:.1f} to "
            f"{alone[-1]:.1f}); {'; '.join(columns)}"
        )


def main() -> None:
    parser = inside.parser(MODULE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=2048, help="rounded up to whole copies")
    arguments = parser.parse_args()
    if arguments.config is None:
        inside.run(MODULE, ["scenario=Server"], sys.argv[1:])
        return
    subject = inside.Subject.of(arguments)
    subject.engine_environment()
    importlib.import_module("vllm")  # once, inherited by every fork

    measure(subject, arguments.queries, arguments.rounds)


if __name__ == "__main__":
    main()
