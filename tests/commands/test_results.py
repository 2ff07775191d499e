"""What has become of each cell, read from what is finished: by a plan whose results are made up."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from steps.base import earlier
from steps.base.errors import UserError
from steps.base.record import Manifest, sha256_file
from steps.commands import measuring, results
from steps.commands.results import Asked
from steps.commands.seal import _require_held
from steps.commands.verify import verify
from steps.plan.due import MISSING, Reason
from steps.plan.plan import Plan, freeze
from steps.plan.states import CellState, States, selected, troubles, word_for
from tests import synthetic
from tests.conftest import planned
from tests.synthetic import LATE, gone, invalid, job_of, made_otherwise


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned()


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("whole")
    synthetic.build(plan, home)
    synthetic.package(plan, home)
    return home


@pytest.fixture
def home(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "home", copy_function=shutil.copy2)
    return tmp_path / "home"


@pytest.fixture
def asked(plan: Plan, home: Path) -> Asked:
    return Asked.of(freeze(plan, home), home, [])


def by_scenario(asked: Asked) -> dict[str, CellState]:
    return {cell.axes["scenario"]: cell for cell in asked.cells()}


def test_a_whole_experiment_is_valid(asked: Asked) -> None:
    assert {cell.state for cell in asked.cells()} == {"valid"}
    assert list(States(asked.plan, asked.root).whole()) == []
    assert results.numbers(asked, asked.cells()).startswith("rehearsal: 3 of 3 cells valid: Offl")
    _require_held(asked)


def test_each_cell_says_what_became_of_it(asked: Asked) -> None:
    invalid(asked.plan, asked.root, "Server")
    died = "error: accuracy_run: its process was ended by SIGKILL: memory; details in x.log"
    gone(asked.plan, asked.root, "accuracy_run", "Offline", died)
    gone(asked.plan, asked.root, "performance_run", "Interactive")
    cells = by_scenario(asked)
    assert {name: cell.state for name, cell in cells.items()} == {
        **{"Server": "invalid", "Offline": "failed", "Interactive": "due"}
    }
    assert cells["Server"].why == f"performance: {LATE['words']}; {LATE['fix']}"
    assert "ended by SIGKILL" in cells["Offline"].why
    assert results.lines(list(cells.values()), asked) == [
        "Offline failed: accuracy: its process was ended by SIGKILL: memory; details in x.log: "
        "./reproduce",
        f"Server INVALID: performance: {LATE['words']}; {LATE['fix']}: ./reproduce again Server",
        "Interactive missing: performance: not measured yet: ./reproduce",
    ]


def test_what_is_behind_a_failed_gate_or_step_says_so(tmp_path: Path) -> None:
    plan = planned("precision=fp8", "scenario=Offline")
    synthetic.build(plan, tmp_path)
    gone(plan, tmp_path, "performance_run", "Offline")
    gate = next(job for job in plan.jobs if job.step == "quick_check")
    lost = {"holds": False, "complaints": [{**LATE, "words": "9 % are kept", "fix": ""}]}
    made_otherwise(tmp_path / gate.output, lambda fields: fields["result"].update(lost))
    (cell,) = States(plan, tmp_path).cells()
    assert (cell.state, cell.why) == ("blocked", "performance: quick_check: 9 % are kept")
    quantize = next(job for job in plan.jobs if job.step == "quantize")
    gone(plan, tmp_path, "quantize", "fp8", "error: quantize: no space left on the device")
    shutil.rmtree((tmp_path / gate.output).parent)
    (cell,) = States(plan, tmp_path).cells()
    assert cell.state == "blocked"
    assert f"quantize {quantize.key}: no space left on the device" in cell.why


@pytest.fixture
def step_at_work(tmp_path: Path) -> Iterator[int]:
    code = "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, "steps.run.performance_run"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_running_step_is_told_with_the_time_it_still_takes(
    asked: Asked, step_at_work: int
) -> None:
    gone(asked.plan, asked.root, "performance_run", "Server")
    directory = (asked.root / job_of(asked.plan, "performance_run", "Server").output).parent
    for number, state in ((step_at_work, "running"), (2**22 + 1, "due")):
        work = directory.with_name(f".{directory.name}.{number}.tmp")
        work.mkdir(parents=True)
        (work / "user.conf").write_text("")
        cell = by_scenario(asked)["Server"]
        assert cell.state == state
        assert (cell.parts[0].seconds_left is not None) == (state == "running")
        shutil.rmtree(work)


LOCKS = """
import fcntl, sys, time
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


