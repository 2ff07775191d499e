"""`./reproduce` as a user runs it, on the real parts, in a clone of its own.

One scenario, the shortest, keeps it to a minute; the environments are those of this checkout.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from steps.plan.plan import environment_directory
from tests.conftest import ROOT, copy_project, reproduce

OVERRIDES = ["scenario=Offline"]
LIMIT_S = 1500
CELL = "rehearsal-cpu/rehearsal/none/bf16/Offline"


def digests(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.rglob("manifest.json")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = copy_project(tmp_path_factory.mktemp("clone"))
    (ROOT / ".envs").mkdir(exist_ok=True)
    (home / ".envs").symlink_to(ROOT / ".envs")
    return home


@pytest.fixture(scope="module")
def finished(clone: Path) -> Path:
    """A rehearsal that was killed in the middle of a run, and then finished by a second command."""
    process = subprocess.Popen(
        [str(clone / "reproduce"), *OVERRIDES],
        cwd=clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    runs = clone / "results/rehearsal/runs" / CELL
    limit = time.monotonic() + LIMIT_S
    # The second LoadGen run has begun: its directory is there under its temporary name.
    while not list(runs.glob(".accuracy_run.*.tmp/mlperf_log_detail.txt")):
        assert process.poll() is None, "the rehearsal ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    # snakemake makes the directory before the job starts; a manifest would mean a result.
    assert not (runs / "accuracy_run/manifest.json").exists()
    kept = digests(clone / "results")
    assert kept
    status, text = reproduce(clone, *OVERRIDES)
    assert status == 0, text
    assert "Traceback" not in text
    after = digests(clone / "results")
    assert {path: after[path] for path in kept} == kept, "what was finished is not made again"
    return clone


@pytest.mark.e2e
def test_the_driver_does_not_depend_on_the_clone_that_made_it(finished: Path) -> None:
    command = ROOT / environment_directory(ROOT, "driver") / "bin/snakemake"
    assert command.read_text(encoding="utf-8").startswith(f"#!{ROOT}/")


@pytest.mark.e2e
def test_the_results_are_there_and_hold(finished: Path) -> None:
    home = finished / "results/rehearsal"
    summary = json.loads((home / "report/summary.json").read_text(encoding="utf-8"))
    (cell,) = summary["cells"]
    assert cell["value"] > 0
    assert cell["scores"]["exact_match"] >= 90
    assert {gate["name"]: gate["passed"] for gate in cell["gates"]}["99"]
    assert cell["compliance"] == {"TEST06": True}
    assert summary["may_be_submitted"] is False
    tree = home / "submission/open/Reprise/results/rehearsal-cpu-bf16/rehearsal/Offline"
    assert (tree / "performance/run_1/mlperf_log_detail.txt").is_file()
    assert (home / "submission/NOT-FOR-SUBMISSION.md").is_file()
    assert (home / "report/index.html").stat().st_size < 5_000_000
    assert not list(home.rglob(".*.tmp"))


@pytest.mark.e2e
def test_a_second_run_does_nothing(finished: Path) -> None:
    before = digests(finished / "results")
    status, text = reproduce(finished, *OVERRIDES)
    assert status == 0
    assert "nothing to do" in text
    assert digests(finished / "results") == before


@pytest.mark.e2e
def test_verify_needs_nothing_of_snakemakes_and_finds_a_flipped_byte(finished: Path) -> None:
    aside = finished / ".snakemake-aside"
    (finished / ".snakemake").rename(aside)
    try:
        status, text = reproduce(finished, "verify", *OVERRIDES)
        assert status == 0, text
        assert "results are valid" in text
        log = finished / "results/rehearsal/runs" / CELL / "accuracy_run/mlperf_log_accuracy.json"
        data = bytearray(log.read_bytes())
        data[100] ^= 1
        log.write_bytes(data)
        status, text = reproduce(finished, "verify", *OVERRIDES)
        data[100] ^= 1
        log.write_bytes(data)
        assert status == 1
        assert "mlperf_log_accuracy.json does not match its sha256" in text
        status, text = reproduce(finished, "verify", *OVERRIDES, "system.target_qps.Offline=1")
        assert status == 1
        assert re.search(r"performance_run .*: loadgen.target_qps \S+ → 1\n", text)
        assert "accuracy_run" not in text, "it doesn't use the rate of Offline"
    finally:
        aside.rename(finished / ".snakemake")


@pytest.mark.e2e
def test_an_environment_that_is_gone_is_made_again_and_nothing_is_measured_again(
    finished: Path,
) -> None:
    """As where results were brought from elsewhere, and one verdict is due."""
    shared, home = (finished / ".envs").resolve(), finished / ".envs"
    check = finished / f"results/rehearsal/verdicts/{CELL}/accuracy_check"
    home.unlink()
    home.mkdir()
    for made in shared.iterdir():
        if not made.name.startswith("analysis-"):
            (home / made.name).symlink_to(made)
    before = digests(finished / "results")
    try:
        status, text = reproduce(finished, *OVERRIDES)
        assert (status, "nothing to do" in text) == (0, True), text
        assert not list(home.glob("analysis-*")), "nobody needs it"
        shutil.rmtree(check)
        status, text = reproduce(finished, *OVERRIDES)
        assert status == 0, text
        assert "environment analysis is gone or damaged: made again" in text
        assert "environment: " not in text and "_run: " not in text
        assert list(home.glob("analysis-*/complete"))
        assert digests(finished / "results") == before
    finally:
        shutil.rmtree(home)
        home.symlink_to(shared)


@pytest.mark.e2e
def test_two_at_once_are_kept_apart(finished: Path) -> None:
    import fcntl

    with (finished / "results/.lock").open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        status, text = reproduce(finished, *OVERRIDES, limit_s=60)
    assert status == 1
    assert "is still running" in text


@pytest.mark.e2e
def test_a_misspelt_key_ends_before_anything_starts(finished: Path) -> None:
    status, text = reproduce(finished, "system.target_qpz.Server=3", limit_s=60)
    assert status == 1
    assert text.startswith("error: ")
    assert text.count("\n") == 1
