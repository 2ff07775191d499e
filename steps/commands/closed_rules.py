"""What of the closed division's rules an open result meets, by the validator.

The result is copied to where a closed one lies and checked there. `RULES` says which findings break
which rule; what the validator can't see is read from the measurement.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from steps.base.untrusted import Damaged, object_of, text_of
from steps.mlperf.loadgen import DETAIL, USER_CONF
from steps.mlperf.published.result import Result
from steps.mlperf.published.table import ClosedRule
from steps.mlperf.rounds import Layout, load
from steps.submit.validate.findings import Finding, Severity, printable
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
            source = checkout / getattr(here, name)
            if source.is_dir():
                shutil.copytree(source, Path(folder) / getattr(there, name), symlinks=True)
        found = check_result(Tree(Path(folder)), row.round, there, row.benchmark)
    return [one for one in found.findings if one.severity is Severity.ERROR]


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
    retraining = _retraining(checkout, place)
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


def _retraining(checkout: Path, place: Place) -> str:
    """What the first description with such a field has in it, or why none can be read."""
    said = "not stated"
    for name in Tree(checkout).files(place.measurements):
        if not name.endswith(".json"):
            continue
        try:
            fields, _ = object_of(checkout / place.measurements / name)
        except Damaged as damage:
            said = f"{name}: {damage}"
            continue
        if "retraining" in fields:
            return printable(str(fields["retraining"]))
    return said


def _of_pruning(checkout: Path, place: Place) -> tuple[str, str]:
    """What says that layers were taken out, "" if nothing does, and the file that shows it."""
    readme = f"{place.measurements}/{README}"
    try:
        if PRUNED.search(text_of(checkout / readme)):
            return f"{README} is about pruning", readme
    except Damaged as damage:
        if Tree(checkout).is_file(readme):
            return f"{README}: {damage}", readme
    script = next(_pruning_scripts(checkout, place), None)
    if script is None:
        return "", readme
    return script.name, script.relative_to(checkout).as_posix()


def _pruning_scripts(checkout: Path, place: Place) -> Iterator[Path]:
    """Scripts of this model's code that are named after pruning."""
    code = checkout / place.home / place.layout.code / place.model
    for path in sorted(code.rglob("*.py")):
        if "prun" in path.name.lower():  # drop_layers.py is in every copy of AMD's harness
            yield path
