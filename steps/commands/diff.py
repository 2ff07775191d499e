"""`./reproduce diff`: the settings in which a system differs from the one it builds on."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from steps import ROOT
from steps.base.arguments import Parser, plan_arguments
from steps.base.errors import UserError
from steps.config.compose import compose
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
    """A table of the keys that differ, at the cells that the base has in its experiment."""
    chosen = [text for text in overrides if text.startswith("experiment=")]
    if not chosen:
        found = experiments_of(conf, base)
        if not found:
            raise UserError(f"no experiment has a cell of system {base}; give experiment=NAME")
        chosen = [f"experiment={found[0]}"]
    fixed = [*chosen, f"system={base}", *(o for o in overrides if o not in chosen)]
    before = [cell.values for cell in compose(conf, fixed).cells]
    after = [cell.values for cell in compose(conf, fixed, site, None if site else system).cells]
    rows = _rows(before, after)
    if not rows:
        return f"{system} sets nothing differently from {base}"
    table = tabulate(
        [[_short(cell) for cell in row] for row in rows],
        headers=["at", "key", base, system],
        tablefmt="simple",
        disable_numparse=True,
    )
    return f"{table}\n{len(rows)} keys differ at {len(before)} cells of {chosen[0]}"


def _rows(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[tuple[str, ...]]:
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


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
