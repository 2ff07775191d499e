"""`./reproduce` beside snakemake: signals, deaths, and what the next one finds.

Snakemake is a script here that ends when it likes.
"""

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.base import processes
from tests.conftest import ROOT

LIMIT_S = 30.0
OUTPUT = "results/demo/runs/a/b/performance_run/manifest.json"

DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from steps.schedule import supervisor
from steps.base.errors import UserError
supervisor.LEAVE_S, supervisor.STEPS_S, supervisor.STOPPED_S = 1.0, 4.0, 1.0
supervisor.REMOVE_S, supervisor.GROUP_S = 0.5, 1.5
supervisor.POLL_S = 0.1
root = Path({home!r})
try:
    supervisor.lock(root)
    status = supervisor.supervise([sys.executable, "-c", sys.argv[1]], root, {stop_limit_s})
except UserError as error:
    print("error:", error, file=sys.stderr)
    status = 1
supervisor.release()
raise SystemExit(status)
"""

BEGIN = f"""
import base64, os, signal, subprocess, sys, time
from pathlib import Path
marker = Path(".snakemake/incomplete") / base64.urlsafe_b64encode({OUTPUT!r}.encode()).decode()
marker.parent.mkdir(parents=True, exist_ok=True)
def step(code):
    words = ["-c", code, "-m", "steps.performance_run", "--output", {OUTPUT!r}]
    return subprocess.Popen([sys.executable, *words])
def ready():
    marker.write_text("{{}}")
"""
"""Snakemake as far as it is needed."""

DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)"
SLEEP = "import time; time.sleep(60)"
DEAF_STEP = f"import signal, time; {DEAF}; time.sleep(60)"


def _heeding_sigint() -> None:
    """A shell's background jobs ignore SIGINT, and so would all that tests start there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Reproduce:
    """A ./reproduce whose snakemake is some code."""

    def __init__(self, home: Path, code: str, stop_limit_s: float = 0.0) -> None:
        self.home = home
        text = DRIVER.replace("{root!r}", repr(str(ROOT))).replace("{home!r}", repr(str(home)))
        text = text.replace("{stop_limit_s}", str(stop_limit_s))
        self.process = subprocess.Popen(
            [sys.executable, "-c", text, BEGIN + code],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_heeding_sigint,
        )

    def snakemake(self) -> int:
        """As soon as its step runs."""
        wait_for(lambda: any(self.home.glob(".snakemake/incomplete/*")))
        (found,) = processes.children(self.process.pid)
        return found

    def step(self) -> int:
        (found,) = processes.children(self.snakemake())
        return found

    def step_beside(self, other: Path) -> int:
        """The step of a snakemake that has another child, whose number is in a file."""
        found = processes.children(self.snakemake())
        (step,) = set(found) - {int(other.read_text())}
        return step

    def ended(self) -> tuple[int, str]:
        _, text = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, text


def wait_for(what: object) -> None:
    limit = time.monotonic() + LIMIT_S
    while not what():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for pid in processes.with_variable("HOME_OF_TEST", str(tmp_path)):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME_OF_TEST", str(tmp_path))


def left_over(home: Path) -> list[int]:
    found = processes.with_variable("HOME_OF_TEST", str(home))
    return [pid for pid in found if processes.state(pid) not in processes.GONE]


RUN = f"p = step({SLEEP!r}); ready(); sys.exit(p.wait() != 0)"


def test_snakemake_s_status_is_ours_and_nothing_is_said(home: Path) -> None:
    assert Reproduce(home, "sys.exit(0)").ended() == (0, "")
    assert Reproduce(home, "sys.exit(1)").ended() == (1, "")


def test_one_at_a_time(home: Path) -> None:
    first = Reproduce(home, RUN)
    first.snakemake()
    status, text = Reproduce(home, "sys.exit(0)").ended()
    assert status == 1 and f"another ./reproduce (process {first.process.pid})" in text
    first.process.terminate()
    first.ended()
    assert Reproduce(home, "sys.exit(0)").ended() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=str)
