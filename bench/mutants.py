"""Mutants of what judges runs, knows MLCommons' rules and plans: does a test notice each change?

`python -m bench.mutants mlperf --sample 60 --seed 1` changes one place at a time in a copy of the
checkout, runs the tests of that part, and prints a table of those that none noticed. Mutation
frameworks want to import the code under another path or to run one suite for all of it; here each
part has tests of its own, some of which start processes that have to see the change too.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from steps import ROOT
from tests.ending import REAL

TESTS = {
    "judge": ("tests/judge", "tests/submit/test_submission.py", "tests/submit/test_provenance.py"),
    "mlperf": ("tests/mlperf", "tests/judge", "tests/submit/validate", "tests/plan"),
    "plan": ("tests/plan", "tests/config", "tests/commands", "tests/schedule"),
}
"""By layer of steps/: the tests that have to notice, nearest first."""

COPIED = ("bench", "conf", "containers", "docs", "envs", "steps", "tests", "workflow")
FILES = ("Snakefile", "pyproject.toml", "reproduce", "Makefile", "README.md", "CONTRIBUTING.md")
LIMIT_S = 600

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


def killed(mutant: Mutant, home: Path, tests: tuple[str, ...]) -> bool:
    """Whether a test fails, or doesn't end, on the mutant."""
    target = home / mutant.path
    sound = target.read_text(encoding="utf-8")
    target.write_text(mutant.text, encoding="utf-8")
    try:
        return not _passes(home, tests)
    finally:
        target.write_text(sound, encoding="utf-8")


def _passes(home: Path, tests: tuple[str, ...]) -> bool:
    marks = f"not ({' or '.join(REAL)})"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", marks, "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *tests], cwd=home, capture_output=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def chosen(layer: str, sample: int, seed: int) -> list[Mutant]:
    files = sorted((ROOT / "steps" / layer).rglob("*.py"))
    paths = [path.relative_to(ROOT) for path in files]
    every = [m for p in paths for m in mutants(p, (ROOT / p).read_text(encoding="utf-8"))]
    print(f"{layer}: {len(every):,} mutants, {min(sample, len(every)):,} tried", flush=True)
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
    parser.add_argument("layer", choices=sorted(TESTS))
    parser.add_argument("--sample", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--tests", nargs="+", default=None, help="instead of the layer's")
    arguments = parser.parse_args(given)
    tests = tuple(arguments.tests or TESTS[arguments.layer])
    survivors: list[Mutant] = []
    with tempfile.TemporaryDirectory() as folder:
        home = copied(Path(folder) / "checkout")
        if not _passes(home, tests):
            print("error: the tests fail without any mutant", file=sys.stderr)
            return 1
        tried = chosen(arguments.layer, arguments.sample, arguments.seed)
        for number, mutant in enumerate(tried, 1):
            begun = time.monotonic()
            dead = killed(mutant, home, tests)
            survivors += [] if dead else [mutant]
            word = "killed" if dead else "SURVIVES"
            seconds = time.monotonic() - begun
            print(f"{number} {mutant.path}:{mutant.line} {word} ({seconds:.0f} s)", flush=True)
    share = 100 * (1 - len(survivors) / max(1, len(tried)))
    print(f"{share:.0f} % of {len(tried)} killed\n\n{table(survivors)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
