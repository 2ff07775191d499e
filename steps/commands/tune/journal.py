"""Probes on real engines, each in its own process, kept as data and never repeated."""

import csv
import hashlib
import json
import subprocess
import time
from pathlib import Path

from steps.base import variables
from steps.base.errors import UserError
from steps.base.record import (
    MANIFEST,
    Manifest,
    canonical_json,
    partial_directory,
    write_atomically,
)
from steps.base.strict import NotNegative, Strict
from steps.commands.tune.final import ENDED
from steps.commands.tune.measure import Measurement, Probe
from steps.commands.tune.probe import PROBE
from steps.commands.tune.request import PROBES, Request
from steps.commands.tune.watching import Watched, of_rows
from steps.config.results import result_of
from steps.config.run_results import Ended, ProbeResult
from steps.config.runs import PerformanceRunConfig
from steps.judge.performance_check import complaints
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import DETAIL, SAMPLES_FILE
from steps.run.sut.run import Row

ENTRY = "probe.json"
RUN = "run"
SPARE = 4.0
"""A probe's process may take this many times its schedule, besides the engine's own start limit: an
overloaded engine takes long to answer its queue.
"""

WATCH_S = 1.0


class Entry(Strict):
    """One probe's line of the journal, written when the probe is complete."""

    probe: Probe
    ended: Ended
    measured_s: float
    start_s: float
    valid: bool | None
    complaints: tuple[str, ...]
    samples: NotNegative


class Journal:
    """Probes of the real engine. The request's paths are relative to `root`, the checkout."""

    def __init__(self, root: Path, request: Request) -> None:
        self._root = root
        self._request = request

    def directory(self, probe: Probe) -> Path:
        """Named by the probe's values, so that a search that asks again finds it."""
        digest = hashlib.sha256(canonical_json(probe.model_dump(mode="json")).encode())
        kind = "run" if probe.final else "probe"
        name = f"{probe.number:02d}-{kind}-{probe.rate:g}qps-{digest.hexdigest()[:12]}"
        return self._root / self._request.home / PROBES / name

    def measure(self, probe: Probe, cut_s: float | None = None) -> Measurement:
        """Read from the journal, else made, and ended after `cut_s` of its test if given.

        Raises UserError if the engine can't be measured.
        """
        home = self.directory(probe)
        if (home / ENTRY).is_file():
            return self._read(home)
        home.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        self._make(probe, home, cut_s)
        entry = self._entry(probe, home, time.monotonic() - begun)
        write_atomically(home / ENTRY, entry.model_dump_json(indent=1) + "\n")
        return self._read(home)

    def config(self, probe: Probe) -> PerformanceRunConfig:
        return PerformanceRunConfig.model_validate_json(self.configuration(probe))

    def configuration(self, probe: Probe) -> str:
        """JSON of the run: a final one's differs from the planned one only in its rate, so the text
        is equal in the plan with that rate.
        """
        planned = json.loads(self._request.planned)
        planned["loadgen"]["target_qps"] = probe.rate
        if not probe.final:
            samples = min(probe.queries, self._samples())
            planned["loadgen"] |= {
                "min_duration_ms": 1,
                "min_query_count": probe.queries,
                "performance_sample_count_override": samples,
            }
        return canonical_json(planned)

    def _samples(self) -> int:
        run = self._request.run
        return run.loadgen.sample_count(run.rules)

    def _make(self, probe: Probe, home: Path, cut_s: float | None) -> None:
        request, check = self._request, self._request.check
        limits = {"ttft_ms": check.rules.ttft_ms, "tpot_ms": check.rules.tpot_ms}
        watched = Watched(probe=probe, cut_s=cut_s, **limits)
        write_atomically(home / "asked.json", watched.model_dump_json() + "\n")
        inputs = {**request.inputs, PROBE: str(home / "asked.json")}
        module = "steps.commands.tune.final" if probe.final else "steps.commands.tune.probe"
        command = [
            *(*request.launcher, "-m", module, "--config", self.configuration(probe)),
            *("--input", *(f"{role}={path}" for role, path in inputs.items())),
            *("--output", str(home / RUN / MANIFEST), "--log", str(home / "log")),
            *("--code", *request.code),
            *("--origin", canonical_json({"container": request.container})),
        ]
        limit_s = request.run.engine.start_limit_s + 60
        limit_s += SPARE * max(probe.queries / probe.rate, request.run.engine.stall_limit_s)
        ended = partial_directory(home / RUN) / ENDED
        ended.unlink(missing_ok=True)  # of a process before this one
        with subprocess.Popen(
            command, cwd=self._root, env=variables.kept(), stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                said = _last_words(process, home, limit_s)
            except subprocess.TimeoutExpired as error:
                raise UserError(
                    f"the probe at {probe.rate:g} queries a second took longer than {limit_s:,.0f} "
                    f"s; see {home / 'log'}"
                ) from error
            finally:
                process.kill()
        if process.returncode and not ended.is_file():
            last = (said.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{last.removeprefix('error: ')} ({home / 'log'})")

    def _entry(self, probe: Probe, home: Path, took_s: float) -> Entry:
        partial = partial_directory(home / RUN)
        if (home / RUN / MANIFEST).is_file():
            probed = result_of(Manifest.read(home / RUN / MANIFEST), ProbeResult)
            ended, measured_s = probed.ended, probed.lasted_s
            samples = home / RUN / SAMPLES_FILE
        else:
            noted = json.loads((partial / ENDED).read_text(encoding="utf-8"))
            ended, measured_s = noted["ended"], float(noted["measured_s"])
            samples = partial / SAMPLES_FILE
        found: list[str] = []
        if probe.final and ended == "complete":
            loadgen = self.config(probe).loadgen
            check = self._request.check.model_copy(update={"loadgen": loadgen})
            log = read_detail(home / RUN / DETAIL)
            found = list(map(str, complaints(log, check)))
        return Entry(
            probe=probe,
            ended=ended,
            measured_s=measured_s,
            start_s=round(max(took_s - measured_s, 0.0), 3),
            valid=not found if probe.final and ended == "complete" else None,
            complaints=tuple(found),
            samples=len(_rows(samples)),
        )

    def _read(self, home: Path) -> Measurement:
        entry = Entry.model_validate_json((home / ENTRY).read_text(encoding="utf-8"))
        path = home / RUN / SAMPLES_FILE
        if not path.is_file():
            path = partial_directory(home / RUN) / SAMPLES_FILE
        samples = of_rows(_rows(path), entry.probe)
        return Measurement(
            entry.probe, samples, entry.ended, entry.measured_s, entry.start_s, entry.valid
        )


def _last_words(process: "subprocess.Popen[str]", home: Path, limit_s: float) -> str:
    """What a probe's process said until its end. Raises TimeoutExpired.

    The limit counts from the last word of its log before its test has begun: nodes may be sent
    weights and images first, which takes as long as it takes and is reported every half minute.
    """
    until, known = time.monotonic() + limit_s, 0
    while True:
        try:
            return process.communicate(timeout=WATCH_S)[1]
        except subprocess.TimeoutExpired:
            size = _size(home / "log")
            if size != known and not list(home.glob(f".{RUN}.*/{DETAIL}")):
                until, known = time.monotonic() + limit_s, size
            if time.monotonic() > until:
                raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _rows(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            next(reader)
            return [
                (int(row[0]), int(row[1]), int(row[2]), row[3], row[4], row[5]) for row in reader
            ]
    except (OSError, StopIteration, ValueError, IndexError) as error:
        raise UserError(f"{path} can't be read ({error}); delete {path.parent.parent}") from error
