"""The harness under the real LoadGen, with a scripted engine; one process per run, as in life."""

import copy
import csv
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.base.record import Manifest, publish
from steps.base.strict import Scenario
from steps.config.loadgen import Loadgen
from steps.config.runs import PerformanceRunConfig
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen_log import read_answers
from steps.mlperf.rounds import load
from steps.prepare import samples
from steps.run.sut.harness import EngineLoop, wait_until_ready
from steps.run.sut.user_conf import render_audit_config, render_user_conf
from tests.conftest import ROOT, planned

SAMPLES = 64
LIMIT_S = 60
START_LIMIT_S = 2
STALL_LIMIT_S = 1


def dataset_of(home: Path, content: pandas.DataFrame | bytes) -> Path:
    """A published dataset whose two files have this content; returns its manifest."""
    with publish(home, step="dataset", config={}, inputs={}, code="") as workspace:
        for name in ("evaluation.pkl", "calibration.pkl"):
            path = workspace.directory / name
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                content.to_pickle(path)
    return home / "manifest.json"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of one byte and a dataset of 64 prompts."""
    home = tmp_path_factory.mktemp("artifacts")
    with publish(home / "model", step="model", config={}, inputs={}, code="") as workspace:
        (workspace.directory / "model.safetensors").write_bytes(b"x")
        workspace.result = {"name": "tiny", "simulated": False}
    prompts = [[1, 4, 10 + n] for n in range(SAMPLES)]
    dataset_of(home / "dataset", pandas.DataFrame({"tok_input": prompts}))
    return {role: home / role / "manifest.json" for role in ("model", "dataset")}


@pytest.fixture(scope="module")
def configs() -> dict[tuple[str, str], dict[str, Any]]:
    """Configurations of the three runs, shrunk to a second."""
    plan = planned()
    found = {}
    for job in plan.jobs:
        if job.step.endswith("_run"):
            config = json.loads(job.config)
            config["loadgen"] |= {"performance_sample_count_override": SAMPLES}
            config["loadgen"]["target_qps"] = 600
            if job.step == "performance_run":
                config["loadgen"] |= {"min_query_count": SAMPLES, "min_duration_ms": 1}
                if config["scenario"] != "Offline":
                    # Early stopping judges nothing below 459 queries.
                    config["loadgen"]["min_query_count"] = 512
            config["engine"] |= {"stall_limit_s": STALL_LIMIT_S, "start_limit_s": START_LIMIT_S}
            found[job.step, config["scenario"]] = config
    return found


def command(
    step: str, config: dict[str, Any], inputs: dict[str, Path], home: Path, behaviour: str
) -> list[str]:
    return [
        *(sys.executable, "-m", "tests.fake_engine", step, behaviour),
        *("--config", json.dumps(config)),
        *("--input", *(f"{role}={path}" for role, path in inputs.items())),
        *("--output", str(home / "out" / "manifest.json"), "--log", str(home / "log")),
    ]


@pytest.fixture
def run(
    tmp_path: Path,
    artifacts: dict[str, Path],
    configs: dict[tuple[str, str], dict[str, Any]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    def start(
        step: str, scenario: str, behaviour: str = "answer", cwd: Path = ROOT, **changes: Any
    ) -> subprocess.CompletedProcess[str]:
        inputs = {**artifacts, **changes.pop("inputs", {})}
        config = {**configs[step, scenario], **changes}
        return subprocess.run(
            command(step, config, inputs, tmp_path, behaviour),
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    return start


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_an_accuracy_run_asks_for_every_sample_whatever_loadgen_holds_at_once(
    run: Run, tmp_path: Path, configs: dict[tuple[str, str], dict[str, Any]], scenario: str
) -> None:
    held = {"performance_sample_count_override": SAMPLES * 2 // 3}
    loadgen = configs["accuracy_run", scenario]["loadgen"] | held
    done = run("accuracy_run", scenario, loadgen=loadgen)
    assert done.returncode == 0, done.stderr
    answers = read_answers(tmp_path / "out" / "mlperf_log_accuracy.json")
    assert sorted(answer.sample_index for answer in answers) == list(range(SAMPLES))


@pytest.mark.parametrize("scenario", ["Offline", "Server", "Interactive"])
def test_a_performance_run_is_valid_and_complete(run: Run, tmp_path: Path, scenario: str) -> None:
    done = run("performance_run", scenario)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out" / "manifest.json")
    detail = read_detail(manifest.file("mlperf_log_detail.txt"))
    assert detail.get("result_validity") == "VALID"
    assert detail.get("num_errors") == 0
    assert detail.get("effective_test_mode") == "PerformanceOnly"
    wanted = "Offline" if scenario == "Offline" else "Server"
    assert detail.get("effective_scenario") == wanted
    if scenario == "Interactive":
        assert detail.get("requested_server_ttft_latency") == 450_000_000
    with manifest.file("samples.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == manifest.result["samples"] == (64 if scenario == "Offline" else 512)
    for row in rows:
        assert (row["input_tokens"], row["output_tokens"]) == ("3", "5")
        moments = [row["issued_s"], row["first_token_s"] or row["issued_s"], row["completed_s"]]
        assert moments == sorted(moments, key=float)
        assert (row["first_token_s"] == "") == (scenario == "Offline")
    assert {int(row["sample_index"]) for row in rows} == set(range(SAMPLES))
    assert manifest.result["output_tokens"] == 5 * len(rows)


def test_an_offline_run_in_sorted_order_is_valid_and_complete(
    run: Run, configs: dict[tuple[str, str], dict[str, Any]], tmp_path: Path
) -> None:
    prompts = [[1] * (5 + n % 7) for n in range(SAMPLES)]
    manifest = dataset_of(tmp_path / "dataset", pandas.DataFrame({"tok_input": prompts}))
    engine = configs["performance_run", "Offline"]["engine"] | {"offline_order": "longest_first"}
    done = run("performance_run", "Offline", inputs={"dataset": manifest}, engine=engine)
    assert done.returncode == 0, done.stderr
    result = Manifest.read(tmp_path / "out" / "manifest.json")
    detail = read_detail(result.file("mlperf_log_detail.txt"))
    assert detail.get("result_validity") == "VALID"
    with result.file("samples.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {int(row["sample_index"]) for row in rows if row["completed_s"]} == set(range(SAMPLES))
    assert all(row["input_tokens"] == str(len(prompts[int(row["sample_index"])])) for row in rows)


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_an_accuracy_run_logs_every_answer_once(run: Run, tmp_path: Path, scenario: str) -> None:
    done = run("accuracy_run", scenario)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out" / "manifest.json")
    answers = list(read_answers(manifest.file("mlperf_log_accuracy.json")))
    assert sorted(answer.sample_index for answer in answers) == list(range(SAMPLES))
    for answer in answers:
        assert answer.tokens == [10 + answer.sample_index] * 4 + [2]
        assert answer.token_count == 5
        assert answer.first_token == (None if scenario == "Offline" else answer.tokens[:1])


def test_a_compliance_run_is_under_its_audit_config(run: Run, tmp_path: Path) -> None:
    done = run("compliance_run", "Server")
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out" / "manifest.json")
    detail = read_detail(manifest.file("mlperf_log_detail.txt"))
    assert detail.get("effective_accuracy_log_sampling_target") == 100
    assert len(list(read_answers(manifest.file("mlperf_log_accuracy.json")))) == 100


@pytest.mark.parametrize("test", ["TEST01", "TEST04"])
def test_a_timed_test_runs_as_its_rule_says(
    run: Run,
    tmp_path: Path,
    configs: dict[tuple[str, str], dict[str, Any]],
    test: str,
) -> None:
    rule = load("v5.1").compliance[test]
    loadgen = configs["performance_run", "Offline"]["loadgen"]
    done = run("compliance_run", "Offline", test=test, audit=dict(rule.audit), loadgen=loadgen)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out" / "manifest.json")
    detail = read_detail(manifest.file("mlperf_log_detail.txt"))
    assert detail.get("result_validity") == "VALID"
    for key, value in rule.settings().items():
        assert detail.get(key) is value
    answers = list(read_answers(manifest.file("mlperf_log_accuracy.json")))
    assert bool(answers) == rule.logs_answers


def test_an_audit_config_that_lies_about_is_not_read(run: Run, tmp_path: Path) -> None:
    stray = tmp_path / "elsewhere"
    stray.mkdir()
    (stray / "audit.config").write_text("*.*.accuracy_log_sampling_target = 100\n")
    done = run("performance_run", "Offline", cwd=stray)
    assert done.returncode == 0, done.stderr
    detail = read_detail(tmp_path / "out" / "mlperf_log_detail.txt")
    assert detail.get("effective_accuracy_log_sampling_target") == 0


DURING = {
    "lose": ["sample ", " s for its answer", "1 wait in all"],
    "die": ["the engine died during the run", "out of memory"],
    "too-long": ["was answered with 161 tokens, and generation allows 2 to 160", "void"],
    "no-token": ["was answered with 0 tokens, and generation allows 2 to 160"],
    "one-token": ["was answered with 1 tokens, and generation allows 2 to 160"],
}
AT_START = {
    "no-start": ["no accelerator is there"],
    "two-threads": ["computes with 2 threads", "engine.threads is 1"],
    "slow-start": [f"not ready within start_limit_s = {START_LIMIT_S} s"],
}


@pytest.mark.parametrize("scenario", ["Offline", "Interactive"])
def test_the_longest_answers_that_are_allowed_count(run: Run, scenario: str) -> None:
    done = run("performance_run", scenario, "longest")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("scenario", "behaviour", "words"),
    [(scenario, *case) for scenario in ("Offline", "Server") for case in DURING.items()]
    + [("Offline", *case) for case in AT_START.items()],
)
def test_a_failing_engine_ends_the_run_with_one_sentence(
    run: Run, tmp_path: Path, scenario: str, behaviour: str, words: list[str]
) -> None:
    begun = time.monotonic()
    done = run("performance_run", scenario, behaviour)
    assert time.monotonic() - begun < 30
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["log"], "nothing half-written is left"


def test_threads_that_no_library_admits_end_the_run_before_loadgen(
    run: Run, configs: dict[tuple[str, str], dict[str, Any]], tmp_path: Path
) -> None:
    engine = configs["performance_run", "Offline"]["engine"] | {"start_limit_s": 60.0}
    done = run("performance_run", "Offline", "spin", engine=engine)
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "2 threads did the work of the engine's warm-up" in error
    assert "engine.threads is 1" in error
    assert [path.name for path in tmp_path.iterdir()] == ["log"], "nothing half-written is left"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_leaves_nothing(
    tmp_path: Path,
    artifacts: dict[str, Path],
    configs: dict[tuple[str, str], dict[str, Any]],
    number: signal.Signals,
) -> None:
    config = configs["performance_run", "Offline"]
    process = subprocess.Popen(
        command("performance_run", config, artifacts, tmp_path, "slow"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = time.monotonic() + LIMIT_S
    while not list(tmp_path.glob(".out.*/mlperf_log_detail.txt")):
        assert time.monotonic() < limit
        time.sleep(0.05)
    os.kill(process.pid, number)
    assert process.wait(10) == 128 + number
    assert process.stderr is not None
    text = process.stderr.read()
    assert "nothing was kept" in text
    assert "Traceback" not in text
    # LoadGen's threads are still running; an ordinary exit would trip over them.
    assert "terminate called" not in text + (tmp_path / "log").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_the_watchdog_counts_only_while_samples_wait(
    configs: dict[tuple[str, str], dict[str, Any]],
) -> None:
    config = copy.deepcopy(configs["performance_run", "Server"])
    config["engine"]["stall_limit_s"] = 0.2
    config["loadgen"]["target_qps"] = 10.0  # gaps of seconds are as likely as not
    loop = EngineLoop(
        config=PerformanceRunConfig.model_validate_json(json.dumps(config)),
        weights=Path(),
        prompts=[[1]] * SAMPLES,
        warmup=[],
        progress=lambda total: pytest.fail("nothing was answered"),
        say=lambda text: None,
    )
    loop.begin_test()
    time.sleep(0.3)
    assert loop.stalled() is None, "LoadGen has sent nothing yet"
    loop.issue([1], [7])
    assert loop.stalled() is None, "the engine has had no time for it"
    time.sleep(0.3)
    assert re.match("sample 7 has waited 0 s for its answer, 1 wait", loop.stalled() or "")


def test_a_silent_loadgen_is_noticed_too(
    configs: dict[tuple[str, str], dict[str, Any]],
) -> None:
    config = copy.deepcopy(configs["performance_run", "Server"])
    config["engine"]["stall_limit_s"] = 0.1
    config["loadgen"]["target_qps"] = 300.0
    loop = EngineLoop(
        config=PerformanceRunConfig.model_validate_json(json.dumps(config)),
        weights=Path(),
        prompts=[[1]] * SAMPLES,
        warmup=[],
        progress=lambda total: pytest.fail("nothing was answered"),
        say=lambda text: None,
    )
    loop.begin_test()
    time.sleep(0.3)
    assert "LoadGen sent nothing" in (loop.stalled() or "")


def test_a_small_dataset_is_refused(
    run: Run, configs: dict[tuple[str, str], dict[str, Any]]
) -> None:
    config = configs["performance_run", "Offline"]
    done = run(
        "performance_run",
        "Offline",
        loadgen={**config["loadgen"], "performance_sample_count_override": 65},
    )
    assert done.returncode == 1
    assert "the dataset has 64 samples, LoadGen loads 65" in done.stderr


def test_a_dataset_that_loadgen_would_crash_on_is_refused(
    run: Run, configs: dict[tuple[str, str], dict[str, Any]]
) -> None:
    """A test that issues each loaded sample once, as TEST07: LoadGen's Offline ends in SIGSEGV."""
    loadgen = configs["compliance_run", "Offline"]["loadgen"]
    audit = {"mode": 2, "min_query_count": 64, "min_duration": 0, "performance_issue_unique": 1}
    for loaded, status in ((65, 1), (64, 0)):
        done = run(
            "compliance_run",
            "Offline",
            audit=audit,
            loadgen={**loadgen, "performance_sample_count_override": loaded},
        )
        assert done.returncode == status, done.stderr
        assert ("LoadGen loads 65" in done.stderr) == bool(status)


