"""LoadGen's schedule and its order of samples, computed ahead, against runs of the real LoadGen."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from steps.commands.tune.arrivals import Length, arrivals
from steps.commands.tune.order import order
from steps.config.checks import PerformanceCheckConfig
from tests.conftest import ROOT, planned
from tests.running import artifacts_of

V5_1 = 18209322760996052031
LIMIT_S = 120


@pytest.mark.parametrize(
    ("samples", "minutes", "rate", "scheduled"),
    [  # published results of v5.1: target_qps and "Scheduled samples per second" of the log
        (24576, 10, 29.5, 29.62),
        (24576, 10, 61.5, 61.89),
        (24576, 10, 83.5, 83.90),
        (24576, 10, 107, 107.51),
        (24576, 10, 109, 109.52),
        (24576, 40, 83, 83.09),
        (15000, 20, 335, 334.53),
        (15000, 10, 420, 420.16),
        (15000, 10, 391, 391.43),
    ],
)
def test_scheduled_rates_of_published_runs(
    samples: int, minutes: int, rate: float, scheduled: float
) -> None:
    length = Length(V5_1, samples, 100, 60.0 * minutes)
    # LoadGen counts the samples after the first: (n - 1) in the time until the last one.
    assert length.queries(rate) / length.duration_s(rate) == pytest.approx(scheduled, abs=0.006)


def test_a_run_is_whole_copies_and_no_more_of_them_than_it_takes() -> None:
    length = Length(V5_1, 24576, 100, 600.0)
    for rate in (0.5, 5, 40, 40.9, 41, 80, 100, 528):
        queries = length.queries(rate)
        assert queries % 24576 == 0
        assert length.duration_s(rate) >= 600
        fewer = queries - 24576
        assert not fewer or arrivals(V5_1, rate, fewer)[-1] < 600


@pytest.mark.parametrize(
    ("dataset", "samples", "least", "milliseconds"), [(64, 64, 512, 1), (131, 101, 100, 2500)]
)
def test_loadgen_deals_what_was_computed(
    tmp_path: Path, dataset: int, samples: int, least: int, milliseconds: int
) -> None:
    jobs = {job.step: json.loads(job.config) for job in planned("scenario=Server").jobs}
    config = jobs["performance_run"]
    config["loadgen"] |= {
        "performance_sample_count_override": samples,
        "min_query_count": least,
        "min_duration_ms": milliseconds,
        "target_qps": 80,
    }
    inputs = [f"{role}={path}" for role, path in artifacts_of(tmp_path, dataset).items()]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fake_engine", "performance_run", "answer"),
            *("--config", json.dumps(config), "--input", *inputs),
            *("--output", str(tmp_path / "out/manifest.json"), "--log", str(tmp_path / "log")),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out/samples.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    seeds = PerformanceCheckConfig.model_validate_json(
        json.dumps(jobs["performance_check"])
    ).rules.seeds
    length = Length(seeds.schedule_rng_seed, samples, least, milliseconds / 1000)
    assert len(rows) == length.queries(80)
    dealt = order(seeds, dataset, samples, least, len(rows)).tolist()
    assert [int(row["sample_index"]) for row in rows] == dealt
    issued = np.array([float(row["issued_s"]) for row in rows])
    late = issued - arrivals(seeds.schedule_rng_seed, 80, len(rows))
    # LoadGen never issues early, and on a busy machine sometimes late.
    assert np.median(late - late.min()) < 0.05
