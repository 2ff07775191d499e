"""MLCommons' summary of a round, read into typed results.

summary_results.json is what tools/submission/generate_final_report.py writes, summary.csv what the
checker writes and v6.1 publishes.
"""

import contextlib
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.untrusted import json_of
from steps.mlperf.published.result import Result, accuracy_metrics, judged, marked_duplicates

REQUIRED = ("ID", "Submitter", "Category", "Model", "Scenario", "Location")
"""The keys that identify a row; any other may be absent."""


SUMMARIES = ("summary_results.json", "summary.csv")
"""Names of the file at the root of a round's repository."""

CSV_KEYS: Mapping[str, str] = {
    "Organization": "Submitter",
    "Division": "Category",
    "SystemType": "Suite",
    "SystemName": "System",
    "Model": "UsedModel",
    "MlperfModel": "Model",
    "Result": "Performance_Result",
    "Units": "Performance_Units",
    "number_of_nodes": "Nodes",
    "host_processor_model_name": "Processor",
    "accelerator_model_name": "Accelerator",
    "accelerators_per_node": "a#",
    "framework": "Software",
}
"""Columns of summary.csv, and what summary_results.json calls the same."""

RUN = "/performance/run_1"
"""Ends the location of a row since v6.0; before, it was that of the result."""


def read_summary(path: Path) -> list[Result]:
    """Every row, in order. Raises UserError, with row and key, for a file of another form."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8: {error}; get the file again") from error
    rows = _csv(text) if path.suffix == ".csv" else _json(path, text)
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise UserError(f"{path} is not a list of results; give a round's {SUMMARIES[0]}")
    return marked_duplicates([_result(row, f"{path}, row {n}") for n, row in enumerate(rows, 1)])


def _json(path: Path, text: str) -> Any:
    try:
        return json_of(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}; get the file again") from error


def _csv(text: str) -> list[dict[str, Any]]:
    """Rows by the keys of summary_results.json. A system has no public ID there: its organization
    and platform stand for one."""
    rows = []
    for raw in csv.DictReader(io.StringIO(text)):
        row: dict[str, Any] = {CSV_KEYS.get(k, k): v for k, v in raw.items() if k is not None}
        result = str(row.get("Performance_Result") or "")
        with contextlib.suppress(ValueError):
            row["Performance_Result"] = float(result)
        row["ID"] = f"{row.get('Submitter') or ''} {row.get('Platform') or ''}".strip()
        rows.append(row)
    return rows


def _result(row: Mapping[str, Any], where: str) -> Result:
    missing = [key for key in REQUIRED if not str(row.get(key) or "")]
    if missing:
        raise UserError(f"{where} has no {', '.join(missing)}; get the file again")
    unit = str(row.get("Performance_Units") or "")
    value, problems = judged(row.get("Performance_Result"), unit)
    return Result(
        source="published",
        round=_round(row, where),
        id=_text(row, "ID"),
        submitter=_text(row, "Submitter"),
        availability=_text(row, "Availability"),
        division=_text(row, "Category"),
        suite=_text(row, "Suite"),
        system=_text(row, "System"),
        platform=_text(row, "Platform"),
        benchmark=_text(row, "Model"),
        model=_text(row, "UsedModel") or _text(row, "Model"),
        scenario=_text(row, "Scenario"),
        nodes=_count(row, "Nodes"),
        accelerators_per_node=_count(row, "a#"),
        accelerator=_text(row, "Accelerator"),
        processor=_text(row, "Processor"),
        processors_per_node=_count(row, "host_processors_per_node"),
        software=_text(row, "Software"),
        operating_system=_text(row, "operating_system"),
        precision=_text(row, "weight_data_types"),
        accuracy=accuracy_metrics(_text(row, "Accuracy")),
        value=value,
        unit=unit,
        location=_text(row, "Location").removeprefix("./").removesuffix(RUN),
        problems=problems,
    )


def _round(row: Mapping[str, Any], where: str) -> str:
    """ "v5.1", from `version` or from the ID's first part."""
    version = str(row.get("version") or "") or f"v{str(row['ID']).split('-')[0]}"
    if not version.startswith("v") or not version[1:2].isdigit():
        raise UserError(f"{where}: neither version nor ID names a round ({version!r})")
    return version


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return "" if value is None else " ".join(str(value).split())


def _count(row: Mapping[str, Any], key: str) -> int | None:
    """A positive whole number; None for the empty string of systems without accelerators."""
    try:
        number = float(row.get(key) or "nan")
    except (TypeError, ValueError):
        return None
    return int(number) if number > 0 and number.is_integer() else None
