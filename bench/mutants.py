"""Mutants of what judges runs, knows MLCommons' rules and plans: does a test notice each change?

`python -m bench.mutants rules --sample 60 --seed 1` changes one place at a time in a copy of the
checkout, runs the tests of that part, and prints a table of those that none noticed. mutmut and
cosmic-ray start pytest again for each mutant, or change code that is imported already, which the
processes that tests start don't see. Here a fork of a process that has the libraries imported runs
the tests of each mutant.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steps import ROOT
from tests.ending import REAL


@dataclass(frozen=True)
class Part:
    """`files`: patterns of what is changed; `tests`: what has to notice, nearest first."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


PARTS = {
    "rules": Part(
        ("steps/mlperf/timed_run.py", "steps/mlperf/early_stopping.py", "steps/mlperf/rounds.py"),
        (
            *("tests/mlperf", "tests/judge/test_performance_check.py"),
            *("tests/judge/test_compliance_check.py", "tests/judge/test_accuracy_check.py"),
            "tests/commands/tune/test_early_stopping.py",
            "tests/submit/validate/test_published_traps.py",
        ),
    ),
    "judge": Part(
        ("steps/judge/*_check.py", "steps/judge/disturbances.py"),
        (
            *("tests/judge/test_performance_check.py", "tests/judge/test_accuracy_check.py"),
            *("tests/judge/test_compliance_check.py", "tests/judge/test_mixed_gate.py"),
            *("tests/judge/test_quick_check.py", "tests/run/test_journal.py"),
        ),
    ),
    "plan": Part(
        ("steps/plan/planner.py",),
        ("tests/plan/test_plan.py", "tests/plan/test_specs.py", "tests/plan/test_cell.py"),
    ),
}

COPIED = ("bench", "conf", "containers", "docs", "envs", "steps", "tests", "workflow")
FILES = ("Snakefile", "pyproject.toml", "reproduce", "Makefile", "README.md", "CONTRIBUTING.md")
OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"),
    *("-m", f"not ({' or '.join(REAL)})"),
    # Pytest doesn't rewrite the assertions of a plugin that is imported already.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
LIMIT_S = 300

FORKS = """\
import json, os, signal, sys
import hydra, hypothesis, numpy, pydantic, pytest, yaml  # what the tests' own imports cost
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        os.setpgid(0, 0)
        signal.alarm(int(sys.argv[1]))
        sys.path.insert(0, os.getcwd())
        os._exit(int(pytest.main(json.loads(line))))
    _, status = os.waitpid(child, 0)
    try:
        os.killpg(child, signal.SIGKILL)  # what a mutant's tests have left
    except ProcessLookupError:
        pass
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
"""A line of arguments for pytest as JSON in, its exit status out."""

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One changed place: the file's whole new text, and the statement before and after."""

    path: Path
    line: int
    before: str
    after: str
    text: str


def mutants(path: Path, source: str) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its text."""
    tree = ast.parse(source)
    for node, statement in list(_places(tree, None)):
        before = _first(ast.unparse(statement))
        for _ in _changes(node):
            after, text = _first(ast.unparse(statement)), ast.unparse(tree)
            yield Mutant(path, statement.lineno, before, after, text)


def _places(node: ast.AST, inside: ast.stmt | None) -> Iterator[tuple[ast.AST, ast.stmt]]:
    """Nodes with the smallest statement around each; none of a definition's head or a type."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        for statement in node.body:
            yield from _places(statement, None)
        return
    inside = node if isinstance(node, ast.stmt) else inside
    if inside is not None:
        yield node, inside
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name != "annotation":
                yield from _places(child, inside)


def _changes(node: ast.AST) -> Iterator[None]:
    """Changes the node, hands over, and puts it back."""
    if isinstance(node, ast.Compare):
        kept = node.ops[0]
        if type(kept) in COMPARED:
            node.ops[0] = COMPARED[type(kept)]()
            yield
            node.ops[0] = kept
    elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
        operator = node.op
        node.op = COMPUTED[type(operator)]()
        yield
        node.op = operator
    elif isinstance(node, ast.BoolOp):
        chosen = node.op
        node.op = ast.Or() if isinstance(chosen, ast.And) else ast.And()
        yield
        node.op = chosen
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.op, negation = ast.UAdd(), node.op
        yield
        node.op = negation
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = node.value
        node.value = (not value) if isinstance(value, bool) else value + 1
        yield
        node.value = value
    elif isinstance(node, ast.Return) and node.value is not None:
        returned = node.value
        node.value = ast.Constant(None)
        yield
        node.value = returned


