"""What fails takes nothing else with it: `./reproduce`, `status`, `again` on null engines.

Their submission is refused everywhere else; in this clone it isn't, and no score is required, so
that an experiment can be whole in a minute.
"""

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, copy_project, edit, reproduce

pytestmark = pytest.mark.e2e

SETTINGS = [
    *("experiment=null-engine", "compression.required_gate=none"),
    "hardware.engine.arguments.max_num_seqs=16",
]
BASE = [*SETTINGS, "system.target_qps={Offline: 200, Server: 100, Interactive: 100}"]
"""32 places answer about 200 samples a second."""
SLOW = "system.target_qps.Server=2000"
"""Twenty times the rate that is valid: the last of 662 samples wait for three seconds."""
TWO = [*SETTINGS, "system.target_qps={Offline: 200, Server: 100}", SLOW, "scenario=Offline,Server"]
LIMIT_S = 600
UP_TO_DATE_S = 3.0 if os.environ.get("REPRISE_QUIET") else 15.0
"""Three on a machine with nothing else on it."""

RUNS = "results/null-engine/runs/null-engine/rehearsal/none/bf16"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = copy_project(tmp_path_factory.mktemp("clone"))
    (home / ".envs").symlink_to(ROOT / ".envs")
    edit(home / "steps/submit/submission/verdicts.py", '"vllm", "diff', '"vllm", "null", "diff')
    return home


def summary(clone: Path) -> dict[str, str]:
    """The state of each scenario, as the page has it."""
    text = (clone / "results/null-engine/report/summary.json").read_text(encoding="utf-8")
    return {
        state["axes"]["scenario"]: min(
            (part["state"] for part in state["parts"]), key=lambda one: one == "valid"
        )
        for state in json.loads(text)["states"]
    }


def tries(clone: Path) -> int:
    """Of Server's performance run: two where the first one was disturbed."""
    text = (clone / RUNS / "Server/performance_run/manifest.json").read_text(encoding="utf-8")
    return int(json.loads(text)["result"]["tries"])


