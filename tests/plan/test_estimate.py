"""What a plan says it costs, where nothing was measured."""

from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.plan import rates
from steps.plan.estimate import computed_cost, cost, facts_of
from steps.plan.plan import Job, Plan
from steps.plan.spec import Cost
from steps.schedule.resources import Resources
from tests.conftest import planned

OPEN = {"stable-diffusion-xl", "llama3.1-8b"}
"""Benchmarks with jobs that can't be executed, whose cost nobody knows."""


@pytest.fixture(scope="module")
def amd() -> Plan:
    return planned("experiment=amd-v5.1")


def costs(plan: Plan) -> dict[tuple[str, str], tuple[Job, Cost]]:
    facts = facts_of(plan.jobs)
    return {(job.step, job.key): (job, computed_cost(job, facts[job.output])) for job in plan.jobs}


def test_every_job_of_amds_language_models_has_a_cost(amd: Plan) -> None:
    for (step, key), (job, found) in costs(amd).items():
        if job.limitation is None and not OPEN & set(key.split("/")):
            assert found.seconds is not None and found.seconds > 0, (step, key)


def test_sizes_follow_from_parameters_and_formats(amd: Plan) -> None:
    found = costs(amd)
    _, model = found["model", "llama3.1-405b"]
    assert model.gigabytes == 810 and "405e9 weights of 2 bytes at 100 MB/s" in model.basis
    assert model.seconds == 8100 + 810
    sizes = {
        key.split("/")[1]: one.gigabytes
        for (step, key), (_, one) in found.items()
        if step in ("prune", "quantize") and key.startswith("llama3.1-405b/")
    }
    # A pruned model is 100 and 84 of 126 layers of the source, MXFP4 is 17/32 of a byte.
    assert sizes["depth-pruned-33-finetuned"] == pytest.approx(405 * 84 / 126 * 0.53125)
    made = [(job, one) for (step, _), (job, one) in found.items() if step == "quantize"]
    quantized = [one for job, one in made if job.limitation is None]
    assert quantized and all(
        one.rough and "tokens of calibration" in one.basis for one in quantized
    )


def test_small_pictures_are_scored_sooner() -> None:
    found = costs(planned("experiment=rehearsal-sdxl-full", "scenario=Offline"))
    _, one = found["accuracy_check", "rehearsal-sdxl-cpu/rehearsal-sdxl/none/fp32/Offline"]
    assert one.seconds is not None and one.seconds < 120 and "small images" in one.basis


def test_programs_in_two_quick_languages_are_scored_sooner(amd: Plan) -> None:
    found = costs(planned("experiment=rehearsal-mixtral-full", "scenario=Offline"))
    _, quick = found["accuracy_check", "rehearsal-mixtral-cpu/rehearsal-mixtral/none/bf16/Offline"]
    assert quick.seconds == pytest.approx(5000 / 45) and "in C++ and Python" in quick.basis
    slow = [
        one
        for (step, key), (_, one) in costs(amd).items()
        if step == "accuracy_check" and "/mixtral-8x7b/" in key
    ]
    assert slow and all(one.seconds == 1000 for one in slow)


def test_stable_diffusions_logs_are_of_its_pixels(amd: Plan) -> None:
    found = costs(amd)
    of: dict[str, list[Cost]] = {"accuracy_run": [], "compliance_run": [], "performance_run": []}
    for (step, key), (_, one) in found.items():
        if "stable-diffusion-xl" in key and step in of:
            of[step].append(one)
    # 1,024 × 1,024 pixels of three bytes, in hexadecimal, for 5,000 samples.
    assert [one.gigabytes for one in of["accuracy_run"]] == pytest.approx([31.46, 31.46], rel=1e-3)
    total = sum(one.gigabytes for ones in of.values() for one in ones)
    assert 64 < total < 66
    # AMD's TEST01 and TEST04 took 645 and 644 s Offline, its performance run 5,779 s.
    tests = [one.seconds for one in of["compliance_run"]]
    assert all(seconds is not None and 600 < seconds < 800 for seconds in tests)
    assert max(one.seconds or 0 for one in of["performance_run"]) == pytest.approx(6318, rel=0.05)


def test_a_rehearsals_costs_are_those_that_were_measured() -> None:
    plan = planned("precision=bf16,fp8", "compression=none,depth33-finetuned")
    assert not any(one.basis or one.rough for _, one in costs(plan).values())
    assert all(one.seconds for _, one in costs(plan).values())


def test_what_ran_has_no_estimate(amd: Plan, tmp_path: Path) -> None:
    facts = facts_of(amd.jobs)
    job = next(job for job in amd.jobs if job.step == "model")
    assert cost(job, facts[job.output], 1, tmp_path).basis


def test_no_time_limit_follows_from_an_assumption() -> None:
    plan = planned("experiment=amd-v5.1", "scheduler=slurm", "benchmark=llama2-70b-99.9")
    resources = Resources(plan)
    job = next(job for job in plan.jobs if job.step == "quantize")
    scheduler: Any = plan.scheduler
    assert resources.limit_min(job, scheduler) >= scheduler.time.unknown_min


def test_rates_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "estimates.yaml"
    path.write_text(rates.FILE.read_text().replace("used: 0.3", "used: 3"))
    with pytest.raises(UserError, match=r"estimates.yaml: used: "):
        rates.load(path)