def _first(text: str) -> str:
    return text.splitlines()[0][:90].replace("|", "\\|")


class Tests:
    """Runs tests of a copy of the checkout."""

    def __init__(self, home: Path, tests: tuple[str, ...], server: "subprocess.Popen[str]") -> None:
        self._home, self._tests, self._server = home, tests, server

    def kill(self, mutant: Mutant) -> bool:
        """Whether one fails, or doesn't end, on the mutant."""
        target = self._home / mutant.path
        sound = target.read_text(encoding="utf-8")
        self._write(target, mutant.text)
        try:
            return not self.passed()
        finally:
            self._write(target, sound)

    def passed(self) -> bool:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps([*OPTIONS, *self._tests]) + "\n")
        self._server.stdin.flush()
        status = self._server.stdout.readline().strip()
        if not status:
            raise SystemExit("the process that forks for each mutant has ended")
        return status == "0"

    def _write(self, target: Path, text: str) -> None:
        """Python tells a compiled file's age by second and size, which two mutants may share."""
        for compiled in (target.parent / "__pycache__").glob(f"{target.stem}.*"):
            compiled.unlink()
        target.write_text(text, encoding="utf-8")


@contextmanager
def testing(home: Path, tests: tuple[str, ...]) -> Iterator[Tests]:
    command = [sys.executable, "-c", FORKS, str(LIMIT_S)]
    pipe = subprocess.PIPE
    known = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(
        command, cwd=home, stdin=pipe, stdout=pipe, text=True, env=known
    ) as server:
        yield Tests(home, tests, server)
        assert server.stdin is not None
        server.stdin.close()


def chosen(part: Part, sample: int, seed: int) -> list[Mutant]:
    files = sorted(path for pattern in part.files for path in ROOT.glob(pattern))
    paths = [path.relative_to(ROOT) for path in files]
    every = [m for p in paths for m in mutants(p, (ROOT / p).read_text(encoding="utf-8"))]
    print(f"{len(every):,} mutants, {min(sample, len(every)):,} tried", flush=True)
    return random.Random(seed).sample(every, min(sample, len(every)))


def copied(home: Path) -> Path:
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, home / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, home / name)
    (home / ".envs").symlink_to((ROOT / ".envs").resolve())
    return home


def table(survivors: list[Mutant]) -> str:
    """Markdown; the last column is for a reviewer."""
    rows = [f"| {m.path}:{m.line} | `{m.before}` | `{m.after}` | |" for m in survivors]
    return "\n".join(["| place | code | mutant | why |", "|---|---|---|---|", *rows])


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants", description=__doc__)
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--sample", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    arguments = parser.parse_args(given)
    part = PARTS[arguments.part]
    survivors: list[Mutant] = []
    with tempfile.TemporaryDirectory() as folder:
        home = copied(Path(folder) / "checkout")
        with testing(home, part.tests) as tests:
            if not tests.passed():
                subprocess.run([sys.executable, "-m", "pytest", *OPTIONS, *part.tests], cwd=home)
                print("error: the tests fail without any mutant", file=sys.stderr)
                return 1
            tried = chosen(part, arguments.sample, arguments.seed)
            for number, mutant in enumerate(tried, 1):
                begun = time.monotonic()
                dead = tests.kill(mutant)
                survivors += [] if dead else [mutant]
                word = "killed" if dead else f"SURVIVES {mutant.before} -> {mutant.after}"
                seconds = time.monotonic() - begun
                print(f"{number} {mutant.path}:{mutant.line} {word} ({seconds:.0f} s)", flush=True)
    share = 100 * (1 - len(survivors) / max(1, len(tried)))
    print(f"{share:.0f} % of {len(tried)} killed\n\n{table(survivors)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