def killed_in(clone: Path, step: str, scenario: str, *overrides: str) -> tuple[int, str]:
    """A ./reproduce of which one run gets SIGKILL as soon as it works."""
    process = subprocess.Popen(
        [str(clone / "reproduce"), *overrides],
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = time.monotonic() + LIMIT_S
    found: list[Path] = []
    while not found:
        assert process.poll() is None and time.monotonic() < limit, process.communicate()[0]
        found = list((clone / RUNS / scenario).glob(f".{step}.*.tmp/user.conf"))
        time.sleep(0.02)
    os.kill(int(found[0].parent.name.split(".")[-2]), signal.SIGKILL)
    text, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, text


@pytest.fixture(scope="module")
def failed(clone: Path) -> tuple[int, str]:
    """Server asked for too much, Offline's accuracy run killed."""
    return killed_in(clone, "accuracy_run", "Offline", *TWO)


def test_what_failed_is_said_last_and_the_others_are_finished(
    clone: Path, failed: tuple[int, str]
) -> None:
    status, text = failed
    assert status == 1, text
    *_, numbers, offline, server, page = text.splitlines()
    assert numbers == "null-engine: 0 of 2 cells valid", text
    assert offline.startswith("Offline failed: accuracy: its process was ended by SIGKILL")
    assert server.startswith("Server INVALID: performance: p99 TTFT is ")
    command = ["./reproduce", "again", *TWO, "Server"]
    assert server.endswith(shlex.join(command))
    assert page == "results/null-engine/report/index.html"
    made = {str(p.relative_to(clone / RUNS).parent) for p in (clone / RUNS).rglob("manifest.json")}
    assert made == {
        *(f"{scenario}/compliance_run" for scenario in ("Offline", "Server")),
        *("Offline/performance_run", "Server/performance_run", "Server/accuracy_run"),
    }
    assert summary(clone) == {"Offline": "failed", "Server": "invalid"}
    assert not (clone / "results/null-engine/submission").exists()


def test_status_and_page_say_the_same_of_what_was_never_run(
    clone: Path, failed: tuple[int, str]
) -> None:
    status, text = reproduce(clone, "status", *BASE, SLOW, limit_s=60)
    assert status == 0
    shown = {line.split()[0]: line.split()[1] for line in text.splitlines()[2:5]}
    assert shown == {"Offline": "failed", "Server": "INVALID", "Interactive": "missing"}
    assert reproduce(clone, "report", *BASE, SLOW, limit_s=120)[0] == 0
    assert summary(clone) == {"Offline": "failed", "Server": "invalid", "Interactive": "due"}


def test_an_invalid_result_is_kept_and_told_at_once(clone: Path, failed: tuple[int, str]) -> None:
    first, _ = reproduce(clone, *BASE, SLOW)  # what was killed, and what was never run
    assert first == 1
    assert summary(clone) == {"Offline": "valid", "Server": "invalid", "Interactive": "valid"}
    made = (clone / RUNS / "Server/performance_run/record.json").read_bytes()
    begun = time.monotonic()
    status, text = reproduce(clone, *BASE, SLOW, limit_s=60)
    assert time.monotonic() - begun < UP_TO_DATE_S
    assert status == 1 and "Server INVALID: performance: p99 TTFT is " in text
    assert (clone / RUNS / "Server/performance_run/record.json").read_bytes() == made
    plan = reproduce(clone, "plan", *BASE, SLOW, limit_s=60)[1]
    assert "nothing to run, but not everything holds" in plan and "1× not valid" in plan


def test_again_keeps_the_earlier_try_and_counts_it(clone: Path, failed: tuple[int, str]) -> None:
    before = tries(clone)
    status, text = reproduce(clone, "again", *BASE, SLOW)
    assert status == 1 and "Server INVALID" in text
    earlier = clone / RUNS.replace("/runs/", "/earlier/") / "Server/performance_run"
    assert (earlier / f"{before}/manifest.json").is_file()
    assert "p99 TTFT" in json.loads((earlier / f"{before}.reason.json").read_text())["reason"]
    assert tries(clone) == before + 1


def test_what_was_mended_ends_with_nothing_to_do(clone: Path, failed: tuple[int, str]) -> None:
    status, text = reproduce(clone, *BASE)
    assert status == 0, text
    numbers, page = text.splitlines()[-2:]
    assert numbers.startswith("null-engine: 3 of 3 cells valid: Offline ")
    assert page == "results/null-engine/report/index.html"
    assert summary(clone) == dict.fromkeys(("Offline", "Server", "Interactive"), "valid")
    status, text = reproduce(clone, "again", "performance", "Server", *BASE)
    assert status == 0, text
    tree = clone / "results/null-engine/submission"
    assert "try 2, 1 earlier" in next(tree.rglob("systems/*.json")).read_text()
    assert reproduce(clone, "verify", *BASE)[0] == 0


def test_what_is_damaged_is_told_alike_and_mended_by_again(
    clone: Path, failed: tuple[int, str]
) -> None:
    log = clone / RUNS / "Offline/performance_run/mlperf_log_detail.txt"
    log.unlink()
    said = shlex.join(["./reproduce", "again", *BASE, "Offline"])
    for command in (("plan",), (), ("verify",)):
        status, text = reproduce(clone, *command, *BASE)
        assert status == (0 if command == ("plan",) else 1)
        assert said in text and "mlperf_log_detail.txt is missing" in text
    status, text = reproduce(clone, "seal", *BASE, "--output", str(clone / "sealed"))
    assert status == 1 and said in text
    assert not log.exists()
    assert reproduce(clone, "again", *BASE)[0] == 0
    assert reproduce(clone, "seal", *BASE, "--output", str(clone / "sealed"))[0] == 0
