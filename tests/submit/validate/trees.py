"""A small submission that holds by the rules of v5.1: every file of it made here.

closed/Example: llama2-70b-99 (Offline, Server, Interactive, TEST06) and stable-diffusion-xl
(Offline, Server, TEST01, TEST04, images). open/Example: a fine-tuned llama3.1-405b, Offline.
"""

import hashlib
import json
import shutil
import struct
import zlib
from array import array
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from steps.mlperf.rounds import Round, load

SYSTEM = "8xExample"
RULES = load("v5.1")
CLOSED, OPEN = "closed/Example", "open/Example"
OFFLINE = f"{CLOSED}/results/{SYSTEM}/llama2-70b-99/Offline"
SERVER = f"{CLOSED}/results/{SYSTEM}/llama2-70b-99/Server"
INTERACTIVE = f"{CLOSED}/results/{SYSTEM}/llama2-70b-99/Interactive"
SDXL = f"{CLOSED}/results/{SYSTEM}/stable-diffusion-xl/Offline"
SDXL_SERVER = f"{CLOSED}/results/{SYSTEM}/stable-diffusion-xl/Server"
TUNED = f"{OPEN}/results/{SYSTEM}/my-405b/Offline"
LLAMA_SCORES = {
    "rouge1": 44.5,
    "rouge2": 22.1,
    "rougeL": 28.7,
    "rougeLsum": 42.1,
    "gen_len": 29600000,
    "gen_num": 24576,
    "gen_tok_len": 7397376,
    "tokens_per_sample": 301.0,
}
TUNED_SCORES = {
    "rougeL": 21.1,
    "exact_match": 87.2,
    "gen_len": 20200000,
    "gen_num": 8313,
    "gen_tok_len": 5008413,
    "tokens_per_sample": 640.5,
}


class Clock:
    """Gives each run a time of its own."""

    def __init__(self) -> None:
        self.now = datetime(2025, 7, 30, 8, 0, 0)

    def take(self, seconds: float) -> tuple[datetime, datetime]:
        begin = self.now
        self.now += timedelta(seconds=seconds + 60)
        return begin, begin + timedelta(seconds=seconds)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def record(key: str, value: Any, time_ms: float = 1.0, *, error: bool = False) -> str:
    """One line of a detail log."""
    metadata = {"is_error": error, "is_warning": False, "file": "x.cc", "line_no": 1, "pid": 1}
    entry = {
        "key": key,
        "value": value,
        "time_ms": time_ms,
        "namespace": "mlperf::logging",
        "event_type": "POINT_IN_TIME",
        "metadata": {**metadata, "tid": 1},
    }
    return f":::MLLOG {json.dumps(entry)}\n"


