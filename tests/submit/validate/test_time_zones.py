"""Logs that LoadGen itself wrote in three time zones: in each the run's times hold."""

import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from steps.mlperf.detail import Detail, examined
from steps.submit.validate.audit import check_times
from steps.submit.validate.findings import Findings

RUN = """
import array, sys
import mlperf_loadgen as loadgen

ANSWER = array.array("i", [1, 2])

def issue(samples):
    place, length = ANSWER.buffer_info()
    loadgen.QuerySamplesComplete(
        [loadgen.QuerySampleResponse(one.id, place, 4 * length, 2) for one in samples]
    )

settings = loadgen.TestSettings()
settings.scenario = loadgen.TestScenario.Offline
settings.mode = getattr(loadgen.TestMode, sys.argv[1])
settings.min_duration_ms = 100
sut = loadgen.ConstructSUT(issue, lambda: None)
qsl = loadgen.ConstructQSL(50, 20, lambda _: None, lambda _: None)
logs = loadgen.LogSettings()
logs.enable_trace = False
output = loadgen.LogOutputSettings()
output.outdir = sys.argv[2]
logs.log_output = output
loadgen.StartTestWithLogSettings(sut, qsl, settings, logs)
"""
ZONES = ("UTC", "America/Los_Angeles", "Asia/Kolkata")


def logged(mode: str, zone: str, folder: Path) -> Detail:
    """The log of a run of 50 samples, of which 20 are held at a time."""
    subprocess.run(
        [sys.executable, "-c", RUN, mode, str(folder)],
        env={**os.environ, "TZ": zone},
        timeout=60,
        check=True,
    )
    return examined(folder / "mlperf_log_detail.txt")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("mode", "sets"), [("AccuracyOnly", 3), ("PerformanceOnly", 1)])
def test_the_times_of_a_run_hold_in_every_zone(
    mode: str, sets: int, zone: str, tmp_path: Path
) -> None:
    detail, findings = logged(mode, zone, tmp_path), Findings()
    check_times("log", detail, findings)
    assert list(findings) == []
    assert (detail.intervals, detail.conflicts) == (sets, [])
    span = detail.span()
    assert span is not None
    local = datetime.fromisoformat(detail.text("test_datetime")).replace(tzinfo=span[0].tzinfo)
    distance = abs(local - span[0])
    assert (distance > timedelta(hours=5)) == (zone != "UTC"), "LoadGen writes local time"
