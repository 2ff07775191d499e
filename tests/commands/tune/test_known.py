"""Where a search begins: what is known of the rate before anything is measured."""

import os
from pathlib import Path

import pytest

from steps import ROOT
from steps.base.record import publish
from steps.commands.tune.known import first_rate
from steps.commands.tune.request import RESULT
from steps.config.verdicts import Limits, PerformanceVerdict, as_result
from steps.plan.make import make
from steps.plan.plan import Job, Plan
from tests.commands.tune.test_command import found
from tests.conftest import planned

CELL = ["experiment=amd-v5.1", "system=amd-mi300x", "benchmark=llama2-70b-99.9"]
SERVER = 24593.8 / 301.3
"""Samples a second of AMD's published 8 x MI300X, Server."""

VERDICT = PerformanceVerdict(
    holds=True,
    complaints=(),
    metric="tokens_per_second",
    value=60000.0,
    unit="Tokens/s",
    samples_per_second=200.0,
    query_count=24576,
    target_qps=200.0,
    ttft_ms=None,
    tpot_ms=None,
    latency_ms=None,
    limits=Limits(ttft_ms=None, tpot_ms=None, latency_ms=None),
    min_duration_ms=600000,
    loadgen_version="5.1.2",
)
"""What an Offline run measured."""


def job_of(plan: Plan, scenario: str, step: str = "performance_run") -> Job:
    return next(job for job in plan.jobs if job.step == step and job.key.endswith(f"/{scenario}"))


def test_published_results_are_scaled_by_accelerators(tmp_path: Path) -> None:
    plan = planned(*CELL, "scenario=Server")
    rate, why = first_rate(tmp_path, plan, job_of(plan, "Server"))
    assert rate == pytest.approx(SERVER, rel=0.02)
    assert why == "published on 8 MI300X"
    (need,) = plan.requirements
    kinds = tuple(kind.model_copy(update={"nodes": 3}) for kind in need.kinds)
    larger = plan.model_copy(update={"requirements": (need.model_copy(update={"kinds": kinds}),)})
    thrice, why = first_rate(tmp_path, larger, job_of(plan, "Server"))
    assert thrice == pytest.approx(3 * rate, rel=0.05)
    assert why.endswith("MI300X, scaled")


def test_the_plans_own_offline_run_is_nearer_than_what_others_published(tmp_path: Path) -> None:
    plan = planned(*CELL, "scenario=Offline,Interactive")
    checked = tmp_path / job_of(plan, "Offline", "performance_check").output
    with publish(
        checked.parent, step="performance_check", config={}, inputs={}, code=""
    ) as workspace:
        workspace.result = as_result(VERDICT)
    rate, why = first_rate(tmp_path, plan, job_of(plan, "Interactive"))
    assert rate == pytest.approx(200 * 8840.42 / 27803.9, rel=0.05)
    assert why.startswith("Offline throughput, of which published results reach 3")


def test_an_earlier_search_of_the_cell_is_nearest(tmp_path: Path) -> None:
    plan = planned(*CELL, "scenario=Server")
    job = job_of(plan, "Server")
    for age, (experiment, rate) in enumerate((("new", 79.0), ("old", 55.0))):
        path = tmp_path / f"results/{experiment}/tune/{job.key}/abc/{RESULT}"
        path.parent.mkdir(parents=True)
        path.write_text(found(job, rate).model_dump_json(), encoding="utf-8")
        os.utime(path, (1e9 - age, 1e9 - age))
    assert first_rate(tmp_path, plan, job) == (79.0, "an earlier search")


def test_on_a_machine_that_nobody_published_the_configured_rate_stands(tmp_path: Path) -> None:
    plan = make(ROOT, ["scenario=Server", "system.target_qps.Server=33"])
    assert first_rate(tmp_path, plan, job_of(plan, "Server")) == (33.0, "the configured rate")
