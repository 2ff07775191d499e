"""AMD's v6.0 submission, as its experiment composes it, against what was published."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.commands.preview import wheres
from steps.config.engine import VllmArguments
from steps.config.loadgen import Loadgen
from steps.config.submission import Cell, SubmissionConfig
from steps.machine.look import Look
from steps.machine.probes.machine import Prober
from steps.plan.plan import Job, Plan
from steps.plan.unsupported import standings
from steps.run.sut.user_conf import render_user_conf
from tests.conftest import ROOT, planned
from tests.recorded_machine import printing

GOLDEN = ROOT / "tests/golden"
WAN = "wan-2.2-t2v-a14b"
"""The one result of the submission that the experiment hasn't."""

CORRECTED = {"host_processors_per_node", "system_name", "accelerators_per_node"}
"""Fields of AMD's descriptions that are wrong there (8 processors a node), name a host, or are
written as a number."""

Cells = Mapping[str, tuple[Cell, Mapping[str, Job]]]


def table(name: str) -> list[dict[str, str]]:
    with (GOLDEN / name).open(encoding="utf-8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["submitter"] == "AMD"]


ROWS = [row for row in table("v6.0-rows.csv") if row["model"] != WAN]


def key(row: Mapping[str, str]) -> str:
    return f"{row['platform']}/{row['model']}/{row['scenario']}"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned("experiment=amd-v6.0")


@pytest.fixture(scope="module")
def cells(plan: Plan) -> Cells:
    """By platform, package and scenario: the cell and its jobs by step."""
    found: dict[str, tuple[Cell, Mapping[str, Job]]] = {}
    packages = [job for job in plan.jobs if job.step == "submission"]
    for package in packages:
        for cell in SubmissionConfig.model_validate_json(package.config).cells:
            jobs = {job.step: job for job in plan.jobs if job.key == cell.key}
            for one in cell.packages:
                found[f"{cell.system_id}/{one.name}/{cell.scenario}"] = cell, jobs
    return found


def test_cells_are_the_published_rows(cells: Cells) -> None:
    """18 of 19: Llama 2's are submitted for both accuracy targets."""
    rows = {key(row) for row in ROWS}
    twice = {name.replace("70b-99.9/", "70b-99/") for name in rows if "70b-99.9/" in name}
    assert set(cells) == rows | twice
    assert len(cells) == 18


@pytest.mark.parametrize("row", ROWS, ids=key)
def test_user_conf_says_what_the_log_says(row: Mapping[str, str], cells: Cells) -> None:
    config = json.loads(cells[key(row)][1]["performance_run"].config)
    loadgen, rules = config["loadgen"], config["rules"]
    typed = Loadgen.model_validate_json(json.dumps(loadgen))
    text = render_user_conf(typed, row["scenario"])  # type: ignore[arg-type]
    settings = {
        name.rsplit(".", 1)[1]: float(value)
        for name, _, value in (line.partition(" = ") for line in text.splitlines())
    }
    assert settings.pop("target_qps") == float(row["target_qps"])
    duration = settings.pop("min_duration", rules["min_duration_ms"])
    assert duration == float(row["min_duration_ms"])
    if row["scenario"] == "Offline":
        computed = round(float(row["target_qps"]) * duration / 1000 * 1.1)
        assert int(row["samples"]) == settings.pop("min_query_count", computed)
    assert settings == {}


def test_packaged_user_conf_contradicts_its_log_where_the_list_says(cells: Cells) -> None:
    packaged = json.loads((GOLDEN / "v6.0-user-conf.json").read_text(encoding="utf-8"))
    listed = {(key(row), row["setting"]) for row in table("v6.0-contradictions.csv")}
    found = set()
    for row in ROWS:
        config = json.loads(cells[key(row)][1]["performance_run"].config)
        said = packaged[f"{row['division']}/AMD/{key(row)}"]
        ran = {
            "target_qps": config["loadgen"]["target_qps"],
            "min_duration": config["loadgen"]["min_duration_ms"]
            or config["rules"]["min_duration_ms"],
        }
        differs = {name for name, value in ran.items() if said.get(name) != value}
        found |= {(key(row), name) for name in differs}
    assert found == listed


def test_engines_are_the_published_ones(cells: Cells) -> None:
    golden = json.loads((GOLDEN / "v6.0-engine.json").read_text(encoding="utf-8"))
    assert set(golden) == {key(row) for row in ROWS}
    for name, expected in golden.items():
        cell, jobs = cells[name]
        engine = json.loads(jobs["performance_run"].config)["engine"]
        assert engine["environment"] == expected["environment"], name
        assert given(engine["arguments"]) == given(expected["arguments"]), name
        sampling = {name: value for name, value in engine["sampling"].items() if value is not None}
        assert sampling == expected["sampling"], name
        generation = json.loads(jobs["performance_run"].config)["generation"]
        del generation["eos_token_id"]
        assert generation == expected["generation"], name
        dispatch, wanted = dict(engine["dispatch"]), dict(expected["dispatch"])
        total = {"87": 87, "94": 94}.get(name[:2], 8)
        assert dispatch.pop("device_count") == total
        assert wanted.pop("device_count") == 8  # overridden by hand on the head of a cluster
        ours, theirs = dispatch.pop("sorting"), wanted.pop("sorting")
        assert ours["strategy"] == theirs["strategy"], name
        if theirs["strategy"] == "buckets":
            assert ours["buckets"] == theirs["buckets"]
        if wanted["engine_version"] == "vllm":  # the file names a backend, and no version
            del wanted["engine_version"], dispatch["engine_version"]
        assert dispatch == wanted, name
        assert cell.division == ("open" if "405b" in name else "closed")


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What vLLM is given: ranges as their numbers."""
    return VllmArguments.model_validate(arguments).passed_on()


def test_descriptions_are_the_published_ones(plan: Plan) -> None:
    golden = json.loads((GOLDEN / "v6.0-systems.json").read_text(encoding="utf-8"))
    platforms = {
        "amd-mi355x-v6.0": "closed/AMD/8xMI355X_2xEPYC_9575F",
        "amd-mi355x-87-v6.0": "closed/AMD/87xMI355X_22xEPYC_9575F",
        "amd-mi355x-94-v6.0": "closed/AMD/94xMI355X_24xEPYC_9575F",
        "amd-mi355x-open-v6.0": "open/AMD/8xMI355X_2xEPYC_9575F",
    }
    described = {
        job.key: json.loads(job.config)["fields"] for job in plan.jobs if job.step == "describe"
    }
    assert set(described) == set(platforms)
    for system, fields in described.items():
        expected = golden[platforms[system]]
        for name, value in fields.items():
            if name not in CORRECTED:
                assert value == expected[name], f"{system} {name}"
        assert fields["host_processors_per_node"] == "2"


def test_clusters_have_their_true_number_of_accelerators(plan: Plan) -> None:
    """87 of 88 and 94 of 96; the official table multiplied nodes by eight."""
    found = {needed.system: needed for needed in plan.requirements}
    assert found["amd-mi355x-87-v6.0"].accelerators == 87
    assert found["amd-mi355x-94-v6.0"].accelerators == 94
    assert [(k.nodes, k.accelerators) for k in found["amd-mi355x-87-v6.0"].kinds] == [
        (10, 8),
        (1, 7),
    ]


def test_a_cluster_of_uneven_nodes_is_planned_with_what_each_has(cells: Cells) -> None:
    jobs = cells["87xMI355X_22xEPYC_9575F/llama2-70b-99.9/Offline"][1]
    assert jobs["performance_run"].limitation is None
    kinds = json.loads(jobs["performance_run"].config)["engine"]["placement"]["kinds"]
    assert [(k["nodes"], k["accelerator"]["count_per_node"]) for k in kinds] == [(10, 8), (1, 7)]


def test_gpt_oss_has_two_sets_and_two_generation_settings(cells: Cells) -> None:
    jobs = cells["8xMI355X_2xEPYC_9575F/gpt-oss-120b/Offline"][1]
    configs = {step: json.loads(job.config) for step, job in jobs.items()}
    assert configs["performance_run"]["generation"]["max_tokens"] == 10240
    assert configs["accuracy_run"]["generation"]["max_tokens"] == 32768
    assert configs["performance_run"]["rules"]["performance_sample_count"] == 6396
    assert configs["accuracy_check"]["dataset_size"] == 4395
    assert configs["accuracy_check"]["gates"]["99"]["minimum"] == {"exact_match": 82.2987}


def test_what_of_gpt_oss_this_version_cant_do_is_said_by_name(plan: Plan) -> None:
    said = {
        job.step: job.limitation
        for job in plan.jobs
        if job.limitation and "gpt-oss-120b" in job.key
    }
    assert "gpt-oss-120b" in said["dataset"] and "LiveCodeBench" in said["dataset"]
    assert not {"accuracy_check", "compliance_check"} & said.keys(), (
        "but for programs, it is scored"
    )


def test_gpt_oss_has_prompts_for_accuracy_and_for_test07(cells: Cells) -> None:
    jobs = cells["8xMI355X_2xEPYC_9575F/gpt-oss-120b/Offline"][1]
    prompts = jobs["performance_run"].inputs["dataset"]
    scored = jobs["accuracy_run"].inputs["dataset"]
    assert jobs["accuracy_check"].inputs["dataset"] == scored != prompts
    assert "/gpt-oss-120b/accuracy-" in scored


@pytest.mark.parametrize("token", ["", "hf_" + 34 * "x"])
def test_a_plan_says_of_every_cell_where_it_runs(
    plan: Plan, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without accelerators, with and without a token of the hub."""
    monkeypatch.setenv("HOME", str(tmp_path))
    nothing = Look(Prober(run=printing({}), root=tmp_path))
    standing = standings(json.loads(plan.model_dump_json()), tmp_path, nothing.missing)
    found = wheres(plan, standing, {"HF_TOKEN": token, "HOME": str(tmp_path)})
    assert len(found) == 12
    for key, (where, says) in found.items():
        nodes = {"amd-mi355x-87-v6.0": "11 nodes, each", "amd-mi355x-94-v6.0": "12 nodes, each"}
        runs = f"runs on {nodes.get(key.split('/')[0], 'a node')} with 8 × AMD Instinct MI355X"
        if "gpt-oss-120b" in key:
            assert where == "never" and "LiveCodeBench" in says and "image" not in says
        elif token:
            assert (where, says) == ("elsewhere", runs)
        else:
            assert where == "brings" and "set HF_TOKEN" in says and says.endswith(f"it {runs}")


def test_the_405b_has_an_image_for_each_of_its_scenarios(plan: Plan) -> None:
    """AMD built the engines of both from other commits, and its description names both."""
    jobs = {job.output: job for job in plan.jobs}
    built = {}
    for job in plan.jobs:
        if job.step == "performance_run" and "405b" in job.key:
            image = json.loads(jobs[job.inputs["environment"]].config)
            built[job.key.rpartition("/")[2]] = (image["base"], image["arguments"])
    for scenario, (vllm, aiter) in {
        "Offline": ("11b6af528", "6af8b6874"),
        "Interactive": ("ec38a7368", "b3a5f7225f54c4ebd55c4a60bab43a68c1a901f4"),
    }.items():
        _, given = built[scenario]
        assert (given["VLLM"], given["AITER"]) == (vllm, aiter)
        assert given["PATCHES"] == "open/AMD/setup/llama3.1-405b/patches"
        assert "AITER_PATCHES" not in given
    assert built["Offline"][0] != built["Interactive"][0]


def test_a_cluster_uses_no_more_than_its_nodes_have() -> None:
    groups = "[{hardware:mi355x,nodes:1,accelerators:9}]"
    with pytest.raises(UserError, match="have 8 accelerators each, and can't use 9"):
        planned("experiment=amd-v6.0", f"cluster.groups={groups}", "system=amd-mi355x-v6.0")


def test_test07_loads_its_own_prompts(plan: Plan) -> None:
    """990 at once, as AMD's log has them in its query; mlperf.conf has 6,396."""
    loaded = {
        job.key.rsplit("/", 1)[1]: json.loads(job.config)["loadgen"][
            "performance_sample_count_override"
        ]
        for job in plan.jobs
        if job.step == "compliance_run" and "gpt-oss-120b" in job.key
    }
    assert loaded == {"TEST07": 990, "TEST09": None}
