"""Two judges on a whole round: every submitter's tree by Reprise and by the official checker.

    python -m bench.rounds CHECKOUT OFFICIAL --round v6.0

CHECKOUT is a checkout of the round's published results, OFFICIAL one of mlcommons/inference (for
v5.1 at tag v5.1.1). Each result and each submitter's tree that the two judge differently is looked
up in the reviewed table `bench/differences.yaml`. The exit status is 1 if the table lacks a
difference or has another number, and if Reprise took more CPU time. Nothing is written into either
checkout.
"""

import argparse
import os
import re
import resource
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from steps.base.yaml_text import mapping_of
from steps.mlperf.loadgen import DETAIL
from steps.mlperf.rounds import DIVISIONS, names
from steps.submit.validate.findings import Finding, Severity
from steps.submit.validate.official import Official, blame, run_official, same
from steps.submit.validate.render import place
from steps.submit.validate.submission import Report, validate

TABLE = Path(__file__).with_name("differences.yaml")
KINDS = ("miss", "true find", "stricter on purpose", "laxer on purpose", "false alarm")
LOGS = (f"performance/run_1/{DETAIL}", f"accuracy/{DETAIL}")
METER = "performance/power/ptd_logs.txt"
OPTIONS = ("--skip-extra-files-in-root-check", "--skip-extra-accuracy-files-check")
"""For the official checker: a published repository has other files in its root, and no images."""

UNPUBLISHED = ("accuracy-images-missing", "root-file", "root-directory")
"""Reprise's findings on the same."""

INCOMPLETE = ("scenario-missing", "scenario-one-of")
"""Reprise's findings where a scenario is left out because the checkout lacks its logs."""

NOTHING, UNSEEN, OTHERWISE = "no result", "not looked at", "another value"
"""Codes of differences that are no finding of ours."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Entry:
    """A reviewed kind of difference, and how many results or submitters' trees it is about.

    `code` is ours, or one of `NOTHING` (only the official checker refuses), `UNSEEN`, `OTHERWISE`;
    `says` a regular expression that the finding's place and words have to match, `shows` one of
    them. `source`: the sentence of the
    rules, or the line of LoadGen or of the checker, that the kind rests on.
    """

    code: str
    kind: str
    reason: str
    source: str
    says: str = ""
    results: int = 0
    trees: int = 0
    shows: str = ""


@dataclass(frozen=True)
class Judged:
    """Something that only one of the two refuses; `words` are a line of its log or a finding."""

    where: str
    tree: bool
    code: str
    words: str


@dataclass(frozen=True)
class Verdicts:
    """The results of one round. The times are CPU seconds. `left_out`: results of the checkout that
    neither has seen.
    """

    report: Report
    official: Official
    ours_s: float
    theirs_s: float
    left_out: tuple[str, ...] = ()


def table(round_name: str) -> list[Entry]:
    """The reviewed differences of a round, in the order in which they are tried."""
    return [Entry(**fields) for fields in mapping_of(TABLE).get(round_name, [])]


def judge(checkout: Path, official: Path, round_name: str, scratch: Path) -> Verdicts:
    """Run both on the same tree, which is made of links below `scratch`."""
    tree, left_out = linked(checkout, scratch / "tree")
    print(f"{len(left_out)} results are left out: the checkout lacks their logs")
    theirs, theirs_s = _timed(lambda: run_official(official, tree, round_name, scratch, OPTIONS))
    report, ours_s = _timed(lambda: validate(tree, round_name))
    return Verdicts(report, theirs, ours_s, theirs_s, left_out)


def linked(checkout: Path, target: Path) -> tuple[Path, tuple[str, ...]]:
    """The divisions of a checkout as hard links, and the results that are left out because their
    logs aren't there.

    Stored copies of a repository lack its largest files, the logs of rgat among them, and of power
    meters.
    """
    left_out: list[str] = []
    for division in DIVISIONS:
        if (checkout / division).is_dir():
            shutil.copytree(
                checkout / division, target / division, symlinks=True, copy_function=_link
            )
    for result in sorted(target.glob("*/*/results/*/*/*")):
        logs = (*LOGS, METER) if (result / METER).parent.is_dir() else LOGS
        if (result / "performance").is_dir() and not all((result / log).exists() for log in logs):
            shutil.rmtree(result)
            left_out.append(str(result.relative_to(target)))
            for parent in (result.parent, result.parent.parent):
                if not any(parent.iterdir()):
                    parent.rmdir()
    return target, tuple(left_out)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system
        shutil.copyfile(source, target, follow_symlinks=False)


def _timed(work: Callable[[], Found]) -> tuple[Found, float]:
    before = _used()
    found = work()
    return found, _used() - before


def _used() -> float:
    """CPU seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def differing(found: Verdicts) -> Iterator[Judged]:
    """Every finding on a result or a tree that the official checker accepts, and the reverse."""
    blamed = blame(found.report)
    incomplete = {str(PurePosixPath(path).parent) for path in found.left_out}
    seen: set[Finding] = set()
    for row in found.report.rows:
        errors = [item for item in blamed[row.path] if _judged(item, incomplete)]
        seen.update(blamed[row.path])
        if row.path not in found.official.accepted and not errors:
            yield Judged(row.path, False, NOTHING, _refusal(found.official, row.path))
        elif row.path in found.official.accepted:
            for item in errors:
                yield Judged(row.path, False, item.code, f"{place(item)}: {item.what}")
            theirs = found.official.accepted[row.path]
            if not errors and not same(theirs, (row.result, row.units, row.accuracy)):
                words = f"{' '.join(theirs)}, not {row.result} {row.units} {row.accuracy}"
                yield Judged(row.path, False, OTHERWISE, words)
    for path in sorted(set(found.official.accepted) - {row.path for row in found.report.rows}):
        yield Judged(path, False, UNSEEN, "the official checker has a result")
    accepted = {"/".join(path.split("/")[:2]) for path in found.official.accepted}
    for item in found.report.findings:
        home = "/".join(item.path.split("/")[:2])
        other = item.severity is Severity.ERROR and item not in seen
        if other and home in accepted and _judged(item, incomplete):
            yield Judged(home, True, item.code, f"{place(item)}: {item.what}")


