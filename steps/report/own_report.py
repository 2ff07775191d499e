"""The whole of an experiment's report: its results, and how published ones compare."""

import csv
import io
import json
from typing import Any

from steps.mlperf.published import table
from steps.plan.states import CellState
from steps.report import own
from steps.report.claims import model
from steps.report.claims.evaluate import ClaimResult, evaluate
from steps.report.comparison import tolerances
from steps.report.comparison.partner import PartnerVerdict, judge
from steps.report.comparison.scaling import Scaling, scaling
from steps.report.summary import CellResult, Summary


class OwnReport(Summary):
    """The whole of summary.json. `partners` are in the order of `cells`.

    `claims` and `scaling` are those that own results are part of.
    """

    partners: tuple[PartnerVerdict, ...]
    claims: tuple[ClaimResult, ...]
    scaling: tuple[Scaling, ...]


def compared(summary: Summary) -> OwnReport:
    """Own results beside every published one. Raises UserError if a table is damaged."""
    mine = own.results(summary)
    published = table.load_all()
    allowed = tolerances.load()
    kinds = {(result.gpu, result.benchmark) for result in mine}
    return OwnReport(
        **dict(summary),
        partners=tuple(
            judge(result, published, allowed, own.clock(summary, cell))
            for result, cell in zip(mine, summary.cells, strict=True)
        ),
        claims=tuple(
            claim
            for claim in evaluate(model.load(), published, mine, allowed)
            if any(reading.own for reading in claim.readings)
        ),
        scaling=tuple(
            one for one in scaling([*published, *mine]) if (one.gpu, one.benchmark) in kinds
        ),
    )


def to_json(report: OwnReport) -> str:
    """Stable: sorted keys, no time of making."""
    return json.dumps(report.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"


def to_csv(report: OwnReport) -> str:
    """One row per cell of the plan; empty where there is no such number."""
    found = {
        cell.key: _row(cell, verdict)
        for cell, verdict in zip(report.cells, report.partners, strict=True)
    }
    rows = [{**_known(state), **found.get(state.key, {})} for state in report.states]
    # Benchmarks differ in their metrics and tests, so the columns are those of all rows.
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _known(cell: CellState) -> dict[str, Any]:
    return {**cell.axes, "state": cell.state, "why": cell.why, "tries": cell.tries}


def _row(cell: CellResult, verdict: PartnerVerdict) -> dict[str, Any]:
    row: dict[str, Any] = {**cell.axes, "division": cell.division, "emulated": cell.emulated}
    row |= {
        "value": cell.value,
        "unit": cell.unit,
        "samples_per_second": cell.samples_per_second,
        "target_qps": cell.target_qps,
    }
    for name, latency in (("ttft", cell.ttft), ("tpot", cell.tpot)):
        row[f"{name}_p99_ms"] = latency.p99_ms if latency else ""
        row[f"{name}_limit_ms"] = latency.limit_ms if latency else ""
    row |= cell.scores
    row |= {f"gate_{gate.name}_passed": gate.passed for gate in cell.gates}
    row |= {f"{test}_passed": passed for test, passed in cell.compliance.items()}
    row["departures"] = len(cell.departures)
    row["amd_value"] = verdict.reference.value if verdict.reference else ""
    row["difference"] = "" if verdict.difference is None else verdict.difference
    row["verdict"] = verdict.verdict
    return row