def test_what_a_container_left_runs_only_while_another_reproduce_does(home: Path) -> None:
    plan = planned("runtime=docker")
    gone(plan, home, "performance_run", "Server", "error: performance_run: no memory")
    run = job_of(plan, "performance_run", "Server")
    directory = (home / run.output).parent
    directory.with_name(f".{directory.name}.1.tmp").mkdir(parents=True)
    lock = home / "results/.lock"

    def state() -> str:
        return States(plan, home)._part("performance", "performance", run.key).state

    assert state() == "failed"
    with lock.open("w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)
        assert state() == "failed", "it is this process that was waiting for it"
    other = subprocess.Popen([sys.executable, "-c", LOCKS, str(lock)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"locked\n"
        assert state() == "running"
    finally:
        other.kill()
        other.wait()


def test_other_settings_or_inputs_are_not_the_plan_s(asked: Asked, home: Path) -> None:
    other = planned("system.target_qps.Server=7")
    cells = by_scenario(Asked.of(freeze(other, home), home, ["system.target_qps.Server=7"]))
    assert cells["Offline"].state == "valid"
    assert (
        cells["Server"].state == "due" and "other settings than the plan's" in cells["Server"].why
    )
    model = next(job for job in asked.plan.jobs if job.step == "model")
    made_otherwise(home / model.output, lambda fields: fields.update(result={"simulated": 1}))
    assert "its input model" in by_scenario(asked)["Offline"].why


def damaged_log(asked: Asked) -> Path:
    """A log of the same length, changed after the run; returns it."""
    path = asked.root / job_of(asked.plan, "performance_run", "Server").output
    log = path.with_name("mlperf_log_detail.txt")
    data = bytearray(log.read_bytes())
    data[40] ^= 1
    log.write_bytes(data)
    os.utime(log, (time.time() + 5, time.time() + 5))
    return log


def test_a_damaged_log_is_told_alike_by_all(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    log = damaged_log(asked)
    name = log.relative_to(asked.root)
    said = f"Server damaged: performance: {name} does not match its sha256 in manifest.json: "
    said += "./reproduce again Server"
    assert results.lines([by_scenario(asked)["Server"]], asked) == [said]
    assert verify(asked.path, asked.root) == 1
    assert said in capsys.readouterr().out.splitlines()
    with pytest.raises(UserError) as refused:
        _require_held(asked)
    assert said in str(refused.value)


def test_seal_refuses_another_plan_s_package(asked: Asked, home: Path) -> None:
    one = planned("scenario=Server")
    with pytest.raises(UserError, match="submission: made with other settings than the plan's"):
        _require_held(Asked.of(freeze(one, home), home, ["scenario=Server"]))
    invalid(asked.plan, home, "Offline")
    with pytest.raises(UserError, match="Offline INVALID"):
        _require_held(asked)


def test_again_takes_what_failed_or_what_is_named(asked: Asked) -> None:
    def names(*words: str) -> list[tuple[str, str]]:
        return [
            (part.run.split("/")[-3], part.name) for part in measuring.chosen(asked.cells(), words)
        ]

    assert names() == []
    assert names("performance", "Server") == [("Server", "performance")]
    assert names("accuracy_run") == [(s, "accuracy") for s in ("Offline", "Server", "Interactive")]
    invalid(asked.plan, asked.root, "Server")
    assert names() == [("Server", "performance")]
    assert names("Offline") == []
    with pytest.raises(UserError, match="'Sever' names no cell of the plan"):
        names("Sever")


@pytest.mark.parametrize("name", ["manifest.json", "record.json"])
def test_again_measures_a_run_of_which_nothing_can_be_read(told: "Told", name: str) -> None:
    run = (told.root / job_of(told.plan, "accuracy_run", "Server").output).parent
    (run / name).write_bytes(b"\0" * 99)
    cell = by_scenario(told)["Server"]
    assert cell.state == "damaged" and not cell.parts[1].tries
    (line,) = results.lines([cell], told)
    assert line.endswith("./reproduce again Server")
    measuring.again(told, ["Server"])
    assert not run.exists() and (earlier.home(run) / "1" / name).exists()  # type: ignore[operator]
    assert told.asked_for == [("judged",)]


@pytest.mark.parametrize("name", ["manifest.json", "record.json"])
@pytest.mark.parametrize("words", [[], ["Server"]], ids=str)
def test_again_measures_no_run_because_its_verdict_is_damaged(
    told: "Told", name: str, words: list[str]
) -> None:
    check = told.root / job_of(told.plan, "performance_check", "Server").output
    check.with_name(name).write_bytes(b"\0" * 99)
    before = {path: sha256_file(path) for path in told.root.glob("results/*/runs/**/*.json")}
    measuring.again(told, words)
    assert {path: sha256_file(path) for path in before} == before
    assert not check.exists() and told.asked_for == [("judged",)]


@pytest.mark.parametrize("step", ["performance_run", "model", "submission", "accuracy_check"])
@pytest.mark.parametrize("name", ["manifest.json", "record.json"])
def test_damage_of_any_record_is_trouble(asked: Asked, step: str, name: str) -> None:
    assert troubles(asked.plan, asked.root) == []
    path = (asked.root / first(asked.plan, step)).with_name(name)
    path.write_bytes(path.read_bytes()[:-9])
    (one,) = troubles(asked.plan, asked.root)
    assert one.job.step == step and name in one.words


def test_a_performance_run_takes_the_tests_of_its_speed_along() -> None:
    plan = planned("experiment=amd-v5.1", "benchmark=stable-diffusion-xl", "scenario=Offline")
    waiting = {j.key.rsplit("/", 1)[-1]: j.gates for j in plan.jobs if j.step == "compliance_run"}
    check = next(j for j in plan.jobs if j.step == "performance_check")
    assert waiting == {"TEST01": (check.output,), "TEST04": (check.output,)}


def test_what_is_set_aside_keeps_its_reason_and_counts(asked: Asked) -> None:
    run = (asked.root / job_of(asked.plan, "performance_run", "Server").output).parent
    config = Manifest.read(run / "manifest.json").config
    digest = (run / "manifest.json").read_bytes()
    place = earlier.set_aside(run, "p99 TTFT is 4056.2 ms")
    assert place == earlier.home(run) / "1" and not run.exists()
    assert (place / "manifest.json").read_bytes() == digest
    assert json.loads((place.parent / "1.reason.json").read_text())["reason"].startswith("p99")
    assert earlier.count(run, lambda one: one == config) == 1
    assert earlier.count(run, lambda one: False) == 0
    shutil.copytree(place, run)
    assert earlier.set_aside(run, "again").name == "2"
    (place / "manifest.json").write_text("{")
    assert earlier.count(run, lambda one: False) == 1


def test_only_short_disturbed_runs_are_measured_once_more(asked: Asked, told: "Told") -> None:
    window = {
        "disturbances": [
            {"by": "processes", "words": "others took 1.3 of 2 cores", "from_s": 1, "to_s": 2}
        ]
    }
    path = asked.root / job_of(asked.plan, "performance_run", "Server").output
    invalid(asked.plan, asked.root, "Server")
    assert list(measuring.disturbed(asked)) == []
    check = asked.root / job_of(asked.plan, "performance_check", "Server").output
    digest = sha256_file(path)
    made_otherwise(check, lambda fields: fields["inputs"].update(run=digest))
    made_otherwise(check, lambda fields: fields["result"].update(window=window))
    (cell,) = measuring.disturbed(asked)
    part = cell.parts[0]
    assert part.why.endswith("; from second 1 to 2 others took 1.3 of 2 cores")
    kept = told.root / earlier.home(Path(part.run).parent) / "1"  # type: ignore[operator]
    shutil.copytree(path.parent, told.root / "copy")
    assert measuring.run(told, ()) == 1
    (asked_for,) = told.asked_for
    assert part.check in asked_for
    assert not any("accuracy" in target for target in asked_for)
    assert (kept / "manifest.json").is_file()
    shutil.copytree(told.root / "copy", path.parent)
    made_otherwise(path, lambda fields: fields["result"].update(tries=2))
    made_otherwise(check, lambda fields: fields["inputs"].update(run=sha256_file(path)))
    assert list(measuring.disturbed(asked)) == []


class Told(Asked):
    """Whose snakemake is a list of what it was asked for, and what becomes of each call."""

    asked_for: ClassVar[list[tuple[str, ...]]] = []
    becomes: ClassVar[list[Callable[[], int]]] = []

    def execute(self, passed_on: Sequence[str]) -> int:
        self.asked_for.append(tuple(passed_on))
        return self.becomes.pop(0)() if self.becomes else 0


def missing(plan: Plan, root: Path) -> dict[str, Reason]:
    return {job.output: MISSING for job in plan.jobs if not (root / job.output).is_file()}


@pytest.fixture
def told(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(measuring, "due", missing)
    Told.asked_for.clear()
    Told.becomes.clear()
    return Told(asked.path, asked.plan, asked.root, asked.overrides)


def test_no_tree_is_asked_for_while_a_cell_is_not_valid(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measuring.run(told, ()) == 0
    assert told.asked_for == [], "nothing to do"
    gone(told.plan, told.root, "provenance", "")
    assert measuring.run(told, ()) == 1
    assert told.asked_for == [()]
    invalid(told.plan, told.root, "Server")
    assert measuring.run(told, ()) == 1
    assert told.asked_for == [()]
    numbers, server, page = capsys.readouterr().out.splitlines()[-3:]
    assert numbers.startswith("rehearsal: 2 of 3 cells valid: Offline 1,234.5 Tokens/s, Inter")
    assert server.startswith("Server INVALID: performance: p99 TTFT is 4056.2 ms")
    assert page.startswith("no page: the analysis environment isn't there yet")


def test_what_a_scheduler_says_costs_no_page(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent() -> int:
        raise UserError("Slurm doesn't answer")

    gone(told.plan, told.root, "provenance", "")
    told.becomes.append(silent)
    assert measuring.run(told, ()) == 1
    found = capsys.readouterr()
    assert found.err == "error: Slurm doesn't answer\n" and "3 of 3 cells valid" in found.out
    told.becomes.append(lambda: 130)
    assert measuring.run(told, ()) == 130
    assert "3 of 3 cells valid" in capsys.readouterr().out


def test_snakemake_s_own_arguments_get_what_they_ask_for(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    invalid(told.plan, told.root, "Server")
    for words in (("-n",), ("--report", "page.html")):
        assert measuring.run(told, words) == 0
        assert capsys.readouterr().out == "", "nothing was run, so nothing comes after it"
    assert measuring.run(told, ("--until", "performance_check")) == 1
    assert capsys.readouterr().out.startswith("rehearsal: nothing to do\nServer INVALID")


def test_a_damaged_or_older_verdict_is_judged_again_and_no_run_is(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    check = told.root / job_of(told.plan, "performance_check", "Server").output
    made_otherwise(check, lambda fields: fields.update(result={"valid": True, "value": 1.0}))
    log = damaged_log(told)
    measuring.remake(told)
    assert not check.exists() and log.exists()
    said = capsys.readouterr().out
    assert said.startswith("performance_check rehearsal-cpu/rehearsal/none/bf16/Server: results/")
    assert "of another version" in said and said.count("\n") == 1


def test_words_name_cells_by_parts_that_follow_each_other() -> None:
    keys = ["s/b/none/bf16/Server", "s/b/none/fp8/Server", "s/b/none/fp8/Offline"]
    assert [word_for(key, keys) for key in keys] == ["bf16/Server", "fp8/Server", "Offline"]
    assert selected(keys[0], "bf16/Server") and not selected(keys[0], "bf16/Serv")
    assert not selected(keys[1], "none/Server")


def first(plan: Plan, step: str) -> str:
    return next(job.output for job in plan.jobs if job.step == step)


NOT_UNDERSTOOD = (
    *(["--forceall"], ["-R", "performance_run"], ["--until", "dataset", "-F"], ["--touch"]),
    *(["--omit-from", "dataset"], ["--config", "a=b"], ["-j4"], ["results/not-of-the-plan"]),
    *(["--until"], ["-U", "--cores", "2"]),
)


@pytest.mark.parametrize("words", NOT_UNDERSTOOD, ids=" ".join)
def test_what_only_snakemake_understands_it_gets_as_it_was_typed(
    told: Told, words: list[str]
) -> None:
    measuring.run(told, words)
    assert told.asked_for == [tuple(words)]


UNDERSTOOD = (
    ["--until", "dataset"],
    ["--until=dataset", "--keep-going"],
    ["-U", "performance_run", "accuracy_check", "--cores", "2"],
    ["judged", "--quiet", "host"],
    ["all", "-k"],
    ["--resources", "gpu=1", "--until", "performance_check"],
)


@pytest.mark.parametrize("words", UNDERSTOOD, ids=" ".join)
def test_no_snakemake_is_started_where_nothing_that_is_asked_for_is_due(
    told: Told, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert measuring.run(told, words) == 0
    assert told.asked_for == []
    assert capsys.readouterr().out == "rehearsal: nothing to do\n"


def test_until_asks_for_the_outputs_of_its_steps_and_for_nothing_behind_them(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone(told.plan, told.root, "performance_run", "Server")
    left = {job_of(told.plan, "performance_run", "Server").output: MISSING}
    monkeypatch.setattr(measuring, "due", lambda *_: left)
    assert measuring.run(told, ["--until", "dataset"]) == 0
    assert told.asked_for == [], "a run is behind its dataset"
    measuring.run(told, ["--until", "performance_run", "--keep-going"])
    runs = [job.output for job in told.plan.jobs if job.step == "performance_run"]
    assert told.asked_for == [(*runs, "--keep-going")]


def test_what_is_gone_is_made_where_it_is_asked_for_by_name(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that needed the model is there: by itself, nothing would bring it back."""
    gone(told.plan, told.root, "model", "")
    monkeypatch.setattr(measuring, "due", lambda *_: {})
    assert measuring.run(told, ["--until", "performance_run"]) == 0
    assert told.asked_for == []
    measuring.run(told, ["--until", "model"])
    models = [job.output for job in told.plan.jobs if job.step == "model"]
    assert told.asked_for == [tuple(models)]


def test_until_makes_artifacts_first_that_results_wait_for(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, run = first(asked.plan, "model"), first(asked.plan, "performance_run")
    left = {model: MISSING, run: Reason("its input model is made again", derived=True)}
    begun: list[Sequence[str]] = []

    def execute(self: Asked, passed_on: Sequence[str]) -> int:
        begun.append(passed_on)
        left.clear()  # the model came out as it was
        return 0

    monkeypatch.setattr(Asked, "execute", execute)
    monkeypatch.setattr(measuring, "due", lambda *_: dict(left))
    measuring._as_told(asked, ["--until", "performance_run", "--quiet", "host"])
    assert begun == [[model, "--quiet", "host"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--until", "performance_chek"], "no such step; did you mean performance_check"),
        (["--until", "finetune"], "no such step"),
        (["--until", "accuracy_check", "nothing"], "--until nothing: "),
    ],
)
def test_a_step_that_the_plan_lacks_is_refused(told: Told, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        measuring.run(told, words)
    assert told.asked_for == []


def test_artifacts_that_are_due_in_turns_are_not_made_for_ever(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [first(asked.plan, step) for step in ("model", "dataset")]
    begun: list[Sequence[str]] = []

    def execute(self: Asked, passed_on: Sequence[str]) -> int:
        assert len(begun) < 9
        begun.append(passed_on)
        return 0

    monkeypatch.setattr(Asked, "execute", execute)
    monkeypatch.setattr(measuring, "due", lambda *_: dict.fromkeys(turns, MISSING))
    monkeypatch.setattr(measuring, "unsettled", lambda *_: [turns[len(begun) % 2]])
    _, status = measuring.settled(asked, turns)
    assert status == 0 and begun == [[turns[0]], [turns[1]]]


def test_a_stop_while_artifacts_are_made_starts_nothing_more(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = first(asked.plan, "model")
    begun: list[Sequence[str]] = []

    def execute(self: Asked, passed_on: Sequence[str]) -> int:
        begun.append(passed_on)
        return 143

    monkeypatch.setattr(Asked, "execute", execute)
    monkeypatch.setattr(measuring, "due", lambda *_: {model: MISSING})
    monkeypatch.setattr(measuring, "unsettled", lambda *_: [model])
    assert measuring._measure(asked) == 143
    assert begun == [[model]]
