"""The same verdicts wherever the machine stands: logs that LoadGen wrote in three time zones."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from steps.mlperf.detail import examined
from steps.submit.validate.audit import check_times
from steps.submit.validate.findings import Findings
from tests.conftest import ROOT, copy_project, reproduce

ZONES = {"UTC": 0.0, "America/Los_Angeles": -7.5, "Asia/Kolkata": 5.5}
"""Hours from UTC; in Los Angeles the half hour stands for summer and winter time."""

CHOSEN = ("experiment=null-engine", "scenario=Offline,Server", "--", "--until", "performance_check")
HOME = "results/null-engine"
CELL = "null-engine/rehearsal/none/bf16"


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs by zone, each in a clone of its own."""
    homes = {}
    for zone in ZONES:
        home = copy_project(tmp_path_factory.mktemp("clone"))
        (ROOT / ".envs").mkdir(exist_ok=True)
        (home / ".envs").symlink_to(ROOT / ".envs")
        status, text = reproduce(home, *CHOSEN, environment={"TZ": zone})
        assert status == 0, text
        homes[zone] = home / HOME
    return homes


def verdict(home: Path, scenario: str) -> dict[str, Any]:
    """What was judged, without what was measured."""
    path = home / "verdicts" / CELL / scenario / "performance_check/manifest.json"
    result = json.loads(path.read_text(encoding="utf-8"))["result"]
    return {name: result[name] for name in ("holds", "metric", "unit", "limits")}


@pytest.mark.e2e
@pytest.mark.parametrize("scenario", ["Offline", "Server"])
@pytest.mark.parametrize("zone", ZONES)
def test_a_zone_changes_no_verdict(zone: str, scenario: str, verdicts: dict[str, Path]) -> None:
    assert verdict(verdicts[zone], scenario) == verdict(verdicts["UTC"], scenario)
    run = verdicts[zone] / "runs" / CELL / scenario / "performance_run"
    log = run / "mlperf_log_detail.txt"
    detail, findings = examined(log), Findings()
    check_times(str(log), detail, findings)
    assert list(findings) == []
    span = detail.span()
    assert span is not None
    local = datetime.fromisoformat(detail.text("test_datetime")).replace(tzinfo=span[0].tzinfo)
    distance = local - span[0] - timedelta(hours=ZONES[zone])
    assert abs(distance) < timedelta(hours=0.6), "LoadGen wrote local time"
