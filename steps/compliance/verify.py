"""The verdict on a test of full length, as files of the directory that a submission carries."""

import shutil
from pathlib import Path

from steps.compliance.answers import compare
from steps.compliance.speed import compare_speeds
from steps.errors import UserError
from steps.rounds import Test
from steps.truncate import truncated

RUN_FILES = ("mlperf_log_summary.txt", "mlperf_log_detail.txt")
ANSWERS = "mlperf_log_accuracy.json"
SPEED, ACCURACY = "verify_performance.txt", "verify_accuracy.txt"


def speed(name: str, rule: Test, performance: Path, run: Path) -> str:
    """verify_performance.txt; raises UserError unless the test's run is as fast as it must be.

    `performance` and `run` are directories of LoadGen's logs.
    """
    speeds = compare_speeds(rule, performance, run)
    if not speeds.passed():
        raise UserError(
            f"{name} fails: {speeds.measured:g} samples/s are "
            f"{speeds.measured / speeds.reference:.1%} of the performance run's "
            f"{speeds.reference:g}, {rule.allowed()} are allowed; run both under equal conditions"
        )
    return speeds.text()


def answers(accuracy: Path, run: Path, answer_type: str) -> str:
    """verify_accuracy.txt of TEST01; raises UserError unless both runs answer alike.

    `accuracy` holds the accuracy run's untruncated log, `answer_type` is one of `FORMATS`.
    """
    found = compare(accuracy / ANSWERS, run / ANSWERS, answer_type)
    if not found.passed():
        differ = f"sample {found.mismatched} differs, {found.mismatches} in all"
        raise UserError(
            f"TEST01 fails: of {found.performance_entries} answers {found.matched} have one in the "
            f"accuracy run{'; ' + differ if found.mismatches else ''}; answers may not depend on "
            "the mode (if they vary from run to run, score both sets and compare the metrics)"
        )
    return found.text()


def package(target: Path, run: Path, texts: dict[str, str]) -> None:
    """Fill `target` with `texts` and the test's logs; its answers too if they were verified."""
    logs = target / "performance/run_1"
    logs.mkdir(parents=True)
    for name in RUN_FILES:
        shutil.copyfile(run / name, logs / name)
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")
    if ACCURACY in texts:
        short, digest = truncated(run / ANSWERS)
        (target / "accuracy").mkdir()
        (target / "accuracy" / ANSWERS).write_bytes(short)
        (target / "accuracy/accuracy.txt").write_text(f"\nhash={digest}\n", encoding="utf-8")
