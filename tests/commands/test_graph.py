"""`./reproduce plan --graph`: the picture of a plan."""

import re

import pytest

from steps.commands.cli import main
from steps.commands.graph import flowchart
from tests.conftest import ROOT, planned

PAGE = ROOT / "docs/explanation/architecture.md"
COMPRESSED = ("precision=bf16,fp8", "compression=none,depth21", "scenario=Offline")


def edges(text: str, arrow: str) -> set[tuple[str, str]]:
    return set(re.findall(rf"^  (\w+) {re.escape(arrow)} (\w+)$", text, re.MULTILINE))


def test_the_page_shows_the_rehearsal_as_it_is() -> None:
    assert f"```mermaid\n{flowchart(planned())}\n```" in PAGE.read_text(encoding="utf-8")


def test_the_command_prints_it_and_takes_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--graph", "scenario=Offline"]) == 0
    assert capsys.readouterr().out == flowchart(planned("scenario=Offline")) + "\n"


@pytest.mark.parametrize("overrides", [(), COMPRESSED, ("experiment=amd-v5.1",)])
def test_every_job_is_counted_and_every_input_is_reached(overrides: tuple[str, ...]) -> None:
    plan = planned(*overrides)
    text = flowchart(plan)
    counts = {
        step: int(n) for step, n in re.findall(r'^ +(\w+)\["\w+<br>(\d+) jobs?"\]', text, re.M)
    }
    steps = [job.step for job in plan.jobs]
    assert counts == {step: steps.count(step) for step in steps}
    reached = edges(text, "-->") | edges(text, "-.->")
    while more := {(a, d) for a, b in reached for c, d in reached if b == c} - reached:
        reached |= more
    made = {job.output: job.step for job in plan.jobs}
    for job in plan.jobs:
        for path in (*job.inputs.values(), *job.gates):
            assert path not in made or (made[path], job.step) in reached


def test_what_another_input_brings_is_left_out_and_gates_are_dashed() -> None:
    text = flowchart(planned(*COMPRESSED))
    assert ("submission", "provenance") in edges(text, "-->")
    assert ("performance_run", "submission") not in edges(text, "-->")
    assert ("quick_check", "performance_run") in edges(text, "-.->")
