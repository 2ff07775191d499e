"""One way to damage the valid tree for every code of a finding."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.submit.validate import trees
from tests.submit.validate.trees import (
    CLOSED,
    INTERACTIVE,
    OFFLINE,
    OPEN,
    RULES,
    SDXL,
    SDXL_SERVER,
    SERVER,
    SYSTEM,
    TUNED,
    record,
)

Damage = Callable[[Path], None]

POWER_TIME = "%m-%d-%Y %H:%M:%S.%f"
PERFORMANCE = "performance/run_1"
DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"
ANSWERS, SCORES = "mlperf_log_accuracy.json", "accuracy.txt"
OFFLINE_LOG = f"{OFFLINE}/{PERFORMANCE}/{DETAIL}"
ACCURACY_LOG = f"{OFFLINE}/accuracy/{DETAIL}"
DESCRIPTION = f"{CLOSED}/systems/{SYSTEM}.json"
MEASUREMENT = f"{CLOSED}/measurements/{SYSTEM}/llama2-70b-99/Offline"
TEST06 = f"{CLOSED}/compliance/{SYSTEM}/llama2-70b-99/Server/TEST06"
TEST01 = f"{CLOSED}/compliance/{SYSTEM}/stable-diffusion-xl/Offline/TEST01"
TEST04 = f"{CLOSED}/compliance/{SYSTEM}/stable-diffusion-xl/Offline/TEST04"


def write(path: str, text: str) -> Damage:
    return lambda root: trees.write(root / path, text)


def delete(path: str) -> Damage:
    def damage(root: Path) -> None:
        target = root / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def replace(path: str, old: str, new: str) -> Damage:
    def damage(root: Path) -> None:
        text = (root / path).read_text(encoding="utf-8")
        assert old in text, f"{path} has no {old!r}"
        (root / path).write_text(text.replace(old, new), encoding="utf-8")

    return damage


def append(path: str, text: str) -> Damage:
    def damage(root: Path) -> None:
        with (root / path).open("a", encoding="utf-8") as stream:
            stream.write(text)

    return damage


def log(path: str, key: str, value: Any) -> Damage:
    """Give a key of a detail log another value; None takes its record away."""

    def damage(root: Path) -> None:
        lines = (root / path).read_text(encoding="utf-8").splitlines(keepends=True)
        at = next(n for n, line in enumerate(lines) if f'"key": "{key}"' in line)
        entry = json.loads(lines[at].removeprefix(":::MLLOG "))
        lines[at] = "" if value is None else record(key, value, entry["time_ms"])
        (root / path).write_text("".join(lines), encoding="utf-8")

    return damage


def field(path: str, name: str, value: Any) -> Damage:
    """Give a field of a JSON file another value; None takes it away."""

    def damage(root: Path) -> None:
        fields = json.loads((root / path).read_text(encoding="utf-8"))
        if value is None:
            del fields[name]
        else:
            fields[name] = value
        (root / path).write_text(json.dumps(fields), encoding="utf-8")

    return damage


def each(*damages: Damage) -> Damage:
    def damage(root: Path) -> None:
        for one in damages:
            one(root)

    return damage


def powered(result: str) -> Damage:
    """A power measurement beside a performance run, whose meter logged at its begin and later."""

    def damage(root: Path) -> None:
        parent = root / result / "performance"
        text = (parent / "run_1" / DETAIL).read_text(encoding="utf-8")
        begin = datetime.strptime(text.split('"power_begin", "value": "')[1][:23], POWER_TIME)
        times = (begin + timedelta(seconds=second) for second in (0, 1, 2))
        lines = "".join(f"Time,{at:%m-%d-%Y %H:%M:%S}.500,Watts,2884.0,Volts,211\n" for at in times)
        trees.write(parent / "run_1" / "spl.txt", f"Some,Other\n{lines}")
        shutil.copytree(parent / "run_1", parent / "ranging")
        for name in ("client.json", "client.log", "ptd_logs.txt", "server.json", "server.log"):
            trees.write(parent / "power" / name, "{}")

    return damage


def copy(source: str, destination: str) -> Damage:
    def damage(root: Path) -> None:
        target = root / destination
        if (root / source).is_dir():
            shutil.copytree(root / source, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / source, target)

    return damage


def move(source: str, destination: str) -> Damage:
    return each(copy(source, destination), delete(source))


def not_utf8(path: str) -> Damage:
    def damage(root: Path) -> None:
        (root / path).write_bytes((root / path).read_bytes() + b"\xff\n")

    return damage


def link(path: str, target: str) -> Damage:
    return lambda root: os.symlink(target, root / path)


def pipe(path: str) -> Damage:
    return lambda root: os.mkfifo(root / path)


def sparse(path: str, size: int) -> Damage:
    def damage(root: Path) -> None:
        with (root / path).open("wb") as stream:
            stream.truncate(size)

    return damage


def folder(path: str) -> Damage:
    return lambda root: (root / path).mkdir(parents=True)


def whole_log(path: str) -> Damage:
    """A short accuracy log, whole, beside the hash of another."""
    return lambda root: trees.write(root / path, trees.answers(3, timed=False, salt=1))


def test01_differs(compliance_clip: str) -> Damage:
    scores = "{'FID_SCORE': '23.5', 'CLIP_SCORE': '%s'}\n"
    return each(
        write(f"{TEST01}/verify_accuracy.txt", "num_perf_log_data_mismatch = 3\nTEST FAIL\n"),
        write(f"{TEST01}/accuracy/baseline_accuracy.txt", scores % "31.75"),
        write(f"{TEST01}/accuracy/compliance_accuracy.txt", scores % compliance_clip),
    )


def too_deep(root: Path) -> None:
    """Directories below a path that is too long to be opened; holds for root too."""
    descriptor = os.open(root / CLOSED / "documentation", os.O_RDONLY)
    for _ in range(17):
        os.mkdir("d" * 250, dir_fd=descriptor)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def drop_everything(root: Path) -> None:
    for name in ("closed", "open"):
        shutil.rmtree(root / name)


SEED_V6 = 2465351861681999779

DAMAGES: Mapping[str, Damage] = {
    "tree-empty": drop_everything,
    "tree-layout": each(
        delete(f"{CLOSED}/measurements"), delete(f"{OPEN}/measurements"), folder(f"{CLOSED}/src")
    ),
    "tree-unreadable": too_deep,
    "root-file": write("results.csv", "a"),
    "root-directory": write("draft/notes.md", "a"),
    "division-file": write("closed/notes.md", "a"),
    "submitter-without-results": write("closed/Other/systems/a.json", "{}"),
    "symlink": link(f"{CLOSED}/documentation/more.md", "calibration.md"),
    "special-file": pipe(f"{CLOSED}/documentation/pipe"),
    "file-size": sparse(f"{CLOSED}/documentation/video", (50 << 20) + 1),
    "hidden-name": write(f"{CLOSED}/.DS_Store", "a"),
    "space-in-name": write(f"{CLOSED}/documentation/my notes.md", "a"),
    "unsafe-name": write(f"{CLOSED}/documentation/a\tb.md", "a"),
    "pycache": write(f"{CLOSED}/code/llama2-70b-99/__pycache__/a.pyc", "a"),
    "empty-directory": folder(f"{CLOSED}/documentation/figures"),
    "without-results": write(f"{CLOSED}/systems/other.json", "{}"),
    "calibration-missing": delete(f"{CLOSED}/documentation/calibration.md"),
    "calibration-empty": write(f"{CLOSED}/documentation/calibration.md", ""),
    "bandwidth-missing": delete(f"{CLOSED}/documentation/bandwidth.md"),
    "model-mapping-damaged": write(f"{OPEN}/model_mapping.json", '["my-405b"]'),
    "model-unknown": delete(f"{OPEN}/model_mapping.json"),
    "model-not-for-system": field(DESCRIPTION, "system_type", "edge"),
    "system-missing": delete(DESCRIPTION),
    "system-damaged": replace(DESCRIPTION, "{", "["),
    "system-duplicate-key": replace(DESCRIPTION, "{", '{"cooling": "air",'),
    "system-field-missing": field(DESCRIPTION, "cooling", None),
    "system-field-empty": field(DESCRIPTION, "cooling", ""),
    "system-field-unknown": field(DESCRIPTION, "colour", "red"),
    "system-field-type": field(DESCRIPTION, "accelerator_model_name", 325),
    "system-quotes": field(DESCRIPTION, "system_name", '19" rack'),
    "system-count": field(DESCRIPTION, "accelerators_per_node", "eight"),
    "system-status": field(DESCRIPTION, "status", "research"),
    "system-type": field(DESCRIPTION, "system_type", "datacenter, edge"),
    "system-submitter": field(DESCRIPTION, "submitter", "Other"),
    "system-division": field(DESCRIPTION, "division", "Closed"),
    "system-network": field(DESCRIPTION, "is_network", "true"),
    "scenario-unknown": copy(OFFLINE, OFFLINE.replace("Offline", "Offlin")),
    "scenario-twice": copy(OFFLINE, OFFLINE.replace("Offline", "offline")),
    "scenario-not-allowed": copy(OFFLINE, OFFLINE.replace("Offline", "SingleStream")),
    "scenario-missing": delete(OFFLINE),
    "scenario-one-of": each(delete(SERVER), delete(INTERACTIVE)),
    "power-files": each(powered(OFFLINE), delete(f"{OFFLINE}/performance/power/ptd_logs.txt")),
    "power-samples": each(
        powered(OFFLINE),
        write(f"{OFFLINE}/{PERFORMANCE}/spl.txt", "Time,07-30-2025 07:00:00.000,Watts,10.0\n"),
    ),
    "power-not-checked": powered(OFFLINE),
    "measurement-missing": delete(MEASUREMENT),
    "measurement-file-missing": delete(f"{MEASUREMENT}/README.md"),
    "measurement-file-empty": write(f"{MEASUREMENT}/user.conf", ""),
    "measurement-json-missing": move(
        f"{MEASUREMENT}/{SYSTEM}.json", f"{MEASUREMENT}/model-info.json"
    ),
    "measurement-json-damaged": write(f"{MEASUREMENT}/{SYSTEM}.json", '{"retraining": '),
    "measurement-field": field(f"{MEASUREMENT}/{SYSTEM}.json", "retraining", False),
    "code-missing": delete(f"{CLOSED}/code/llama2-70b-99"),
    "code-outside": each(
        delete(f"{CLOSED}/code/llama2-70b-99"), write(f"{CLOSED}/code/llama2-70b-99", "../results")
    ),
    "user-conf-damaged": append(f"{MEASUREMENT}/user.conf", "target_qps: 40\n"),
    "user-conf-contradicts": replace(f"{MEASUREMENT}/user.conf", "qps = 40", "qps = 41"),
    "user-conf-no-target": write(f"{MEASUREMENT}/user.conf", "*.*.min_duration = 600000\n"),
    "user-conf-open-only": append(
        f"{CLOSED}/measurements/{SYSTEM}/llama2-70b-99/Server/user.conf",
        "*.*.ttft_latency = 9000\n",
    ),
    "log-damaged": replace(OFFLINE_LOG, '"key": "effective_scenario"', '"key": effective_scenario'),
    "log-value": log(OFFLINE_LOG, "result_tokens_per_second", float("nan")),
    "log-conflict": append(OFFLINE_LOG, record("result_validity", "INVALID")),
    "performance-missing": delete(f"{OFFLINE}/{PERFORMANCE}"),
    "performance-files": write(f"{OFFLINE}/{PERFORMANCE}/notes.txt", "a"),
    "performance-extra-run": copy(f"{OFFLINE}/{PERFORMANCE}", f"{OFFLINE}/performance/run_2"),
    "performance-answers": copy(
        f"{TEST06}/accuracy/{ANSWERS}", f"{OFFLINE}/{PERFORMANCE}/{ANSWERS}"
    ),
    "performance-invalid": log(OFFLINE_LOG, "result_validity", "INVALID"),
    "performance-flag": log(OFFLINE_LOG, "early_stopping_met", False),
    "performance-error": log(OFFLINE_LOG, "num_errors", 1),
    "performance-error-hidden": append(OFFLINE_LOG, record("error_runtime", "late", error=True)),
    "performance-mode": log(OFFLINE_LOG, "effective_test_mode", "SubmissionRun"),
    "performance-audit": log(OFFLINE_LOG, "effective_performance_issue_same", True),
    "performance-scenario": log(
        f"{INTERACTIVE}/{PERFORMANCE}/{DETAIL}", "effective_scenario", "Offline"
    ),
    "performance-network": each(
        move("closed", "network"),
        *(
            field(DESCRIPTION.replace("closed", "network"), name, value)
            for name, value in (
                *((name, "x") for name in RULES.system_fields_network),
                ("is_network", "true"),
                ("division", "network"),
            )
        ),
    ),
    "performance-seed": log(OFFLINE_LOG, "effective_qsl_rng_seed", SEED_V6),
    "performance-sample-count": log(OFFLINE_LOG, "effective_performance_sample_count", 24575),
    "performance-dataset": log(OFFLINE_LOG, "qsl_reported_total_count", 100),
    "performance-offline-samples": log(OFFLINE_LOG, "effective_samples_per_query", 24575),
    "performance-min-queries": log(OFFLINE_LOG, "effective_min_query_count", 0),
    "performance-duration": log(OFFLINE_LOG, "effective_min_duration_ms", 599999),
    "performance-duration-measured": replace(OFFLINE_LOG, "900000.0", "90000.0"),
    "performance-equal-issue": log(OFFLINE_LOG, "effective_sample_concatenate_permutation", False),
    "performance-token-latencies": log(OFFLINE_LOG, "requested_use_token_latencies", False),
    "performance-latency": log(
        f"{SERVER}/{PERFORMANCE}/{DETAIL}",
        "result_first_token_99.00_percentile_latency_ns",
        2_000_000_000,
    ),
    "performance-judged-limits": log(
        f"{INTERACTIVE}/{PERFORMANCE}/{DETAIL}", "requested_server_ttft_latency", 2_000_000_000
    ),
    "performance-target-latency": log(
        f"{SDXL_SERVER}/{PERFORMANCE}/{DETAIL}", "effective_target_latency_ns", 20_000_000_001
    ),
    "performance-result": log(OFFLINE_LOG, "result_tokens_per_second", 0),
    "summary-empty": write(f"{OFFLINE}/{PERFORMANCE}/{SUMMARY}", ""),
    "summary-damaged": not_utf8(f"{OFFLINE}/{PERFORMANCE}/{SUMMARY}"),
    "summary-contradicts": replace(f"{OFFLINE}/{PERFORMANCE}/{SUMMARY}", "40.0", "48.0"),
    "accuracy-missing": delete(f"{OFFLINE}/accuracy/{SCORES}"),
    "accuracy-files": write(f"{OFFLINE}/accuracy/notes.txt", "a"),
    "accuracy-text-damaged": replace(f"{OFFLINE}/accuracy/{SCORES}", "44.5", "44.5.1"),
    "accuracy-metric": replace(f"{OFFLINE}/accuracy/{SCORES}", "44.5", "np.float64(44.5)"),
    "accuracy-low": replace(f"{OFFLINE}/accuracy/{SCORES}", "44.5", "43.98"),
    "accuracy-high": replace(f"{OFFLINE}/accuracy/{SCORES}", "301.0", "323.9"),
    "accuracy-sample-count": replace(f"{OFFLINE}/accuracy/{SCORES}", "24576", "100"),
    "accuracy-hash-missing": replace(f"{OFFLINE}/accuracy/{SCORES}", "hash=", "sha256="),
    "accuracy-hash-format": replace(f"{OFFLINE}/accuracy/{SCORES}", "hash=", "hash=x"),
    "accuracy-hash-wrong": whole_log(f"{OFFLINE}/accuracy/{ANSWERS}"),
    "accuracy-not-truncated": append(f"{OFFLINE}/accuracy/{ANSWERS}", " " * 2048),
    "accuracy-log-shape": write(f"{OFFLINE}/accuracy/{ANSWERS}", "[\n]\n"),
    "accuracy-error": append(ACCURACY_LOG, record("error_runtime", "lost", error=True)),
    "accuracy-mode": log(ACCURACY_LOG, "effective_test_mode", "PerformanceOnly"),
    "accuracy-dataset": log(ACCURACY_LOG, "qsl_reported_total_count", 24575),
    "accuracy-scenario": log(ACCURACY_LOG, "effective_scenario", "Server"),
    "accuracy-seed": log(ACCURACY_LOG, "effective_schedule_rng_seed", 1),
    "accuracy-images-missing": delete(f"{SDXL}/accuracy/images/2747.png"),
    "accuracy-image-fake": write(f"{SDXL}/accuracy/images/2747.png", "an image\n"),
    "accuracy-captions-missing": delete(f"{SDXL}/accuracy/images/captions.txt"),
    "compliance-missing": delete(TEST06),
    "compliance-files": delete(f"{TEST04}/verify_performance.txt"),
    "compliance-failed": replace(f"{TEST06}/verify_accuracy.txt", "EOS check pass: True", ""),
    "compliance-first-token": replace(
        f"{TEST06}/verify_accuracy.txt", "token check pass: True", "token check pass: Skipped"
    ),
    "compliance-log-missing": delete(f"{TEST06}/accuracy/{ANSWERS}"),
    "compliance-log": replace(
        f"{TEST06}/accuracy/{ANSWERS}", '"token_count" : 40', '"token_count" : 41'
    ),
    "compliance-settings": log(
        f"{TEST04}/{PERFORMANCE}/{DETAIL}", "effective_performance_issue_same", False
    ),
    "compliance-contradicts": replace(
        f"{TEST04}/verify_performance.txt", "Reference score = 40.0", "Reference score = 44.0"
    ),
    "compliance-speed": each(
        log(f"{TEST04}/{PERFORMANCE}/{DETAIL}", "result_samples_per_second", 60.0),
        replace(f"{TEST04}/verify_performance.txt", "Test score = 40.0", "Test score = 60.0"),
        replace(f"{TEST04}/{PERFORMANCE}/{SUMMARY}", "40.0", "60.0"),
    ),
    "compliance-delta": test01_differs("32.2"),
    "audit-copied-log": each(
        copy(f"{SERVER}/accuracy/{ANSWERS}", f"{OFFLINE}/accuracy/{ANSWERS}"),
        copy(f"{SERVER}/accuracy/{SCORES}", f"{OFFLINE}/accuracy/{SCORES}"),
    ),
    "audit-time": log(OFFLINE_LOG, "loadgen_build_date_utc", "2025-08-02T10:00:00.000000"),
    "audit-overlap": log(OFFLINE_LOG, "power_end", "07-30-2025 09:00:00.000"),
    "audit-accuracy-speed": log(ACCURACY_LOG, "power_end", "07-30-2025 23:00:00.000"),
    "audit-loadgen-version": log(ACCURACY_LOG, "loadgen_version", "5.0.21 @ 0910c6e300"),
    "audit-loadgen-changed": log(OFFLINE_LOG, "loadgen_git_status_message", " M loadgen.cc"),
}
"""Codes of later rounds only are in tests/submit/validate/test_damages.py."""

TUNED_SCORES = f"{TUNED}/accuracy/{SCORES}"