@pytest.mark.parametrize(
    "code",
    [
        RUN,
        # As Snakemake 9.27: a handler that waits for a lock of the thread that it interrupts.
        f"p = step({SLEEP!r}); {DEAF}; ready()\nwhile True: time.sleep(1)",
        # A step that doesn't end either.
        f"{DEAF}\np = step({DEAF_STEP!r}); time.sleep(0.5); ready()\nwhile True: time.sleep(1)",
    ],
    ids=["ends", "snakemake hangs", "both hang"],
)
def test_a_signal_ends_everything_within_a_limit(
    home: Path, code: str, number: signal.Signals
) -> None:
    run = Reproduce(home, code)
    run.snakemake()
    begun = time.monotonic()
    run.process.send_signal(number)
    status, text = run.ended()
    assert time.monotonic() - begun < 8
    assert status == 128 + number
    assert f"error: ended by {number.name} from process {os.getpid()}" in text
    assert "cut short: results/demo/runs/a/b/performance_run" in text
    assert left_over(home) == []
    assert Reproduce(home, "sys.exit(0)").ended() == (0, "")


def test_steps_have_as_long_to_end_as_the_plan_s_containers(home: Path) -> None:
    ends = "lambda *_: (time.sleep(6), open('whole', 'w').close(), sys.exit(0))"
    step = f"import signal, sys, time; signal.signal(signal.SIGTERM, {ends}); "
    step += "open('late', 'w').close(); time.sleep(60)"
    waits = "while not Path('late').exists(): time.sleep(0.02)"
    run = Reproduce(home, f"p = step({step!r}); {DEAF}\n{waits}\nready(); p.wait()", 20.0)
    run.snakemake()
    run.process.send_signal(signal.SIGTERM)
    assert run.ended()[0] == 128 + signal.SIGTERM
    assert (home / "whole").exists()


ONCE = """
def second(*_):
    (Path("results") / "twice").touch()
def first(*_):
    signal.signal(signal.SIGINT, second)
signal.signal(signal.SIGINT, first)
"""


def test_snakemake_gets_the_group_s_sigint_once(home: Path) -> None:
    run = Reproduce(home, f"p = step({SLEEP!r}); {ONCE}\nready(); p.wait(); time.sleep(0.2)")
    run.snakemake()
    os.killpg(run.process.pid, signal.SIGINT)
    status, _ = run.ended()
    assert status == 128 + signal.SIGINT
    assert not (home / "results/twice").exists()


def test_the_group_s_sigterm_is_no_other(home: Path) -> None:
    run = Reproduce(home, f"p = step({SLEEP!r}); {DEAF}; ready()\nwhile True: time.sleep(1)")
    run.snakemake()
    os.killpg(run.process.pid, signal.SIGTERM)
    status, text = run.ended()
    assert status == 128 + signal.SIGTERM and "error: ended by SIGTERM" in text
    assert left_over(home) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=str)
def test_the_death_of_snakemake_is_named_and_its_steps_end(
    home: Path, number: signal.Signals
) -> None:
    run = Reproduce(home, RUN)
    snakemake = run.snakemake()
    os.kill(snakemake, number)
    status, text = run.ended()
    assert status == 128 + number
    assert f"error: snakemake (process {snakemake}) was ended by {number.name}; cut short: " in text
    assert left_over(home) == []


def test_a_snakemake_that_is_stopped_is_named_and_ended(home: Path) -> None:
    run = Reproduce(home, RUN)
    snakemake = run.snakemake()
    os.kill(snakemake, signal.SIGSTOP)
    status, text = run.ended()
    assert status == 128 + signal.SIGSTOP
    assert f"error: snakemake (process {snakemake}) has been stopped for 1 s (SIGSTOP)" in text
    assert left_over(home) == []


def test_a_step_that_is_stopped_is_named_and_ended(home: Path) -> None:
    run = Reproduce(home, RUN)
    step = run.step()
    os.kill(step, signal.SIGSTOP)
    status, text = run.ended()
    assert status == 1
    assert "error: performance_run: results/demo/runs/a/b/performance_run (process" in text
    assert "has been stopped for 1 s (SIGSTOP) and is ended" in text


def test_a_step_that_goes_on_in_time_is_let_be(home: Path) -> None:
    run = Reproduce(home, "p = step('import time; time.sleep(3)'); ready(); sys.exit(p.wait())")
    step = run.step()
    os.kill(step, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(step, signal.SIGCONT)
    assert run.ended() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP], ids=str)
