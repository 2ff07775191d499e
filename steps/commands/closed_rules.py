"""What of the closed division's rules an open result meets, by the validator.

The result is copied to where a closed one lies and checked there. `RULES` says which findings break
which rule; what the validator can't see is read from the measurement.
"""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from steps.base.errors import UserError, shown
from steps.base.untrusted import MAX_TEXT_BYTES, Damaged, object_of, open_regular
from steps.mlperf.loadgen import DETAIL, USER_CONF
from steps.mlperf.published.result import Result
from steps.mlperf.published.table import ClosedRule
from steps.mlperf.rounds import Layout, load
from steps.submit.validate.findings import Finding, Severity
from steps.submit.validate.result import check_result
from steps.submit.validate.tree import Place, Tree, home_layout

README = "README.md"
RUN = ("results", f"performance/run_1/{DETAIL}")
ACCURACY = ("results", "accuracy/accuracy.txt")

RULES: Mapping[str, tuple[str, str, str]] = {
    "the performance run is VALID, in performance mode, without an error": (
        r"performance-(missing|files|answers|invalid|flag|error.*|mode|audit|scenario|result)|log-.*",
        *RUN,
    ),
    "runs have the round's seeds": (r"(performance|accuracy)-seed", *RUN),
    "the run lasts as long as the rules say": (r"performance-duration.*", *RUN),
    "samples are as many as the rules say": (
        r"performance-(sample-count|dataset|offline-samples|min-queries|equal-issue)",
        *RUN,
    ),
    "latencies are within their limits": (
        r"performance-(latency|token-latencies|target-latency|judged-limits)",
        *RUN,
    ),
    "no setting is for the open division only": (
        r"user-conf-open-only",
        "measurements",
        USER_CONF,
    ),
    "accuracy is measured on the whole dataset": (
        r"accuracy-(missing|files|sample-count|mode|dataset|scenario|error|hash.*|log.*|not.*|text.*)",
        *ACCURACY,
    ),
    "accuracy and the answers' length are within their bounds": (
        r"accuracy-(low|high|metric)",
        *ACCURACY,
    ),
    "every compliance test is there and verified": (r"compliance-.*", "compliance", ""),
    "the measurement is described": (r"measurement-.*", "measurements", README),
}
"""By rule: the codes that break it, as a pattern, and the folder and file that show it. Tests are
those of the benchmark, and each has files of its own."""

SCENARIOS = "the scenarios that the round requires are there"
WITH_LIMITS = ("Server", "Interactive")
"""Where both are optional, one of them is required."""

SUBMITTED_AS = ("division", "submitter", "platform", "model")
"""What results have in common that are submitted together."""

PRUNED = re.compile(r"prun|drop_layers", re.IGNORECASE)


def closed_rules(checkout: Path, row: Result, rows: Sequence[Result]) -> Iterator[ClosedRule]:
    """Every rule, for one open result; `rows` are those of the round."""
    findings, place = _findings(checkout, row), _place(checkout, row)
    tests = load(row.round).benchmarks[row.benchmark].compliance_tests
    for rule, (pattern, folder, file) in RULES.items():
        broken = [found for found in findings if re.fullmatch(pattern, found.code)]
        yield ClosedRule(
            rule=rule,
            of="result",
            met=not broken,
            found="; ".join(found.what for found in broken) or "no finding of the validator",
            evidence=f"{getattr(place, folder)}/{file}"
            if file
            else _verified(checkout, place, tests, broken),
        )
    yield from _of_measurement(checkout, row)
    yield _scenarios(row, rows)


def _verified(checkout: Path, place: Place, tests: Sequence[str], broken: Sequence[Finding]) -> str:
    """Where the first test is that breaks the rule; else the only file of a verification, or the
    folder of all of them."""
    if broken:
        return broken[0].path.replace("closed", place.division, 1)
    tree = Tree(checkout)
    files = [
        f"{place.compliance}/{test}/{name}"
        for test in tests
        for name in tree.files(f"{place.compliance}/{test}")
        if name.startswith("verify_")
    ]
    return files[0] if len(files) == 1 else place.compliance


def _scenarios(row: Result, rows: Sequence[Result]) -> ClosedRule:
    """Whether the submission of one result has all scenarios that a closed one has to have."""
    own = [getattr(row, name) for name in SUBMITTED_AS]
    mine = {r.scenario for r in rows if [getattr(r, name) for name in SUBMITTED_AS] == own}
    benchmark = load(row.round).benchmarks[row.benchmark]
    missing = [one for one in benchmark.required.get(row.suite, ()) if one not in mine]
    if set(WITH_LIMITS) <= set(benchmark.optional.get(row.suite, ())) and not mine & {*WITH_LIMITS}:
        missing.append(" or ".join(WITH_LIMITS))
    wanted = "".join(f"; {one} is required" for one in missing)
    return ClosedRule(
        rule=SCENARIOS,
        of="submission",
        met=not missing,
        found=f"submitted: {', '.join(sorted(mine))}{wanted}",
        evidence=row.location.rpartition("/")[0],
    )