def test_a_changed_dataset_is_never_unpickled(
    run: Run, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    """Its bytes are no longer the recipe's, and unpickling would run them."""
    copy = tmp_path / "dataset"
    shutil.copytree(artifacts["dataset"].parent, copy)
    path = copy / "evaluation.pkl"
    path.write_bytes(path.read_bytes()[:-10])
    done = run("performance_run", "Offline", inputs={"dataset": copy / "manifest.json"})
    assert done.returncode == 1
    assert "does not match its sha256" in done.stderr


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"input": ["no tokens here"]}, "tok_input"),
        ({"tok_input": [[1, 2], []]}, "sample 1 has no tokens"),
        ({"tok_input": [None]}, "isn't a table of prompts"),
        ({"tok_input": []}, "it has no rows"),
    ],
)
def test_a_dataset_of_another_kind_is_refused(
    tmp_path: Path, table: dict[str, list[Any]], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        samples.load(dataset_of(tmp_path / "dataset", pandas.DataFrame(table)))


@pytest.mark.parametrize(
    ("stops", "words"),
    [
        ([[9], []], "tok_stop_sequence .sample 1 has no tokens"),
        ([[9], [9, -1]], "tok_stop_sequence .sample 1 has a token -1"),
        ([[9], None], "tok_stop_sequence"),
        (None, "tok_stop_sequence"),
    ],
)
def test_an_empty_stop_sequence_is_refused(tmp_path: Path, stops: Any, words: str) -> None:
    table = {"tok_input": [[1, 2], [3]], **({"tok_stop_sequence": stops} if stops else {})}
    manifest = dataset_of(tmp_path / "dataset", pandas.DataFrame(table))
    assert samples.load(manifest).stops == []
    with pytest.raises(UserError, match=words):
        samples.load(manifest, stops=True)


@given(st.integers(0, 10_000))
def test_a_truncated_pickle_is_refused(kept: int) -> None:
    whole = pickle.dumps(pandas.DataFrame({"tok_input": [[1, 2, 3]] * 4}))
    with tempfile.TemporaryDirectory() as home:
        manifest = dataset_of(Path(home) / "dataset", whole[: kept % len(whole)])
        with pytest.raises(UserError, match="isn't a table of prompts"):
            samples.load(manifest)


def test_prompts_that_leave_no_room_for_answers_are_refused(run: Run, tmp_path: Path) -> None:
    table = pandas.DataFrame({"tok_input": [[1, 2]] * 3 + [[1] * 1000] + [[1]] * SAMPLES})
    manifest = dataset_of(tmp_path / "long", table)
    done = run("performance_run", "Offline", inputs={"dataset": manifest})
    assert done.returncode == 1
    assert "evaluation sample 3 has 1000 tokens, but max_model_len leaves room" in done.stderr


def test_another_loadgen_than_the_rounds_is_refused(
    run: Run, configs: dict[tuple[str, str], dict[str, Any]]
) -> None:
    rules = {**configs["performance_run", "Offline"]["rules"], "loadgen_version": "6.0.15"}
    done = run("performance_run", "Offline", rules=rules)
    assert done.returncode == 1
    assert "needs 6.0.15" in done.stderr


@given(
    st.floats(0.001, 1e7),
    st.integers(1, 10**9) | st.none(),
    st.sampled_from(["Offline", "Server", "Interactive"]),
)
def test_user_conf_has_plain_numbers(qps: float, duration: int | None, scenario: Scenario) -> None:
    loadgen = Loadgen(
        model="llama2-70b",
        target_qps=qps,
        min_duration_ms=duration,
        min_query_count=None,
        performance_sample_count_override=None,
    )
    lines = render_user_conf(loadgen, scenario).splitlines()
    assert len(lines) == (1 if duration is None else 2)
    values = dict(line.split(" = ") for line in lines)
    name = "Offline" if scenario == "Offline" else "Server"
    text = values[f"llama2-70b.{name}.target_qps"]
    assert float(text) == qps
    assert "e" not in text


def test_an_audit_config_holds_for_every_model_and_scenario() -> None:
    text = render_audit_config({"mode": 2, "min_query_count": 100})
    assert text == "*.*.mode = 2\n*.*.min_query_count = 100\n"


def test_what_nodes_are_sent_is_not_counted_as_their_start() -> None:
    """The limit begins again as long as they are sent something, and then it ends the wait."""
    begun = time.monotonic()
    sent: Any = SimpleNamespace(sent_s=begun + 1.0)
    loop: Any = SimpleNamespace(ready=threading.Event(), backend=sent, error=None)
    with pytest.raises(UserError, match="not ready within start_limit_s"):
        wait_until_ready(loop, 0.3)
    assert 1.2 < time.monotonic() - begun < 10
