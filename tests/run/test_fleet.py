"""Engine processes under the real LoadGen: null engines, and what happens when one dies."""

import csv
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steps.base.record import Manifest
from steps.config.layers import merged
from steps.judge.disturbances import window_of
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen_log import read_answers
from tests.conftest import planned
from tests.run.test_journal import BOUNDS
from tests.running import Running, alive, artifacts_of

pytestmark = pytest.mark.command

SAMPLES = 64
ENGINES = 3


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return artifacts_of(tmp_path_factory.mktemp("artifacts"), SAMPLES)


@pytest.fixture(scope="module")
def configs() -> dict[tuple[str, str], dict[str, Any]]:
    """The null engine's runs, as several slow engines: a run takes two to three seconds."""
    plan = planned("experiment=null-engine", "scenario=Offline,Server")
    found = {}
    for job in plan.jobs:
        if job.step.endswith("_run"):
            config = json.loads(job.config)
            changes: dict[str, Any] = {
                "loadgen": {"performance_sample_count_override": SAMPLES, "target_qps": 300},
                "engine": {
                    "arguments": {"max_num_seqs": 32, "speeds": [1, 1, 1.5]},
                    "placement": {"engines_per_node": ENGINES},
                },
            }
            if job.step == "performance_run":
                changes["loadgen"] |= {"min_query_count": 640, "min_duration_ms": 1}
            found[job.step, config["scenario"]] = merged(config, changes)
    return found


Start = Callable[..., Running]


@pytest.fixture
def start(
    tmp_path: Path,
    artifacts: dict[str, Path],
    configs: dict[tuple[str, str], dict[str, Any]],
) -> Iterator[Start]:
    started = []

    def begin(step: str, scenario: str, **engine: Any) -> Running:
        config = merged(configs[step, scenario], {"engine": engine})
        started.append(Running(step, config, artifacts, tmp_path, ENGINES))
        return started[-1]

    yield begin
    for running in started:
        running.process.kill()
        running.process.wait()
        limit = time.monotonic() + 5
        while any(map(alive, running.engines)):
            assert time.monotonic() < limit, "an engine outlived its run"
            time.sleep(0.02)


