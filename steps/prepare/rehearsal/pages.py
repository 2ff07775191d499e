"""Pages that a study writes a part of."""

from pathlib import Path

from steps.base.errors import UserError


def insert(page: Path, generated: str, start: str, end: str) -> None:
    """Replaces what stands between two lines. Raises UserError if the page has lost one."""
    text = page.read_text(encoding="utf-8")
    if start not in text or end not in text:
        raise UserError(f"{page} has lost the lines {start!r} and {end!r} around the tables")
    before, after = text.split(start)[0], text.split(end)[1]
    page.write_text(f"{before}{start}\n\n{generated}\n\n{end}{after}", encoding="utf-8")