def _findings(checkout: Path, row: Result) -> list[Finding]:
    """Errors of the result where a closed one lies."""
    here, there = _place(checkout, row), _place(checkout, row, "closed")
    with tempfile.TemporaryDirectory() as folder:
        for name in (name for name in FOLDERS if _distinct(here, name)):
            _copied(checkout / getattr(here, name), Path(folder) / getattr(there, name))
        found = check_result(Tree(Path(folder)), row.round, there, row.benchmark)
    return [one for one in found.findings if one.severity is Severity.ERROR]


def _copied(source: Path, target: Path) -> None:
    """Raises UserError for a folder that can't be copied; links stay what they are."""
    if not source.is_dir():
        return
    try:
        needed = sum(path.lstat().st_size for path in source.rglob("*"))
        if needed > (free := shutil.disk_usage(tempfile.gettempdir()).free):
            raise UserError(
                f"{source} takes {needed / 1e9:.1f} GB to be checked as a closed result, and "
                f"{tempfile.gettempdir()} has {free / 1e9:.1f} GB free; set TMPDIR"
            )
        shutil.copytree(source, target, symlinks=True, copy_function=_copied_file)
    except OSError as error:  # shutil's own has all that failed
        found = error.args[0] if isinstance(error, shutil.Error) else error.strerror
        said = found[0][2] if isinstance(found, list) else found
        raise UserError(f"{source} can't be checked as a closed result: {said}") from error


def _copied_file(source: str, target: str) -> None:
    """What isn't a file is one pipe or another: the validator says so and waits for none."""
    if stat.S_ISREG(os.stat(source).st_mode):
        shutil.copyfile(source, target)
    else:
        os.mkfifo(target)


FOLDERS = ("results", "measurements", "compliance")


def _distinct(place: Place, name: str) -> bool:
    """In layouts without such a folder it is that of the results."""
    return name == "results" or getattr(place, name) != place.results


def _place(checkout: Path, row: Result, division: str = "") -> Place:
    spelled = row.location.rpartition("/")[2]  # some write scenarios in lower case
    layout = _layout(checkout, row)
    return Place(layout, division or row.division, row.submitter, row.platform, row.model, spelled)


def _layout(checkout: Path, row: Result) -> Layout:
    own = load(row.round).layout
    return home_layout(Tree(checkout), f"{row.division}/{row.submitter}", own) or own


def _of_measurement(checkout: Path, row: Result) -> Iterator[ClosedRule]:
    """What the submitter says of its weights."""
    place = _place(checkout, row)
    folder = place.measurements
    retraining = _retraining(checkout / folder)
    yield ClosedRule(
        rule="weights aren't retrained",
        of="result",
        met=retraining.lower() == "no",
        found=f"retraining: {retraining}",
        evidence=folder,
    )
    found, evidence = _of_pruning(checkout, place)
    yield ClosedRule(
        rule="the model is whole",
        of="result",
        met=not found,
        found=found or "neither README.md nor code is about pruning",
        evidence=evidence,
    )


def _retraining(folder: Path) -> str:
    """What the first file says that says it, or why that isn't known."""
    damaged = []
    for path in sorted(folder.glob("*.json")):
        try:
            said, _ = object_of(path)
        except Damaged as damage:
            damaged.append(f"{shown(path.name)}: {damage}")
            continue
        if "retraining" in said:
            return shown(str(said["retraining"]))
    return "; ".join(["not stated", *damaged])


def _of_pruning(checkout: Path, place: Place) -> tuple[str, str]:
    """What says that layers were taken out, "" if nothing does, and the file that shows it."""
    readme = f"{place.measurements}/{README}"
    if PRUNED.search(_words(checkout / readme)):
        return f"{README} is about pruning", readme
    script = next(_pruning_scripts(checkout, place), None)
    if script is None:
        return "", readme
    return script.name, script.relative_to(checkout).as_posix()


def _words(path: Path) -> str:
    """A README's text; what can't be read has none, and that is a finding of the validator."""
    try:
        with open_regular(path) as stream:
            return stream.read(MAX_TEXT_BYTES).decode("utf-8", errors="replace")
    except (Damaged, OSError):
        return ""


def _pruning_scripts(checkout: Path, place: Place) -> Iterator[Path]:
    """Scripts of this model's code that are named after pruning."""
    code = checkout / place.home / place.layout.code / place.model
    for path in sorted(code.rglob("*.py")):
        if "prun" in path.name.lower():  # drop_layers.py is in every copy of AMD's harness
            yield path