def rows(manifest: Manifest) -> list[dict[str, str]]:
    with manifest.file("samples.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def check_whole(manifest: Manifest) -> None:
    """Valid, every sample answered once, and the result tells by whom."""
    detail = read_detail(manifest.file("mlperf_log_detail.txt"))
    assert detail.get("num_errors") == 0
    assert manifest.result["engine"]["name"] == "null"
    table = rows(manifest)
    assert len(table) == 640
    assert all(float(row["completed_s"]) >= float(row["issued_s"]) for row in table)
    tokens = sum(int(row["output_tokens"]) for row in table)
    assert tokens == manifest.result["output_tokens"]
    engines = manifest.result["engines"]
    assert sum(engine["samples"] for engine in engines) == 640
    assert sum(engine["output_tokens"] for engine in engines) == tokens


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_a_fleet_answers_everything_and_the_fast_engine_more(start: Start, scenario: str) -> None:
    running = start("performance_run", scenario)
    status, text = running.ended()
    assert status == 0, text
    for number in range(ENGINES):
        assert f"engine {number} is ready" in text
    check_whole(running.manifest())
    slow, other, fast = running.manifest().result["engines"]
    assert fast["samples"] > 1.15 * max(slow["samples"], other["samples"])


def test_an_accuracy_run_asks_for_every_sample_once(start: Start) -> None:
    running = start("accuracy_run", "Server")
    status, text = running.ended()
    assert status == 0, text
    answers = list(read_answers(running.manifest().file("mlperf_log_accuracy.json")))
    assert sorted(answer.sample_index for answer in answers) == list(range(SAMPLES))
    lengths = {answer.sample_index: answer.token_count for answer in answers}
    assert len(set(lengths.values())) > 10
    assert all(answer.tokens[-1] == 2 for answer in answers)


@pytest.mark.parametrize(
    ("number", "scenario", "words"),
    [
        (signal.SIGKILL, "Offline", "engine 1 was killed by SIGKILL during the run"),
        (signal.SIGSTOP, "Server", "engine 1 gave no sign of life for 2 s during the run"),
    ],
)
def test_a_dead_engine_ends_the_run_at_once_by_name(
    start: Start, number: signal.Signals, scenario: str, words: str
) -> None:
    running = start("performance_run", scenario, placement={"silence_limit_s": 1.5})
    running.wait_until_running()
    time.sleep(0.3)
    os.kill(running.engines[1], number)
    begun = time.monotonic()
    status, text = running.ended()
    assert status == 1
    assert words in text
    assert "the run is void" in text
    assert "Traceback" not in text
    assert time.monotonic() - begun < 15
    assert not (running.home / "out").exists()


def test_a_batch_that_takes_longer_than_the_limit_ends_the_run_by_name(start: Start) -> None:
    running = start("performance_run", "Offline", arguments={"ttft_ms": 3000}, stall_limit_s=1.0)
    status, text = running.ended()
    assert status == 1
    assert re.search(r"engine( \d)? made no progress for [1-9] s", text)
    assert "the run is void" in text
    assert "Traceback" not in text
    assert not (running.home / "out").exists()


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_the_others_answer_for_a_dead_engine_if_so_configured(start: Start, scenario: str) -> None:
    running = start("performance_run", scenario, placement={"on_failure": "redispatch"})
    running.wait_until_running()
    time.sleep(0.3)
    os.kill(running.engines[1], signal.SIGKILL)
    status, text = running.ended()
    assert status == 0, text
    check_whole(running.manifest())
    (failure,) = running.manifest().result["failures"]
    assert failure.startswith("engine 1 was killed by SIGKILL; ")


def test_a_slow_engine_is_named(start: Start) -> None:
    running = start("performance_run", "Offline", arguments={"speeds": [1, 0.6, 1]})
    status, text = running.ended()
    assert status == 0, text
    assert "engine 1 is at 6" in text
    (words,) = running.manifest().result["degraded"]
    assert words.startswith("engine 1 ran at 6")


@pytest.mark.parametrize("on_failure", ["fail", "redispatch"])
def test_an_engine_that_cannot_start_is_done_without_if_so_configured(
    start: Start, on_failure: str
) -> None:
    running = start("performance_run", "Offline", placement={"on_failure": on_failure})
    os.kill(running.first_engine(), signal.SIGKILL)
    status, text = running.ended()
    assert "engine 0 was killed by SIGKILL at start" in text
    assert "Traceback" not in text
    assert status == (1 if on_failure == "fail" else 0)
    if not status:
        check_whole(running.manifest())
        assert running.manifest().result["degraded"][0] == "engine 0 could not start"


def test_one_engine_of_eight_that_does_not_come_up_is_one_sentence_before_loadgen_starts(
    configs: dict[tuple[str, str], dict[str, Any]], artifacts: dict[str, Path], tmp_path: Path
) -> None:
    eight = {"placement": {"engines_per_node": 8}, "arguments": {"speeds": [1] * 8}}
    config = merged(configs["performance_run", "Offline"], {"engine": eight})
    running = Running("performance_run", config, artifacts, tmp_path, engines=8)
    os.kill(running.first_engine(), signal.SIGKILL)
    status, text = running.ended()
    (error,) = [line for line in text.splitlines() if line.startswith("error:")]
    assert status == 1 and "engine 0 was killed by SIGKILL at start" in error
    assert not list(tmp_path.rglob("mlperf_log_*")), "LoadGen never began"


@pytest.mark.parametrize("on_failure", ["fail", "redispatch"])
def test_an_engine_that_is_stopped_at_start_is_not_waited_for(
    start: Start, on_failure: str
) -> None:
    placement = {"on_failure": on_failure, "silence_limit_s": 2}
    running = start("performance_run", "Offline", placement=placement)
    os.kill(running.first_engine(), signal.SIGSTOP)
    begun = time.monotonic()
    status, text = running.ended()
    assert time.monotonic() - begun < 30
    assert "engine 0 is stopped and gave no sign of life for 2 s at start" in text
    assert status == (1 if on_failure == "fail" else 0)


@pytest.mark.parametrize("on_failure", ["fail", "redispatch"])
def test_an_engine_that_is_stopped_before_it_has_read_its_prompts_is_named(
    configs: dict[tuple[str, str], dict[str, Any]], tmp_path: Path, on_failure: str
) -> None:
    """They are more than a socket's buffer takes."""
    inputs = artifacts_of(tmp_path / "artifacts", 30_000)
    engine = {"start_limit_s": 24, "placement": {"on_failure": on_failure}}
    config = merged(configs["performance_run", "Offline"], {"engine": engine})
    running = Running("performance_run", config, inputs, tmp_path, ENGINES)
    os.kill(running.first_engine(), signal.SIGSTOP)
    status, text = running.ended()
    assert status == (1 if on_failure == "fail" else 0), text
    assert "engine 0 took nothing and gave no sign of life for 6 s at start" in text


def test_the_last_engines_death_ends_the_run(start: Start) -> None:
    running = start("performance_run", "Offline", placement={"on_failure": "redispatch"})
    running.wait_until_running()
    for pid in running.engines:
        os.kill(pid, signal.SIGKILL)
    status, text = running.ended()
    assert status == 1
    assert "was the last one" in text


def test_an_engine_that_is_paused_is_in_the_journal_with_its_seconds(start: Start) -> None:
    running = start("performance_run", "Offline", arguments={"tpot_ms": 8})
    running.wait_until_running()
    time.sleep(1)
    os.kill(running.engines[1], signal.SIGSTOP)
    time.sleep(3)
    os.kill(running.engines[1], signal.SIGCONT)
    status, text = running.ended()
    assert status == 0, text
    manifest = running.manifest()
    assert manifest.file("journal.jsonl")
    said: list[str] = []
    found = window_of(manifest, BOUNDS, said.append)
    assert found is not None
    (paused,) = [one for one in found.disturbances if one.by == "stopped"]
    assert paused.words == "a process of the run was stopped by a signal"
    assert 0 <= paused.from_s <= 2.5
    assert 2 <= paused.to_s - paused.from_s <= 5
    assert paused.cost is not None
    assert 2.5 <= paused.cost.lost_s <= 4
    assert any(f"the run was disturbed: {paused}" in words for words in said)


def test_a_killed_run_leaves_no_engine(start: Start) -> None:
    running = start("performance_run", "Offline")
    running.wait_until_running()
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()  # the fixture waits for the engines


def test_engines_in_one_process_are_refused(start: Start) -> None:
    running = start("performance_run", "Offline", placement={"in_process": True})
    status, text = running.ended()
    assert status == 1
    assert "3 engines can't share LoadGen's process" in text
