"""systems/<system>.json."""

from typing import Any

from steps.base.untrusted import Damaged, object_of, shown
from steps.mlperf.rounds import COUNTS, MAY_BE_EMPTY, STATUSES, SYSTEM_TYPES, Round
from steps.submit.validate.findings import Findings
from steps.submit.validate.tree import Tree

TEXTS = (
    "system_name",
    "host_processor_model_name",
    "accelerator_model_name",
    "framework",
    "operating_system",
    "hw_notes",
    "sw_notes",
)
"""Fields that the official checker joins to texts: a number in one of them stops it (v5.1.1)."""


def check_system(
    tree: Tree, home: str, system: str, rules: Round, findings: Findings
) -> tuple[dict[str, Any], str] | None:
    """The description and its table of scenarios; None if results can't be judged without it."""
    path = f"{home}/systems/{system}.json"
    if not tree.is_file(path):
        findings.add("system-missing", path, f"results/{system} has no description")
        return None
    try:
        fields, twice = object_of(tree.at(path))
    except Damaged as damage:
        findings.add("system-damaged", path, str(damage), line=damage.line)
        return None
    for key in twice:
        findings.add("system-duplicate-key", path, f"{key} is given more than once")
    _check_fields(path, fields, rules, findings)
    _check_values(path, fields, home, findings)
    kind = fields.get("system_type")
    if not isinstance(kind, str) or kind not in SYSTEM_TYPES:
        return None
    return fields, SYSTEM_TYPES[kind]


def _check_fields(path: str, fields: dict[str, Any], rules: Round, findings: Findings) -> None:
    network = _is_true(fields.get("is_network"))
    required = [*rules.system_fields, *(rules.system_fields_network if network else [])]
    known = {*required, *rules.system_fields_optional, "is_network"}
    for name in required:
        if name not in fields:
            findings.add("system-field-missing", path, f"{name} is missing")
        elif name not in MAY_BE_EMPTY and not fields[name]:
            findings.add("system-field-empty", path, f"{name} is {shown(fields[name])}")
    for name in sorted(set(fields) - known):
        findings.add("system-field-unknown", path, f"{name} isn't a field of a description")
    for name in TEXTS:
        if name in fields and not isinstance(fields[name], str):
            findings.add("system-field-type", path, f"{name} is {shown(fields[name])}, not text")
        elif '"' in fields.get(name, ""):
            findings.add("system-quotes", path, f"{name} has a double quote in it")
    for name in COUNTS:
        if fields.get(name) and not shown(fields[name]).strip("'").strip().isdecimal():
            findings.add("system-count", path, f"{name} is {shown(fields[name])}, not an integer")


def _check_values(path: str, fields: dict[str, Any], home: str, findings: Findings) -> None:
    division, submitter = home.split("/", 1)
    status = fields.get("status")
    if not isinstance(status, str) or status.lower() not in STATUSES:
        findings.add("system-status", path, f"status is {shown(status)}")
    kind = fields.get("system_type")
    if not isinstance(kind, str) or kind not in SYSTEM_TYPES:
        findings.add("system-type", path, f"system_type is {shown(kind)}")
    named = fields.get("submitter")
    if not isinstance(named, str) or named.lower() != submitter.lower():
        findings.add("system-submitter", path, f"submitter is {shown(named)}, not {submitter!r}")
    if fields.get("division") != division:
        found = fields.get("division")
        findings.add("system-division", path, f"division is {shown(found)}, not {division!r}")
    network = fields.get("is_network")
    if network is not None and not isinstance(network, str):
        findings.add("system-network", path, f"is_network is {shown(network)}, not text")
    elif division != "open" and _is_true(network) != (division == "network"):
        findings.add(
            "system-network", path, f"is_network is {shown(network)} in division {division}"
        )


def _is_true(value: Any) -> bool:
    return isinstance(value, str) and value.lower() == "true"
