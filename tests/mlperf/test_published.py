"""The published tables: what is read, what is refused, what is marked."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.mlperf import rounds
from steps.mlperf.published import table
from steps.mlperf.published.importing import import_tables
from steps.mlperf.published.logs import LOG, run_facts
from steps.mlperf.published.result import Result, accelerators, accuracy_metrics
from steps.mlperf.published.source import read_summary

GOLDEN = Path(__file__).parent / "published_amd_v5.1.json"

ROW: dict[str, Any] = {
    "ID": "9.9-0001",
    "Submitter": "Maker",
    "Availability": "available",
    "Category": "closed",
    "Suite": "datacenter",
    "System": "a server",
    "Platform": "8xMI300X",
    "UsedModel": "llama2-70b-99",
    "Model": "llama2-70b-99",
    "Scenario": "Offline",
    "Accuracy": "ROUGE1: 44.4542  ROUGE2: 22.0419  TOKENS_PER_SAMPLE: 301.1",
    "Nodes": 1,
    "Processor": "a CPU",
    "host_processors_per_node": 2,
    "Accelerator": "AMD Instinct MI300X 192GB HBM3",
    "a#": 8,
    "Location": "closed/Maker/results/8xMI300X/llama2-70b-99/Offline",
    "Software": "an engine 1.0",
    "operating_system": "an OS",
    "version": "v9.9",
    "weight_data_types": "fp8",
    "Performance_Result": 27803.9,
    "Performance_Units": "Tokens/s",
}


def summary(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "summary_results.json"
    path.write_text(json.dumps(rows))
    return path


def test_the_table_holds_amds_24_results_as_mlcommons_published_them() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    ours = {r.location: [r.value, r.unit] for r in table.load("v5.1") if r.submitter == "AMD"}
    assert ours == golden
    assert len(golden) == 24


def test_every_row_of_the_table_can_be_compared_and_every_instinct_row_has_its_run() -> None:
    rows = table.load("v5.1")
    assert len(rows) > 400
    assert [row.location for row in rows if not row.comparable] == []
    instinct = [row for row in rows if row.gpu.startswith("MI3")]
    assert len(instinct) == 111
    assert [row.location for row in instinct if row.run is None] == []


def test_every_row_is_in_the_table_or_counted_with_its_reason(tmp_path: Path) -> None:
    other = {**ROW, "Suite": "edge", "Performance_Units": "Latency (ms)", "Location": "b"}
    new = {**ROW, "Model": "nobody-thought-of-it", "Location": "c"}
    summary(tmp_path, ROW, other, new)
    found = import_tables(tmp_path, "v9.9", tmp_path / "tables")
    assert [row.location for row in found.results] == [ROW["Location"], "c"]
    assert found.dropped == {"of the edge suite": 1}
    assert found.without == {"the performance log isn't in the checkout": 2}
    written = (tmp_path / "tables/v9.9.csv").read_text()
    assert len(written.splitlines()) == 3
    assert "27803.9" in written
    counts = (tmp_path / "tables/v9.9-dropped.csv").read_text()
    assert counts == "reason,rows\nof the edge suite,1\n"
    with pytest.raises(UserError, match=r"has results of v9\.9, not v9\.8 alone"):
        import_tables(tmp_path, "v9.8", tmp_path / "tables")
    with pytest.raises(UserError, match=r"neither summary_results\.json nor summary\.csv"):
        import_tables(tmp_path / "tables", "v9.9", tmp_path / "tables")


def test_no_row_of_a_published_round_is_lost() -> None:
    """1,448 and 520 rows: what summary_results.json of the rounds have."""
    for name, total in (("v5.1", 1448), ("v6.0", 520)):
        dropped = (table.FOLDER / f"{name}-dropped.csv").read_text().splitlines()[1:]
        counts = [int(line.rpartition(",")[2]) for line in dropped]
        assert len(table.load(name)) + sum(counts) == total
    amd = [row for row in table.load("v6.0") if row.submitter == "AMD"]
    assert len(amd) == 19
    assert [row.location for row in amd if row.run is None] == []


V6_1 = (
    "Organization,Availability,Division,SystemType,SystemName,Platform,Model,MlperfModel,Scenario,"
    "Result,Accuracy,number_of_nodes,host_processor_model_name,host_processors_per_node,"
    "host_processor_core_count,accelerator_model_name,accelerators_per_node,total_accelerators,"
    "Location,framework,operating_system,notes,compliance,errors,version,inferred,has_power,Units,"
    "weight_data_types,design_power_watts,PrivateID\n"
)
V6_1_ROW = (
    "Maker,available,closed,datacenter,a server,8xMI355X,a-model,gpt-oss-120b,{scenario},{result},"
    '"exact_match: 83.2  TOKENS_PER_SAMPLE: 1150.0",9,a CPU,2,64,AMD Instinct MI355X 288GB,8,72,'
    "closed/Maker/results/8xMI355X/a-model/{scenario}/performance/run_1,an engine,an OS,,closed,0,"
    "v6.1,{inferred},False,Tokens/s,fp4,,\n"
)


def test_the_keys_of_v6_1_are_read_too(tmp_path: Path) -> None:
    """summary.csv as the checker of v6.1 writes it, rows of inferred results among them."""
    rows = [
        V6_1_ROW.format(scenario="Offline", result="95004.5", inferred=0),
        V6_1_ROW.format(scenario="Server", result="fast", inferred=1),
    ]
    (tmp_path / "summary.csv").write_text(V6_1 + "".join(rows))
    [one, other] = import_tables(tmp_path, "v6.1", tmp_path / "tables").results
    assert (one.submitter, one.platform, one.division) == ("Maker", "8xMI355X", "closed")
    assert (one.benchmark, one.model, one.value) == ("gpt-oss-120b", "a-model", 95004.5)
    assert (one.nodes, one.gpus, one.software) == (9, {"MI355X": 72}, "an engine")
    assert one.location == "closed/Maker/results/8xMI355X/a-model/Offline"
    assert one.accuracy == {"exact_match": 83.2, "TOKENS_PER_SAMPLE": 1150.0}
    assert (other.value, other.reason) == (None, "the result is 'fast', not a number")


def test_a_run_is_described_by_its_own_log(tmp_path: Path) -> None:
    log = tmp_path / LOG
    log.parent.mkdir(parents=True)
    values = {
        "loadgen_version": "5.1.0 @ 091d51f041",
        "requested_scenario": "Server",
        "requested_use_token_latencies": True,
        "requested_server_ttft_latency": 2_000_000_000,
        "requested_server_tpot_latency": 200_000_000,
        "effective_target_qps": 109,
        "effective_min_duration_ms": 600_000,
        "power_begin": "07-31-2025 12:20:28.473",
        "power_end": "07-31-2025 12:32:54.772",
        "result_completed_samples_per_sec": 106.281,
        "result_first_token_99.00_percentile_latency_ns": 1_755_300_000,
        "result_time_per_output_token_99.00_percentile_ns": 198_300_000,
    }
    log.write_text(
        "".join(
            ":::MLLOG "
            + json.dumps(
                {
                    "key": key,
                    "value": value,
                    "time_ms": 0.0,
                    "metadata": {"is_error": False, "is_warning": False},
                }
            )
            + "\n"
            for key, value in values.items()
        )
    )
    run = run_facts(tmp_path)
    assert run is not None
    assert (run.loadgen_version, run.target_qps, run.min_duration_s) == (
        "5.1.0@091d51f041",
        109,
        600,
    )
    assert (run.ttft_p99_ms, run.ttft_limit_ms) == (1755.3, 2000)
    assert (run.tpot_p99_ms, run.tpot_limit_ms) == (198.3, 200)
    assert run.duration_s == 746.3
    assert run_facts(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("result", [0, -1.5, float("nan"), float("inf"), None, "fast", True])
def test_a_result_that_is_no_positive_number_is_kept_and_marked(
    tmp_path: Path, result: object
) -> None:
    [row] = read_summary(summary(tmp_path, {**ROW, "Performance_Result": result}))
    assert row.value is None
    assert not row.comparable
    assert "the result is" in row.problems[0]
    with pytest.raises(ValueError, match="can't be compared"):
        _ = row.number


def test_an_unknown_unit_is_named_and_not_compared(tmp_path: Path) -> None:
    [row] = read_summary(summary(tmp_path, {**ROW, "Performance_Units": "furlongs"}))
    assert row.value == 27803.9
    assert row.problems == ("unit 'furlongs' is not a throughput this project knows",)
    assert not row.comparable


def test_two_rows_for_one_system_are_both_marked(tmp_path: Path) -> None:
    again = {**ROW, "Performance_Result": 1.0}
    rows = read_summary(summary(tmp_path, ROW, again, {**ROW, "Scenario": "Server"}))
    assert [row.comparable for row in rows] == [False, False, True]
    assert "2 rows for one system" in rows[0].problems[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON: it is nested too deeply"),
        ("{}", "is not a list of results"),
        ("[]", "is not a list of results"),
        ('[{"ID": "5.1-0001"}]', "row 1 has no Submitter, Category, Model"),
    ],
)
def test_a_file_that_is_no_summary_is_refused_in_a_sentence(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "summary_results.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_summary(path)
    with pytest.raises(UserError, match="can't be read"):
        read_summary(tmp_path / "none.json")


@pytest.mark.parametrize("nodes", [float("inf"), float("nan"), -1, 1.5, "many", [], {}])
def test_a_number_of_nodes_that_is_none_is_unknown(tmp_path: Path, nodes: object) -> None:
    (row,) = read_summary(summary(tmp_path, {**ROW, "Nodes": nodes}))
    assert row.nodes is None


def test_a_round_without_a_table_is_named() -> None:
    with pytest.raises(UserError, match=r"no table of round 'v0\.1'; there are .*v5\.1"):
        table.load("v0.1")


@pytest.mark.parametrize(
    ("text", "nodes", "per_node", "expected"),
    [
        ("AMD Instinct MI325X 256GB HBM3e", 2, 8, {"MI325X": 16}),
        (
            "AMD Instinct MI300X 192GB HBM3 (x32), AMD Instinct MI325X 256GB HBM3e (x16)",
            6,
            8,
            {"MI300X": 32, "MI325X": 16},
        ),
        ("AMD Instinct MI355X 288GB HBM3e (x87)", 11, 8, {"MI355X": 87}),
        ("AMD Instinct MI350x 288GB HBM3e", 1, 8, {"MI350X": 8}),
        (
            "AMD Instinct MI355X 288GB HBM3e (Power Cap 1000 W)",
            1,
            8,
            {"MI355X (Power Cap 1000 W)": 8},
        ),
        ("NVIDIA H200-SXM-141GB", 1, 8, {"H200-SXM-141GB": 8}),
        ("", None, None, {}),
        ("N/A", 1, 8, {}),
        ("AMD Instinct MI325X 256GB HBM3e", 1, None, {}),
    ],
)
def test_accelerators_are_counted(
    text: str, nodes: int | None, per_node: int | None, expected: dict[str, int]
) -> None:
    assert accelerators(text, nodes, per_node) == expected


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,12}", fullmatch=True),
        st.floats(min_value=-1e6, max_value=1e6).map(lambda number: round(number, 6)),
        max_size=5,
    )
)
def test_accuracy_reads_back_every_metric(metrics: dict[str, float]) -> None:
    text = "  ".join(f"{name}: {number}" for name, number in metrics.items())
    assert accuracy_metrics(text) == metrics


@given(st.text(max_size=60) | st.from_regex(r"[A-Z]+: [0-9.eE+-]+"))
def test_any_accuracy_text_is_read_without_an_error(text: str) -> None:
    assert all(isinstance(number, float) for number in accuracy_metrics(text).values())


def test_a_result_is_named_as_the_command_line_takes_it() -> None:
    row: Result = table.load("v5.1")[0]
    assert row.name == "5.1-0001/llama2-70b-99/Interactive"


@pytest.mark.parametrize("round_name", table.rounds())
def test_reference_scores_are_those_of_the_rules(round_name: str) -> None:
    """A gate is 99 or 99.9 % of the reference model's score; both are copied from one file."""
    rules = rounds.load(round_name).benchmarks
    found = {
        (name, metric): minimum / score
        for name, benchmark in rules.items()
        for metric, score in table.reference_scores(round_name, name).items()
        if isinstance(minimum := benchmark.accuracy.minimum.get(metric), float)
    }
    assert found
    assert {key: share for key, share in found.items() if not 0.98999 < share < 0.99901} == {}


@pytest.mark.parametrize("round_name", table.rounds())
def test_what_amd_published_has_reference_scores(round_name: str) -> None:
    """But for images, whose limits are absolute."""
    without = {
        row.benchmark
        for row in table.load(round_name)
        if row.submitter == "AMD" and not table.accuracy_shares(row)
    }
    assert without <= {"stable-diffusion-xl"}
