"""`./reproduce compliance TESTnn`: verify a test's run and package what it must leave."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps.base.arguments import Parser
from steps.base.errors import UserError
from steps.judge.compliance import verify
from steps.judge.compliance.answers import FORMATS
from steps.judge.compliance.tokens import Findings
from steps.mlperf.rounds import Round, load, names


def declare(parser: Parser) -> None:
    """The test, its logs, and where its directory is written."""
    parser.description = (
        "Verify a test of one scenario on LoadGen's logs, with the meaning of the official "
        "scripts, and write the directory that a submission carries."
    )
    tests = parser.add_subparsers(dest="test", required=True)
    test01, test04, test06, test07, test09 = (
        _test(tests, name) for name in ("TEST01", "TEST04", "TEST06", "TEST07", "TEST09")
    )
    for timed in (test01, test04):
        timed.add_argument("--performance", type=Path, required=True, metavar="DIR", help=TIMED)
    test01.add_argument("--accuracy", type=Path, required=True, metavar="DIR", help=UNTRUNCATED)
    test01.add_argument("--dtype", choices=sorted(FORMATS), default="byte")
    test01.add_argument("--benchmark", metavar="NAME", help="whose metrics --scores has")
    test01.add_argument("--scores", type=Path, nargs=2, metavar=("BASELINE", "TEST"), help=BOTH)
    for counted in (test06, test07, test09):
        counted.add_argument("--benchmark", required=True, metavar="NAME")
    test06.add_argument("--eos", type=int, nargs="+", metavar="TOKEN", help=ENDS)
    test07.add_argument("--scores", type=Path, nargs=1, required=True, metavar="FILE", help=SCORED)


def command(chosen: argparse.Namespace) -> int:
    """Writes OUTPUT/TESTnn as a whole, or nothing if the test fails (exit status 1)."""
    rules = load(chosen.round)
    target = chosen.output / chosen.test
    if chosen.test == "TEST06":
        text, found = _consistent(chosen, rules)
        _publish(target, lambda scratch: verify.package_answers(scratch, chosen.run, text))
        _tell(found)
    else:
        texts = _verified(chosen, rules)
        whole = chosen.test in ("TEST07", "TEST09")
        _publish(target, lambda scratch: verify.package(scratch, chosen.run, texts, whole=whole))
    print(f"{chosen.test} holds: {target}")
    return 0


TIMED = "the performance run's logs"
UNTRUNCATED = "the accuracy run's untruncated logs"
BOTH = "where answers differ: accuracy.txt of both logs, on the test's samples"
ENDS = "end-of-sequence tokens of the model, where the round's rules don't say them"
SCORED = "what the benchmark's accuracy script prints of the test's log"


def _test(tests: Any, name: str) -> Parser:
    parser: Parser = tests.add_parser(name)
    known = [one for one in names() if name in load(one).compliance]
    parser.add_argument("--round", default=known[0], choices=known, help="default: %(default)s")
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="the test's untruncated logs"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    return parser


def _verified(chosen: argparse.Namespace, rules: Round) -> dict[str, str]:
    rule = rules.compliance[chosen.test]
    if chosen.test == "TEST04":
        return verify.require(verify.speed(chosen.test, rule, chosen.performance, chosen.run))
    if chosen.test == "TEST01":
        if (chosen.scores is None) != (chosen.benchmark is None):
            raise UserError("--scores and --benchmark go together; add the other or remove both")
        scored = None if chosen.scores is None else _scored(chosen, rules)
        return {
            **verify.require(verify.speed(chosen.test, rule, chosen.performance, chosen.run)),
            **verify.require(
                verify.answers(rule, chosen.accuracy, chosen.run, chosen.dtype, scored)
            ),
        }
    if chosen.benchmark not in rule.bounds:
        known = ", ".join(sorted(rule.bounds))
        raise UserError(
            f"{chosen.test} of {chosen.round} has no bounds for {chosen.benchmark!r}, "
            f"only for {known}"
        )
    if chosen.test == "TEST07":
        (scores,) = chosen.scores
        return verify.require(verify.full_accuracy(rule, chosen.run, chosen.benchmark, scores))
    return verify.require(verify.output_lengths(rule, chosen.run, chosen.benchmark))


def _consistent(chosen: argparse.Namespace, rules: Round) -> tuple[str, Findings]:
    official = rules.official(chosen.benchmark)
    if official is None or "TEST06" not in rules.benchmarks[official].compliance_tests:
        known = [n for n, one in rules.benchmarks.items() if "TEST06" in one.compliance_tests]
        raise UserError(
            f"{rules.name} has no TEST06 of {chosen.benchmark!r}, only of {', '.join(known)}"
        )
    ends = chosen.eos or rules.benchmarks[official].eos_token_ids
    if not ends:
        raise UserError(f"the rules don't say how answers of {official} end; name it with --eos")
    return verify.consistency(rules.compliance["TEST06"], chosen.run, ends)


def _tell(found: Findings) -> None:
    ended = f"{found.terminated} of {found.samples} answers end in an end-of-sequence token"
    hint = "" if found.terminated else "; if the system keeps them, --eos should name another"
    print(ended + hint)


def _scored(chosen: argparse.Namespace, rules: Round) -> verify.Scored:
    official = rules.official(chosen.benchmark)
    if official is None:
        raise UserError(f"round {rules.name} has no benchmark {chosen.benchmark!r}")
    metrics = tuple(rules.benchmarks[official].accuracy.minimum)
    return verify.Scored(official, metrics, tuple(chosen.scores))


def _publish(target: Path, fill: Callable[[Path], None]) -> None:
    if os.path.lexists(target):
        raise UserError(f"{target} exists; name another --output or delete it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(f"{target.parent} can't be written ({error.strerror})") from error
    try:
        fill(scratch)
        scratch.chmod(0o755)
        os.rename(scratch, target)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; nothing was written") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
