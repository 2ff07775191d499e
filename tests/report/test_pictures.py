"""Pictures of an accuracy run on the page, with their captions."""

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from steps.report.blocks import Banner, Page, Pictures
from steps.report.markdown import to_markdown
from steps.report.page import render
from steps.report.pictures import pictures_section
from steps.report.points import Points

KEY = "a/b"


def points() -> Points:
    axes = {"system": "s", "scenario": "Offline"}
    cell: Any = SimpleNamespace(key=KEY, axes=axes, engine="diffusers 0.42.1 (cpu)", emulated=False)
    return Points([cell])


def inputs(home: Path) -> dict[str, Path]:
    return {f"{KEY}/accuracy_check": home / "manifest.json"}


def drawn(home: Path, *sides: int) -> None:
    folder = home / "images"
    folder.mkdir()
    for number, side in enumerate(sides):
        Image.new("RGB", (side, side), (200, 30, 30)).save(folder / f"{number}.png")
    lines = [f"{number}  a <red> picture, number {number}\n" for number in range(len(sides) + 1)]
    (folder / "captions.txt").write_text("".join(lines), encoding="utf-8")


def test_pictures_are_on_the_page_with_their_captions_and_no_larger_than_needed(
    tmp_path: Path,
) -> None:
    drawn(tmp_path, 32, 1024)
    (section,) = pictures_section(points(), inputs(tmp_path))
    (block,) = section.blocks
    assert isinstance(block, Pictures) and block.title == "Offline, diffusers 0.42.1 (cpu)"
    sizes = []
    for one in block.pictures:
        data = base64.b64decode(one.source.removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(data)) as picture:
            sizes.append(picture.size)
    assert sizes == [(32, 32), (256, 256)], "a caption without a picture is left out"
    page = Page("t", "s", Banner("b", "t"), [], [section])
    shown = render(page)
    assert shown.count("<img src=") == 2 and "0 a &lt;red&gt; picture, number 0" in shown
    assert "number 1" in to_markdown(page)


def test_results_without_pictures_have_no_section(tmp_path: Path) -> None:
    assert pictures_section(points(), inputs(tmp_path)) == []
