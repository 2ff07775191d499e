"""The section of a benchmark of pictures: those that a submission carries, with their captions."""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from steps.report.blocks import Picture, Pictures, Section
from steps.report.points import Points
from steps.report.summary import CellResult

FOLDER, CAPTIONS = "images", "captions.txt"
"""What the accuracy check leaves beside its verdict (steps/judge/scoring/images.py)."""

SIDE_PIXELS = 256
"""Larger pictures are shrunk to this: ten whole ones of 1024 pixels would make a page of 15 MB."""


def pictures_section(points: Points, inputs: Mapping[str, Path]) -> list[Section]:
    """Nothing if no result has pictures."""
    blocks = [
        Pictures(f"{points.label(cell)}, {cell.engine}", found)
        for cell in points.cells
        if (found := tuple(_pictures(cell, inputs)))
    ]
    if not blocks:
        return []
    lead = (
        "From the accuracy runs, the samples that a submission carries; large ones are shrunk. The "
        "number before a caption is its sample's."
    )
    return [Section("pictures", "Pictures", lead, blocks)]


def _pictures(cell: CellResult, inputs: Mapping[str, Path]) -> Iterator[Picture]:
    folder = inputs[f"{cell.key}/accuracy_check"].parent / FOLDER
    captions = folder / CAPTIONS
    if not captions.is_file():
        return
    for line in captions.read_text(encoding="utf-8").splitlines():
        number, _, caption = line.partition("  ")
        path = folder / f"{number}.png"
        if path.is_file():
            yield Picture(f"data:image/png;base64,{_small(path)}", f"{number} {caption}")


def _small(path: Path) -> str:
    with Image.open(path) as picture:
        picture.thumbnail((SIDE_PIXELS, SIDE_PIXELS))
        stream = io.BytesIO()
        picture.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
