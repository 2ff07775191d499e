"""What is said of jobs in Slurm's queue; its tools are stand-ins that print what a test wants."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.base import processes
from steps.base.errors import UserError
from steps.config.scheduler import Slurm
from steps.machine.probes.losses import Losses
from steps.plan.plan import Plan, freeze
from steps.plan.unsupported import left
from steps.schedule import slurm
from steps.schedule.looking import missing_of
from steps.schedule.slurm_run import POLL_S, Watch, asked_for
from tests.conftest import ROOT, planned

TOOLS = ("squeue", "scancel", "sinfo", "scontrol")
KEY = "rehearsal-cpu/rehearsal/none/bf16/Server"
COMMENT = "rule_performance_run_wildcards_rehearsal_rehearsal-cpu_rehearsal_none_bf16_Server"
NO_PROCESS = 2**22 + 1
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned("scheduler=slurm", "scenario=Server", "scheduler.pending_limit_min=30")


class Bench:
    """A watch on stand-ins, and a clock that a test turns."""

    def __init__(self, home: Path, plan: Plan) -> None:
        self.home, self.now = home, 0.0
        for tool in TOOLS:
            path = home / tool
            path.write_text(
                f'#!/bin/sh\necho {tool} "$@" >>{home}/asked\ncat {home}/{tool}.out\n'
                f"test ! -e {home}/silent\n"
            )
            path.chmod(0o755)
            (home / f"{tool}.out").touch()
        assert isinstance(plan.scheduler, Slurm)
        self.watch = Watch(plan, plan.scheduler, home, "reprise-1", clock=lambda: self.now)

    def shows(self, state: str, reason: str = "None", nodes: str = "", number: int = 7) -> None:
        line = f"{number}|{state}|reprise-1_x|{nodes}|{COMMENT}|{reason}\n"
        (self.home / "squeue.out").write_text(line)

    def log(self, text: str, number: int = 7) -> None:
        rule, wildcards = COMMENT.removeprefix("rule_").split("_wildcards_")
        path = self.home / f"results/logs/slurm/rule_{rule}/{wildcards}/{number}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def after(self, seconds: float) -> str | None:
        self.now += seconds
        return self.watch.look(NO_PROCESS)

    @property
    def asked(self) -> str:
        return (self.home / "asked").read_text()


@pytest.fixture
def bench(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Bench(tmp_path, plan)


Said = Callable[[], list[str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return lambda: capsys.readouterr().err.splitlines()


def test_a_job_is_said_to_run_and_ends_in_its_steps_own_words(bench: Bench, said: Said) -> None:
    bench.shows("PENDING", "Resources")
    assert bench.after(POLL_S) is None
    assert said() == []
    bench.shows("RUNNING", nodes="n2")
    bench.after(POLL_S)
    assert said() == [f"performance_run {KEY}: runs on n2 (Slurm job 7)"]
    bench.log("Building DAG\nperformance_run: results/x (70 s)\nFinished\n")
    bench.shows("COMPLETED", nodes="n2")
    bench.after(POLL_S)
    assert said() == ["performance_run: results/x (70 s)"]
    bench.after(POLL_S)
    assert said() == []


@pytest.mark.parametrize(
    ("state", "log", "words"),
    [
        ("FAILED", "error: performance_run: no model\n", "error: performance_run: no model (Slurm"),
        ("FAILED", "Killed\n", "FAILED (Slurm job 7 on n2); see results/logs/slurm/"),
        ("NODE_FAIL", "", "its node vanished (Slurm job 7 on n2); nothing of this job was kept"),
        ("TIMEOUT", "", "raise scheduler.time.allowance_min"),
        ("OUT_OF_MEMORY", "", "scheduler.share.memory_gb"),
        ("CANCELLED", "", "somebody cancelled it (Slurm job 7 on n2)"),
        ("PREEMPTED", "", "others were preferred to it (Slurm job 7 on n2); ./reproduce goes on"),
        ("BOOT_FAIL", "", "BOOT_FAIL (Slurm job 7 on n2)"),
    ],
)
def test_a_job_that_fails_gets_one_sentence(
    bench: Bench, said: Said, state: str, log: str, words: str
) -> None:
    bench.shows("RUNNING", nodes="n2")
    bench.after(POLL_S)
    said()
    bench.log(log)
    bench.shows(state, nodes="n2")
    bench.after(POLL_S)
    (line,) = said()
    assert line.startswith("error: ") and words in line


def test_a_job_that_waits_is_mentioned_ever_less_often_and_then_given_up(
    bench: Bench, said: Said
) -> None:
    bench.shows("PENDING", "(ReqNodeNotAvail, UnavailableNodes:n1)")
    for _ in range(29 * 6):
        assert bench.after(POLL_S) is None
    waits = said()
    assert 2 <= len(waits) <= 4 and all("UnavailableNodes:n1" in line for line in waits)
    assert "scancel" not in bench.asked
    for _ in range(2 * 6):
        bench.after(POLL_S)
    (line,) = said()
    assert f"performance_run {KEY}: no node for 30 min" in line
    assert "scheduler.pending_limit_min" in line and "UnavailableNodes:n1" in line
    assert bench.asked.count("scancel 7") == 1
    bench.shows("CANCELLED")
    bench.after(POLL_S)
    assert said() == [], "it was said why"


def test_silence_ends_the_wait_and_an_answer_before_that_does_not(bench: Bench, said: Said) -> None:
    bench.shows("RUNNING", nodes="n2")
    bench.after(POLL_S)
    (bench.home / "silent").touch()
    for _ in range(14):
        assert bench.after(60) is None
    (bench.home / "silent").unlink()
    assert bench.after(60) is None
    (bench.home / "silent").touch()
    reasons = [bench.after(60) for _ in range(16)]
    assert reasons[:14] == [None] * 14
    assert "Slurm hasn't answered for 15 min" in str(reasons[-1])
    assert "goes on" in str(reasons[-1])


def test_jobs_that_snakemake_has_lost_end_the_wait(bench: Bench) -> None:
    bench.shows("COMPLETED", nodes="n2")
    reasons = [bench.after(60) for _ in range(17)]
    assert reasons[:14] == [None] * 14
    assert "jobs that Slurm no longer runs" in str(reasons[-1])


def test_preempted_jobs_are_not_waited_for(bench: Bench) -> None:
    """Snakemake would wait for ever: it expects that Slurm starts them again."""
    bench.shows("PREEMPTED", nodes="n2")
    reasons = [bench.after(POLL_S) for _ in range(8)]
    assert reasons[0] is None and "others were preferred to" in str(reasons[-1])


def test_what_a_job_that_ended_beside_a_preempted_one_makes_due_is_waited_for(bench: Bench) -> None:
    bench.shows("PREEMPTED", nodes="n2")
    path = bench.home / "squeue.out"
    path.write_text(path.read_text() + f"8|COMPLETED|reprise-1_y|n1|{COMMENT}|None\n")
    reasons = [bench.after(60) for _ in range(8)]
    assert reasons[:5] == [None] * 5 and "others were preferred to" in str(reasons[-1])


def test_other_peoples_jobs_and_earlier_ones_are_none_of_ours(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    line = f"3|FAILED|reprise-1_old|n1|{COMMENT}|None\n4|RUNNING|other|n1|{COMMENT}|None\n"
    bench = Bench(tmp_path, plan)
    (tmp_path / "squeue.out").write_text(line)
    assert isinstance(plan.scheduler, Slurm)
    watch = Watch(plan, plan.scheduler, tmp_path, "reprise-1", clock=lambda: bench.now)
    assert watch.look(NO_PROCESS) is None
    assert said() == []


SUPERVISED = """
import sys
from pathlib import Path
from steps.base.errors import UserError
from steps.plan.plan import Plan, freeze
from steps.plan.unsupported import left
from steps.schedule import slurm_run, supervisor
home, code = sys.argv[1:]
slurm_run.POLL_S = supervisor.POLL_S = 0.1
plan = Plan.model_validate_json((Path(home) / "plan.json").read_text())
scheduler = plan.scheduler.model_copy(update={"silence_limit_min": 0.1})
watch = slurm_run.Watch(plan, scheduler, Path(home), "reprise-1")
try:
    words = [sys.executable, "-c", code]
    raise SystemExit(supervisor.supervise(words, Path(home), 0.0, queue=watch))
