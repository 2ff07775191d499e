"""The validator beside the official checker: the same results, verdicts, time and memory.

    python -m bench.validate published TREE            a published tree against its results table
    python -m bench.validate speed TREE OFFICIAL       time and memory, once and repeated
    python -m bench.validate mutate OFFICIAL           verdicts on randomly damaged trees

TREE holds closed/ and open/ (for `published` also summary_results.json); OFFICIAL is a checkout
of mlcommons/inference at tag v5.1.1.
"""

import argparse
import contextlib
import importlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from steps.submit.validate.findings import Severity
from steps.submit.validate.submission import Report, validate

MEASURE = """
import os, resource, sys, time
started = time.monotonic()
child = os.fork()
if child == 0:
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.execv(sys.argv[1], sys.argv[1:])
os.waitpid(child, 0)
wall = time.monotonic() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
ROOT = Path(__file__).resolve().parent.parent
ROUND = "v5.1"
TABLE = "summary_results.json"


def completed(tree: Path, scratch: Path, *, copies: int = 1) -> Path:
    """A copy of a tree with the parts that publications leave out: code, and the open division's
    mapping.

    The first submitter of each division is repeated under other names.
    """
    for division in ("closed", "open"):
        for submitter in sorted(path for path in (tree / division).glob("*") if path.is_dir()):
            for number in range(copies):
                name = submitter.name if number == 0 else f"{submitter.name}{number:02d}"
                home = scratch / division / name
                shutil.copytree(submitter, home, copy_function=shutil.copyfile)
                for path in home.glob("systems/*.json"):
                    fields = json.loads(path.read_text(encoding="utf-8"))
                    path.write_text(json.dumps({**fields, "submitter": name}), encoding="utf-8")
                _complete(home)
    return scratch


def _complete(home: Path) -> None:
    models = {path.name for path in home.glob("results/*/*") if path.is_dir()}
    for model in models:
        code = home / "code" / model
        if not code.exists():
            code.mkdir(parents=True)
            (code / "README.md").write_text("left out of the publication\n", encoding="utf-8")
    mapping = home / "model_mapping.json"
    if home.parent.name == "open" and not mapping.exists():
        own = {model: "llama3.1-405b" for model in models if model.startswith("llama3_1-405b_")}
        mapping.write_text(json.dumps(own), encoding="utf-8")


def published(tree: Path) -> int:
    """Every published row of the tree's submitters, equal in result, units and accuracy."""
    rows = json.loads((tree / TABLE).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        report = validate(completed(tree, Path(scratch)), ROUND)
    submitters = {row.submitter for row in report.rows}
    theirs = {
        row["Location"]: (row["Performance_Result"], row["Performance_Units"], row["Accuracy"])
        for row in rows
        if row["Submitter"] in submitters
    }
    ours = {row.path: (row.result, row.units, row.accuracy) for row in report.rows}
    differing = [path for path in sorted(theirs | ours) if theirs.get(path) != ours.get(path)]
    print(f"{len(theirs)} published results, {len(ours)} found, {len(differing)} differ")
    for path in differing:
        print(f"  {path}: published {theirs.get(path)}, found {ours.get(path)}")
    _tell(report)
    return 1 if differing else 0


def _tell(report: Report) -> None:
    for severity in Severity:
        print(f"{report.count(severity)} of severity {severity.value}:")
        for found in report.findings:
            if found.severity is severity:
                print(f"  {found.code:<26} {found.path}:{found.line}: {found.what}")


def speed(tree: Path, official: Path, repeats: int) -> int:
    """Wall and CPU seconds, and the largest resident set of any process, of both on one tree."""
    checker = official / "tools/submission/submission_checker.py"
    for copies in (1, repeats):
        with tempfile.TemporaryDirectory() as scratch:
            home = completed(tree, Path(scratch) / "tree", copies=copies)
            table = str(Path(scratch) / "summary.csv")
            theirs = [sys.executable, str(checker), "--input", str(home), "--version", ROUND]
            ours = [sys.executable, "-m", "steps.submit.validate", str(home), "--json", os.devnull]
            measured = {
                # Read once before, so that neither pays for a cold cache.
                "official": _measure([*theirs, "--csv", table], warm=home),
                "reprise": _measure(ours),
                "reprise, 1 process": _measure([*ours, "--processes", "1"]),
            }
        for name, (wall, cpu, mib) in measured.items():
            print(f"{copies:>3} x  {name:<20} {wall:7.2f} s wall  {cpu:7.2f} s CPU  {mib:6.1f} MiB")
    return 0


def _measure(command: list[str], warm: Path | None = None) -> tuple[float, float, float]:
    if warm is not None:
        for path in warm.rglob("*"):
            if path.is_file():
                path.read_bytes()
    # A process's peak counts from its fork, so it starts from one that is small.
    measured = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    wall, cpu, kib = measured.stdout.split()
    return float(wall), float(cpu), float(kib) / 1024


def mutate(official: Path, count: int, seed: int) -> int:
    """Damage a valid tree `count` times; report trees that only the official checker refuses."""
    from tests.submit.validate import trees
    from tests.submit.validate.mutations import damage

    judge = oracle(official)
    tally = {"both refuse": 0, "both accept": 0, "only Reprise refuses": 0}
    missed = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "tree"
        trees.build(root)
        assert judge(root) and validate(root, ROUND, processes=1).valid()
        for number in range(count):
            what, undo = damage(root, Random(seed + number))
            try:
                ours = validate(root, ROUND, processes=1).valid()
                # A pipe stops the official checker for ever; nothing is to be learnt from that.
                theirs = True if "pipe" in what else judge(root)
            finally:
                undo()
            if ours and not theirs:
                missed.append(f"{seed + number}: {what}")
            else:
                tally[_verdicts(ours, theirs)] += 1
    print(f"{count} damages: {tally}, only the official checker refuses: {len(missed)}")
    for line in missed:
        print(f"  {line}")
    return 1 if missed else 0


def _verdicts(ours: bool, theirs: bool) -> str:
    if ours == theirs:
        return "both accept" if ours else "both refuse"
    return "only Reprise refuses"


def oracle(official: Path) -> Callable[[Path], bool]:
    """The official checker in this process: ten times faster than one process a tree."""
    sys.path.insert(0, str(official / "tools/submission"))
    checker: Any = importlib.import_module("submission_checker")
    logging.disable(logging.CRITICAL)

    def judge(root: Path) -> bool:
        home = os.getcwd()
        os.chdir(root)
        try:
            config = checker.Config(ROUND, "model_mapping.json")
            with contextlib.redirect_stderr(io.StringIO()):
                results, _ = checker.check_results_dir(config, None, False, io.StringIO())
            return all(results.values())
        except Exception:
            return False  # it stopped with a traceback
        finally:
            os.chdir(home)

    return judge


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("published")
    one.add_argument("tree", type=Path)
    two = commands.add_parser("speed")
    two.add_argument("tree", type=Path)
    two.add_argument("official", type=Path)
    two.add_argument("--repeats", type=int, default=50)
    three = commands.add_parser("mutate")
    three.add_argument("official", type=Path)
    three.add_argument("--count", type=int, default=1000)
    three.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.command == "published":
        return published(chosen.tree)
    if chosen.command == "speed":
        return speed(chosen.tree, chosen.official, chosen.repeats)
    return mutate(chosen.official, chosen.count, chosen.seed)


if __name__ == "__main__":
    raise SystemExit(main())
