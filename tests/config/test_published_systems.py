"""Every published AMD-GPU row of v5.1 against what the configuration composes to.

Numbers: tests/golden. Where a package contradicts its own log, the log is what ran.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from steps.config.layers import SELECTORS, effective, merged
from steps.config.loadgen import Loadgen
from steps.config.submission import Cell, SubmissionConfig
from steps.plan.plan import Job
from steps.run.sut.user_conf import render_user_conf
from tests.conftest import ROOT, planned, planned_alone

GOLDEN = ROOT / "tests" / "golden"
CODE, PUBLISHED = "/lab-mlperf-inference/code/", "/opt/published"
OURS = {  # AMD's paths lack the benchmark's directory; in our image the submission is elsewhere
    f"{CODE}scripts/{name}": f"{PUBLISHED}/closed/AMD/code/llama2-70b-99/scripts/{name}"
    for name in (
        "llama2-mi325x-server-tuning.txt",
        "gemm_llama2-70b/aa0bda7b/tuning_spx_1700_formatted.txt",
    )
}
OURS_ALONE = {"build", "unread"}
"""Keys that say which engine the others are checked against."""

Row = Mapping[str, str]


def table(name: str) -> list[dict[str, str]]:
    with (GOLDEN / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read(name: str) -> dict[str, Any]:
    return dict(json.loads((GOLDEN / name).read_text(encoding="utf-8")))


EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml"))
ROWS = table("amd-v5.1-rows.csv")
CONTRADICTIONS = table("amd-v5.1-contradictions.csv")
KEY = ("division", "submitter", "platform", "model", "scenario")


def key(row: Row) -> str:
    return "/".join(row[column] for column in KEY)


@pytest.fixture(scope="module")
def published() -> dict[str, tuple[Cell, dict[str, Job]]]:
    """Every row that the experiments of v5.1 become: its cell and the cell's jobs by step."""
    found: dict[str, tuple[Cell, dict[str, Job]]] = {}
    for plan in (planned(f"experiment={name}") for name in EXPERIMENTS if name.endswith("-v5.1")):
        by_step = {step: job for job in plan.jobs for step in [job.step]}
        submission = SubmissionConfig.model_validate_json(by_step["submission"].config)
        for cell in submission.cells:
            jobs = {job.step: job for job in plan.jobs if job.key == cell.key}
            for package in cell.packages:
                row = f"{cell.division}/{submission.submitter}/{cell.system_id}/{package.name}"
                assert f"{row}/{cell.scenario}" not in found
                found[f"{row}/{cell.scenario}"] = cell, jobs
    return found


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_plans(experiment: str) -> None:
    """Here, since the rows need the same plans, and a file's tests share one worker's."""
    plan = planned(f"experiment={experiment}")
    assert plan.experiment == experiment
    assert [job.step for job in plan.jobs].count("provenance") == 1


Published = Mapping[str, tuple[Cell, Mapping[str, Job]]]


def test_cells_are_the_published_rows_and_no_others(published: Published) -> None:
    measured = {key(row) for row in ROWS}
    twice = {name.replace("70b-99.9/", "70b-99/") for name in measured if "70b-99.9/" in name}
    assert (len(measured), len(twice)) == (67, 44)
    assert set(published) == measured | twice


def test_both_gates_of_llama2_package_one_run(published: Published) -> None:
    for name, (cell, jobs) in published.items():
        if "/llama2-70b-99/" in name:
            strict, same = published[name.replace("-99/", "-99.9/")]
            assert strict is cell and same["performance_run"] is jobs["performance_run"]
            check = json.loads(jobs["accuracy_check"].config)
            assert check["required"] == "99.9"