except UserError as error:
    print("error:", error, file=sys.stderr)
    raise SystemExit(1)
"""

SNAKEMAKE = """
import os, signal, time
signal.signal(signal.SIGINT, lambda *_: None)
open("begun", "w").write(str(os.getpid()))
time.sleep(60)
time.sleep(60)
"""
"""Asleep, and no SIGINT wakes it."""


class Supervised:
    """A ./reproduce beside a snakemake that has submitted a job."""

    def __init__(self, bench: Bench, plan: Plan, code: str = SNAKEMAKE) -> None:
        (bench.home / "plan.json").write_text(plan.model_dump_json())
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISED, str(bench.home), code],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        limit = time.monotonic() + LIMIT_S
        while not (begun := bench.home / "begun").exists() or not begun.read_text():
            assert time.monotonic() < limit
            assert self.process.poll() is None, self.ended()
            time.sleep(0.02)
        self.snakemake = int(begun.read_text())
        bench.shows("RUNNING", nodes="n2")

    def ended(self) -> tuple[int, str]:
        _, text = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_signal_cancels_the_jobs_and_ends_a_snakemake_that_sleeps(
    bench: Bench, plan: Plan, number: signal.Signals
) -> None:
    run = Supervised(bench, plan)
    run.process.send_signal(number)
    status, text = run.ended()
    assert status == 128 + number
    assert f"error: ended by {number.name}" in text
    assert "Slurm's jobs 7 were cancelled; ./reproduce goes on" in text
    assert "scancel 7" in bench.asked
    assert processes.state(run.snakemake) in processes.GONE


def test_a_snakemake_that_a_signal_ended_is_named(bench: Bench, plan: Plan) -> None:
    run = Supervised(bench, plan)
    os.kill(run.snakemake, signal.SIGKILL)
    status, text = run.ended()
    assert status == 128 + signal.SIGKILL
    assert f"error: snakemake (process {run.snakemake}) was ended by SIGKILL" in text
    assert "scancel" not in bench.asked, "what runs in Slurm goes on"


def test_snakemake_ends_with_us_and_its_jobs_go_on(bench: Bench, plan: Plan) -> None:
    run = Supervised(bench, plan)
    run.process.kill()
    run.ended()
    limit = time.monotonic() + LIMIT_S
    while processes.state(run.snakemake) not in processes.GONE:
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert "scancel" not in bench.asked


def test_what_waits_in_vain_is_ended(bench: Bench, plan: Plan) -> None:
    run = Supervised(bench, plan)
    (bench.home / "silent").touch()
    status, text = run.ended()
    assert status == 1 and "error: Slurm hasn't answered for 0.1 min" in text
    assert processes.state(run.snakemake) in processes.GONE


# ---- before anything is submitted --------------------------------------------------------------

NODES = """\
main*|2-00:00:00|gpu:mi325x:8(S:0-1),nvme:1|n1
main*|2-00:00:00|gpu:mi325x:8|n2
short|30:00|(null)|n3
"""


@pytest.fixture(scope="module")
def amd(plan: Plan) -> Plan:
    whole = planned("experiment=amd-v5.1")
    jobs = tuple(job for job in whole.jobs if job.key.startswith("amd-mi325x/"))
    return whole.model_copy(update={"jobs": jobs, "scheduler": plan.scheduler})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": "gpu"}, "no partition gpu; set scheduler.partition to one of main, short"),
        ({"partition": "short"}, "partition short ends jobs after 30"),
        ({"gpu_types": {"mi325x": "big"}}, "1 node with 8 × big, and partition main has 0 (of 2"),
    ],
)
def test_what_would_wait_for_ever_is_refused(
    bench: Bench, amd: Plan, changes: dict[str, object], words: str
) -> None:
    (bench.home / "sinfo.out").write_text(NODES)
    assert isinstance(amd.scheduler, Slurm)
    slurm.check(amd, amd.scheduler, amd.jobs, "sacct")
    other = amd.scheduler.model_copy(update=changes)
    changed = amd.model_copy(update={"scheduler": other})
    with pytest.raises(UserError) as refused:
        slurm.check(changed, other, amd.jobs, "sacct")
    assert words in str(refused.value)


def test_nodes_of_several_kinds_need_slurms_accounting(bench: Bench) -> None:
    """Without it squeue numbers the parts of such a job, and the plugin looks for its number."""
    (bench.home / "sinfo.out").write_text(
        "main*|infinite|gpu:mi300x:8|n1\n" * 4 + "main*|infinite|gpu:mi325x:8|n5\n" * 2
    )
    of = ("experiment=mangoboost-v5.1", "system=mangoboost-mi300x-mi325x", "engine=vllm")
    mixed = planned(*of, "scheduler=slurm")
    assert isinstance(mixed.scheduler, Slurm)
    slurm.check(mixed, mixed.scheduler, mixed.jobs, "sacct")
    with pytest.raises(UserError, match="without Slurm's accounting"):
        slurm.check(mixed, mixed.scheduler, mixed.jobs, "squeue")


def test_further_parts_of_a_job_go_with_the_first() -> None:
    text = "5+0|RUNNING|p-x|n[1-4]|c|None\n5+1|RUNNING|p-x|n[5-6]|c|None\n"
    (entry,) = slurm.entries(text, "p-", Losses())
    assert (entry.number, entry.nodes) == ("5+0", "n[1-4]")


def test_cells_that_a_partition_has_no_nodes_for_leave_the_others_alone(
    bench: Bench, plan: Plan, tmp_path: Path
) -> None:
    """AMD's submission has three kinds of accelerators, and few partitions do."""
    (bench.home / "sinfo.out").write_text(NODES)
    whole = planned("experiment=amd-v5.1").model_copy(update={"scheduler": plan.scheduler})
    path, missing = freeze(whole, tmp_path), missing_of(whole)
    apart = {one.key: one.machine for one in left(path, tmp_path, missing) if one.machine}
    keys = {job.key for job in whole.jobs if job.step == "performance_run"}
    language = {key for key in keys if "stable-diffusion" not in key}
    assert {key for key in language if key not in apart} == {
        key for key in language if key.startswith("amd-mi325x")
    }
    why = next(words for key, words in apart.items() if key.startswith("amd-mi355x/"))
    assert "with 8 × mi355x, and partition main has 0 (of 2; accelerators there: 8 × mi325x)" in why
    # What is asked for is checked, and no more.
    here = [job for job in whole.jobs if job.key in language - apart.keys()]
    asked = asked_for(whole, [job.output for job in here if job.step == "performance_check"])
    assert {job.key for job in here} <= {job.key for job in asked}
    assert not apart.keys() & {job.key for job in asked}
    assert isinstance(whole.scheduler, Slurm)
    slurm.check(whole, whole.scheduler, asked, "sacct")
    with pytest.raises(UserError):
        slurm.check(whole, whole.scheduler, asked_for(whole, ["judged"]), "sacct")


