"""`./reproduce describe`: the description of this machine, a node's record, or the description of a
cluster from its nodes' records.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError
from tabulate import tabulate

from steps import ROOT
from steps.base.arguments import Parser, json_argument, plan_arguments
from steps.base.errors import UserError, explain
from steps.base.record import write_atomically
from steps.base.strict import Strict
from steps.base.untrusted import Damaged, text_of
from steps.config.artifacts import DescribeConfig
from steps.config.description import DescribedField
from steps.machine.probes.machine import probe
from steps.machine.probes.values import Node
from steps.plan.make import make
from steps.run.describe import described, system

FOLDER = Path("results/systems")
VALUE_WIDTH = 62


def declare(parser: Parser) -> None:
    """What is described, and the plan whose system it is."""
    parser.description = (
        "Describe this machine, or a cluster from its nodes' records, as the system of a plan."
    )
    plan_arguments(parser)
    parser.add_argument("--node", type=Path, metavar="FILE", help="only write this node's record")
    parser.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE", help="records of all nodes of a cluster"
    )
    parser.add_argument("--image", metavar="NAME", help="note the id of this container image")
    json_argument(parser, "the description, with the origin of each field,")


def command(options: argparse.Namespace) -> int:
    """Exit status 0 when a description or a node's record was written."""
    if options.node:
        return _record(options.node, options.image, as_json=options.json)
    if options.merge and options.image:
        raise UserError("--image belongs to --node: the records already say each node's image")
    merged = options.merge is not None
    nodes = read(options.merge) if merged else {"this machine": probe(options.image)}
    systems = _systems(options.overrides, options.site)
    if len(systems) > 1 and merged:
        names = ", ".join(config.name for config in systems)
        raise UserError(f"the records are of one system, but the plan has {names}; add system=NAME")
    found = Description(
        systems={config.name: described(config, nodes) for config in systems},
        problems=tuple(
            f"{name}: {problem}" if merged else problem
            for name, node in nodes.items()
            for problem in node.problems
        ),
    )
    for name, fields in found.systems.items():
        _write_all(name, fields, ROOT)
    print(found.model_dump_json(indent=1) if options.json else rendered(found))
    return 0


class Description(Strict):
    """Fields of each system, name to value, and what a probe could not find out."""

    systems: dict[str, dict[str, DescribedField]]
    problems: tuple[str, ...]


def rendered(found: Description) -> str:
    """A table per system, and where its files lie."""
    tables = (_table(name, fields) for name, fields in found.systems.items())
    return "\n".join([*tables, *found.problems])


def _record(path: Path, image: str | None, *, as_json: bool) -> int:
    node = probe(image)
    _write(path, node.model_dump_json(indent=1) + "\n")
    if as_json:
        print(node.model_dump_json(indent=1))
        return 0
    print(f"{path}: this node's record; bring all nodes' together for --merge")
    for problem in node.problems:
        print(problem)
    return 0


def read(paths: list[Path]) -> dict[str, Node]:
    """Records by file name. Raises UserError naming a file that isn't a record or comes twice."""
    nodes: dict[str, Node] = {}
    for path in paths:
        if str(path) in nodes:
            raise UserError(f"{path} is given twice; give every node's record once")
        try:
            nodes[str(path)] = Node.model_validate_json(text_of(path.resolve()))
        except ValidationError as error:
            raise UserError(
                f"{path} isn't a node's record ({explain(error)}); make it again on that node with "
                "./reproduce describe --node FILE"
            ) from error
        except (Damaged, OSError, RuntimeError) as error:
            raise UserError(
                f"{path} can't be read ({error}); make it again on that node with "
                "./reproduce describe --node FILE"
            ) from error
    return nodes


def _systems(overrides: list[str], site: Path | None) -> list[DescribeConfig]:
    jobs = [job for job in make(ROOT, overrides, site).jobs if job.step == "describe"]
    return [DescribeConfig.model_validate_json(job.config) for job in jobs]


def _table(name: str, fields: Mapping[str, DescribedField]) -> str:
    rows = []
    for field, entry in fields.items():
        overruled = f"\n(probed: {entry.probed})" if entry.probed else ""
        rows.append([field, f"{entry.value}{overruled}", entry.origin])
    known = sum(entry.origin != "missing" for entry in fields.values())
    return "\n".join(
        [
            f"system {name}",
            tabulate(rows, headers=["field", "value", ""], maxcolwidths=[None, VALUE_WIDTH, None]),
            f"\n{known} of {len(fields)} fields known; in {FOLDER / name}:",
            "  system.json  the description, missing fields as N/A",
            "  fields.json  each field with its origin",
            "  fields.yaml  what was probed, as `system.fields` for conf/system: fixes it there",
        ]
    )


def _write_all(name: str, fields: Mapping[str, DescribedField], root: Path) -> None:
    """Three files: the description, its origins, and lines for conf/system."""
    folder = root / FOLDER / name
    origins = {field: entry.model_dump(exclude_none=True) for field, entry in fields.items()}
    found = {field: e.value for field, e in fields.items() if e.origin == "probed"}
    _write(folder / "system.json", system(fields))
    _write(folder / "fields.json", json.dumps(origins, indent=1, ensure_ascii=False) + "\n")
    _write(folder / "fields.yaml", yaml.safe_dump({"fields": found}, sort_keys=False))


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror})") from error
