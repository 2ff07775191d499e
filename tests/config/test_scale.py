"""The dress rehearsal: which cells it has, what it replaces, and what it refuses."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.config.compose import compose
from steps.config.composed import ComposedCell
from steps.plan.make import make
from steps.plan.plan import Plan
from steps.plan.registry import PER_CELL
from tests.conftest import ACME_SITE, ROOT, planned

DRESS = "scale=dress"
EXPERIMENTS = ("amd-v5.1", "dell-v5.1", "vultr-v5.1", "krai-v5.1")


def cells(*overrides: str, site: Path | None = None) -> list[ComposedCell]:
    return list(compose(ROOT / "conf", overrides, site).cells)


@cache
def pairs(experiment: str) -> list[tuple[ComposedCell, ComposedCell]]:
    """Its cells without the dress and with it; nothing changes them."""
    chosen = f"experiment={experiment}"
    return list(zip(cells(chosen), cells(chosen, DRESS), strict=True))


def said(cell: ComposedCell) -> dict[str, Any]:
    return {row.key: row.value for row in cell.rows}


def changed(before: ComposedCell, after: ComposedCell) -> set[str]:
    """Names of settings that differ, as `show` prints them."""
    old, new = said(before), said(after)
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


def below(key: str, names: list[str]) -> bool:
    return any(f"{key}.".startswith(f"{name}.") for name in names)


def listed(cell: ComposedCell) -> list[str]:
    replaced = cell.values["scale"]["replaced"].values()
    return [key for one in replaced for key in one["settings"]]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_nothing_is_replaced_but_what_is_listed(experiment: str) -> None:
    for before, after in pairs(experiment):
        assert before.key == after.key
        allowed = listed(after)
        found = {key for key in changed(before, after) if not below(key, allowed)}
        assert not found, (before.key, found)


def test_what_is_listed_is_replaced_in_some_cell() -> None:
    """By model: a list that grew old would allow more than it says."""
    unused: dict[str, set[str]] = {}
    for before, after in pairs("amd-v5.1"):
        differing = changed(before, after)
        kind = after.values["benchmark"]["model"]["name"]
        idle = {key for key in listed(after) if not any(below(one, [key]) for one in differing)}
        unused[kind] = unused.get(kind, idle) & idle
    assert not any(unused.values()), unused


def test_cells_names_tests_and_the_chain_of_precisions_stay() -> None:
    plain, dressed = planned("experiment=amd-v5.1"), planned("experiment=amd-v5.1", DRESS)
    assert len(runs(plain, "performance_run")) == 16
    assert runs(plain, *PER_CELL) == runs(dressed, *PER_CELL)
    assert dressed.experiment == "amd-v5.1-dress"
    made = {job.key for job in dressed.jobs if job.step in ("quantize", "prune", "finetune")}
    wanted = {job.key for job in plain.jobs if job.step in ("quantize", "prune", "finetune")}
    assert made == wanted - {"stable-diffusion-xl/none/int8-fp8"}
    assert [job.key for job in dressed.jobs if job.limitation or job.brings] == []
    assert not any(needed.model for needed in dressed.requirements)


def runs(plan: Plan, *steps: str) -> set[tuple[str, str]]:
    return {(job.step, job.key) for job in plan.jobs if job.step in steps}


def test_runs_verdicts_and_the_submission_say_what_they_are() -> None:
    asked = ("experiment=amd-v5.1", "system=amd-mi300x", "scenario=Offline")
    dressed, plain = planned(*asked, DRESS), planned(*asked)
    for job in dressed.jobs:
        if job.step in PER_CELL:
            assert json.loads(job.config)["rehearsal"] == "dress rehearsal", job.key
    (submission,) = (job for job in dressed.jobs if job.step == "submission")
    for cell in json.loads(submission.config)["cells"]:
        assert cell["departures"][0].startswith("dress rehearsal: ")
        assert "the round's bounds" in " ".join(one["what"] for one in cell["replaced"])
    assert not any("rehearsal" in job.config or "replaced" in job.config for job in plain.jobs)
    (described,) = (job for job in dressed.jobs if job.step == "describe")
    assert json.loads(described.config)["fields"]["sw_notes"].startswith("Dress rehearsal")


def test_a_site_file_keeps_its_own_names(tmp_path: Path) -> None:
    site = tmp_path / "acme-mi325x.yaml"
    site.write_text(ACME_SITE, encoding="utf-8")
    found = cells("experiment=amd-v5.1", DRESS, site=site)
    assert len(found) == 4
    for cell in found:
        assert cell.values["system"]["submitter"] == "Acme"
        assert said(cell)["target_qps"] in (80, 15)


def test_what_is_set_acts_on_its_cell_alone() -> None:
    plain = planned("experiment=amd-v5.1", DRESS)
    other = planned("experiment=amd-v5.1", DRESS, "set.amd-mi300x.llama2-70b.Server.target_qps=14")
    before = {job.output: job.config for job in plain.jobs if job.step.endswith("_run")}
    after = {job.output: job.config for job in other.jobs if job.step.endswith("_run")}
    assert {path for path in before if before[path] != after[path]} == {
        path for path in before if "/amd-mi300x/llama2-70b-99.9/none/fp8/Server/" in path
    }


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_partners_submissions_are_planned_with_nothing_refused(experiment: str) -> None:
    """Though rates that they say are replaced."""
    plan = planned(f"experiment={experiment}", DRESS)
    assert not [job.key for job in plan.jobs if job.limitation or job.brings]


def test_llama2_is_rehearsed_on_v0_where_that_is_asked_for() -> None:
    asked = ("experiment=amd-v5.1", "benchmark=llama2-70b-99.9")
    today, older = planned(*asked, DRESS), planned(*asked, "scale=dress-v0")
    assert (today.experiment, older.experiment) == ("amd-v5.1-dress", "amd-v5.1-dress-v0")
    assert runs(today, *PER_CELL) == runs(older, *PER_CELL)
    made = {job.output for job in today.jobs if job.step in ("quantize", "dataset", "model")}
    assert made == {
        job.output for job in older.jobs if job.step in ("quantize", "dataset", "model")
    }
    for job in older.jobs:
        if job.step.endswith("_run"):
            engine = json.loads(job.config)["engine"]
            assert job.environment.startswith(".envs/vllm-0.9.1-")
            assert engine["environment"]["VLLM_USE_V1"] == "0"
            assert engine["arguments"]["kv_cache_dtype"] == "auto" and engine["emulation"]
    with pytest.raises(UserError, match=r"has nothing small for benchmark .*mixtral-8x7b"):
        planned("experiment=amd-v5.1", "scale=dress-v0")


def test_a_mistake_in_a_sites_file_is_found_all_the_same(tmp_path: Path) -> None:
    site = tmp_path / "acme-mi325x.yaml"
    written = ACME_SITE.replace("engine:", "engin:").replace("fields:", "felds:")
    site.write_text(written, encoding="utf-8")
    with pytest.raises(UserError, match="no such key"):
        make(ROOT, ["experiment=amd-v5.1", DRESS], site)


def test_a_mistake_in_what_is_replaced_is_found_too(tmp_path: Path) -> None:
    """The engine of the machine is no part of a rehearsal, so its own plan is made as well."""
    site = tmp_path / "acme-mi325x.yaml"
    site.write_text(f"{ACME_SITE}  engine: {{arguments: {{blok_size: 16}}}}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"what is rehearsed for is refused: .*blok_size"):
        make(ROOT, ["experiment=amd-v5.1", DRESS], site)


def test_a_sites_file_is_planned(tmp_path: Path) -> None:
    site = tmp_path / "acme-mi325x.yaml"
    site.write_text(ACME_SITE, encoding="utf-8")
    plan = make(ROOT, ["experiment=amd-v5.1", DRESS], site)
    assert len(runs(plan, "performance_run")) == 4


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("experiment=rehearsal",), "has nothing small for benchmark rehearsal"),
        (("experiment=amd-v6.0",), "has nothing small for benchmark gpt-oss-120b:"),
        (("experiment=amd-v5.1", "fetch.endpoint=https://hub.example"), "steps.mirror: address"),
        (("experiment=amd-v5.1", "length=rule"), "length=rule has no effect"),
    ],
)
def test_what_it_has_no_answer_to_is_refused(overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError) as refused:
        planned(*overrides, DRESS)
    assert says in str(refused.value)
