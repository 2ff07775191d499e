"""Overrides that change nothing: what is typed acts, or is refused with what wins over it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, get_args

from steps.base.arguments import nearest
from steps.base.errors import UserError
from steps.base.record import canonical_json
from steps.base.strict import Scenario
from steps.config.composed import ComposedCell, Composition, Source
from steps.config.groups import LAYERS
from steps.config.layers import SELECTORS
from steps.config.origins import TYPED
from steps.config.origins import leaves as below
from steps.config.overrides import Leaf, Setting
from steps.config.scale import SCALE
from steps.plan.plan import Plan

APART = ("experiment", "matrix", "cells", "experiment_name", "fetch", "site")
"""Keys that choose cells, which is an effect of its own; and access to a network, which a site may
always give: it applies to what is fetched, if anything is."""

LAYERED = tuple(dict.fromkeys(path.partition(".")[0] for path in LAYERS))
"""Groups that have settings in layers."""

Planning = Callable[[Sequence[str], str | None], Plan]
"""A plan of other overrides, and of one more that Hydra applies last."""


def refuse_lost(found: Composition, overrides: Sequence[str], plan: Plan, again: Planning) -> None:
    """Raises UserError for an override without which the plan would be the same.

    Most values are found in what the jobs are made of. For the others the plan is made once more
    with another value: if it stays the same, nothing reads them.
    """
    for one in unread(found):
        if isinstance(one, Leaf):
            other = partial(_without, one, overrides, again)
        else:
            other = partial(_replaced, one, found.typed.settings, overrides, again)
        if not _acts(plan, other):
            raise UserError(f"{one.text} has no effect: {reason(one, found)}")


def unread(found: Composition) -> list[Leaf | Setting]:
    """Values that are typed and that no cell's jobs are certainly made of."""
    read = frozenset[str]().union(*(cell.read for cell in found.cells))
    leaves = [
        leaf
        for leaf in found.typed.set_by_them
        if leaf.path not in read and leaf.path.partition(".")[0] not in APART
    ]
    settings = [
        one
        for one in found.typed.settings
        if one.place not in read and one.key.partition(".")[0] not in APART
    ]
    return [*leaves, *settings]


def reason(one: Leaf | Setting, found: Composition) -> str:
    """What wins over a value that has no effect, and where; or that nothing reads it."""
    if isinstance(one, Leaf):
        return _winner(one, found)
    return f"nothing that is planned reads {one.key}; leave it out"


def _acts(plan: Plan, other: Callable[[], Plan]) -> bool:
    """A value that isn't accepted is one that is read."""
    try:
        return _content(other()) != _content(plan)
    except UserError:
        return True


def _content(plan: Plan) -> list[Any]:
    """What a plan would do, without the words that chose it."""
    jobs = [job.model_dump(mode="json") for job in plan.jobs]
    for job in jobs:
        if job["step"] in ("submission", "provenance"):
            job["config"] = job["config"].partition('"overrides"')[0]
    requirements = [one.model_dump(mode="json") for one in plan.requirements]
    return [plan.experiment, jobs, requirements, plan.scheduler.model_dump(mode="json")]


def _without(leaf: Leaf, overrides: Sequence[str], again: Planning) -> Plan:
    if leaf.deleted:
        return again([text for text in overrides if text != leaf.text], None)
    return again(overrides, f"++{leaf.path}={hydra(_other(leaf.value))}")


def _replaced(
    one: Setting, settings: Sequence[Setting], overrides: Sequence[str], again: Planning
) -> Plan:
    """The plan with another value of this setting."""
    kept = [text for text in overrides if text != one.text]
    same = [other for other in settings if other.text == one.text]
    changed = [
        f"{other.place}={hydra(_other(other.value) if other is one else other.value)}"
        for other in same
    ]
    return again([*kept, *changed], None)


def _other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return value[:-1] or ["other"]
    return f"{value}-other" if isinstance(value, str) and "${" not in value else "other"


def hydra(value: Any) -> str:
    """A value as Hydra reads it back."""
    if isinstance(value, list):
        return f"[{','.join(map(hydra, value))}]"
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return canonical_json(value)


