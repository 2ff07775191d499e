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
from steps.submit.validate.findings import Finding, Severity
from steps.submit.validate.result import check_result
from steps.submit.validate.tree import Place, Tree, home_layout

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
    "every compliance test is there and verified": (
        r"compliance-.*",
        "compliance",
        "TEST06/verify_accuracy.txt",
    ),
    "the measurement is described": (r"measurement-.*", "measurements", "README.md"),
}
"""By rule: the codes that break it, as a pattern, and the folder and file that show it."""

ONE_OF = "a scenario with limits beside Offline"
PRUNED = re.compile(r"prun|drop_layers", re.IGNORECASE)


def closed_rules(checkout: Path, row: Result, rows: Sequence[Result]) -> Iterator[ClosedRule]:
    """Every rule, for one open result; `rows` are those of the round."""
    findings, place = _findings(checkout, row), _place(checkout, row)
    for rule, (pattern, folder, file) in RULES.items():
        broken = [found for found in findings if re.fullmatch(pattern, found.code)]
        yield ClosedRule(
            rule=rule,
            of="result",
            met=not broken,
            found="; ".join(found.what for found in broken) or "no finding of the validator",
            evidence=f"{getattr(place, folder)}/{file}",
        )
    yield from _of_measurement(checkout, row)
    mine = {r.scenario for r in rows if (r.platform, r.model) == (row.platform, row.model)}
    yield ClosedRule(
        rule=ONE_OF,
        of="submission",
        met=bool(mine & {"Server", "Interactive"}),
        found=f"submitted: {', '.join(sorted(mine))}",
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
    """In v6 all three are one folder."""
    return name == "results" or getattr(place, name) != place.results


def _place(checkout: Path, row: Result, division: str = "") -> Place:
    layout = home_layout(Tree(checkout), f"{row.division}/{row.submitter}") or "v5.1"
    spelled = row.location.rpartition("/")[2]  # some write scenarios in lower case
    return Place(layout, division or row.division, row.submitter, row.platform, row.model, spelled)


def _of_measurement(checkout: Path, row: Result) -> Iterator[ClosedRule]:
    """What the submitter says of its weights."""
    folder = _place(checkout, row).measurements
    retraining = _retraining(checkout / folder)
    yield ClosedRule(
        rule="weights aren't retrained",
        of="result",
        met=retraining.lower() == "no",
        found=f"retraining: {retraining}",
        evidence=folder,
    )
    said_so = PRUNED.search(_words(checkout / folder / "README.md"))
    scripts = _pruning_scripts(checkout, row)
    yield ClosedRule(
        rule="the model is whole",
        of="result",
        met=said_so is None and not scripts,
        found="README.md is about pruning"
        if said_so
        else scripts[0].name
        if scripts
        else "neither README.md nor code is about pruning",
        evidence=f"{folder}/README.md"
        if said_so or not scripts
        else scripts[0].relative_to(checkout).as_posix(),
    )


def _pruning_scripts(checkout: Path, row: Result) -> list[Path]:
    """Scripts of this model's code that are named after pruning."""
    home = checkout / row.division / row.submitter
    return [
        path
        for code in ("code", "src")
        for path in sorted((home / code / row.model).rglob("*.py"))
        if "prun" in path.name.lower()  # drop_layers.py is in every copy of AMD's harness
    ]


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


def _words(path: Path) -> str:
    """A README's text; what can't be read has none, and that is a finding of the validator."""
    try:
        with open_regular(path) as stream:
            return stream.read(MAX_TEXT_BYTES).decode("utf-8", errors="replace")
    except (Damaged, OSError):
        return ""