def log_values(
    model: str,
    scenario: str,
    mode: str,
    clock: Clock,
    audit: dict[str, Any] | None = None,
    rules: Round = RULES,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What LoadGen logs before a run and after it."""
    benchmark = rules.benchmarks[model]
    loadgen_scenario = "Server" if scenario == "Interactive" else scenario
    qps = 40.0
    seconds = 900.0 if mode == "PerformanceOnly" else benchmark.dataset_size / qps
    begin, end = clock.take(seconds)
    limits = benchmark.limits.get(scenario, {"ttft_ms": 0, "tpot_ms": 0})
    before: dict[str, Any] = {
        "loadgen_version": "5.1.2 @ 0123456789",
        "loadgen_build_date_utc": "2025-07-01T10:00:00.000000",
        "loadgen_git_status_message": "",
        "test_datetime": f"{begin:%FT%TZ}",
        "sut_name": "PySUT",
        "qsl_reported_total_count": benchmark.dataset_size,
        "requested_scenario": loadgen_scenario,
        "requested_min_duration_ms": 600000,
        "requested_performance_sample_count_override": benchmark.performance_sample_count,
        "requested_use_token_latencies": benchmark.token_latencies,
        "effective_scenario": loadgen_scenario,
        "effective_test_mode": mode,
        "effective_samples_per_query": 36000 if loadgen_scenario == "Offline" else 1,
        "effective_target_qps": qps,
        "effective_target_latency_ns": 0,
        "effective_min_duration_ms": 600000,
        "effective_min_query_count": 1 if loadgen_scenario == "Offline" else 100,
        **{f"effective_{name}": seed for name, seed in rules.seeds.items()},
        "effective_accuracy_log_rng_seed": 0,
        "effective_accuracy_log_sampling_target": 0,
        "effective_performance_issue_unique": False,
        "effective_performance_issue_same": False,
        "effective_performance_sample_count": benchmark.performance_sample_count,
        "effective_sample_concatenate_permutation": benchmark.equal_issue,
    }
    if loadgen_scenario == "Server" and benchmark.token_latencies:
        before["requested_server_ttft_latency"] = limits["ttft_ms"] * 10**6
        before["requested_server_tpot_latency"] = limits["tpot_ms"] * 10**6
    before |= audit or {}
    after: dict[str, Any] = {
        "power_begin": f"{begin:%m-%d-%Y %H:%M:%S.000}",
        "power_end": f"{end:%m-%d-%Y %H:%M:%S.000}",
    }
    if mode == "PerformanceOnly":
        after |= _results(scenario, loadgen_scenario, qps, limits, benchmark.token_latencies)
    after["_end_ms"] = seconds * 1000
    return before, after


def _results(
    scenario: str, loadgen_scenario: str, qps: float, limits: Any, tokens: bool
) -> dict[str, Any]:
    offline = loadgen_scenario == "Offline"
    rate = "result_samples_per_second" if offline else "result_completed_samples_per_sec"
    found: dict[str, Any] = {
        "result_validity": "VALID",
        "result_min_duration_met": True,
        "result_min_queries_met": True,
        "early_stopping_met": True,
        "result_query_count": 1 if offline else 36000,
        rate: qps,
        "num_errors": 0,
    }
    if tokens and offline:
        found["result_tokens_per_second"] = 12040.0
    if tokens and not offline:
        found |= {
            "result_perf_constraints_met": True,
            "result_completed_tokens_per_second": 12040.0,
            "result_first_token_99.00_percentile_latency_ns": limits["ttft_ms"] * 900_000,
            "result_time_per_output_token_99.00_percentile_ns": limits["tpot_ms"] * 900_000,
        }
    return found


def run(
    folder: Path,
    model: str,
    scenario: str,
    mode: str,
    clock: Clock,
    audit: dict[str, Any] | None = None,
    rules: Round = RULES,
) -> None:
    """Both logs of one run."""
    before, after = log_values(model, scenario, mode, clock, audit, rules)
    end_ms = after.pop("_end_ms")
    lines = [record(key, value) for key, value in before.items()]
    lines.append(record("loaded_qsl_set", list(range(20))))
    lines += [record(key, value, end_ms) for key, value in after.items()]
    write(folder / "mlperf_log_detail.txt", "".join(lines))
    values = before | after
    summary = (
        f"MLPerf Results Summary\nScenario : {values['effective_scenario']}\nMode     : {mode}\n"
    )
    if mode == "PerformanceOnly":
        rate = values.get("result_samples_per_second", 40.0)
        offline = values["effective_scenario"] == "Offline"
        name = "Samples per second" if offline else "Completed samples per second    "
        summary += f"{name}: {rate}\nResult is : VALID\n"
    write(folder / "mlperf_log_summary.txt", summary)


def answers(count: int, *, timed: bool, salt: int) -> str:
    """mlperf_log_accuracy.json of `count` answers of 40 tokens."""
    lines = []
    for index in range(count):
        data = array("i", [salt, *range(index + 10, index + 48), 2]).tobytes().hex().upper()
        first = f', "token_data" : "{data[:8]}"' if timed else ""
        lines.append(
            f'{{ "seq_id" : {index}, "qsl_idx" : {index}, "data" : "{data}"{first}, '
            f'"token_count" : 40 }}'
        )
    return "[\n" + ",\n".join(lines) + "\n]\n"


def package(folder: Path, text: str, scores: str) -> None:
    """The two ends of an accuracy log, and accuracy.txt with the hash of the whole."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    short = f"{text[:4096]}\n\n...\n\n{text[-4096:]}"
    write(folder / "mlperf_log_accuracy.json", short)
    write(folder / "accuracy.txt", f"{scores}\nhash={digest}\n")


def png(side: int = 1024) -> bytes:
    """A black image of side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(side)) * side)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def _system(root: Path, home: str) -> None:
    fields = {name: "N/A" for name in RULES.system_fields} | {
        "division": home.split("/")[0],
        "submitter": "Example",
        "status": "available",
        "system_type": "datacenter",
        "number_of_nodes": 1,
        "host_processors_per_node": 2,
        "accelerators_per_node": 8,
    }
    write(root / home / f"systems/{SYSTEM}.json", json.dumps(fields, indent=1))
    write(root / home / "documentation/bandwidth.md", "PCIe feeds it.\n")


def build_v6(root: Path) -> None:
    """v6.0. closed/Example: gpt-oss-120b, Offline and Server, TEST07 and TEST09; its accuracy run
    answers 4,395 samples of one dataset, its performance run 6,396 of another. open/Example:
    wan-2.2-t2v-a14b, SingleStream, with its videos.
    """
    rules, clock = load("v6.0"), Clock()
    for home in (CLOSED, OPEN):
        _system(root, home)
        write(root / home / "documentation/calibration.md", "MXFP4, no calibration.\n")
        write(root / home / "src/README.md", "./reproduce\n")
    for scenario in ("Offline", "Server"):
        folder = root / CLOSED / f"results/{SYSTEM}/gpt-oss-120b/{scenario}"
        _result_v6(folder, "gpt-oss-120b", scenario, clock, "'exact_match': 83.396", {})
        write(folder / "TEST07/verify_accuracy.txt", "'exact_match': 62.1\nTEST PASS\n")
        write(folder / "TEST09/verify_output_len.txt", "Mean output tokens: 1300\nTEST PASS\n")
    wan = "wan-2.2-t2v-a14b"
    folder = root / OPEN / f"results/{SYSTEM}/{wan}/SingleStream"
    logged = {"early_stopping_latency_ss": 27_400_000_000}
    _result_v6(folder, wan, "SingleStream", clock, "{'vbench_score': 70.5}", logged)
    for stem in rules.benchmarks[wan].extra_accuracy_files["videos"]:
        write(folder / f"accuracy/videos/{stem}.mp4", "a video\n")


def _result_v6(
    folder: Path, model: str, scenario: str, clock: Clock, scores: str, logged: dict[str, Any]
) -> None:
    rules = load("v6.0")
    described = {name: "fp4" for name in rules.measurement_fields}
    write(folder / "measurements.json", json.dumps(described))
    write(folder / "README.md", "./reproduce\n")
    write(folder / "user.conf", "*.*.target_qps = 40\n*.*.min_duration = 600000\n")
    run(folder / "performance/run_1", model, scenario, "PerformanceOnly", clock, logged, rules)
    count = rules.benchmarks[model].accuracy_samples(scenario)
    sampled = {"qsl_reported_total_count": count, "effective_accuracy_sample_count": count}
    run(folder / "accuracy", model, scenario, "AccuracyOnly", clock, sampled, rules)
    text = answers(60, timed=scenario == "Server", salt=len(model + scenario))
    package(folder / "accuracy", text, f"\n{scores}\n")


def build_edge(root: Path) -> None:
    """open/Example, an edge system: retinanet measured in SingleStream, and inferred from it."""
    clock, model = Clock(), "retinanet"
    _system(root, OPEN)
    path = root / OPEN / f"systems/{SYSTEM}.json"
    write(path, path.read_text(encoding="utf-8").replace('"datacenter"', '"edge"'))
    logged = {
        "early_stopping_latency_ss": 20_000_000,
        "early_stopping_latency_ms": 25_000_000,
        "result_qps_without_loadgen_overhead": 52.5,
    }
    for scenario in ("SingleStream", "MultiStream", "Offline"):
        _measurement(root, OPEN, model, scenario)
    home = root / OPEN / f"results/{SYSTEM}/{model}"
    run(
        home / "SingleStream/performance/run_1",
        model,
        "SingleStream",
        "PerformanceOnly",
        clock,
        logged,
    )
    run(home / "SingleStream/accuracy", model, "SingleStream", "AccuracyOnly", clock)
    package(home / "SingleStream/accuracy", answers(60, timed=False, salt=1), "mAP=37.5%\n")
    for scenario in ("MultiStream", "Offline"):
        shutil.copytree(home / "SingleStream", home / scenario)


def build(root: Path) -> None:
    """Write the whole tree below `root`."""
    clock = Clock()
    for home in (CLOSED, OPEN):
        _system(root, home)
    write(root / CLOSED / "documentation/calibration.md", "fp8, 512 samples.\n")
    write(root / OPEN / "model_mapping.json", '{"my-405b": "llama3.1-405b"}\n')
    for number, scenario in enumerate(("Offline", "Server", "Interactive")):
        _llama(root, scenario, clock, number)
    for number, scenario in enumerate(("Offline", "Server")):
        _sdxl(root, scenario, clock, 10 + number)
    _measurement(root, OPEN, "my-405b", "Offline")
    run(root / TUNED / "performance/run_1", "llama3.1-405b", "Offline", "PerformanceOnly", clock)
    run(root / TUNED / "accuracy", "llama3.1-405b", "Offline", "AccuracyOnly", clock)
    package(root / TUNED / "accuracy", answers(60, timed=False, salt=90), f"{TUNED_SCORES}\n")


def _measurement(root: Path, home: str, model: str, scenario: str) -> None:
    folder = root / home / f"measurements/{SYSTEM}/{model}/{scenario}"
    described = {name: "fp8" for name in RULES.measurement_fields}
    write(folder / f"{SYSTEM}.json", json.dumps(described))
    write(folder / "README.md", "./reproduce\n")
    write(folder / "user.conf", "*.*.target_qps = 40\n*.*.min_duration = 600000\n")
    write(root / home / f"code/{model}/README.md", "./reproduce\n")


def _llama(root: Path, scenario: str, clock: Clock, salt: int) -> None:
    model = "llama2-70b-99"
    folder = root / CLOSED / f"results/{SYSTEM}/{model}/{scenario}"
    _measurement(root, CLOSED, model, scenario)
    run(folder / "performance/run_1", model, scenario, "PerformanceOnly", clock)
    write(folder / "performance/run_1/mlperf_log_accuracy.json", "[\n]\n")
    run(folder / "accuracy", model, scenario, "AccuracyOnly", clock)
    timed = scenario != "Offline"
    package(folder / "accuracy", answers(60, timed=timed, salt=salt), f"{LLAMA_SCORES}\n")
    test = root / CLOSED / f"compliance/{SYSTEM}/{model}/{scenario}/TEST06"
    first = "True" if timed else "Skipped"
    write(
        test / "verify_accuracy.txt",
        f"First token check pass: {first}\nEOS check pass: True\nSample length check pass: True\n"
        "TEST06 verification complete\n",
    )
    write(test / "accuracy/mlperf_log_accuracy.json", answers(100, timed=timed, salt=50 + salt))


def _sdxl(root: Path, scenario: str, clock: Clock, salt: int) -> None:
    model = "stable-diffusion-xl"
    folder = root / CLOSED / f"results/{SYSTEM}/{model}/{scenario}"
    _measurement(root, CLOSED, model, scenario)
    target = {"effective_target_latency_ns": 20_000_000_000} if scenario == "Server" else {}
    run(folder / "performance/run_1", model, scenario, "PerformanceOnly", clock, target)
    run(folder / "accuracy", model, scenario, "AccuracyOnly", clock, target)
    scores = "Accuracy Results: {'FID_SCORE': '23.5', 'CLIP_SCORE': '31.75'}\n"
    package(folder / "accuracy", answers(60, timed=False, salt=salt), scores)
    image = png()
    for stem in RULES.benchmarks[model].extra_accuracy_files["images"]:
        path = folder / f"accuracy/images/{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    write(folder / "accuracy/images/captions.txt", "a cat\n")
    compliance = root / CLOSED / f"compliance/{SYSTEM}/{model}/{scenario}"
    verified = "Verifying performance.\nReference score = 40.0\nTest score = 40.0\nTEST PASS\n"
    for test, audit in (
        ("TEST01", {"effective_accuracy_log_sampling_target": 128}),
        ("TEST04", {"effective_performance_issue_same": True}),
    ):
        run(
            compliance / test / "performance/run_1",
            model,
            scenario,
            "PerformanceOnly",
            clock,
            target | audit,
        )
        write(compliance / test / "verify_performance.txt", verified)
    write(compliance / "TEST01/verify_accuracy.txt", "num_perf_log_entries = 128\nTEST PASS\n")
    package(compliance / "TEST01/accuracy", answers(60, timed=False, salt=70 + salt), "")
