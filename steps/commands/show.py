"""`./reproduce show [overrides] [KEY]`: what is set at a plan's cells, by which file, over what."""

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from steps import ROOT
from steps.base.arguments import Parser, is_override, json_argument, nearest, site_argument
from steps.base.errors import UserError
from steps.plan.frozen import origins
from steps.plan.origins import Said, Shown, read

Cells = Mapping[str, tuple[Shown, ...]]

VALUE_WIDTH = 44
ABSENT = "–"


def declare(parser: Parser) -> None:
    """The plan, the settings, and what is compared."""
    parser.usage = f"{parser.prog} [OVERRIDE ...] [KEY ...] [--site FILE] [--diff A B] [--json]"
    parser.description = (
        "Show what is set at the cells of a plan, which file says it, and what that overrode. A "
        "KEY is a setting (target_qps, engine.max_num_seqs) or all below one (engine, fields)."
    )
    parser.add_argument(
        "words", nargs="*", metavar="OVERRIDE|KEY", help="of the plan, and of what is shown of it"
    )
    site_argument(parser)
    parser.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help="show what differs between two cells (Server, fp8/Server), or between two plans by "
        "more overrides ('precision=bf16 scenario=Server')",
    )
    json_argument(parser, "settings with their sources")


def command(given: argparse.Namespace) -> int:
    """Prints the settings. Raises UserError for a key or a cell that isn't there."""
    overrides = [word for word in given.words if is_override(word)]
    keys = [word for word in given.words if not is_override(word)]
    if given.diff:
        found = [_one(word, overrides, given) for word in given.diff]
        (a, of_a), (b, of_b) = ((cell, _picked({cell: rows}, keys)[cell]) for cell, rows in found)
        both = list(_differing(of_a, of_b))
        print(_as_json(both) if given.json else compared(a, b, both))
        return 0
    cells = _picked(read(origins(ROOT, overrides, given.site)), keys)
    if given.json:
        print(_as_json({key: [asdict(one) for one in rows] for key, rows in cells.items()}))
    else:
        print(detailed(cells) if keys else rendered(cells))
    return 0


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _one(word: str, overrides: Sequence[str], given: argparse.Namespace) -> tuple[str, Any]:
    """The one cell that a word, or overrides, name. Raises UserError for none or several."""
    more = [one for one in shlex.split(word) if is_override(one)]
    names = [one for one in shlex.split(word) if not is_override(one)]
    cells = read(origins(ROOT, [*overrides, *more], given.site))
    chosen = {key: rows for key, rows in cells.items() if all(_names(key, n) for n in names)}
    if len(chosen) != 1:
        raise UserError(
            f"--diff compares two cells, and {word!r} names {len(chosen)}; name one of "
            f"{', '.join(_short(key, cells) for key in (chosen or cells))}"
        )
    ((key, rows),) = chosen.items()
    return key, rows


def _names(key: str, word: str) -> bool:
    return f"/{word.strip('/')}/" in f"/{key}/"


def _short(key: str, cells: Mapping[str, Any]) -> str:
    """The shortest end of a cell's key that names no other."""
    parts = key.split("/")
    ends = ["/".join(parts[at:]) for at in reversed(range(len(parts)))]
    return next((end for end in ends if sum(_names(one, end) for one in cells) == 1), key)


def _picked(cells: Cells, keys: Sequence[str]) -> Cells:
    """The settings that keys name, all without any."""
    known = dict.fromkeys(one.key for rows in cells.values() for one in rows)
    wanted = [key.replace("engine.arguments.", "engine.") for key in keys]
    for key in wanted:
        if not any(_is_below(one, key) for one in known):
            tops = {".".join(one.split(".")[:depth]) for one in known for depth in (1, 2, 3)}
            raise UserError(
                f"no cell of this plan has {key}{nearest(key, tops)}; ./reproduce show without a "
                "key shows all"
            )
    return {
        cell: tuple(
            one for one in rows if not wanted or any(_is_below(one.key, key) for key in wanted)
        )
        for cell, rows in cells.items()
    }


def _is_below(key: str, top: str) -> bool:
    return f"{key}.".startswith(f"{top}.")


def _grouped(cells: Cells) -> Iterator[tuple[str, Shown]]:
    """Every setting once with the cells that have it, in the order of the first that does."""
    places: dict[str, dict[str, tuple[Shown, list[str]]]] = {}
    for cell, rows in cells.items():
        for one in rows:
            same = places.setdefault(one.key, {})
            same.setdefault(repr(one), (one, []))[1].append(_short(cell, cells))
    for same in places.values():
        for one, where in same.values():
            yield ("" if len(where) == len(cells) else ", ".join(where)), one


def rendered(cells: Cells) -> str:
    """A table with a line for each setting."""
    found = list(_grouped(cells))
    several = any(where for where, _ in found)
    rows = [
        [*([where] if several else []), one.key, _value(one.value), one.source.file, _over(one)]
        for where, one in found
    ]
    headers = [*(["at"] if several else []), "setting", "value", "from", "over"]
    table = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)
    return f"{', '.join(cells)}\n{table}"


def _over(one: Shown) -> str:
    return f"{_value(one.over[0].value)} of {one.over[0].file}" if one.over else ""


def detailed(cells: Cells) -> str:
    """For each setting who says it, where, and all that it overrode."""
    lines = []
    for where, one in _grouped(cells):
        at = f"  at {where}" if where else ""
        lines += [f"{one.key} = {_full(one.value)}{at}", f"  {_place(one.source)}"]
        lines += [f"  over {_full(said.value)}: {_place(said)}" for said in one.over]
    return "\n".join(lines)


def _place(said: Said) -> str:
    return f"{said.file}: {said.path}" if said.file else said.path


def _differing(a: Sequence[Shown], b: Sequence[Shown]) -> Iterator[dict[str, Any]]:
    of_a, of_b = ({one.key: one for one in rows} for rows in (a, b))
    for key in dict.fromkeys([*of_a, *of_b]):
        one, other = of_a.get(key), of_b.get(key)
        if one is None or other is None or one.value != other.value:
            yield {
                "key": key,
                "a": asdict(one) if one else None,
                "b": asdict(other) if other else None,
            }


def compared(a: str, b: str, found: Sequence[Mapping[str, Any]]) -> str:
    """A table of what differs between two cells."""
    head = f"A  {a}\nB  {b}"
    if not found:
        return f"{head}\nboth have the same settings"
    rows = [[one["key"], *(part for side in "ab" for part in _side(one[side]))] for one in found]
    headers = ["setting", "A", "from", "B", "from"]
    return f"{head}\n{tabulate(rows, headers=headers, tablefmt='simple', disable_numparse=True)}"


def _side(one: Mapping[str, Any] | None) -> tuple[str, str]:
    return (_value(one["value"]), one["source"]["file"]) if one else (ABSENT, "")


def _full(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _value(value: Any) -> str:
    text = _full(value)
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 1]}…"
