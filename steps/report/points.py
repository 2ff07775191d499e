"""How rows and charts name the points of an experiment's matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from steps.report.blocks import Cell, Column
from steps.report.summary import CellResult

ALWAYS = "scenario"
"""Named even if all results share it."""

EMULATED = "(emulated)"
UNCHANGED = "none"
"""No compression: named in tables, but not in labels."""


@dataclass(frozen=True)
class Points:
    """Axes on which no two results differ are named once, in `shared`, and left out elsewhere."""

    cells: Sequence[CellResult]

    @cached_property
    def axes(self) -> list[str]:
        """The axes that distinguish results, in the order of the matrix."""
        return [
            axis
            for axis in (self.cells[0].axes if self.cells else ())
            if axis == ALWAYS or len({cell.axes[axis] for cell in self.cells}) > 1
        ]

    @property
    def shared(self) -> str:
        """ "All of system rehearsal-cpu, benchmark rehearsal, ..."; empty if nothing is shared."""
        common = [f"{k} {v}" for k, v in self.cells[0].axes.items() if k not in self.axes]
        return f"All of {', '.join(common)}." if common else ""

    def columns(self) -> list[Column]:
        return [Column(axis, choices=True) for axis in self.axes]

    def row(self, cell: CellResult) -> list[Cell]:
        """The cells of `columns`."""
        notes = {"precision": EMULATED if cell.emulated else ""}
        return [Cell(cell.axes[axis], note=notes.get(axis, "")) for axis in self.axes]

    def label(self, cell: CellResult, without: str = "") -> str:
        """The cell's label, unique among the results; `without` leaves an axis out."""
        names = [cell.axes[axis] for axis in self.axes if axis != without]
        names = [name for name in names if name != UNCHANGED]
        return " ".join([*names, EMULATED] if cell.emulated else names)