def _winner(leaf: Leaf, found: Composition) -> str:
    """What wins over it, and where."""
    selected = dict(_selected(leaf.path))
    names = frozenset[str]().union(*map(_names, found.cells))
    for selector, value in selected.items():
        if value not in names:
            return f"it is for {selector} {value}, and no cell of this command is of {value}"
    for part in leaf.path.split("."):
        if part in get_args(Scenario) and part not in names:
            return f"it is for {part}, and no cell of this command is of {part}"
    for cell in found.cells:
        for row in cell.rows:
            over = any(source.path == leaf.path for source in row.over)
            if over and row.source.path != leaf.path:
                return (
                    f"{_where(row.source)} wins, {row.key} stays {hydra(row.value)} at {cell.key}; "
                    f"set.{row.key}={_shown(leaf)} wins over every file"
                )
    for cell in found.cells:
        if source := _taking_out(leaf.path, cell):
            return (
                f"{_where(source)} takes it out (null) at {cell.key}; set.NAME=VALUE wins over "
                "every file"
            )
    parent, _, key = leaf.path.rpartition(".")
    beside = {path.rpartition(".")[2] for path, _ in _below(found.cells[0], parent)} - {key}
    return f"nothing that is planned reads {leaf.path}{nearest(key, beside)}; leave it out"


def _shown(leaf: Leaf) -> str:
    return leaf.text.partition("=")[2] if leaf.text.count("=") == 1 else "VALUE"


def _where(source: Source) -> str:
    return source.value if source.file == TYPED else f"{source.file} ({source.path})"


def _names(cell: ComposedCell) -> frozenset[str]:
    """All that layers select by: of an engine too, which narrows no setting of the top layer."""
    return cell.names | {str(cell.values["engine"]["name"])}


def _selected(path: str) -> Iterator[tuple[str, str]]:
    parts = path.split(".")
    for part, value in pairwise(parts):
        if part in SELECTORS:
            yield part, value


def _setting(path: str) -> tuple[str, ...]:
    """A path in a layer without the group that it is in and what it is selected by."""
    parts = path.split(".")[2:]
    while len(parts) > 1 and parts[0] in SELECTORS:
        parts = parts[2:]
    return tuple(parts)


def _taking_out(setting: str, cell: ComposedCell) -> Source | None:
    """A null of another layer for the same setting."""
    for group in LAYERED:
        for path, value in _below(cell, group):
            same = _setting(path) == _setting(setting) != ()
            if value is None and same and _applies(path, cell):
                file, said = (cell.files.of(path) or [("", None)])[-1]
                return Source(path, cell.files.name(file) if file else "conf/", said)
    return None


def _applies(path: str, cell: ComposedCell) -> bool:
    return all(name in _names(cell) for _, name in _selected(path))


def _below(cell: ComposedCell, path: str) -> list[tuple[str, Any]]:
    node: Any = cell.values
    for key in path.split(".") if path else ():
        node = node.get(key, {}) if isinstance(node, dict) else {}
    return list(below(node, path)) if isinstance(node, dict) and node else []


def refuse_beaten(found: Composition) -> None:
    """Raises UserError for a setting of a system's own file that a file which it builds on says
    more narrowly: who wrote it can't see that file's setting, and would take it for theirs. What a
    scale puts in their place isn't compared (conf/scale/)."""
    for cell in found.cells:
        own = cell.files.name(f"system/{cell.values['system']['name']}")
        _refuse_taken_out(own, cell)
        for row in cell.rows:
            mine = next((source for source in row.over if source.file == own), None)
            if mine is None:
                continue
            winner = next(one for one in (row.source, *row.over) if one == mine or not _scaled(one))
            if not winner.file.startswith("conf/system/") or winner.file == own:
                continue
            raise UserError(
                f"{own} ({mine.path}) has no effect at {cell.key}: {_where(winner)} is narrower, "
                f"{row.key} stays {hydra(winner.value)}; say {winner.path} there too"
            )


def _refuse_taken_out(own: str, cell: ComposedCell) -> None:
    """The same where the narrower setting is a null, and so no row is left."""
    shown = {source.path for row in cell.rows for source in (row.source, *row.over)}
    for path, value in _below(cell, "system"):
        said = cell.files.of(path)
        mine = bool(said) and cell.files.name(said[-1][0]) == own
        if value is None or not mine or path in shown or not _applies(path, cell):
            continue
        by = _taking_out(path, cell)
        if by is not None and by.file.startswith("conf/system/") and by.file != own:
            raise UserError(
                f"{own} ({path}) has no effect at {cell.key}: {_where(by)} is narrower and takes "
                f"it out (null); say {by.path} there too"
            )


def _scaled(one: Source) -> bool:
    return one.path.partition(".")[0] == SCALE or one.file.startswith(f"conf/{SCALE}/")
