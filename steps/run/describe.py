"""The system description: fields probed on the machine, and configured ones.

The step describes the machine it runs on; `./reproduce describe` (steps/commands/describe.py) also
writes a node's record and merges the records of a cluster.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Workspace
from steps.base.step import main
from steps.config.artifacts import MISSING, DescribeConfig
from steps.config.description import DescribedField, DescribeResult
from steps.machine.probes.fields import contradictions, named_by, probed
from steps.machine.probes.machine import probe
from steps.machine.probes.values import Node


def step(
    config: DescribeConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes system.json, every value as text; the result says where each field comes from."""
    node = probe()
    require_true(config, node)
    fields = described(config, {"this machine": node})
    (workspace.directory / "system.json").write_text(system(fields), encoding="utf-8")
    workspace.result = DescribeResult(fields=fields).dumped()
    for problem in node.problems:
        print(problem)


def require_true(config: DescribeConfig, node: Node) -> None:
    """Raises UserError if the configured description is of another machine than this one. Where
    this one stands in for the system, if it contradicts the system's hardware or its name."""
    if config.rehearsal is not None:
        _require_rehearsed(config)
        return
    found = probed({"this machine": node}, config.fields)
    if wrong := contradictions(config.fields, found):
        raise UserError(
            f"system {config.name} describes another machine: {'; '.join(wrong)}; give this "
            "machine a system of its own, as docs/tutorial/partner-rerun.md shows, or correct the "
            "fields"
        )


def _require_rehearsed(config: DescribeConfig) -> None:
    if config.rehearsed is None:
        return
    id, nodes = config.rehearsed.id, config.fields.get("number_of_nodes", "1")
    known = {"its hardware": config.rehearsed.hardware, f"its name {id}": named_by(id, nodes)}
    wrong = [
        contradiction
        for whose, fields in known.items()
        for contradiction in contradictions(config.fields, fields, whose)
    ]
    if wrong:
        raise UserError(
            f"system {config.name} describes another machine than it names: {'; '.join(wrong)}; "
            "correct the field, or the system's hardware or id"
        )


def described(config: DescribeConfig, nodes: Mapping[str, Node]) -> dict[str, DescribedField]:
    """Every field that the round requires, in its order, then other configured ones. A configured
    value wins: the submitter wants it printed. Raises UserError for nodes that can't be one system,
    and for a configured number of nodes that differs from theirs.
    """
    found = probed(nodes, config.fields)
    count = config.fields.get("number_of_nodes", found["number_of_nodes"])
    if len(nodes) > 1 and count != found["number_of_nodes"]:
        raise UserError(
            f"number_of_nodes is configured as {count}, and {len(nodes)} nodes were described; "
            f"choose the cluster of system {config.name} accordingly, or name as many records"
        )
    return {
        name: _field(config.fields.get(name), found.get(name))
        for name in dict.fromkeys((*config.required, *config.fields))
    }


def _field(configured: str | None, found: str | None) -> DescribedField:
    if configured is not None:
        overruled = {"probed": found} if found not in (None, configured) else {}
        return DescribedField(value=configured, origin="configured", **overruled)
    if found:
        return DescribedField(value=found, origin="probed")
    return DescribedField(value=MISSING, origin="missing")


def system(fields: Mapping[str, DescribedField]) -> str:
    """The text of system.json."""
    system = {name: field.value for name, field in fields.items()}
    return json.dumps(system, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main("describe", DescribeConfig, step)
