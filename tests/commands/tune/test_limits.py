"""How long a probe's process may take: its start as long as it says something, its test not."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steps.commands.tune import journal
from steps.commands.tune.journal import RUN
from steps.mlperf.loadgen import DETAIL

SAYING = """
import sys, time
from pathlib import Path
log = Path("log")
for _ in range(int(sys.argv[1])):
    with log.open("a") as stream:
        stream.write("1 of 2 shipments to nodes are on their way\\n")
    time.sleep(0.2)
print("ended", file=sys.stderr)
"""
LIMIT_S = 2.0


@contextmanager
def probe(home: Path, code: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "WATCH_S", 0.1)


def test_a_start_that_reports_what_it_sends_may_take_longer_than_the_limit(tmp_path: Path) -> None:
    begun = time.monotonic()
    with probe(tmp_path, SAYING, "20") as process:
        assert journal._last_words(process, tmp_path, LIMIT_S) == "ended\n"
    assert time.monotonic() - begun > LIMIT_S


def test_a_start_that_says_nothing_ends_at_the_limit(tmp_path: Path) -> None:
    with (
        probe(tmp_path, "import time; time.sleep(60)") as process,
        pytest.raises(subprocess.TimeoutExpired),
    ):
        journal._last_words(process, tmp_path, 0.5)


def test_a_test_that_has_begun_is_no_longer_for_what_is_logged(tmp_path: Path) -> None:
    log = tmp_path / f".{RUN}.7.tmp" / DETAIL
    log.parent.mkdir()
    log.touch()
    with (
        probe(tmp_path, SAYING, "100") as process,
        pytest.raises(subprocess.TimeoutExpired),
    ):
        journal._last_words(process, tmp_path, LIMIT_S)