def _judged(item: Finding, incomplete: Container[str]) -> bool:
    """Whether a finding says something of the submission, not of the checkout; `incomplete` are
    the models' folders from which results are left out.
    """
    lacking = item.code in INCOMPLETE and item.path in incomplete
    return item.code not in UNPUBLISHED and not lacking


def _refusal(official: Official, path: str) -> str:
    """The official checker's first error line that names the result."""
    return next((line for line in official.errors if path in line), "no line names it")


def classified(
    items: Iterable[Judged], entries: Sequence[Entry]
) -> tuple[dict[Entry, list[Judged]], list[Judged]]:
    """The differences of each entry, and those without one."""
    known: dict[Entry, list[Judged]] = {entry: [] for entry in entries}
    unknown = []
    for item in items:
        for entry in entries:
            if entry.code == item.code and re.search(entry.says, item.words):
                known[entry].append(item)
                break
        else:
            unknown.append(item)
    return known, unknown


def complaints(known: dict[Entry, list[Judged]], unknown: list[Judged]) -> Iterator[str]:
    """The differences from the table."""
    for entry, items in known.items():
        for name, tree, told in (("results", False, entry.results), ("trees", True, entry.trees)):
            count = len({item.where for item in items if item.tree == tree})
            if count != told:
                yield f"{entry.code} ({entry.kind}): {count} {name}, the table says {told}"
    for item in unknown:
        yield f"not in the table: {item.where}: {item.code}: {item.words}"


def told(found: Verdicts, known: dict[Entry, list[Judged]], unknown: list[Judged]) -> Iterator[str]:
    """The counts by kind and by code."""
    accepted = len(found.official.accepted)
    yield f"{len(found.report.rows)} results, the official checker accepts {accepted}"
    yield f"CPU time: Reprise {found.ours_s:.1f} s, the official checker {found.theirs_s:.1f} s"
    kinds: dict[str, str] = {}
    for entry, items in known.items():
        for item in items:
            if not item.tree:
                best = min(kinds.get(item.where, entry.kind), entry.kind, key=KINDS.index)
                kinds[item.where] = best
    for item in unknown:
        if not item.tree:
            kinds[item.where] = "unknown"
    for kind, count in sorted(Counter(kinds.values()).items()):
        yield f"{count:>6} results: {kind}"
    every = [*(item for items in known.values() for item in items), *unknown]
    refused = [item for item in every if item.code not in (NOTHING, UNSEEN, OTHERWISE)]
    yield _alone(dict.fromkeys(item.where for item in refused if not item.tree))
    by_code: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in every:
        by_code[item.code, "trees" if item.tree else "results"].add(item.where)
    for (code, what), places in sorted(by_code.items(), key=lambda pair: -len(pair[1])):
        yield f"{len(places):>6} {what:<7} {code}"


def _alone(results: Iterable[str]) -> str:
    """How many results only Reprise refuses; one submitter may have most of them."""
    homes = Counter("/".join(result.split("/")[:2]) for result in results)
    text = f"{homes.total():>6} results are refused by Reprise alone"
    for home, count in homes.most_common(1):
        text += f", {homes.total() - count} without {home}"
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.rounds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkout", type=Path)
    parser.add_argument("official", type=Path)
    parser.add_argument("--round", required=True, choices=names())
    parser.add_argument("--show", metavar="CODE", action="append", default=[], help="every place")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.checkout.resolve().parent) as scratch:
        found = judge(chosen.checkout, chosen.official, chosen.round, Path(scratch))
    items = list(differing(found))
    known, unknown = classified(items, table(chosen.round))
    for line in told(found, known, unknown):
        print(line)
    for item in items:
        if item.code in chosen.show:
            print(f"{item.code}: {item.where}: {item.words}")
    wrong = list(complaints(known, unknown))
    if found.official.crash:
        wrong.append(f"the official checker stopped, so it judged a part: {found.official.crash}")
    if found.ours_s > found.theirs_s:
        wrong.append(f"Reprise took {found.ours_s:.1f} s of CPU, more than the official checker")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
