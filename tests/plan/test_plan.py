"""What `./reproduce plan` refuses and what it freezes."""

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.base.record import canonical_json
from steps.config.checks import PerformanceCheckConfig
from steps.config.submission import Cell
from steps.plan.code import sources
from steps.plan.departures import departures
from steps.plan.make import make
from steps.plan.plan import Plan, freeze, load
from steps.plan.registry import STEPS
from steps.plan.states import described
from tests.conftest import ROOT, edit, planned


def counts(plan: Plan) -> dict[str, int]:
    steps = [job.step for job in plan.jobs]
    return {step: steps.count(step) for step in dict.fromkeys(steps)}


def cells(plan: Plan) -> tuple[Cell, ...]:
    return described(plan).cells


def test_the_default_is_the_rehearsal_with_three_scenarios() -> None:
    plan = planned()
    assert plan.experiment == "rehearsal"
    assert counts(plan) == {
        "environment": 2,
        "model": 1,
        "dataset": 1,
        "describe": 1,
        "performance_run": 3,
        "accuracy_run": 3,
        "compliance_run": 3,
        "performance_check": 3,
        "accuracy_check": 3,
        "compliance_check": 3,
        "submission": 1,
        "provenance": 1,
    }


def test_lists_make_a_matrix_and_share_what_they_can() -> None:
    plan = planned("precision=bf16,fp8", "scenario=Offline,Server")
    found = counts(plan)
    assert found["performance_run"] == 4
    assert found["quantize"] == 1
    assert found["model"] == found["dataset"] == 1


def test_sweep_syntax_of_hydra_chooses_axis_values() -> None:
    plan = planned("scenario=glob(*,exclude=Inter*)", "precision=choice(bf16,fp8)")
    assert {(cell.precision, cell.scenario) for cell in cells(plan)} == {
        ("bf16", "Offline"),
        ("bf16", "Server"),
        ("fp8", "Offline"),
        ("fp8", "Server"),
    }


def test_only_the_full_length_has_no_departure() -> None:
    short, full = planned(), planned("experiment=rehearsal-full")
    assert [len(cell.departures) for cell in cells(short)] == [4, 3, 3], "Offline's query, too"
    assert all(cell.departures == () for cell in cells(full))
    mixture = planned("experiment=rehearsal-mixtral-full")
    assert [cell.departures for cell in cells(mixture)] == [(), ()]
    emulated = cells(planned("experiment=rehearsal-full", "precision=fp8"))
    assert all("emulated" in cell.departures[0] for cell in emulated)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("fetch.token", r"override fetch\.token holds a token.*by reference"),
        ("fetch.token.environment", "fetch: token: a token is given by reference"),
        ("fetch.tokn", r"no key fetch\.tokn: fetch has no tokn; did you mean token"),
    ],
)
def test_a_token_by_value_makes_no_plan_and_is_not_repeated(key: str, said: str) -> None:
    """Not even where nothing is fetched: a plan's overrides are packaged with its results."""
    with pytest.raises(UserError, match=said) as caught:
        planned(f"{key}=hf_abcdef")
    assert "hf_abcdef" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["precision=fp9"], ["fp9", "bf16"]),
        (["experiment=nothing"], ["nothing", "rehearsal-full"]),
        (["system.target_qpz.Server=3"], ["target_qpz"]),
        (["+hardware.engine.max_nums_seq=3"], ["max_nums_seq", "no such key"]),
        (["hardware.engine.arguments.max_num_seqs=many"], ["max_num_seqs", "'many'"]),
        (["system.target_qps.Server=-1"], ["target_qps", "0.001"]),
        (["hardware.engine.arguments.enable_prefix_caching=true"], ["enable_prefix_caching"]),
        (["length.evaluation_count=512"], ["reference scores are of 1024 prompts", "512"]),
        (["benchmark.required_gate=98"], ["98"]),
        (["hardware.environment=cuda"], ["cuda", "envs/cuda.lock"]),
        (["system.target_qps.Server=10,20"], ["can't be swept", "precision"]),
        (["=3"], ["=3"]),
        (["scenario="], ["scenario"]),
        (["length.name=${nowhere}"], ["nowhere"]),
    ],
)
def test_bad_overrides_get_one_sentence(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        planned(*overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_step_that_reads_an_undeclared_axis_is_rejected(project: Path) -> None:
    dataset = "dataset:\n  name: ${benchmark.name}"
    edit(project / "conf/benchmark/rehearsal.yaml", dataset, "dataset:\n  name: ${scenario.name}")
    with pytest.raises(UserError, match=r"steps\.dataset reads an axis outside"):
        make(project, [])


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_its_module_among_its_sources(step: str) -> None:
    found = importlib.util.find_spec(STEPS[step].module)
    assert found is not None and found.origin is not None
    assert Path(found.origin).relative_to(ROOT).as_posix() in sources(step, ROOT)


def test_systems_of_two_submitters_are_refused(project: Path) -> None:
    system = project / "conf/system/rehearsal-cpu.yaml"
    other = project / "conf/system/other.yaml"
    other.write_text(system.read_text(encoding="utf-8"), encoding="utf-8")
    edit(other, "name: rehearsal-cpu", "name: other")
    edit(other, "submitter: Reprise", "submitter: Acme")
    with pytest.raises(UserError, match="different submitters"):
        make(project, ["system=rehearsal-cpu,other"])


def test_a_plan_is_content_addressed_and_immutable(project: Path) -> None:
    plan = make(project, [])
    path = freeze(plan, project)
    assert freeze(make(project, []), project) == path
    assert load(path) == plan
    edit(path, '"experiment":"rehearsal","jobs"', '"experiment":"other","jobs"')
    with pytest.raises(UserError, match="changed after it was frozen"):
        load(path)


def test_no_job_depends_on_the_machine(project: Path) -> None:
    """The same plan on two machines, or a result could not be verified elsewhere."""
    text = freeze(make(project, []), project).read_text(encoding="utf-8")
    assert str(project) not in text
    assert freeze(planned(), project).read_text(encoding="utf-8") == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    )
)
def test_canonical_json_does_not_depend_on_order(value: object) -> None:
    def reordered(part: object) -> object:
        if isinstance(part, dict):
            return {key: reordered(part[key]) for key in reversed(part)}
        return [reordered(item) for item in part] if isinstance(part, list) else part

    assert canonical_json(reordered(value)) == canonical_json(value)


