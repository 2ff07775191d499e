"""Each page of docs/how-to that adds a part is followed in a copy of the checkout.

A block whose first line names a file (```yaml conf/system/acme-cpu.yaml) is written to it, a diff
(```diff FILE) is applied, and commands (```console) are run, in the page's order.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from steps import ROOT
from tests.conftest import copy_project

HOW_TO = ROOT / "docs/how-to"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT_S = 120

EXPECTED: dict[str, tuple[str, ...]] = {
    "add-a-system.md": ("Acme laptop", "acme-cpu/rehearsal/none/bf16/Offline"),
    "add-a-gpu.md": ("One AMD Instinct Acme X2 (432 GB)", "8 × AMD Instinct Acme X2"),
    "add-a-round.md": ("{v5.1,v6.0,v6.1,v9.0}", '\\"ttft_ms\\":1500'),
    "add-an-engine.md": ("1 passed", '\\"kind\\":\\"constant\\"'),
    "add-a-scorer.md": ("2 passed", '\\"scorer\\":\\"acme-qa\\"'),
    "add-a-benchmark.md": ("the rehearsal model", '\\"max_tokens\\":64'),
    "add-a-scheduler.md": ("performance_run", '"name":"acme"'),
    "add-a-step.md": ("2 passed", "performance_run --> pace_check", "pace_check --> submission"),
}
"""By page: texts that its commands print, or that are in the plans that they make."""

REFUSED = "run would refuse"
MAY_REFUSE = ("add-a-gpu.md", "add-a-round.md")
"""Pages whose part can't be run on this machine."""


def follow(page: Path, project: Path, commands: bool = True) -> str:
    """Do what the page says, with its commands or without; returns what they printed."""
    printed = []
    for language, name, content in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "console":
            printed += [run(line, project) for line in content.splitlines() if commands]
        elif language == "diff":
            apply(project / name, content)
        elif name:
            assert not (project / name).exists(), f"{page.name}: {name} exists already"
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(content, encoding="utf-8")
    return "\n".join(printed)


def apply(path: Path, diff: str) -> None:
    """A diff without line numbers: what it keeps and removes stands in the file exactly once."""
    assert path.is_file(), f"there is no {path}"
    text = path.read_text(encoding="utf-8")
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] or "\n" for line in lines if not line.startswith("+"))
        after = "".join(line[1:] or "\n" for line in lines if not line.startswith("-"))
        assert text.count(before) == 1, f"{path} has {text.count(before)} times {before!r}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")


def run(command: str, project: Path) -> str:
    """A command of the page in the copy, by this Python: no environment has to be made."""
    program, *arguments = command.split()
    if program == "./reproduce":
        shell = (ROOT / "reproduce").read_text(encoding="utf-8")
        module = re.findall(r"-m (steps\.[\w.]+)", shell)[-1]
        arguments = ["-m", module, *arguments]
    else:
        assert program == ".envs/dev-*/bin/python"
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return f"{command}\n{done.stdout}"


PAGES = sorted(path.name for path in HOW_TO.glob("add-*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_what_the_page_changes_is_there(name: str, tmp_path: Path) -> None:
    follow(HOW_TO / name, copy_project(tmp_path), commands=False)


@pytest.mark.command
@pytest.mark.parametrize("name", PAGES)
def test_the_page_can_be_followed(name: str, tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    printed = follow(HOW_TO / name, project)
    plans = [path.read_text(encoding="utf-8") for path in project.glob("results/plans/*.json")]
    for text in EXPECTED[name]:
        assert text in "\n".join([printed, *plans]), printed
    assert name in MAY_REFUSE or REFUSED not in printed, printed
