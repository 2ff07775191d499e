"""A run's key is what it uses: which setting makes which run again, as a table, with controls."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from steps.base.record import Manifest, Origin, Record
from steps.plan import changes as subject
from steps.plan.changes import changes
from steps.plan.plan import Job, Plan
from steps.plan.registry import STEPS
from steps.plan.spec import all_used
from tests.conftest import planned

BASE = ("scenario=Offline,Server",)
RUNS = {"P": "performance_run", "A": "accuracy_run", "C": "compliance_run"}
EVERY = "P/Offline A/Offline C/Offline P/Server A/Server C/Server"

TABLE = {
    "system.target_qps.Offline=41": "P/Offline",
    "system.target_qps.Server=39": "P/Server A/Server C/Server",
    "length.min_duration_ms=2000": "P/Offline P/Server",
    "length.min_query_count=300": "P/Offline P/Server",
    "length.performance_sample_count_override=64": EVERY,
    "hardware.engine.start_limit_s=4000": "",
    "hardware.engine.stall_limit_s=4000": "",
    "hardware.engine.offline_order=longest_first": "P/Offline A/Offline C/Offline",
    "hardware.engine.warmup_samples=3": EVERY,
    "hardware.engine.arguments.max_num_seqs=64": EVERY,
    "benchmark.generation.max_tokens=17": EVERY,
    "window.least_s=3": "",
}
"""By override: the runs of the rehearsal's two cells that it makes again. TEST06 is the compliance
run: its audit.config counts its queries."""

OF_NULL_ENGINE = {
    "system.target_qps.Offline=41": "P/Offline",
    "hardware.engine.stall_limit_s=4000": "",
    "hardware.engine.arguments.seed=3": EVERY,
}


def result(job: Job, config: dict[str, Any] | None = None) -> tuple[Manifest, Record]:
    """What a job left behind, configured as it was then."""
    manifest = Manifest(Path(), job.step, config or json.loads(job.config), {}, {}, {})
    return manifest, Record("c", "h", "", "", origin=Origin(container=job.container))


def again(before: Plan, after: Plan) -> set[str]:
    """Runs whose own key differs."""
    then = {(job.step, job.key): job for job in before.jobs}
    return {
        f"{letter}/{job.key.rpartition('/')[2]}"
        for job in after.jobs
        for letter, step in RUNS.items()
        if job.step == step and list(changes(job, *result(then[step, job.key])))
    }


@pytest.mark.parametrize("override", TABLE)
def test_a_setting_makes_those_runs_again_that_use_it(override: str) -> None:
    assert again(planned(*BASE), planned(*BASE, override)) == set(TABLE[override].split())


@pytest.mark.parametrize("override", OF_NULL_ENGINE)
def test_so_does_it_with_an_engine_that_computes_nothing(override: str) -> None:
    base = ("experiment=null-engine", *BASE)
    found = again(planned(*base), planned(*base, override))
    assert found == set(OF_NULL_ENGINE[override].split())


def test_negative_control_when_all_is_used_the_table_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = {name: dataclasses.replace(spec, unused=all_used) for name, spec in STEPS.items()}
    monkeypatch.setattr(subject, "STEPS", whole)
    wrong = {
        override
        for override, runs in TABLE.items()
        if again(planned(*BASE), planned(*BASE, override)) != set(runs.split())
    }
    assert wrong == {
        "system.target_qps.Offline=41",
        "hardware.engine.start_limit_s=4000",
        "hardware.engine.stall_limit_s=4000",
        "hardware.engine.offline_order=longest_first",
    }


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict) or not value:
        return [path]
    return [leaf for name, below in value.items() for leaf in leaves(below, (*path, name))]


@pytest.mark.parametrize("step", RUNS.values())
@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_every_key_of_a_run_makes_it_again_or_is_said_not_to(step: str, scenario: str) -> None:
    job = next(j for j in planned(*BASE).jobs if j.step == step and j.key.endswith(scenario))
    unused = set(STEPS[step].unused(json.loads(job.config)))
    found = leaves(json.loads(job.config))
    assert unused <= {".".join(leaf) for leaf in found}
    for leaf in found:
        config: dict[str, Any] = json.loads(job.config)
        place = config
        for name in leaf[:-1]:
            place = place[name]
        place[leaf[-1]] = "another"
        told = list(changes(job, *result(job, config)))
        assert bool(told) != (".".join(leaf) in unused), leaf
        assert all(words.startswith(f"{'.'.join(leaf)} another → ") for words in told)


def test_a_stall_that_moves_work_is_part_of_the_key() -> None:
    unused = STEPS["performance_run"].unused
    job = next(j for j in planned(*BASE).jobs if j.step == "performance_run")
    config = json.loads(job.config)
    assert "engine.stall_limit_s" in unused(config)
    config["engine"]["placement"]["on_failure"] = "redispatch"
    assert "engine.stall_limit_s" not in unused(config)


def test_a_container_counts_by_what_its_step_sees() -> None:
    job = next(j for j in planned(*BASE).jobs if j.step == "performance_run")
    settings = {"shm_size_gb": 16.0, "start_limit_s": 60.0, "devices": ["/dev/kfd"]}
    inside = job.model_copy(update={"container": json.dumps(settings)})
    slower = job.model_copy(update={"container": json.dumps({**settings, "start_limit_s": 90.0})})
    smaller = job.model_copy(update={"container": json.dumps({**settings, "shm_size_gb": 8.0})})
    assert not list(changes(slower, *result(inside)))
    assert list(changes(smaller, *result(inside))) == ["container.shm_size_gb 16.0 → 8.0"]
