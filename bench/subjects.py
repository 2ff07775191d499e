"""The runs of the harness's benches: null engines on made-up prompts of OpenOrca's lengths."""

import csv
import functools
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from steps import ROOT
from steps.base.console import Console
from steps.base.record import MANIFEST, Workspace, publish
from steps.base.strict import Scenario
from steps.config.layers import merged
from steps.config.run_results import RunResult
from steps.config.runs import PerformanceRunConfig
from steps.config.weights import WeightsResult
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import DETAIL, P99, SAMPLES_FILE, TTFT_KEY
from steps.plan.make import make
from steps.run.sut.run import execute

OUTPUT_TOKENS = 294
"""Mean length of an answer of Llama 2 70B in MLPerf's OpenOrca set (its reference's accuracy)."""

OUTPUT_SIGMA, OUTPUT_LIMIT = 0.75, 1024
"""Spread of the logarithm, assumed; the longest that the benchmark allows."""

PROMPT_TOKENS, PROMPT_SIGMA = 145, 0.9


@dataclass(frozen=True)
class Measured:
    """The results of one LoadGen run. Times in seconds; `valid` is LoadGen's verdict."""

    samples_per_second: float
    tokens_per_second: float
    tokens: int
    seconds: float
    valid: bool
    ttft_p90_ms: float | None
    ttft_p99_ms: float | None
    result: RunResult


def artifacts(home: Path, samples: int) -> dict[str, Path]:
    """A model of one byte and that many prompts; the manifests by role."""
    with publish(home / "model", step="model", config={}, inputs={}, code="") as workspace:
        (workspace.directory / "model.safetensors").write_bytes(b"x")
        workspace.result = WeightsResult(name="tiny", simulated=False).dumped()
    draw = random.Random(0)
    mu = math.log(PROMPT_TOKENS) - PROMPT_SIGMA**2 / 2
    prompts = []
    for number in range(samples):
        length = min(max(int(draw.lognormvariate(mu, PROMPT_SIGMA)), 2), 1000)
        prompts.append([number, *[1] * (length - 1)])
    with publish(home / "dataset", step="dataset", config={}, inputs={}, code="") as workspace:
        for name, rows in (("evaluation", prompts), ("calibration", prompts[:64])):
            # Of objects: pandas 2 reads no columns of pandas 3's strings.
            columns = pandas.Index(["tok_input"], dtype=object)
            table = pandas.DataFrame([[row] for row in rows], columns=columns)
            table.to_pickle(workspace.directory / f"{name}.pkl")
    return {role: home / role / MANIFEST for role in ("model", "dataset")}


def config(scenario: Scenario, changes: Mapping[str, Any]) -> PerformanceRunConfig:
    """The null engine's run of conf/, changed."""
    orca = {
        "generation": {"min_tokens": 2, "max_tokens": OUTPUT_LIMIT},
        "engine": {
            "arguments": {
                "output_tokens_mean": OUTPUT_TOKENS,
                "output_tokens_sigma": OUTPUT_SIGMA,
            },
        },
    }
    whole = merged(merged(json.loads(_composed(scenario)), orca), changes)
    return PerformanceRunConfig.model_validate_json(json.dumps(whole))


@functools.cache
def _composed(scenario: Scenario) -> str:
    plan = make(ROOT, ["experiment=null-engine", f"scenario={scenario}"])
    return next(job.config for job in plan.jobs if job.step == "performance_run")


def counts(samples: int, queries: int, target_qps: float) -> dict[str, Any]:
    """LoadGen's settings for this many queries, of any duration."""
    return {
        "loadgen": {
            "target_qps": target_qps,
            "min_duration_ms": 1,
            "min_query_count": queries,
            "performance_sample_count_override": samples,
        }
    }


def run(
    settings: PerformanceRunConfig, inputs: Mapping[str, Path], home: Path, console: Console
) -> Measured:
    """One LoadGen run in this process."""
    workspace = Workspace(home)
    return read(home, execute("PerformanceOnly", settings, inputs, workspace, console))


def read(home: Path, result: RunResult) -> Measured:
    """Values from LoadGen's log and samples.csv. Seconds from first issue to last answer."""
    detail = read_detail(home / DETAIL)
    with (home / SAMPLES_FILE).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    begun = min(float(row["issued_s"]) for row in rows)
    seconds = max(float(row["completed_s"]) for row in rows) - begun
    tokens = sum(int(row["output_tokens"]) for row in rows)

    def ttft_ms(percentile: str) -> float | None:
        value = detail.values.get(TTFT_KEY.format(percentile))
        return None if value is None else value / 1e6

    return Measured(
        samples_per_second=len(rows) / seconds,
        tokens_per_second=tokens / seconds,
        tokens=tokens,
        seconds=seconds,
        valid=detail.get("result_validity") == "VALID",
        ttft_p90_ms=ttft_ms("90.00"),
        ttft_p99_ms=ttft_ms(P99),
        result=result,
    )
