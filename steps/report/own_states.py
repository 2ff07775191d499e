"""The first section of the page of own results: the state of every cell of the plan."""

from collections.abc import Sequence

from steps.plan.states import WORDS, CellState, Part, State, mending
from steps.report.blocks import Block, Cell, Column, Section, Table, Text, Tone, number, too_long
from steps.report.summary import Summary

SYMBOLS = {"valid": "✓", "invalid": "✗", "damaged": "✗", "failed": "✗"}
TONES: dict[State, Tone] = {
    "valid": "good",
    "invalid": "bad",
    "damaged": "bad",
    "failed": "bad",
    "running": "soft",
}


def states_section(summary: Summary) -> Section:
    """One row a cell, its results side by side; below, what was measured more than once."""
    axes = _axes(summary.states)
    names = list(dict.fromkeys(part.name for cell in summary.states for part in cell.parts))
    keys = [cell.key for cell in summary.states]
    watched = any(part.window for cell in summary.states for part in cell.parts)
    columns = [
        *(Column(axis, choices=True) for axis in axes),
        Column("state", choices=True),
        *(Column(name) for name in names),
        *([Column("window")] if watched else []),
        Column("tries", numeric=True),
        Column("why, and the fix", wide=True),
    ]
    rows = [
        [
            *(Cell(cell.axes[axis]) for axis in axes),
            _state(cell.state),
            *(_part(cell, name) for name in names),
            *([_window(cell)] if watched else []),
            number(cell.tries or None, 0),
            Cell(_why(cell, keys, summary.overrides)),
        ]
        for cell in summary.states
    ]
    table = Table("states-table", "One row a cell of the plan", columns, rows, too_long(rows))
    blocks: list[Block] = [table]
    if found := repeated(summary):
        blocks.append(Text(found))
    lead = (
        "A cell is valid if each of its runs was measured, judged and holds. Only valid cells are "
        "results: the others are in no chart, no comparison and no submission."
    )
    return Section("states", "State of every cell", lead, blocks)


def repeated(summary: Summary) -> list[str]:
    """Which results were measured more than once with the same settings."""
    return [
        f"{cell.key} {part.name}: try {part.tries}; {part.tries - 1} earlier with the same "
        "settings are kept in earlier/."
        for cell in summary.states
        for part in cell.parts
        if part.tries > 1
    ]


def _axes(states: Sequence[CellState]) -> list[str]:
    """Those on which cells differ, and the scenario."""
    return [
        axis
        for axis in states[0].axes
        if axis == "scenario" or len({cell.axes[axis] for cell in states}) > 1
    ]


def _state(state: State) -> Cell:
    return Cell(f"{SYMBOLS.get(state, '')} {WORDS[state]}".strip(), tone=TONES.get(state, ""))


def _part(cell: CellState, name: str) -> Cell:
    part = next((part for part in cell.parts if part.name == name), None)
    if part is None:
        return Cell("–")
    shown = _state(part.state)
    return Cell(shown.text, tone=shown.tone, note=_note(part))


def _window(cell: CellState) -> Cell:
    """Whether something disturbed the cell's runs that kept a journal."""
    found = [part.window for part in cell.parts if part.window is not None]
    if not found:
        return Cell("–")
    clean = all(window.clean for window in found)
    return Cell("clean" if clean else "disturbed", tone="" if clean else "bad")


def _note(part: Part) -> str:
    if part.seconds_left is not None:
        return f"about {part.seconds_left:.0f} s left"
    return part.value


def _why(cell: CellState, keys: Sequence[str], overrides: Sequence[str]) -> str:
    if cell.state in ("valid", "running"):
        return ""
    command = mending(cell, keys, overrides)
    return f"{cell.why}: {command}" if cell.why else command
