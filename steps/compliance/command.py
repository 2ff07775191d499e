"""`./reproduce compliance TEST01|TEST04`: verify a test's run and package what it must leave."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from steps.compliance.answers import FORMATS, compare
from steps.compliance.speed import compare_speeds
from steps.errors import UserError
from steps.rounds import load, names
from steps.submission.truncate import truncated

RUN_FILES = ("mlperf_log_summary.txt", "mlperf_log_detail.txt")
ANSWERS = "mlperf_log_accuracy.json"


def command(arguments: list[str]) -> int:
    """Writes OUTPUT/TESTnn as a whole, or nothing if the test fails (exit status 1)."""
    parser = argparse.ArgumentParser(
        prog="./reproduce compliance",
        description="Verify TEST01 or TEST04 of one scenario on LoadGen's logs, with the meaning "
        "of the official scripts, and write the directory that a submission carries.",
    )
    parser.add_argument("test", choices=("TEST01", "TEST04"))
    parser.add_argument("--round", default="v5.1", choices=names(), help="default: %(default)s")
    parser.add_argument(
        "--performance", type=Path, required=True, metavar="DIR", help="the performance run's logs"
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the test's logs")
    parser.add_argument(
        "--accuracy", type=Path, metavar="DIR", help="TEST01: the accuracy run's untruncated logs"
    )
    parser.add_argument("--dtype", choices=sorted(FORMATS), default="byte")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    chosen = parser.parse_args(arguments)
    if (chosen.test == "TEST01") != (chosen.accuracy is not None):
        raise UserError("--accuracy belongs to TEST01 and to no other test; add or remove it")
    texts = {"verify_performance.txt": _speeds(chosen)}
    if chosen.accuracy is not None:
        texts["verify_accuracy.txt"] = _answers(chosen)
    target = chosen.output / chosen.test
    _package(target, chosen.run, texts, answers=chosen.accuracy is not None)
    print(f"{chosen.test} holds: {target}")
    return 0


def _speeds(chosen: argparse.Namespace) -> str:
    speeds = compare_speeds(
        load(chosen.round).compliance[chosen.test], chosen.performance, chosen.run
    )
    if not speeds.passed():
        raise UserError(
            f"{chosen.test} fails: {speeds.measured:g} samples/s are "
            f"{speeds.measured / speeds.reference:.1%} of the performance run's "
            f"{speeds.reference:g}, {speeds.rule.allowed()} are allowed; run both under equal "
            "conditions"
        )
    return speeds.text()


def _answers(chosen: argparse.Namespace) -> str:
    found = compare(chosen.accuracy / ANSWERS, chosen.run / ANSWERS, chosen.dtype)
    if not found.passed():
        differ = f"sample {found.mismatched} differs, {found.mismatches} in all"
        raise UserError(
            f"TEST01 fails: of {found.performance_entries} answers {found.matched} have one in the "
            f"accuracy run{'; ' + differ if found.mismatches else ''}; answers may not depend on "
            "the mode (if they vary from run to run, score both sets and compare the metrics)"
        )
    return found.text()


def _package(target: Path, run: Path, texts: dict[str, str], *, answers: bool) -> None:
    if os.path.lexists(target):
        raise UserError(f"{target} exists; name another --output or delete it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(f"{target.parent} can't be written ({error.strerror})") from error
    try:
        (scratch / "performance/run_1").mkdir(parents=True)
        for name in RUN_FILES:
            shutil.copyfile(run / name, scratch / "performance/run_1" / name)
        for name, text in texts.items():
            (scratch / name).write_text(text, encoding="utf-8")
        if answers:
            short, digest = truncated(run / ANSWERS)
            (scratch / "accuracy").mkdir()
            (scratch / "accuracy" / ANSWERS).write_bytes(short)
            (scratch / "accuracy/accuracy.txt").write_text(f"\nhash={digest}\n", encoding="utf-8")
        scratch.chmod(0o755)
        os.rename(scratch, target)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; nothing was written") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
