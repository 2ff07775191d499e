"""What no plan is made of: numbers that are none, rates of no machine, names that are taken."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from steps.base.errors import UserError
from steps.base.strict import Strict
from steps.commands.cli import main
from steps.config.loadgen import Loadgen
from steps.config.runs import PerformanceRunConfig
from steps.plan.make import OWN_FOLDERS, make
from tests.conftest import ROOT, planned

RATES = [".inf", "inf", "-inf", "nan", "1e308", "1e-300", "1e400", "5e-324", "1e8", "0", "-1"]


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_that_no_machine_has_makes_no_plan(rate: str) -> None:
    with pytest.raises(UserError, match="target_qps"):
        planned("experiment=null-engine", f"system.target_qps.Offline={rate}")


@pytest.mark.parametrize("rate", [".inf", ".nan", "1.0e+308", "1.0e-300"])
def test_nor_does_a_site_file(
    rate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "acme.yaml"
    site.write_text(
        "# @package _global_\ndefaults: [null-engine, _self_]\n"
        f"system: {{name: acme, id: a, submitter: A, target_qps: {{Offline: {rate}}}}}\n",
        encoding="utf-8",
    )
    assert main(["plan", "experiment=null-engine", "scenario=Offline", "--site", str(site)]) == 1
    said = capsys.readouterr().err
    assert "target_qps" in said
    assert said.count("\n") == 1


def test_rates_of_real_machines_make_one() -> None:
    for rate in ("0.01", "0.3", "14400", "1e6"):
        planned("experiment=null-engine", f"system.target_qps.Offline={rate}")


def test_a_run_that_loadgen_cant_keep_in_memory_makes_no_plan() -> None:
    long = "length.min_duration_ms=6000000"
    with pytest.raises(UserError, match=r"6e\+10 queries in the run's duration"):
        planned("experiment=null-engine", "system.target_qps.Offline=1e7", long)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(
    "key",
    [
        "hardware.engine.start_limit_s",
        "hardware.engine.stall_limit_s",
        "hardware.engine.placement.silence_limit_s",
        "hardware.engine.arguments.tpot_ms",
    ],
)
def test_no_number_of_a_configuration_is_infinite(key: str, value: str) -> None:
    with pytest.raises(UserError, match=key.rpartition(".")[2]):
        planned("experiment=null-engine", "scenario=Offline", f"++system.{key[9:]}={value}")


@pytest.mark.parametrize("count", [1025, 100_000_000])
def test_more_engines_than_a_node_can_start_make_no_plan(count: int) -> None:
    place = "hardware.engine.placement"
    with pytest.raises(UserError, match=f"engines_per_node is {count:,}, and a node starts"):
        planned("experiment=null-engine", f"{place}.engines_per_node={count}")


@pytest.mark.parametrize("entry", ["'A=B': x", "'': x", r'"A\0B": x', r'A: "x\0y"', r'A: "\0"'])
def test_a_variable_that_no_process_can_have_makes_no_plan(entry: str, tmp_path: Path) -> None:
    site = tmp_path / "acme.yaml"
    site.write_text(
        "# @package _global_\ndefaults: [null-engine, _self_]\nsystem: {name: acme, id: a, "
        f"submitter: A, engine: {{environment: {{{entry}}}}}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=r"environment\..* can't be set") as caught:
        make(ROOT, ["experiment=null-engine", "scenario=Offline"], site)
    assert "\n" not in str(caught.value)


def test_nor_does_one_of_engines_on_other_hardware() -> None:
    plan = planned("experiment=null-engine", "scenario=Offline")
    run = next(job for job in plan.jobs if job.step == "performance_run")
    config = json.loads(run.config)
    config["engine"]["environment_on"] = {"other": {"A=B": "x"}}
    with pytest.raises(ValidationError, match=r"environment\.A=B can't be set"):
        PerformanceRunConfig.model_validate_json(json.dumps(config))


@given(st.sampled_from([float("inf"), float("-inf"), float("nan")]))
def test_no_typed_value_is(number: float) -> None:
    class Some(Strict):
        value: float
        more: dict[str, float]

    for fields in ({"value": number, "more": {}}, {"value": 1.0, "more": {"a": number}}):
        with pytest.raises(ValidationError):
            Some.model_validate(fields)


@settings(max_examples=200)
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_what_is_accepted_can_be_written_and_read_back(rate: float) -> None:
    """user.conf, JSON and the name of a probe have to hold the rate."""
    fields = {"model": "m", "min_duration_ms": None, "min_query_count": None}
    try:
        made = Loadgen(**fields, target_qps=rate, performance_sample_count_override=None)
    except ValidationError:
        return
    assert 1e-3 <= made.target_qps <= 1e7
    assert Loadgen.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("name", [*OWN_FOLDERS, "Artifacts", "PLANS"])
def test_an_experiment_takes_no_place_of_reprises_own(name: str) -> None:
    with pytest.raises(UserError, match=f"experiment_name={name} .*choose another name"):
        planned("experiment=null-engine", f"experiment_name={name}")


@pytest.mark.parametrize("name", ["submission.log", "Provenance.log"])
def test_a_system_takes_no_place_of_a_log(name: str) -> None:
    with pytest.raises(UserError, match=f"a system named {name} .*choose another name"):
        planned("experiment=null-engine", f"system.name={name}")


def test_every_folder_of_results_that_code_names_is_taken() -> None:
    found: set[str] = set()
    for path in [*ROOT.glob("steps/**/*.py"), *ROOT.glob("workflow/**/*.smk")]:
        found |= set(re.findall(r"results/([a-z_]+)", path.read_text(encoding="utf-8")))
    experiments = {path.stem for path in ROOT.glob("conf/experiment/*.yaml")}
    assert found - experiments == set(OWN_FOLDERS)