def test_departures_name_both_values() -> None:
    plan = planned("scenario=Server")
    check = next(job for job in plan.jobs if job.step == "performance_check")
    found = departures(
        PerformanceCheckConfig.model_validate_json(check.config), 1024, emulated=False
    )
    assert "min_duration_ms is 1,000 instead of 600,000" in found


@pytest.mark.parametrize(
    ("scenario", "changes", "found"),
    [
        ("Offline", {"min_query_count": 1000, "target_qps": 0.5}, 1324),  # two copies of 662
        ("Offline", {"min_query_count": 1000, "target_qps": 10}, 6620),
        (
            "Offline",
            {
                "min_query_count": 1000,
                "target_qps": 0.5,
                "performance_sample_count_override": None,  # one copy is the whole dataset
            },
            None,
        ),
        ("Offline", {"min_query_count": 1000, "target_qps": 100}, None),
        ("Offline", {"min_query_count": 24_576, "target_qps": 0.5}, None),
        ("Offline", {"min_query_count": None, "target_qps": 0.5}, None),
        ("Server", {"min_query_count": 1000, "target_qps": 0.5}, None),
    ],
)
def test_an_offline_query_of_too_few_samples_is_a_departure(
    scenario: str, changes: dict[str, object], found: int | None
) -> None:
    """Known before the run: the checker would say it after hours."""
    plan = planned(f"scenario={scenario}")
    config = json.loads(next(j.config for j in plan.jobs if j.step == "performance_check"))
    config["loadgen"] |= {"min_duration_ms": None, **changes}
    assert config["rules"]["offline_min_samples"] == 24_576
    check = PerformanceCheckConfig.model_validate_json(json.dumps(config))
    said = [one for one in departures(check, 24_576, emulated=False) if "sample count" in one]
    wanted = f"Offline's sample count is {found:,} instead of 24,576" if found else None
    assert said == ([wanted] if wanted else [])


def test_a_value_that_isnt_there_gets_those_that_are() -> None:
    with pytest.raises(UserError) as refused:
        planned("precision=fp88")
    text = str(refused.value)
    assert "there is no precision 'fp88'; did you mean fp8?; there are bf16, fp16, fp32" in text
    assert text.endswith("mxfp4-streamed")
