"""Each round has its own LoadGen: what runs are made in gets it from a lock of one package."""

import pytest

from steps.plan.make import make
from steps.plan.plan import Job, Plan
from tests.conftest import ROOT, copy_project, planned

AMD = (
    *("experiment=amd-v5.1", "system=amd-mi355x"),
    *("benchmark=llama2-70b-99.9", "scenario=Offline", "engine=vllm"),
)


def engine(plan: Plan) -> Job:
    """The environment or image that a performance run is made in."""
    run = next(job for job in plan.jobs if job.step == "performance_run")
    return next(job for job in plan.jobs if job.output == run.inputs["environment"])


@pytest.mark.parametrize(
    ("overrides", "lock"), [((), "envs/cpu.lock"), (AMD, "envs/vllm-image.lock")]
)
def test_a_round_with_another_loadgen_has_an_environment_of_its_own(
    overrides: tuple[str, ...], lock: str
) -> None:
    own, other = engine(planned(*overrides)), engine(planned(*overrides, "round=v6.0"))
    assert own.inputs["lock"] == other.inputs["lock"] == lock
    assert "loadgen" not in own.inputs
    assert other.inputs["loadgen"] == "envs/loadgen-6.0.15.lock"
    assert own.output != other.output


def test_only_runs_need_it() -> None:
    plan = planned("round=v6.0")
    named = {job.key for job in plan.jobs if job.step == "environment"}
    assert named == {"cpu-loadgen-6.0.15", "analysis"}
    homes = {job.step: job.environment for job in plan.jobs}
    assert homes["accuracy_run"].startswith(".envs/cpu-loadgen-6.0.15-")
    assert homes["accuracy_check"].startswith(".envs/analysis-")
    [statement] = [job for job in plan.jobs if job.step == "provenance"]
    assert statement.inputs["lock/loadgen-6.0.15"] == "envs/loadgen-6.0.15.lock"
    assert not [job.limitation for job in plan.jobs if job.limitation]


def test_without_a_lock_nothing_is_started(tmp_path_factory: pytest.TempPathFactory) -> None:
    project = copy_project(tmp_path_factory.mktemp("project"))
    (project / "envs/loadgen-6.0.15.lock").unlink()
    plan = make(project, ["round=v6.0"])
    limited = {job.step: job.limitation for job in plan.jobs if job.limitation}
    assert limited.keys() == {"performance_run", "accuracy_run", "compliance_run"}
    assert "envs/cpu.lock has LoadGen 5.1.2, and the round needs 6.0.15" in str(limited)


def test_every_round_has_its_lock() -> None:
    from steps.base.locks import packages
    from steps.mlperf.rounds import load, names

    shipped = packages(ROOT / "envs/cpu.lock")["mlcommons-loadgen"]
    for name in names():
        version = load(name).loadgen_version
        assert version == shipped or (ROOT / f"envs/loadgen-{version}.lock").is_file(), name
