"""What the jobs of a plan ask of a scheduler."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.base.errors import UserError
from steps.config.accelerators import PARTITIONS
from steps.config.scheduler import Local, Slurm
from steps.plan.make import make
from steps.plan.plan import Plan
from steps.schedule.environment import locks
from steps.schedule.resources import SHARING, STAYING, Resources
from tests.conftest import ROOT, edit, planned

RUNS = ("performance_run", "accuracy_run", "compliance_run")
LIMIT_S = 120


@pytest.fixture(scope="module")
def rehearsal() -> Plan:
    site = ["scheduler=slurm", "scheduler.partition=gpu", "scheduler.account=mlperf"]
    return planned("experiment=rehearsal", *site)


OnSlurm = Callable[[str], Plan]


@pytest.fixture(scope="module")
def on_slurm(rehearsal: Plan) -> OnSlurm:
    """An experiment's plan; a plan doesn't depend on its scheduler, as a test shows."""
    return lambda name: planned(f"experiment={name}").model_copy(
        update={"scheduler": rehearsal.scheduler}
    )


@pytest.fixture(scope="module")
def amd(on_slurm: OnSlurm) -> Plan:
    return on_slurm("amd-v5.1")


def test_every_run_of_amds_submission_has_a_node_with_its_accelerators_to_itself(amd: Plan) -> None:
    resources = Resources(amd)
    runs = [job for job in amd.jobs if job.step in RUNS]
    assert {job.key.split("/")[0] for job in runs} == {need.system for need in amd.requirements}
    for job in runs:
        asked = resources.of(job)
        generation = re.match(r"amd-(mi\d+x)", job.key)
        assert generation
        split = 8 if "stable-diffusion-xl" in job.key else 1  # AMD runs it in CPX
        assert (asked["gpu"], asked["gpu_model"]) == (8 * split, generation[1]), job.key
        assert (asked["nodes"], asked["slurm_extra"]) == (1, "--exclusive")
        assert (asked["cpus_per_task"], asked["mem_mb"]) == (-1, 0), "all of the node's"
        assert (asked["slurm_partition"], asked["slurm_account"]) == ("gpu", "mlperf")


@pytest.mark.parametrize("mode", PARTITIONS)
def test_a_split_accelerator_counts_as_its_devices(amd: Plan, mode: str) -> None:
    run = next(job for job in amd.jobs if job.step == "performance_run")
    config = json.loads(run.config)
    config["engine"]["placement"]["kinds"][0]["modes"]["compute"] = mode
    split = run.model_copy(update={"config": json.dumps(config)})
    jobs = tuple(split if job is run else job for job in amd.jobs)
    asked = Resources(amd.model_copy(update={"jobs": jobs})).of(split)
    assert asked["gpu"] == 8 * PARTITIONS[mode]


def test_a_jobs_limit_is_above_what_is_expected_of_it(amd: Plan) -> None:
    resources = Resources(amd)
    by_step = {step: [job for job in amd.jobs if job.step == step] for step in (*RUNS, "quantize")}
    for job in by_step["performance_run"]:
        config = json.loads(job.config)
        least_min = config["rules"]["min_duration_ms"] / 60_000
        assert int(resources.of(job)["runtime"]) > 60 + least_min
    assert {resources.of(job)["runtime"] for job in by_step["quantize"]} == {1440}, "not known"


def test_weights_are_made_on_a_node_of_a_system_that_runs_them(amd: Plan) -> None:
    resources = Resources(amd)
    made = {job.key: resources.of(job) for job in amd.jobs if job.step == "quantize"}
    assert made["llama2-70b-99.9/none/mxfp4"]["gpu_model"] == "mi355x"
    assert made["llama2-70b-99.9/none/fp8"]["gpu_model"] in ("mi300x", "mi325x")


def test_what_installs_downloads_judges_or_packages_asks_for_nothing(amd: Plan) -> None:
    resources = Resources(amd)
    staying = [job for job in amd.jobs if job.step in STAYING]
    assert {"container", "model", "performance_check", "provenance"} <= {
        job.step for job in staying
    }
    assert all(not resources.of(job) for job in staying)
    for job in amd.jobs:
        if job.step in SHARING:
            asked = resources.of(job)
            assert asked["cpus_per_task"] == 4 and asked["mem_mb"] == 16_000
            assert "--exclusive" not in str(asked["slurm_extra"]) and "gpu" not in asked


def test_a_system_of_several_nodes_gets_them_in_one_job(on_slurm: OnSlurm) -> None:
    plan = on_slurm("amd-mangoboost-v5.1")
    resources = Resources(plan)
    nodes = {job.key.split("/")[0]: resources.of(job) for job in plan.jobs if job.step in RUNS}
    for system, count in (
        ("amd-mangoboost-mi355x-4-nodes", 4),
        ("amd-mangoboost-mi355x-8-nodes", 8),
    ):
        asked = nodes[system]
        assert (asked["nodes"], asked["tasks"], asked["mpi"]) == (count, count, "srun")
        assert asked["gres"] == "gpu:mi355x:8", "of each node"
        assert asked["slurm_extra"] == "--exclusive --ntasks-per-node=1"
        assert "gpu" not in asked
    weights = next(job for job in plan.jobs if job.step == "quantize")
    assert resources.of(weights)["nodes"] == 1


MIXED = ("experiment=mangoboost-v5.1", "system=mangoboost-mi300x-mi325x", "scenario=Offline")
SITE = ("scheduler.partition=gpu", "scheduler.account=mlperf", "scheduler.qos=high")


def test_nodes_of_several_kinds_are_one_heterogeneous_job() -> None:
    """Each part has its own nodes and accelerators, by the site's names, and all that is not said
    for a whole job: partition, account, time."""
    plan = planned(*MIXED, "scheduler=slurm", *SITE, "++scheduler.gpu_types.mi325x=instinct_mi325x")
    run = next(job for job in plan.jobs if job.step == "performance_run")
    asked = Resources(plan).of(run)
    assert "gres" not in asked and "gpu" not in asked, "the plugin would say it of the last part"
    assert (asked["nodes"], asked["tasks"], asked["mpi"]) == (4, 4, "srun")
    first, second = str(asked["slurm_extra"]).split(" : ")
    assert first.split() == ["--exclusive", "--ntasks-per-node=1", "--gpus-per-node=mi300x:8"]
    assert second.split() == [
        *("-pgpu", "-Amlperf", "-qhigh", f"-t{asked['runtime']}", "-N2", "-n2"),
        *("--exclusive", "--ntasks-per-node=1", "--gpus-per-node=instinct_mi325x:8"),
    ]


def test_a_node_that_uses_seven_accelerators_asks_for_seven() -> None:
    groups = "[{hardware: mi325x, nodes: 3}, {hardware: mi325x, nodes: 1, accelerators: 7}]"
    of = ("experiment=supermicro-mangoboost-v5.1", "system=supermicro-mangoboost-mi325x-2-nodes")
    plan = planned(*of, "engine=vllm", "scheduler=slurm", f"cluster.groups={groups}")
    run = next(job for job in plan.jobs if job.step == "performance_run")
    parts = Resources(plan).parts(run)
    assert [(part.nodes, part.gres) for part in parts] == [(3, "mi325x:8"), (1, "mi325x:7")]
    assert "-N1 -n1" in str(Resources(plan).of(run)["slurm_extra"])


def test_a_cpu_asks_for_no_accelerator(rehearsal: Plan) -> None:
    resources = Resources(rehearsal)
    for job in rehearsal.jobs:
        assert not {"gpu", "gpu_model", "gres"} & resources.of(job).keys()
    run = next(job for job in rehearsal.jobs if job.step == "performance_run")
    assert resources.of(run)["slurm_extra"] == "--exclusive"


def test_the_scheduler_is_part_of_no_job(rehearsal: Plan) -> None:
    """So nothing runs again for it, and no partition or account gets into a submission."""
    here, there = planned("experiment=rehearsal"), rehearsal
    assert isinstance(here.scheduler, Local) and isinstance(there.scheduler, Slurm)
    assert here.jobs == there.jobs


def test_a_site_says_it_once(project: Path) -> None:
    site = project / "conf/site/local.yaml"
    site.parent.mkdir(exist_ok=True)
    site.write_text(
        "# @package _global_\n"
        "defaults: [override /scheduler: slurm, _self_]\n"
        "scheduler: {partition: gpu, gpu_types: {mi325x: instinct_mi325x}, reservation: mlperf}\n",
        encoding="utf-8",
    )
    plan = make(project, ["experiment=amd-v5.1", "system=amd-mi325x", "benchmark=mixtral-8x7b"])
    run = next(job for job in plan.jobs if job.step == "performance_run")
    asked = Resources(plan).of(run)
    assert asked["gpu_model"] == "instinct_mi325x"
    assert asked["slurm_partition"] == "gpu"
    assert asked["slurm_extra"] == "--exclusive --reservation=mlperf"
    assert isinstance(make(project, ["scheduler=local"]).scheduler, Local), "for once"


def test_two_schedulers_in_one_plan_are_refused(project: Path) -> None:
    path = project / "conf/system/rehearsal-cpu.yaml"
    second = path.with_name("second-cpu.yaml")
    text = path.read_text(encoding="utf-8").replace("name: rehearsal-cpu", "name: second-cpu")
    second.write_text(text, encoding="utf-8")
    hardware = "  - override /hardware: cpu\n"
    edit(second, hardware, f"{hardware}  - override /scheduler: slurm\n")
    with pytest.raises(UserError, match=r"system=second-cpu .* chooses another scheduler"):
        make(project, ["system=rehearsal-cpu,second-cpu"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("scheduler.pending_limit_min=0", "scheduler.slurm.pending_limit_min: "),
        ("scheduler.partition='a b'", "scheduler.slurm.partition: "),
        ("scheduler.time.factor=0.5", "scheduler.slurm.time.factor: "),
        ("scheduler.patition=gpu", "patition"),
    ],
)
def test_a_bad_value_is_named(override: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        planned("scheduler=slurm", override)


WORKFLOW = """
rule all:
    input: ["0.txt", "1.txt", "2.txt"]

