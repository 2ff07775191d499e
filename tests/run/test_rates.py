"""LoadGen's own behaviour that a run's key rests on: where the rate plays no part."""

import threading
from collections.abc import Mapping
from pathlib import Path

import mlperf_loadgen as lg
import pytest

from steps.config.loadgen import Loadgen
from steps.mlperf.rounds import load
from steps.run.sut.user_conf import render_audit_config, render_user_conf

SAMPLES, LOADED = 64, 32
RATES = (0.5, 40.0, 24567.0)
TEST06 = load("v5.1").compliance["TEST06"].audit


def issued(
    home: Path,
    mode: str,
    rate: float,
    audit: Mapping[str, int] | None = None,
    duration_ms: int | None = None,
) -> list[tuple[int, ...]]:
    """The sample indices of every query that LoadGen sends in Offline."""
    home.mkdir()
    given = Loadgen(
        model="llama2-70b",
        target_qps=rate,
        min_duration_ms=duration_ms,
        min_query_count=None,
        performance_sample_count_override=None,
    )
    (home / "user.conf").write_text(render_user_conf(given, "Offline"), encoding="utf-8")
    audit_file = home / "audit.config"
    if audit is not None:
        audit_file.write_text(render_audit_config(audit), encoding="utf-8")
    settings = lg.TestSettings()
    assert settings.FromConfig(str(home / "user.conf"), "llama2-70b", "Offline") == 0
    settings.scenario, settings.mode = lg.TestScenario.Offline, getattr(lg.TestMode, mode)
    found: list[tuple[int, ...]] = []

    def issue(samples: list[lg.QuerySample]) -> None:
        found.append(tuple(sample.index for sample in samples))
        lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])

    sut = lg.ConstructSUT(issue, lambda: None)
    qsl = lg.ConstructQSL(SAMPLES, LOADED, lambda indices: None, lambda indices: None)
    log = lg.LogSettings()
    log.log_output.outdir, log.enable_trace = str(home), False
    test = threading.Thread(
        target=lg.StartTestWithLogSettings, args=(sut, qsl, settings, log, str(audit_file))
    )
    test.start()
    test.join(60)
    assert not test.is_alive()
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
    return found


@pytest.mark.parametrize(
    ("mode", "audit"),
    [("AccuracyOnly", None), ("PerformanceOnly", TEST06)],
    ids=["accuracy", "TEST06"],
)
def test_offline_sends_the_same_whatever_the_rate(
    tmp_path: Path, mode: str, audit: Mapping[str, int] | None
) -> None:
    sent = [issued(tmp_path / str(rate), mode, rate, audit) for rate in RATES]
    if mode == "AccuracyOnly":  # in one query or in two: each sample once, all the same
        assert all(sorted(n for query in one for n in query) == [*range(SAMPLES)] for one in sent)
    else:
        assert sent[0] and all(queries == sent[0] for queries in sent)


def test_negative_control_a_performance_run_sends_by_its_rate(tmp_path: Path) -> None:
    sent = [issued(tmp_path / str(rate), "PerformanceOnly", rate, None, 100) for rate in RATES]
    assert len(sent[0][0]) < len(sent[-1][0])
