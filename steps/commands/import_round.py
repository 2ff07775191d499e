"""`./reproduce import-round CHECKOUT --round v6.0`: a published round as tables and drafts.

CHECKOUT is one of MLCommons' repository of a round's results. Its rows become the tables of
`steps/mlperf/published/`. What submitters on Instinct accelerators published of their systems and
settings goes below `results/published/ROUND/import/`, as material for `conf/system/` and for golden
tests: nothing reads it there.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from steps import ROOT
from steps.base.arguments import Parser
from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.base.untrusted import Damaged, text_of
from steps.commands.closed_rules import closed_rules
from steps.mlperf.detail import Detail, read_detail
from steps.mlperf.loadgen import USER_CONF, loadgen_scenario
from steps.mlperf.published import table
from steps.mlperf.published.importing import Imported, import_tables, problems
from steps.mlperf.published.logs import LOG
from steps.mlperf.published.result import Result
from steps.mlperf.rounds import layouts, load, names
from steps.mlperf.user_conf import loadgen_model, read_settings
from steps.report.comparison import tolerances
from steps.report.comparison.partner import PartnerVerdict, judge, without_twins

ROW = ("division", "submitter", "platform", "model", "scenario")
LOGGED: Mapping[str, str] = {
    "target_qps": "effective_target_qps",
    "min_duration": "effective_min_duration_ms",
    "performance_sample_count_override": "effective_performance_sample_count",
}
"""Keys of user.conf that a log contradicts or not, and where it has what ran."""

RENAMED = ("division", "submitter")
"""Fields of a description that a system of `conf/` says elsewhere."""


def declare(parser: Parser) -> None:
    """The checkout, its round, and where tables and drafts go."""
    parser.add_argument("checkout", metavar="CHECKOUT", type=Path)
    parser.add_argument("--round", required=True, help="as v6.0; rows of another are refused")
    parser.add_argument(
        "--tables", type=Path, default=table.FOLDER, metavar="DIRECTORY", help="of the tables"
    )
    parser.add_argument("--output", type=Path, metavar="DIRECTORY", help="of drafts and settings")


def command(given: argparse.Namespace) -> int:
    """Writes all files and prints what was left out, and why. Raises UserError for a checkout of
    another form."""
    folder = given.output or ROOT / f"results/published/{given.round}/import"
    found = import_tables(given.checkout, given.round, given.tables)
    instinct = [row for row in found.results if row.gpu.startswith("MI")]
    verdicts = band_verdicts(instinct)
    files = {**settings(given.checkout, instinct), **drafts(given.checkout, instinct)}
    rules = conformance(
        given.checkout, found.results, given.tables / f"{given.round}-closed-rules.csv"
    )
    files["bands.csv"] = table.to_csv(map(_band, verdicts), BAND)
    for name, text in files.items():
        write_atomically(folder / name, text)
    print(summary(found, instinct, verdicts))
    print("\n".join(map(str, [*found.paths, *rules, *(folder / name for name in sorted(files))])))
    return 0


def conformance(checkout: Path, rows: Sequence[Result], path: Path) -> list[Path]:
    """Write what open results on Instinct meet of the closed division's rules, where there are any
    of benchmarks that the round's rules know."""
    known = load(rows[0].round).benchmarks if rows and rows[0].round in names() else {}
    lines = [
        {"location": row.location, **rule.model_dump(), "met": "yes" if rule.met else "no"}
        for row in rows
        if row.division == "open" and row.gpu.startswith("MI") and row.benchmark in known
        for rule in closed_rules(checkout, row, rows)
    ]
    if not lines:
        return []
    write_atomically(path, table.to_csv(lines, ("location", *table.ClosedRule.model_fields)))
    return [path]


