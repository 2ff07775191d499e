"""Which of the shell's variables a measured step sees."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base import variables

SHELL = {
    **{"PATH": os.defpath, "HOME": "/home/a", "LC_ALL": "C", "SLURM_JOB_ID": "7"},
    **{"ROCR_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "1", "REPRISE_RUN": "a mark"},
    **{"PIP_TARGET": "/foreign", "PYTHONHOME": "/foreign", "VLLM_USE_V1": "0", "LD_PRELOAD": ""},
    **{"HSA_XNACK": "1", "NCCL_DEBUG": "INFO", "HF_TOKEN": "hf_secret", "two\nlines": "x"},
}
SEES = "import json, os, sys; print(json.dumps([dict(os.environ), sys.path]))"


def seen(measured: bool, shell: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The variables and the module path of a step's process."""
    command = [*variables.words(measured, shell), sys.executable, "-c", SEES]
    done = subprocess.run(command, env=dict(shell), capture_output=True, text=True, check=True)
    environment, path = json.loads(done.stdout)
    environment.pop("LC_CTYPE", None)  # Python sets it itself
    return environment, path


def test_a_measured_step_sees_listed_variables_and_how_many_there_were() -> None:
    environment, _ = seen(True, SHELL)
    kept = ("PATH", "HOME", "LC_ALL", "SLURM_JOB_ID", "ROCR_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    assert environment == {
        **{name: SHELL[name] for name in (*kept, "REPRISE_RUN")},
        "PYTHONNOUSERSITE": "1",
        "REPRISE_DROPPED": "8",
    }
    assert variables.dropped(environment) == 8


def test_a_step_that_is_not_measured_loses_where_python_looks_only(tmp_path: Path) -> None:
    python = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "x"}
    shell = {"PATH": os.defpath, **python, "HF_TOKEN": "t", "PIP_INDEX_URL": "u"}
    environment, path = seen(False, shell)
    assert str(tmp_path) not in path
    assert environment["HF_TOKEN"] == "t" and environment["PIP_INDEX_URL"] == "u"
    assert variables.dropped(environment) == 2


def test_a_foreign_loadgen_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "mlperf_loadgen.py").write_text("raise RuntimeError('foreign')\n", encoding="utf-8")
    shell = {**SHELL, "PYTHONPATH": str(tmp_path)}
    shell.pop("PYTHONHOME")
    bare = [sys.executable, "-c", "import mlperf_loadgen"]
    alone = subprocess.run(bare, env=shell, capture_output=True, text=True, timeout=60)
    assert "foreign" in alone.stderr
    command = [*variables.words(True, shell), *bare]
    done = subprocess.run(command, env=shell, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_no_value_is_on_a_command_line() -> None:
    words = variables.words(True, SHELL)
    assert "hf_secret" not in " ".join(words) and "HF_TOKEN" in words


@given(st.dictionaries(st.sampled_from([*SHELL, "A", "VLLM_B"]), st.text(max_size=3)))
def test_processes_that_are_started_from_python_see_the_same(shell: dict[str, str]) -> None:
    found = variables.kept(shell)
    gone = {name for name in shell if name not in found}
    assert found[variables.COUNT] == str(len(gone))
    assert gone == {word for word in variables.words(True, shell) if word in shell}
    again = variables.kept(found)
    assert again == found


@pytest.mark.parametrize(("count", "dropped"), [("12", 12), ("x", 0), ("", 0)])
def test_a_count_that_is_none_is_nothing(count: str, dropped: int) -> None:
    assert variables.dropped({variables.COUNT: count}) == dropped
