"""One number of threads of arithmetic, by whatever name a library reads it."""

import ast
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base import threads
from steps.base.errors import UserError
from tests.conftest import edit, planned, reproduce

BEFORE = {"MKL_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "OMP_THREAD_LIMIT": "2", "HOME": "/"}
"""As Snakemake exports them, and a user's shell."""


def test_every_name_says_the_same() -> None:
    environment = dict(BEFORE)
    threads.take(3, environment)
    assert {environment[name] for name in threads.COUNTS} == {"3"}
    assert not set(threads.OVERRULING) & environment.keys()
    assert environment["HOME"] == "/"


def test_a_command_behind_the_prefix_has_the_same() -> None:
    show = f"{shlex.quote(sys.executable)} -c 'import os; print(dict(os.environ))'"
    done = subprocess.run(
        ["bash", "-c", threads.prefix(1) + show],
        env={**os.environ, **BEFORE},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = dict(BEFORE)
    threads.take(1, expected)
    found = ast.literal_eval(done.stdout)
    assert {name: found.get(name) for name in (*expected, *threads.OVERRULING)} == {
        name: expected.get(name) for name in (*expected, *threads.OVERRULING)
    }


@pytest.mark.parametrize("said", [1, 2])
def test_what_libraries_say_is_the_most_of_them(said: int) -> None:
    text = (
        "ATen/Parallel:\n\tat::get_num_threads() : 1\n\tat::get_num_interop_threads() : 8\n"
        "OpenMP 201511 (a.k.a. OpenMP 4.5)\n\tomp_get_max_threads() : 1\n"
        f"Intel(R) oneAPI Math Kernel Library\n\tmkl_get_max_threads() : {said}\n"
        "std::thread::hardware_concurrency() : 8\n"
    )
    assert max(map(int, threads.NUMBERS.findall(text))) == said


@given(st.integers(1, 16), st.integers(0, 1), st.floats(0.2, 100), st.floats(0, 0.1))
def test_threads_that_did_the_work_are_counted(
    expected: int, more: int, seconds: float, aside: float
) -> None:
    """Beside those that do hardly anything, and whatever they did before."""
    working = {number: seconds / (expected + more) for number in range(expected + more)}
    idle = {100: aside * seconds / (expected + 1), 101: 0.0}
    before = dict.fromkeys(working, 7.0)
    after = {number: spent + before.get(number, 0.0) for number, spent in working.items()}
    found = threads.computed(before, {**after, **idle}, expected)
    assert found == expected + more


def test_a_thread_that_computes_is_seen() -> None:
    before = threads.spent()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert threads.computed(before, threads.spent(), 1) == 1


@pytest.mark.parametrize(
    "name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_CPU_AFFINITY", threads.BINDING]
)
def test_the_environment_of_an_engine_says_nothing_of_threads(name: str) -> None:
    with pytest.raises(UserError, match=rf"environment\.{name} .* set engine\.threads"):
        planned(f"+system.engine.environment.{name}='2'")


@pytest.mark.e2e
def test_every_job_has_one_thread_whatever_its_cores(project: Path) -> None:
    """Snakemake exports a job's cores. A step that writes what it sees stands for all of them."""
    step = project / "steps/run/describe.py"
    writes = "import json, os\njson.dump(dict(os.environ), open(os.environ['SEEN'], 'w'))\n"
    edit(step, 'if __name__ == "__main__":', f'{writes}if __name__ == "__main__":')
    seen = project / "seen.json"
    environment = {**BEFORE, "SEEN": str(seen)}
    environment.pop("HOME")
    status, said = reproduce(project, "--", "--until", "describe", environment=environment)
    assert status == 0, said
    found = json.loads(seen.read_text(encoding="utf-8"))
    assert {found[name] for name in threads.COUNTS} == {"1"}
    assert "OMP_THREAD_LIMIT" not in found