rule job:
    output: "{n}.txt"
    resources: gpu=8
    shell: "mkdir taken && sleep 0.3 && rmdir taken && touch {output}"
"""


@pytest.mark.parametrize("limited", [True, False])
def test_on_one_machine_one_job_at_a_time_has_the_accelerators(
    tmp_path: Path, limited: bool
) -> None:
    """Without the profile's limit Snakemake starts them together."""
    (tmp_path / "Snakefile").write_text(WORKFLOW, encoding="utf-8")
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "profile.yaml").write_text(
        (ROOT / "workflow/profiles/default/profile.yaml").read_text(encoding="utf-8")
    )
    edit(profile / "profile.yaml", "cores: all", "cores: 3")
    if not limited:
        edit(profile / "profile.yaml", "resources: [gpu=1]\n", "")
    done = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "--workflow-profile", profile],
        cwd=tmp_path,
        capture_output=True,
        timeout=LIMIT_S,
    )
    assert (done.returncode == 0) is limited, done.stderr


def test_a_package_has_one_version_in_the_schedulers_environment() -> None:
    packages = [
        line.split("==")[0].lower().replace("_", "-")
        for lock in locks("slurm", ROOT)
        for line in lock.read_text(encoding="utf-8").splitlines()
    ]
    assert len(packages) == len(set(packages))
