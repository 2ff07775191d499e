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
from steps.base.errors import UserError, explain
from steps.base.record import write_atomically
from steps.base.untrusted import Damaged, text_of
from steps.config.artifacts import DescribeConfig
from steps.machine.probes.machine import probe
from steps.machine.probes.values import Node
from steps.plan.frozen import site_file
from steps.plan.make import make
from steps.run.describe import Field, described, system

FOLDER = Path("results/systems")
VALUE_WIDTH = 62


def command(arguments: list[str]) -> int:
    """Exit status 0 when a description or a node's record was written."""
    parser = argparse.ArgumentParser(
        prog="./reproduce describe",
        description="Describe this machine, or a cluster from its nodes' records, as the system "
        "of a plan.",
    )
    parser.add_argument(
        "overrides", nargs="*", help="choose the system, as system=NAME or --site FILE"
    )
    parser.add_argument("--node", type=Path, metavar="FILE", help="only write this node's record")
    parser.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE", help="records of all nodes of a cluster"
    )
    parser.add_argument("--image", metavar="NAME", help="note the id of this container image")
    rest, site = site_file(arguments)
    options = parser.parse_args(rest)
    if options.node:
        return _record(options.node, options.image)
    if options.merge and options.image:
        raise UserError("--image belongs to --node: the records already say each node's image")
    merged = options.merge is not None
    nodes = read(options.merge) if merged else {"this machine": probe(options.image)}
    systems = _systems(options.overrides, site)
    if len(systems) > 1 and merged:
        names = ", ".join(config.name for config in systems)
        raise UserError(f"the records are of one system, but the plan has {names}; add system=NAME")
    for config in systems:
        _show(config.name, described(config, nodes), ROOT)
    for name, node in nodes.items():
        for problem in node.problems:
            print(f"{name}: {problem}" if merged else problem)
    return 0


def _record(path: Path, image: str | None) -> int:
    node = probe(image)
    _write(path, node.model_dump_json(indent=1) + "\n")
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


def _show(name: str, fields: Mapping[str, Field], root: Path) -> None:
    """The table, and three files: the description, its origins, and lines for conf/system."""
    rows = []
    for field, entry in fields.items():
        overruled = f"\n(probed: {entry.probed})" if entry.probed else ""
        rows.append([field, f"{entry.value}{overruled}", entry.origin])
    print(f"system {name}")
    print(tabulate(rows, headers=["field", "value", ""], maxcolwidths=[None, VALUE_WIDTH, None]))
    missing = [field for field, entry in fields.items() if entry.origin == "missing"]
    folder = FOLDER / name
    origins = {field: entry.model_dump(exclude_none=True) for field, entry in fields.items()}
    found = {field: e.value for field, e in fields.items() if e.origin == "probed"}
    _write(root / folder / "system.json", system(fields))
    _write(root / folder / "fields.json", json.dumps(origins, indent=1, ensure_ascii=False) + "\n")
    _write(root / folder / "fields.yaml", yaml.safe_dump({"fields": found}, sort_keys=False))
    print(f"\n{len(fields) - len(missing)} of {len(fields)} fields known; in {folder}:")
    print("  system.json  the description, missing fields as N/A")
    print("  fields.json  each field with its origin")
    print("  fields.yaml  what was probed, as `system.fields` for conf/system: fixes it there")


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror})") from error