def test_after_our_own_death_the_next_one_says_what_was_cut_short(
    home: Path, number: signal.Signals
) -> None:
    run = Reproduce(home, RUN)
    run.step()
    os.kill(run.process.pid, number)
    time.sleep(0.2)
    begun = time.monotonic()
    status, text = Reproduce(home, "sys.exit(0)").ended()
    assert status == 0 and time.monotonic() - begun < LIMIT_S / 2
    what = "was stopped and is ended now" if number == signal.SIGSTOP else "was killed"
    assert f"the last ./reproduce (process {run.process.pid}) {what}; cut short: " in text
    assert "results/demo/runs/a/b/performance_run; going on from what is finished" in text
    run.process.wait(LIMIT_S)
    assert left_over(home) == []
    assert Reproduce(home, "sys.exit(0)").ended() == (0, ""), "said once"


@pytest.mark.parametrize("ours", ["", "7"], ids=["beside Slurm", "in a job"])
def test_a_submitted_job_on_this_machine_outlives_us(
    home: Path, monkeypatch: pytest.MonkeyPatch, ours: str
) -> None:
    """As on a Slurm of one node: sbatch hands on all that ./reproduce has in its environment."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if ours:
        monkeypatch.setenv("SLURM_JOB_ID", ours)
    submit = f"""
words, job = [sys.executable, "-c", {SLEEP!r}], {{**os.environ, "SLURM_JOB_ID": "8"}}
q = subprocess.Popen(words, env=job, start_new_session=True, close_fds=True)
Path("submitted").write_text(str(q.pid))
p = step({SLEEP!r}); ready(); p.wait()"""
    run = Reproduce(home, submit)
    step = run.step_beside(home / "submitted")
    job = int((home / "submitted").read_text())
    os.kill(run.process.pid, signal.SIGKILL)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    status, text = Reproduce(home, "sys.exit(0)").ended()
    assert status == 0 and "was killed; cut short: " in text
    run.process.wait(LIMIT_S)
    assert processes.state(step) in processes.GONE
    assert processes.state(job) not in processes.GONE


def test_a_lock_of_an_older_version_says_nothing(home: Path) -> None:
    (home / "results").mkdir()
    (home / "results/.lock").write_text("4711\n")
    assert Reproduce(home, "sys.exit(0)").ended() == (0, "")


def test_what_was_cut_short_on_another_machine_is_said(home: Path) -> None:
    (home / "results").mkdir()
    (home / "results/.lock").write_text("4711-123-abcdef00 elsewhere\n")
    status, text = Reproduce(home, "sys.exit(0)").ended()
    assert status == 0 and "(process 4711) was killed; no step was under way" in text


def test_long_names_of_outputs_are_read(tmp_path: Path) -> None:
    from steps.schedule.supervisor import cut_short

    name = "results/" + "x" * 300 + "/performance_run/manifest.json"
    text = base64.urlsafe_b64encode(name.encode()).decode()
    folder = tmp_path / ".snakemake/incomplete" / f"@{text[:254]}"
    folder.mkdir(parents=True)
    (folder / text[254:]).touch()
    (folder.parent / "no base64 at all").touch()
    assert cut_short(tmp_path, 0.0) == [name.removesuffix("/manifest.json")]
    assert cut_short(tmp_path, time.time() + 60) == []


# ---- temporary files ---------------------------------------------------------------------------

LITTERS = """
import tempfile
Path("where").write_text(tempfile.gettempdir())
Path(tempfile.gettempdir(), "vllm_dist_0").touch()
"""


def test_what_a_run_leaves_in_its_temporary_folder_goes_with_it(home: Path) -> None:
    status, text = Reproduce(home, LITTERS).ended()
    assert (status, text) == (0, "")
    where = Path((home / "where").read_text())
    assert where.name.startswith("reprise-") and not where.exists()


def test_what_a_killed_run_left_goes_when_the_next_one_begins(home: Path) -> None:
    killed = Reproduce(home, f"{LITTERS}step({SLEEP!r}); ready(); time.sleep(60)")
    killed.step()
    where = Path((home / "where").read_text())
    assert (where / "vllm_dist_0").exists()
    killed.process.kill()
    killed.process.wait(LIMIT_S)  # its step goes on
    status, text = Reproduce(home, "").ended()
    assert status == 0 and "was killed" in text
    assert not where.exists()
