"""The harness's ceiling: null engines that answer at once, over LoadGen's bare Python binding.

Offline: samples per second of the null engine in LoadGen's process and of engine processes, over
those of a worker thread that completes LoadGen's samples in batches of 256; and the same ratio of
processor time, which a busy machine doesn't change; with engine processes only LoadGen's process
counts. Server: p99 of the time to first token at a rate, less that of the bare binding, where the
engine takes no time; and the same difference of LoadGen's processor time.
"""

import argparse
import os
import threading
import time
from array import array
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import ratios, subjects
from bench.forks import forked
from steps.base.console import Console
from steps.base.strict import Scenario
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import DETAIL, P99, TTFT_KEY, USER_CONF
from steps.run.sut.user_conf import render_user_conf

BATCH = 256
SAMPLES = 4096
SPENT = "processor time of the bare binding over that of LoadGen's process"
INSTANT = {"ttft_ms": 0, "tpot_ms": 0, "output_tokens_sigma": 0, "max_num_seqs": 2048}


def settings(scenario: Scenario, queries: int, qps: float, engines: int | None) -> Any:
    """`engines` None: one in LoadGen's process."""
    placement = {"engines_per_node": engines or 1, "in_process": engines is None}
    engine = {"arguments": INSTANT, "placement": placement}
    return subjects.config(scenario, {**subjects.counts(SAMPLES, queries, qps), "engine": engine})


@dataclass(frozen=True)
class Found:
    """Values from LoadGen's own log; `cpu_s` is its process's."""

    rate: float
    p99_ms: float
    cpu_s: float


def bare(config: Any, home: Path, console: Console) -> Found:
    """LoadGen's binding with one worker thread."""
    import mlperf_loadgen as lg

    server = config.scenario != "Offline"
    (home / USER_CONF).write_text(render_user_conf(config.loadgen, config.scenario))
    test = lg.TestSettings()
    test.FromConfig(str(home / USER_CONF), config.loadgen.model, config.scenario)
    test.scenario = getattr(lg.TestScenario, config.scenario)
    test.mode = lg.TestMode.PerformanceOnly
    logs = lg.LogSettings()
    logs.log_output.outdir, logs.enable_trace = str(home), False
    answer = array("i", [0] * subjects.OUTPUT_TOKENS)
    address, count = answer.buffer_info()
    inbox: deque[Any] = deque()
    news = threading.Event()

    def issue(queries: list[Any]) -> None:
        inbox.extend(queries)
        news.set()

    def work() -> None:
        while True:
            news.wait()
            news.clear()
            while inbox:
                batch = [inbox.popleft() for _ in range(min(BATCH, len(inbox)))]
                if server:
                    lg.FirstTokenComplete(
                        [lg.QuerySampleResponse(q.id, address, 4, 1) for q in batch]
                    )
                lg.QuerySamplesComplete(
                    [lg.QuerySampleResponse(q.id, address, 4 * count, count) for q in batch]
                )

    threading.Thread(target=work, daemon=True).start()
    sut = lg.ConstructSUT(issue, lambda: None)
    qsl = lg.ConstructQSL(SAMPLES, SAMPLES, lambda indices: None, lambda indices: None)
    spent_s = time.process_time()
    lg.StartTestWithLogSettings(sut, qsl, test, logs, "")
    return _found(config, home, time.process_time() - spent_s)


def ours(config: Any, home: Path, console: Console) -> Found:
    """The same with the harness."""
    inputs = subjects.artifacts(home / "artifacts", SAMPLES)
    measured = subjects.run(config, inputs, home, console)
    return _found(config, home, measured.result.loadgen_process_cpu_s)


def _found(config: Any, home: Path, cpu_s: float) -> Found:
    detail = read_detail(home / DETAIL)
    if config.scenario == "Offline":
        return Found(detail.get("result_samples_per_second"), 0.0, cpu_s)
    p99_ms = detail.get(TTFT_KEY.format(P99)) / 1e6
    return Found(detail.get("result_completed_samples_per_sec"), p99_ms, cpu_s)


def offline(queries: int, rounds: int) -> None:
    kinds = {"in LoadGen's process": None, "1 process": 1, "2 processes": 2, "8 processes": 8}
    print(
        f"Offline, {queries:,} samples; thousand samples/s, their ratio to the bare binding's, and "
        "the bare binding's processor time over that of LoadGen's process"
    )
    found: dict[str, list[float]] = {name: [] for name in kinds}
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(1, rounds + 1):
        plain = forked(partial(bare, settings("Offline", queries, 1e6, None)))
        columns = []
        for name, engines in kinds.items():
            own = forked(partial(ours, settings("Offline", queries, 1e6, engines)))
            found[name].append(own.rate / plain.rate)
            spent[name].append(plain.cpu_s / own.cpu_s)
            columns.append(
                f"{name} {own.rate / 1000:.0f} ({found[name][-1]:.2f}, {spent[name][-1]:.2f})"
            )
        load = os.getloadavg()[0]
        print(
            f"{number}: bare {plain.rate / 1000:.0f}; {'; '.join(columns)}; load {load:.1f}",
            flush=True,
        )
    ratios.keep("offline-ceiling", "samples/s over the bare binding's", 0.5, found)
    ratios.keep("offline-ceiling-cpu", SPENT, 0.5, spent)


def server(qps: float, seconds: float, rounds: int) -> None:
    queries = int(qps * seconds)
    print(
        f"Server at {qps:,.0f} queries/s; p99 time to first token in ms (completed queries/s, and "
        "the bare binding's processor time over that of LoadGen's process)"
    )
    kinds = {"in process": None, "2 processes": 2, "8 processes": 8}
    found: dict[str, list[float]] = {name: [] for name in kinds}
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(1, rounds + 1):
        plain = forked(partial(bare, settings("Server", queries, qps, None)))
        columns = [f"bare {plain.p99_ms:.1f} ({plain.rate:,.0f})"]
        for name, engines in kinds.items():
            own = forked(partial(ours, settings("Server", queries, qps, engines)))
            found[name].append(own.p99_ms - plain.p99_ms)
            spent[name].append(plain.cpu_s / own.cpu_s)
            columns.append(f"{name} {own.p99_ms:.1f} ({own.rate:,.0f}, {spent[name][-1]:.2f})")
        print(f"{number}: {'; '.join(columns)}; load {os.getloadavg()[0]:.1f}", flush=True)
    title = f"p99 time to first token at {qps:,.0f} queries/s, ms added to the bare binding's"
    ratios.keep("server-ceiling", title, 10, found)
    ratios.keep("server-ceiling-cpu", SPENT, 0.5, spent)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ceiling")
    parser.add_argument("--queries", type=int, default=400_000)
    parser.add_argument("--qps", type=float, default=10_000)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    offline(arguments.queries, arguments.rounds)
    server(arguments.qps, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