def test_a_silent_slurm_starts_nothing(bench: Bench, plan: Plan) -> None:
    (bench.home / "silent").touch()
    with pytest.raises(UserError, match=r"Slurm doesn't answer .* nothing was started"):
        missing_of(plan)


def test_a_machine_without_slurm_is_told_so(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isinstance(plan.scheduler, Slurm)
    with pytest.raises(UserError, match="there is no sinfo here"):
        slurm.check(plan, plan.scheduler, plan.jobs, "sacct")


@pytest.mark.parametrize(
    ("configured", "command"),
    [
        ("AccountingStorageType   = accounting_storage/none\n", "squeue"),
        ("AccountingStorageType   = accounting_storage/slurmdbd\n", "sacct"),
        ("", "squeue"),
        ("AccountingStorageHost   = (null)\nAccountingStorageType   = (null)\n", "squeue"),
        ("AccountingStorageType   = \nAccountingStorageUser = N/A\n", "squeue"),
        ("AccountingStorageType   = none\n", "squeue"),
        ("slurm: warning\n  AccountingStorageType=accounting_storage/mysql\n", "sacct"),
    ],
)
def test_states_come_from_accounting_where_there_is_any(
    bench: Bench, configured: str, command: str
) -> None:
    (bench.home / "scontrol.out").write_text(configured)
    assert slurm.status_command() == command


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("infinite", None),
        ("30:00", 30),
        ("30:01", 31),
        ("1:00:00", 60),
        ("2-00:00:00", 2880),
        ("1-01:30:00", 1530),
        ("2-0", 2880),
        ("1-6:30", 1830),
        ("UNLIMITED", None),
    ],
)
def test_limits_as_sinfo_writes_them(text: str, expected: int | None) -> None:
    assert slurm.minutes(text) == expected


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("(null)", {}),
        ("gpu:8", {"": 8}),
        ("gpu:(null):8(S:0-1)", {"": 8}),
        ("gpu:mi300x:8(IDX:0-7)", {"mi300x": 8}),
        ("gpu:mi300x:no_consume:8", {"mi300x": 8}),
        ("gpu:mi300x:8(S:0-1)", {"mi300x": 8}),
        ("gpu:a100-40:2,gpu:a100-80:6,nvme:1", {"a100-40": 2, "a100-80": 6}),
    ],
)
def test_accelerators_of_a_node(gres: str, expected: dict[str, int]) -> None:
    assert slurm.accelerators(gres) == expected


def test_every_job_of_a_plan_is_known_by_its_comment(plan: Plan) -> None:
    comments = {slurm.comment(job, plan.experiment): job for job in plan.jobs}
    assert len(comments) == len(plan.jobs)
    assert comments[COMMENT].step == "performance_run"