def summary(found: Imported, instinct: Sequence[Result], verdicts: Sequence[PartnerVerdict]) -> str:
    """What became of every row, and where partners are beside AMD."""
    total = len(found.results) + sum(found.dropped.values())
    lines = [
        f"{total} rows: {len(found.results)} in the table, {len(instinct)} of them on Instinct"
    ]
    lines += [f"  {count} left out: {reason}" for reason, count in sorted(found.dropped.items())]
    lines += [f"  {n} can't be compared: {why}" for why, n in problems(found.results).items()]
    lines.append(f"{found.runs} rows with facts of their log")
    lines += [f"  {count} without: {reason}" for reason, count in sorted(found.without.items())]
    differences = sorted(v.difference for v in verdicts if v.difference is not None)
    if differences:
        rows = [[band[name] for name in BAND] for band in map(_band, verdicts) if band["partners"]]
        lines += ["", tabulate(rows, headers=list(BAND), tablefmt="simple", disable_numparse=True)]
    return "\n".join(lines) + "\n"


# ---- the partners' band ------------------------------------------------------------------------

BAND = ("accelerator", "benchmark", "scenario", "AMD", "partners", "lowest", "highest", "tolerance")


def band_verdicts(instinct: Sequence[Result]) -> list[PartnerVerdict]:
    """AMD's single-node results, each judged by its partners."""
    rows = without_twins(instinct)
    allowed = tolerances.load()
    return [
        judge(row.model_copy(update={"location": ""}), rows, allowed)
        for row in rows
        if row.submitter == "AMD" and row.nodes == 1 and row.comparable
    ]


def _band(verdict: PartnerVerdict) -> dict[str, str]:
    low, high = (f"{100 * x:+.2f} %" for x in verdict.band) if verdict.band else ("", "")
    return {
        "accelerator": verdict.gpu,
        "benchmark": verdict.model,
        "scenario": verdict.scenario,
        "AMD": f"{verdict.value:,.10g} {verdict.unit}",
        "partners": str(len(verdict.partners) or ""),
        "lowest": low,
        "highest": high,
        "tolerance": f"{100 * verdict.tolerance:.0f} %",
    }


# ---- settings of the runs, for golden tests ----------------------------------------------------


def settings(checkout: Path, rows: Sequence[Result]) -> dict[str, str]:
    """rows.csv, user-conf.json and contradictions.csv: what ran by the log, what the package says,
    and where the two differ."""
    logged: list[dict[str, str]] = []
    packaged: dict[str, dict[str, float]] = {}
    differing: list[dict[str, str]] = []
    for row in without_twins(rows):
        path = checkout / row.location / LOG
        if not path.is_file():
            continue
        log, names = read_detail(path), _names(row)
        logged.append({**names, **_ran(log, row)})
        said = _packaged(checkout, row)
        if said is None:
            continue
        packaged["/".join(names.values())] = said
        differing += [{**names, **one} for one in _contradictions(said, log, row)]
    columns = ("setting", "packaged", "logged")
    numbers = ("target_qps", "min_duration_ms", "samples", "value")
    return {
        "rows.csv": table.to_csv(logged, (*ROW, *numbers)),
        "user-conf.json": json.dumps(packaged, indent=1, sort_keys=True) + "\n",
        "contradictions.csv": table.to_csv(differing, (*ROW, *columns)),
    }


def _names(row: Result) -> dict[str, str]:
    return {name: str(getattr(row, name)) for name in ROW}


def _ran(log: Detail, row: Result) -> dict[str, str]:
    samples = (
        "effective_samples_per_query" if row.scenario == "Offline" else "generated_query_count"
    )
    return {
        "target_qps": _text(log.values.get("effective_target_qps")),
        "min_duration_ms": _text(log.values.get("effective_min_duration_ms")),
        "samples": _text(log.values.get(samples)),
        "value": _text(row.value),
    }


def _packaged(checkout: Path, row: Result) -> dict[str, float] | None:
    """user.conf's values for this run, from beside the results or from a folder apart."""
    apart = filter(None, (layout.measurements for layout in layouts()))
    others = (row.location.replace("/results/", f"/{folder}/", 1) for folder in apart)
    for folder in (row.location, *others):
        path = checkout / folder / USER_CONF
        if path.is_file():
            known = load(row.round).benchmarks if row.round in names() else {}
            said = known[row.benchmark].loadgen_model if row.benchmark in known else None
            model = loadgen_model(row.benchmark, row.scenario, said)
            return read_settings(_read(path), model, loadgen_scenario(row.scenario)).numbers()
    return None


