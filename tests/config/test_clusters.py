"""Published systems of several nodes, with an engine that everybody has."""

import json
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.config.runs import PerformanceRunConfig
from steps.plan.plan import Job, Plan, freeze
from steps.plan.unsupported import refusal, standings, unseen
from tests.conftest import planned

EXPERIMENTS = {
    "amd-mangoboost-v5.1": 2,
    "mangoboost-v5.1": 6,
    "dell-mangoboost-v5.1": 4,
    "supermicro-mangoboost-v5.1": 4,
}
"""Cells of each."""

MIXED = ("experiment=mangoboost-v5.1", "system=mangoboost-mi300x-mi325x")


def runs(plan: Plan) -> list[Job]:
    return [job for job in plan.jobs if job.step == "performance_run"]


def engine_of(plan: Plan, scenario: str = "Offline") -> dict[str, Any]:
    job = next(job for job in runs(plan) if job.key.endswith(scenario))
    return dict(json.loads(job.config)["engine"])


def described(plan: Plan) -> dict[str, Any]:
    job = next(job for job in plan.jobs if job.step == "describe")
    return dict(json.loads(job.config)["fields"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_cluster_can_be_run_with_todays_vllm(experiment: str, project: Any) -> None:
    """Where its accelerators are, and with a token for the gated model: nothing else is missing."""
    plan = planned(f"experiment={experiment}", "engine=vllm")
    assert len(runs(plan)) == EXPERIMENTS[experiment]
    assert {json.loads(job.config)["engine"]["kind"] for job in runs(plan)} == {"vllm"}
    assert [job.limitation for job in plan.jobs if job.limitation] == []
    path = freeze(plan, project)
    frozen = json.loads(path.read_text(encoding="utf-8"))
    for one in standings(frozen, project, unseen):
        assert (one.never, one.brings, one.machine) == ((), (), "")
    assert refusal(path, project, unseen) is None


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_published_rates_are_the_first_guess(experiment: str) -> None:
    ours, theirs = (
        {job.key: json.loads(job.config)["loadgen"] for job in runs(planned(*overrides))}
        for overrides in ([f"experiment={experiment}", "engine=vllm"], [f"experiment={experiment}"])
    )
    assert ours == theirs


def test_the_software_is_named_as_another_than_the_published() -> None:
    assert "LLMBoost" in described(planned(*MIXED))["framework"]
    fields = described(planned(*MIXED, "engine=vllm"))
    assert "LLMBoost" not in fields["framework"] and "vLLM 0.32.0" in fields["framework"]
    assert "other_software_stack" not in fields, "it is probed"
    both = described(
        planned("experiment=mangoboost-v5.1", "system=mangoboost-mi325x", "engine=vllm")
    )
    assert "vLLM 0.32.0" in both["framework"]


def test_settings_of_llmboost_reach_no_other_engine() -> None:
    theirs = engine_of(planned(*MIXED))["arguments"]
    assert theirs["scheduler_weights"] == [21, 20, 20, 20, 25, 24]
    ours = engine_of(planned(*MIXED, "engine=vllm"))["arguments"]
    assert not {"scheduler", "scheduler_weights"} & ours.keys()


def test_a_mixed_cluster_has_each_kinds_own_settings() -> None:
    engine = engine_of(planned(*MIXED, "engine=vllm"))
    assert engine["arguments"]["max_num_seqs"] == 1792
    assert engine["arguments_on"]["mi325x"]["max_num_seqs"] == 2048
    assert "environment_on" not in engine, "it is the same"
    placement = engine["placement"]
    assert [(k["hardware"], k["nodes"]) for k in placement["kinds"]] == [
        ("mi300x", 4),
        ("mi325x", 2),
    ]


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_amds_own_vllm_runs_on_mi300x_and_mi325x_together(scenario: str) -> None:
    """Its schedulers' thresholds are variables, and clocks differ: each kind has its own."""
    plan = planned(*MIXED, "engine=llama2-70b")
    assert [job.limitation for job in plan.jobs if job.limitation] == []
    engine = engine_of(plan, scenario)
    lone = engine_of(planned("experiment=amd-v5.1", "system=amd-mi325x"), scenario)
    assert engine["environment_on"]["mi325x"] == lone["environment"]
    assert engine["arguments_on"]["mi325x"] == lone["arguments"]
    assert engine["power_on"]["mi325x"] == lone["power"]
    assert engine["environment"] != engine["environment_on"]["mi325x"]
    job = next(job for job in runs(plan) if job.key.endswith(scenario))
    PerformanceRunConfig.model_validate_json(job.config)


def test_what_starts_a_clusters_engines_follows_from_where_it_is() -> None:
    several = ("experiment=dell-mangoboost-v5.1", "system=dell-mangoboost-mi300x-2-nodes")
    for overrides, cluster in {
        (): "auto",
        ("scheduler=slurm",): "slurm",
        ("cluster.hosts=[a,b]",): "ssh",
    }.items():
        placement = engine_of(planned(*several, "engine=vllm", *overrides))["placement"]
        assert (placement["cluster"], placement["nodes"]) == (cluster, 2)
    alone = ("experiment=amd-v5.1", "system=amd-mi300x", "engine=vllm", "benchmark=llama2-70b-99.9")
    assert engine_of(planned(*alone))["placement"]["cluster"] == "none"


def test_a_node_that_uses_seven_accelerators_has_seven_engines() -> None:
    groups = "[{hardware: mi325x, nodes: 1, accelerators: 7}, {hardware: mi325x, nodes: 1}]"
    uneven = (
        "experiment=supermicro-mangoboost-v5.1",
        "system=supermicro-mangoboost-mi325x-2-nodes",
    )
    plan = planned(*uneven, "engine=vllm", f"cluster.groups={groups}")
    job = runs(plan)[0]
    assert job.limitation is None
    placement = PerformanceRunConfig.model_validate_json(job.config).engine.placement
    seats = placement.seats
    assert [seat.node for seat in seats] == [0] * 7 + [1] * 8
    assert [seat.place for seat in seats] == [*range(7), *range(8)]
    (requirement,) = plan.requirements
    assert requirement.accelerators == 15


def test_pictures_are_drawn_on_fewer_accelerators_by_as_many_engines() -> None:
    groups = "cluster.groups=[{hardware: mi325x, nodes: 1, accelerators: 7}]"
    (run,) = runs(planned("experiment=sdxl-diffusers", "scenario=Offline", groups))
    found = PerformanceRunConfig.model_validate_json(run.config).engine.placement
    assert (found.engines_per_node, len(found.seats)) == (8, 7)


def test_a_node_with_too_few_accelerators_for_one_engine_is_named() -> None:
    one_engine = ("experiment=vllm", "system=amd-mi355x-open-v6.0", "scenario=Interactive")
    groups = "cluster.groups=[{hardware: mi355x, nodes: 1, accelerators: 4}]"
    with pytest.raises(UserError, match="the 4 of a node of mi355x are too few for one; take"):
        planned(*one_engine, groups)


def test_three_kinds_in_one_system() -> None:
    groups = "[{hardware: mi325x, nodes: 1}, {hardware: mi300x, nodes: 2}]"
    base = ("experiment=supermicro-mangoboost-v5.1", "system=supermicro-mangoboost-mi325x-mi300x")
    uneven = groups.replace("nodes: 2}", "nodes: 2}, {hardware: mi300x, nodes: 1, accelerators: 6}")
    plan = planned(*base, "engine=vllm", f"cluster.groups={uneven}")
    placement = PerformanceRunConfig.model_validate_json(runs(plan)[0].config).engine.placement
    assert len(placement.seats) == 8 + 16 + 6
    kinds = [placement.kind(node) for node in range(4)]
    assert [kind.hardware for kind in kinds if kind] == ["mi325x", *["mi300x"] * 3]


def test_engines_of_two_builds_are_no_cluster() -> None:
    groups = "[{hardware: mi325x, nodes: 1}, {hardware: mi355x, nodes: 1}]"
    overrides = ("experiment=amd-v5.1", "system=amd-mi325x", "benchmark=llama2-70b-99.9")
    with pytest.raises(UserError, match="differ in more than arguments, environment, power"):
        planned(*overrides, f"cluster.groups={groups}")