def loadgen_of(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    config = json.loads(job.config)
    return config["loadgen"], config["rules"]


@pytest.mark.parametrize("row", ROWS, ids=key)
def test_user_conf_says_what_the_log_says(row: Row, published: Published) -> None:
    _, jobs = published[key(row)]
    loadgen, rules = loadgen_of(jobs["performance_run"])
    settings = rendered(loadgen, row["scenario"])
    assert settings.pop("target_qps") == float(row["target_qps"])
    duration = settings.pop("min_duration", rules["min_duration_ms"])
    assert duration == float(row["min_duration_ms"])
    assert "performance_sample_count_override" not in settings  # the round's own count holds
    if row["scenario"] == "Offline":
        # 1.1: LoadGen 5.1 issues a tenth more than the rate needs for the duration.
        computed = round(float(row["target_qps"]) * duration / 1000 * 1.1)
        assert int(row["samples"]) == settings.pop("min_query_count", computed)
    assert settings == {}


def rendered(loadgen: Mapping[str, Any], scenario: str) -> dict[str, float]:
    """Settings of user.conf as LoadGen reads them; every line is of this model and scenario."""
    typed = Loadgen.model_validate_json(json.dumps(loadgen))
    text = render_user_conf(typed, scenario)  # type: ignore[arg-type]
    prefix = f"{loadgen['model']}.{'Server' if scenario == 'Interactive' else scenario}."
    found = {}
    for line in text.splitlines():
        name, value = line.split(" = ")
        assert name.startswith(prefix)
        found[name.removeprefix(prefix)] = float(value)
    return found


def test_packages_contradict_their_logs_where_the_list_says(published: Published) -> None:
    """Every file that was published, setting by setting."""
    packaged = {**read("amd-v5.1-user-conf.json"), **read("partners-v5.1-user-conf.json")}
    listed = {(key(row), row["setting"]): row for row in CONTRADICTIONS}
    found = set()
    for row in ROWS:
        if row["submitter"] == "Krai":  # which published none
            continue
        said, (_, jobs) = packaged[key(row)], published[key(row)]
        loadgen, rules = loadgen_of(jobs["performance_run"])
        ran = {
            "target_qps": loadgen["target_qps"],
            "min_duration": loadgen["min_duration_ms"] or rules["min_duration_ms"],
            "performance_sample_count_override": rules["performance_sample_count"],
        }
        for setting, value in ran.items():
            if setting not in said and setting != "target_qps":
                continue
            if said.get(setting) != value:
                entry = listed[key(row), setting]
                assert entry["packaged"] == str(said.get(setting, ""))
                found.add((key(row), setting))
    assert found == {name for name in listed if "/Krai/" not in name[0]}
    assert set(packaged) >= {key(row) for row in ROWS if row["submitter"] != "Krai"}
    contradicting = {key(row) for row in CONTRADICTIONS if row["packaged"]}
    silent = {key(row) for row in CONTRADICTIONS if not row["packaged"]}
    assert (len(contradicting), len(silent)) == (12, 5)


def test_the_log_wins_wherever_a_contradiction_is_listed(published: Published) -> None:
    for row in CONTRADICTIONS:
        loadgen, rules = loadgen_of(published[key(row)][1]["performance_run"])
        ran = {
            "target_qps": loadgen["target_qps"],
            "min_duration": loadgen["min_duration_ms"] or rules["min_duration_ms"],
            "performance_sample_count_override": rules["performance_sample_count"],
        }
        assert ran[row["setting"]] == float(row["logged"])


def test_engines_are_the_published_ones(published: Published) -> None:
    """Arguments, environment, sampling and dispatch of every row that AMD's harness ran."""
    compared = 0
    for row in ROWS:
        cell, jobs = published[key(row)]
        engine = json.loads(jobs["performance_run"].config)["engine"]
        if engine["kind"] != "vllm-rocm":
            continue
        expected = engine_of(row, cell)
        environment = {name: OURS.get(v, v) for name, v in expected["environment"].items()}
        assert engine["environment"] == environment, key(row)
        assert engine["arguments"] == expected["arguments"], key(row)
        assert engine["sampling"] == expected["sampling"], key(row)
        dispatch = {**engine["dispatch"], "sorting": engine["dispatch"]["sorting"]["strategy"]}
        if "engine_version" not in expected["dispatch"]:
            del dispatch["engine_version"]
        assert dispatch == expected["dispatch"], key(row)
        compared += 1
    assert compared == 45


def engine_of(row: Row, cell: Cell) -> dict[str, Any]:
    """What the submitter published for the row; a partner's entry may name one of AMD's."""
    golden, partners = read("amd-v5.1-engine.json"), read("partners-v5.1-engine.json")
    models = {"llama2-70b-99.9": "llama2-70b"}
    gpu = next(gpu for gpu in ("mi300x", "mi325x", "mi355x") if gpu in cell.system)
    own = f"{models.get(cell.benchmark, cell.benchmark)}/{cell.scenario.lower()}_{gpu}"
    entry = partners.get(key(row)) or own
    return dict(golden[entry] if isinstance(entry, str) else entry)


def test_every_partner_row_has_an_entry_and_a_third_have_no_engine_file() -> None:
    """Only MangoBoost's MI325X Offline ran on AMD's harness among those without one."""
    partners = read("partners-v5.1-engine.json")
    closed = {key(row) for row in ROWS if row["division"] == "closed" and row["submitter"] != "AMD"}
    assert set(partners) == closed
    kinds = [type(entry).__name__ for entry in partners.values()]
    assert (len(kinds), kinds.count("str"), kinds.count("dict")) == (46, 20, 10)


def test_packages_of_partners_contradict_themselves_where_the_list_says() -> None:
    """And what each row of the list is about is a row that was published."""
    systems = {(row["submitter"], row["platform"]) for row in ROWS}
    listed = table("partners-v5.1-contradictions.csv")
    assert {(row["submitter"], row["platform"]) for row in listed} <= systems
    assert all(row["one_place"] and row["other_place"] and row["ours"] for row in listed)


def test_mi355x_clusters_have_llmboosts_published_arguments(published: Published) -> None:
    for name, (cell, jobs) in published.items():
        if "/AMD_MangoBoost/" in name:
            engine = json.loads(jobs["performance_run"].config)["engine"]
            assert engine["vllm_arguments"]["gpu_memory_utilization"] == 0.94
            assert engine["vllm_arguments"]["max_num_seqs"] == 3450
            assert cell.division == "open"


# ---- one fact once -----------------------------------------------------------------------------


def leaves(layer: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in layer.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def without(layer: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    head, *rest = path
    if not rest:
        return {name: value for name, value in layer.items() if name != head}
    return {**layer, head: without(layer[head], tuple(rest))}


def repeated(base: list[Mapping[str, Any]], layer: Mapping[str, Any]) -> list[str]:
    """Paths of a layer that can go without any point changing: something says them already."""
    points = [
        {
            **dict.fromkeys(SELECTORS, ""),
            **{"by_scenario": scenario, "by_hardware": hardware, "by_model": model},
        }
        for scenario in ("Offline", "Server", "Interactive")
        for hardware in ("mi300x", "mi325x", "mi355x")
        for model in ("llama2-70b", "mixtral-8x7b")
    ]
    whole = [effective([*base, layer], point) for point in points]
    return [
        ".".join(path)
        for path in leaves(layer)
        if [effective([*base, without(layer, path)], point) for point in points] == whole
    ]


def settings(name: str) -> dict[str, Any]:
    import yaml

    raw = yaml.safe_load((ROOT / "conf/engine" / f"{name}.yaml").read_text(encoding="utf-8"))
    return dict(raw["settings"])


@pytest.mark.parametrize("name", ["llama2-70b", "mixtral-8x7b", "llama3.1-405b"])
def test_no_engine_setting_repeats_what_another_layer_says(name: str) -> None:
    assert repeated([settings("vllm-rocm")], settings(name)) == []


def test_the_count_of_repeated_settings_can_fail() -> None:
    again = merged(settings("mixtral-8x7b"), {"arguments": {"block_size": 16}})
    assert "arguments.block_size" in repeated([settings("vllm-rocm")], again)


def test_eight_configurations_of_llama2_are_a_quarter_of_the_published_entries() -> None:
    """AMD's eight files have 404 entries, 131 of them distinct (key, value) pairs."""
    published = [place for place in leaves(settings("llama2-70b")) if not set(place) & OURS_ALONE]
    assert len(published) == 105


def test_no_system_repeats_what_it_builds_on() -> None:
    """A target or duration of a system that equals the benchmark's own says nothing."""
    import yaml

    models = {"llama2-70b": "llama2-70b-99", "mixtral-8x7b": "mixtral-8x7b"}
    for path in sorted((ROOT / "conf/system").glob("*.yaml")):
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        system, chain = raw["system"], [path.stem]
        while (parent := _parent(chain[-1])) is not None:
            chain.append(parent)
        layers = [_system(name).get("loadgen", {}) for name in reversed(chain[1:])]
        hardware = _hardware(chain)
        for model, benchmark in models.items():
            text = (ROOT / "conf/benchmark" / f"{benchmark}.yaml").read_text(encoding="utf-8")
            own = yaml.safe_load(text)["benchmark"]["loadgen"]
            for scenario in ("Offline", "Server", "Interactive"):
                point = {
                    **dict.fromkeys(SELECTORS, ""),
                    **{"by_scenario": scenario, "by_model": model, "by_hardware": hardware},
                }
                before = effective([own, *layers], point)
                for name, value in effective([system.get("loadgen", {})], point).items():
                    assert before.get(name) != value, f"{path.stem} repeats {name} of {scenario}"


def _system(name: str) -> dict[str, Any]:
    import yaml

    text = (ROOT / "conf/system" / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["system"])


def _defaults(name: str) -> list[Any]:
    import yaml

    text = (ROOT / "conf/system" / f"{name}.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load(text)["defaults"])


def _parent(name: str) -> str | None:
    named = (entry for entry in _defaults(name) if isinstance(entry, str) and entry != "_self_")
    return next(named, None)


def _hardware(chain: list[str]) -> str:
    for name in chain:
        for entry in _defaults(name):
            if isinstance(entry, dict) and "override /hardware" in entry:
                return str(entry["override /hardware"])
    raise AssertionError(f"{chain[0]} names no hardware")


TODAY = [
    ("mi355x", "Offline", "mxfp4", {"max_num_seqs": 3392, "max_num_batched_tokens": 65536}),
    ("mi355x", "Server", "mxfp4", {"max_num_seqs": 3096, "max_num_batched_tokens": 40960}),
    ("mi355x", "Interactive", "mxfp4", {"max_num_seqs": 4096, "max_num_batched_tokens": 8192}),
    ("mi325x", "Offline", "fp8", {"max_num_seqs": 2048, "max_num_batched_tokens": 65536}),
    ("mi325x", "Server", "fp8", {"max_num_seqs": 1024, "max_num_batched_tokens": 40960}),
    ("mi300x", "Offline", "fp8", {"max_num_seqs": 1792, "max_num_batched_tokens": 40960}),
    ("mi300x", "Interactive", "fp8", {"max_num_seqs": 3840, "max_num_batched_tokens": 43008}),
]


@pytest.mark.parametrize(("hardware", "scenario", "precision", "wanted"), TODAY)
def test_todays_vllm_has_the_published_v6_settings(
    hardware: str, scenario: str, precision: str, wanted: Mapping[str, int], tmp_path: Path
) -> None:
    plan = planned_alone(
        tmp_path / "alone",
        f"system: amd-{hardware}, benchmark: llama2-70b-99.9, precision: {precision}, "
        f"scenario: {scenario}, engine: vllm",
        "length=rule",
        f"++system.target_qps.{scenario}=10",
    )
    job = next(job for job in plan.jobs if job.step == "performance_run")
    engine = json.loads(job.config)["engine"]
    assert (engine["kind"], engine["build"]) == ("vllm", "vllm-0.32.0")
    assert engine["placement"]["engines_per_node"] == 8
    assert wanted.items() <= engine["arguments"].items()
    assert engine["arguments"]["kv_cache_dtype"] == "fp8"
    assert engine["arguments"]["quantization"] == {"fp8": "fp8", "mxfp4": "quark"}[precision]
    assert not [name for name in engine["environment"] if "MLPERF" in name]
    assert job.limitation is None


def test_the_experiment_of_todays_vllm_has_every_language_model_of_amds_machines() -> None:
    runs = [job for job in planned("experiment=vllm").jobs if job.step == "performance_run"]
    assert all(job.limitation is None for job in runs)
    engines = {job.key: json.loads(job.config)["engine"] for job in runs}
    assert {engine["build"] for engine in engines.values()} == {"vllm-0.32.0"}
    cells = {(key.split("/")[0], key.split("/")[1], key.split("/")[4]) for key in engines}
    scenarios = ("Offline", "Server", "Interactive")
    assert {
        (system, "llama2-70b-99.9", scenario)
        for system in ("amd-mi300x", "amd-mi325x", "amd-mi355x-v6.0")
        for scenario in scenarios
    } <= cells
    large = {key.split("/")[4]: engine for key, engine in engines.items() if "405b" in key}
    assert {
        scenario: (engine["placement"]["engines_per_node"], engine["arguments"])
        for scenario, engine in large.items()
    } == {
        "Offline": (4, {**LARGE, "tensor_parallel_size": 2, "max_num_batched_tokens": 20162}),
        "Interactive": (
            1,
            {
                **LARGE,
                "gpu_memory_utilization": 0.92,
                "max_model_len": 21988,
                "max_num_batched_tokens": 6144,
                "max_num_seqs": 512,
                "tensor_parallel_size": 8,
            },
        ),
    }
    assert {engine["sampling"]["seed"] for engine in large.values()} == {42}


LARGE = {
    "async_scheduling": True,
    "block_size": 16,
    "disable_custom_all_reduce": False,
    "dtype": "bfloat16",
    "enable_chunked_prefill": True,
    "enable_prefix_caching": False,
    "enforce_eager": False,
    "gpu_memory_utilization": 0.95,
    "kv_cache_dtype": "fp8",
    "max_model_len": 22512,
    "max_num_seqs": 1024,
    "quantization": "quark",
    "seed": 0,
}
"""Llama 3.1 405B in AMD's v6.0 results, and what all models have on today's vLLM."""


@pytest.mark.parametrize(
    "experiment", ["asustek", "dell", "gigacomputing", "mitac", "quanta", "supermicro", "vultr"]
)
def test_a_partners_machine_runs_todays_vllm_without_what_its_own_engine_has(
    experiment: str,
) -> None:
    chosen = ("benchmark=llama2-70b-99.9", "scenario=Offline", "engine=vllm")
    plan = planned(f"experiment={experiment}-v5.1", *chosen)
    for job in plan.jobs:
        if job.step == "performance_run":
            engine = json.loads(job.config)["engine"]
            assert job.limitation is None and engine["build"] == "vllm-0.32.0"
            assert engine["arguments"]["max_num_batched_tokens"] == (
                40960 if "mi300x" in job.key else 65536
            )
            assert not [name for name in engine["environment"] if "MLPERF" in name]


def test_amds_v6_image_is_the_published_one_with_its_patchs_variables(tmp_path: Path) -> None:
    plan = planned_alone(
        tmp_path / "alone",
        "system: amd-mi355x, benchmark: llama2-70b-99.9, precision: mxfp4, scenario: Interactive, "
        "engine: vllm-v6.0",
        "length=rule",
        "++system.target_qps.Interactive=263",
    )
    by_step = {job.step: json.loads(job.config) for job in plan.jobs}
    engine = by_step["performance_run"]["engine"]
    assert engine["build"] == "amd-v6.0"
    assert engine["environment"]["VLLM_SUBSEQUENT_DECODE_STEPS"] == "6"
    assert "VLLM_MIN_REQUEST_DECODE_STEP" not in engine["environment"]
    images = [json.loads(job.config) for job in plan.jobs if job.step == "container"]
    (image,) = [image for image in images if image["name"] == "llama2-70b-v6.0-gfx950"]
    assert image["ready"]["base"] == "rocm/amd-mlperf:mi355x_llama2_70b_inference_6.0"


@pytest.mark.parametrize(("hardware", "engines", "accelerators"), [("h100", 4, 2), ("h200", 8, 1)])
def test_todays_vllm_shares_nvidias_accelerators_out(
    hardware: str, engines: int, accelerators: int
) -> None:
    """69 GB of weights in FP8: two of 80 GB hold them and enough sequences, or one of 141 GB."""
    plan = planned(
        "experiment=amd-v5.1",
        "system=amd-mi300x",
        f"hardware={hardware}",
        "benchmark=llama2-70b-99.9",
        "precision=fp8",
        "scenario=Offline",
        "length=rule",
        "engine=vllm",
        "++system.target_qps.Offline=10",
    )
    job = next(job for job in plan.jobs if job.step == "performance_run")
    engine = json.loads(job.config)["engine"]
    placement = engine["placement"]
    assert (placement["engines_per_node"], placement["device_variable"]) == (
        engines,
        "CUDA_VISIBLE_DEVICES",
    )
    assert engine["arguments"]["tensor_parallel_size"] == accelerators
