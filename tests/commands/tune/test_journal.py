"""The search in processes of its own, under the real LoadGen, with a scripted engine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steps.base.record import Manifest, canonical_json
from steps.commands.tune.config import load
from steps.commands.tune.journal import ENTRY, RUN, Entry, Journal
from steps.commands.tune.measure import Probe
from steps.commands.tune.request import PROBES, REQUEST, Request, result_of
from steps.plan.code import sources
from tests.conftest import ROOT, planned
from tests.running import artifacts_of

pytestmark = pytest.mark.command

LIMIT_S = 180
START_S = 20.0
"""Of the process that searches, on a busy machine."""


@pytest.fixture(scope="module")
def jobs() -> dict[str, str]:
    """Configurations of the rehearsal's Server, as JSON by step."""
    return {job.step: job.config for job in planned("scenario=Server").jobs}


@pytest.fixture
def request_path(tmp_path: Path, jobs: dict[str, str]) -> Path:
    """A search of Server from 80 queries a second; the engine's limit is near 100."""
    artifacts_of(tmp_path, 64)
    run, check = (json.loads(jobs[step]) for step in ("performance_run", "performance_check"))
    for config in (run, check):
        config["loadgen"] |= {"performance_sample_count_override": 64, "min_query_count": 512}
    search = load().search.model_copy(update={"explore_s": 3.0})
    fields = {
        "cell": "a/b/none/bf16/Server",
        "planned": canonical_json(run),
        "check": check,
        "inputs": {role: str(tmp_path / role / "manifest.json") for role in ("model", "dataset")},
        "launcher": [sys.executable, "-m", "tests.commands.tune.slot_engine"],
        "code": sources("performance_run", ROOT),
        "guess": 80.0,
        "guessed_from": "the test",
        "budget_s": None,
        "answers": None,
        "home": str(tmp_path / "search"),
        "settings": search.model_dump(mode="json"),
    }
    path = tmp_path / "search" / REQUEST
    path.parent.mkdir()
    path.write_text(json.dumps(fields), encoding="utf-8")
    return path


def searching(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "steps.commands.tune.main", str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def entries(path: Path) -> dict[str, int]:
    found = path.with_name(PROBES).glob(f"*/{ENTRY}")
    return {entry.parent.name: entry.stat().st_mtime_ns for entry in found}


def killed_after(path: Path, count: int) -> dict[str, int]:
    """Run the search until it has so many probes, then kill it and all that it started."""
    process = searching(path)
    limit = time.monotonic() + LIMIT_S
    while len(entries(path)) < count:
        assert process.poll() is None, "the search ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    return entries(path)


def test_a_killed_search_repeats_no_probe(request_path: Path) -> None:
    before = killed_after(request_path, 1)
    after = killed_after(request_path, 2)
    assert len(after) == 2
    assert {name: after[name] for name in before} == before
    numbers = sorted(name.split("-")[0] for name in after)
    assert numbers == ["01", "02"]


def test_a_search_keeps_to_its_budget_and_gives_the_best_run_in_it(request_path: Path) -> None:
    """From 12 queries a second, at which a run alone would take twice the budget."""
    budget_s = 20.0
    fields = json.loads(request_path.read_text(encoding="utf-8"))
    fields |= {"guess": 12.0, "budget_s": budget_s}
    fields["settings"] |= {"explore_s": 13.0}
    request_path.write_text(json.dumps(fields), encoding="utf-8")
    begun = time.monotonic()
    status = searching(request_path).wait(LIMIT_S)
    took_s = time.monotonic() - begun
    found = [
        Entry.model_validate_json(path.read_text(encoding="utf-8"))
        for path in request_path.with_name(PROBES).glob(f"*/{ENTRY}")
    ]
    assert found, "nothing was measured"
    spent_s = sum(entry.measured_s + entry.start_s for entry in found)
    assert spent_s <= 1.1 * budget_s, found
    assert took_s <= 1.1 * budget_s + START_S
    result = result_of(request_path.parent)
    assert (result is None) == (status != 0)
    if result is not None:
        assert result.target_qps == max(e.probe.rate for e in found if e.valid)


def test_a_run_that_goes_to_its_end_is_the_performance_run(request_path: Path) -> None:
    request = Request.model_validate_json(request_path.read_text(encoding="utf-8"))
    journal = Journal(ROOT, request)
    seed = request.check.rules.seeds.schedule_rng_seed
    probe = Probe(number=1, seed=seed, rate=60.0, queries=512, final=True, allowed_misses=0)
    measured = journal.measure(probe)
    assert measured.ended == "complete"
    assert measured.valid
    assert len(measured.samples) == 512
    manifest = Manifest.read(journal.directory(probe) / RUN / "manifest.json")
    assert manifest.step == "performance_run"
    assert manifest.config == json.loads(journal.configuration(probe))
    assert manifest.config["loadgen"]["target_qps"] == 60.0
    assert manifest.result["engine"]["name"] == "slots"
    again = Journal(ROOT, request.model_copy(update={"launcher": ("/nowhere",)})).measure(probe)
    assert again.samples.completed.tolist() == measured.samples.completed.tolist()


def test_a_run_that_cant_be_valid_ends_early_and_is_no_result(request_path: Path) -> None:
    request = Request.model_validate_json(request_path.read_text(encoding="utf-8"))
    journal = Journal(ROOT, request)
    seed = request.check.rules.seeds.schedule_rng_seed
    probe = Probe(number=1, seed=seed, rate=400.0, queries=4096, final=True, allowed_misses=0)
    measured = journal.measure(probe)
    assert measured.ended == "futile"
    assert measured.valid is None
    assert not (journal.directory(probe) / RUN).exists()
    unanswered = sum(measured.samples.tokens == 0)
    assert 0 < unanswered < 4096