def _contradictions(
    said: Mapping[str, float], log: Detail, row: Result
) -> Iterator[dict[str, str]]:
    """Settings whose packaged value isn't the log's; a rate that isn't said at all is one too."""
    for name, key in LOGGED.items():
        ran = log.values.get(key)
        rate = name == "target_qps" and row.scenario in ("Offline", "Server", "Interactive")
        if not isinstance(ran, int | float) or (name not in said and not rate):
            continue
        if name not in said or abs(said[name] - ran) > 1e-5 * abs(ran):
            yield {"setting": name, "packaged": _text(said.get(name)), "logged": _text(ran)}


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, int | float) else ""


# ---- drafts of systems -------------------------------------------------------------------------


def drafts(checkout: Path, rows: Sequence[Result]) -> dict[str, str]:
    """systems.json, every description as published, and a file of `conf/system/` for each."""
    described: dict[str, dict[str, Any]] = {}
    files = {}
    for (division, submitter, platform), of_system in _by_system(rows).items():
        path = checkout / division / submitter / "systems" / f"{platform}.json"
        if not path.is_file():
            continue
        fields = _description(path)
        described[f"{division}/{submitter}/{platform}"] = fields
        name = _name(submitter, platform)
        files[f"system/{name}.yaml"] = _draft(checkout, name, fields, of_system)
    return {**files, "systems.json": json.dumps(described, indent=1, sort_keys=True) + "\n"}


def _by_system(rows: Iterable[Result]) -> dict[tuple[str, str, str], list[Result]]:
    found: dict[tuple[str, str, str], list[Result]] = {}
    for row in rows:
        found.setdefault((row.division, row.submitter, row.platform), []).append(row)
    return found


def _description(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(_read(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path} is no system description")
    return fields


def _draft(checkout: Path, name: str, fields: Mapping[str, Any], rows: Sequence[Result]) -> str:
    """A system file with the description's fields and the rates of user.conf: to be read over."""
    first = rows[0]
    loadgen: dict[str, Any] = {}
    for row in without_twins(rows):
        said = _packaged(checkout, row) or {}
        own = {
            ours: said[theirs]
            for ours, theirs in (("target_qps", "target_qps"), ("min_duration_ms", "min_duration"))
            if theirs in said
        }
        if own:
            model = loadgen.setdefault(table.model_of(row.benchmark), {"by_scenario": {}})
            model["by_scenario"][row.scenario] = own
    gpus = [gpu.split()[0].lower() for gpu in first.gpus]
    nodes = f"{first.nodes}-node{'s' if (first.nodes or 0) > 1 else ''}"
    system = {
        "name": name,
        "id": first.platform,
        "division": first.division,
        "submitter": first.submitter,
        "target_qps": {},
        "loadgen": {"by_model": loadgen},
        "engine": {},
        "fields": {k: v for k, v in fields.items() if v not in ("", None) and k not in RENAMED},
    }
    body = {
        "defaults": [
            {"override /hardware": gpus[0] if gpus else "NAME"},
            {"override /cluster": nodes},
            "_self_",
        ],
        "system": system,
    }
    head = (
        f"# @package _global_\n# {first.submitter}, {first.platform}, {first.round}. A draft that "
        "import-round made of\n# its description and user.conf: see docs/how-to/add-a-system.md.\n"
    )
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=99)
    return head + str(text)


def _name(submitter: str, platform: str) -> str:
    """A system's name: lower case, without what a file's name can't have."""
    text = f"{submitter}-{platform}".lower()
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text)


def _read(path: Path) -> str:
    try:
        return text_of(path)
    except Damaged as damage:
        raise UserError(f"{path}: {damage}") from damage
