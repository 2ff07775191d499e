"""`./reproduce diff`: the settings in which a system differs from the one it builds on."""

import argparse
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from steps import ROOT
from steps.base.arguments import Parser, plan_arguments
from steps.base.errors import UserError
from steps.config.compose import compose
from steps.config.composed import Composition
from steps.config.points import base_of, experiments_of

ABSENT = "–"
SHOWN_CHARACTERS = 48


def declare(parser: Parser) -> None:
    """`system=NAME` or `--site FILE`, `base=NAME` (a site names its own), overrides of axes."""
    plan_arguments(parser)
    parser.usage = f"{parser.prog} system=NAME base=NAME|--site FILE [OVERRIDE ...]"


def command(given: argparse.Namespace) -> int:
    """Prints the keys that differ; raises UserError unless two systems are named."""
    rest, site = given.overrides, given.site
    named = dict(text.split("=", 1) for text in rest if text.startswith(("system=", "base=")))
    overrides = [text for text in rest if not text.startswith(("system=", "base="))]
    base = named.get("base") or (base_of(site) if site else "")
    system = site.stem if site else named.get("system", "")
    if not system or not base:
        raise UserError("diff compares two systems: diff system=NAME base=NAME, or --site FILE")
    print(difference(ROOT / "conf", system, base, overrides, site))
    return 0


def difference(
    conf: Path, system: str, base: str, overrides: list[str], site: Path | None = None
) -> str:
    """A table of the keys that differ, at the cells that either has in its first experiment."""
    chosen = [text for text in overrides if text.startswith("experiment=")]
    rest = [text for text in overrides if text not in chosen]
    places = [(base, text) for text in chosen] or _experiments(conf, [base, system])
    if places[:1] != [(base, text) for _, text in places[:1]]:
        raise UserError(f"no experiment has a cell of system {base}; give experiment=NAME")
    before, after, refused = _composed(conf, places, rest, (base, system), site)
    rows = _rows(before.values(), [after[cell] for cell in before])
    notes = "".join(f"\nnot compared: {error}" for error in refused)
    if not rows:
        return f"{system} sets nothing differently from {base}{notes}"
    table = tabulate(
        [(*row[:2], *_short(*row[2:])) for row in rows],
        headers=["at", "key", base, system],
        tablefmt="simple",
        disable_numparse=True,
    )
    of = ", ".join(dict.fromkeys(experiment for _, experiment in places))
    return f"{table}\n{len(rows)} keys differ at {len(before)} cells of {of}{notes}"


Cells = dict[tuple[str, ...], Mapping[str, Any]]


def _composed(
    conf: Path,
    places: list[tuple[str, str]],
    overrides: list[str],
    systems: tuple[str, str],
    site: Path | None,
) -> tuple[Cells, Cells, list[UserError]]:
    """Both systems at the cells of every place, and what was refused where another place wasn't."""
    before: Cells = {}
    after: Cells = {}
    refused: list[UserError] = []
    for owner, experiment in places:
        fixed = [experiment, f"system={owner}", *overrides]
        try:
            of_base = _cells(compose(conf, fixed, None, systems[0]))
            of_system = _cells(compose(conf, fixed, site, None if site else systems[1]))
        except UserError as error:
            refused.append(error)
            continue
        before, after = {**of_base, **before}, {**of_system, **after}
    if refused and not before:
        raise refused[0]
    return before, after, refused


def _experiments(conf: Path, systems: list[str]) -> list[tuple[str, str]]:
    """The first experiment of each: a partner submits benchmarks and scenarios of its own."""
    found = [(system, experiments_of(conf, system)[:1]) for system in dict.fromkeys(systems)]
    return [(system, f"experiment={name}") for system, names in found for name in names]


def _cells(composed: Composition) -> Cells:
    """Cells by what they have in common with the same cell of another system."""
    axes = ("benchmark", "precision", "compression", "scenario")
    found = [cell.values for cell in composed.cells]
    return {tuple(cell[axis]["name"] for axis in axes): cell for cell in found}


def _rows(
    before: Collection[Mapping[str, Any]], after: Collection[Mapping[str, Any]]
) -> list[tuple[str, str, str, str]]:
    """(where, key, value before, value after); one row for the same difference at all cells."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for old, new in zip(before, after, strict=True):
        place = f"{old['benchmark']['name']} {old['scenario']['name']}"
        was, now = dict(_flat(_shown(old))), dict(_flat(_shown(new)))
        for key in dict.fromkeys([*was, *now]):
            values = was.get(key, ABSENT), now.get(key, ABSENT)
            if values[0] != values[1]:
                places.setdefault((key, *values), []).append(place)
    return [
        ("all" if len(where) == len(before) else ", ".join(where), *difference)
        for difference, where in places.items()
    ]


def _shown(composed: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a reviewer compares, as a system's file names them."""
    system = composed["system"]
    return {
        **{key: system[key] for key in ("id", "division", "submitter")},
        "hardware": composed["hardware"]["name"],
        "cluster": composed["cluster"]["name"],
        "loadgen": composed["steps"]["performance_run"]["loadgen"],
        "engine": composed["effective"]["engine"],
        "container": composed["steps"]["container"],
        "fields": composed["effective"]["description"],
    }


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, ABSENT if value is None else str(value)


def _short(*values: str) -> tuple[str, ...]:
    """Each value cut around the first character in which they differ."""
    alike = enumerate(zip(*values, strict=False))
    same = next((n for n, of_each in alike if len(set(of_each)) > 1), min(map(len, values)))
    start = max(0, same - SHOWN_CHARACTERS // 2) if same > SHOWN_CHARACTERS // 2 else 0
    return tuple(_cut(value, start) for value in values)


def _cut(text: str, start: int) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return text
    end = start + SHOWN_CHARACTERS - 1
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
