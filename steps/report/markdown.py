"""A page as Markdown, to paste into a pull request: its words and tables, no charts."""

from collections.abc import Sequence

from steps.report.blocks import (
    MOST_ROWS,
    Block,
    Card,
    Cell,
    Chart,
    Details,
    Flow,
    Page,
    Pictures,
    Table,
    Text,
)


def to_markdown(page: Page) -> str:
    """Ends with a newline; the same page gives the same text."""
    lines = [f"# {_escaped(page.title)}", "", _escaped(page.subtitle), ""]
    lines += [f"**{_escaped(page.banner.strong)}** {_escaped(page.banner.text)}", ""]
    lines += [f"- {_escaped(item)}" for item in page.banner.items]
    lines += ["", *[_card(card) for card in page.cards], ""]
    for section in page.sections:
        lines += [f"## {_escaped(section.title)}", ""]
        if section.lead:
            source = f" <{section.source}>" if section.source else ""
            lines += [_escaped(section.lead) + source, ""]
        for block in section.blocks:
            lines += _block(block)
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip("\n") + "\n"


def _card(card: Card) -> str:
    return f"- {_escaped(card.label)}: **{_escaped(card.value)}** {_escaped(card.unit)}".rstrip()


def _block(block: Block) -> list[str]:
    if isinstance(block, Table):
        return [*_table(block), ""]
    if isinstance(block, Chart):
        return [f"_{_escaped(block.title)}: {_escaped(block.description)}_", ""]
    if isinstance(block, Text):
        return [*_items(block.items), ""]
    if isinstance(block, Flow):
        return [" → ".join(_escaped(stage) for stage, _ in block.stages), ""]
    if isinstance(block, Pictures):
        return [_escaped(block.title), "", *_items([one.caption for one in block.pictures]), ""]
    assert isinstance(block, Details)
    lines = [f"<details><summary>{_escaped(block.summary)}</summary>", "", _escaped(block.text), ""]
    lines += [*_items(block.items), ""]
    for table in block.tables:
        lines += [*_table(table), ""]
    return [*lines, "</details>", ""]


def _items(items: Sequence[str]) -> list[str]:
    """As many as a table has rows; the page has all."""
    more = [f"- {len(items) - MOST_ROWS} more, on the page"] if len(items) > MOST_ROWS else []
    return [*(f"- {_escaped(item)}" for item in items[:MOST_ROWS]), *more]


def _table(table: Table) -> list[str]:
    if table.page_only:
        return [f"{_escaped(table.caption)}: {len(table.rows)} rows, on the page."]
    kept = [index for index, column in enumerate(table.columns) if not column.page_only]
    heads = [_escaped(table.columns[index].title) for index in kept]
    rules = ["---:" if table.columns[index].numeric else "---" for index in kept]
    rows = [_row([_cell(row[index]) for index in kept]) for row in table.rows]
    return [_row(heads), _row(rules), *rows]


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _cell(cell: Cell) -> str:
    text = _escaped(" ".join(filter(None, (cell.text, cell.note, cell.more))))
    # Paths of an own run lead nowhere from a pull request.
    return f"[{text}]({cell.href})" if cell.href.startswith("https://") else text


def _escaped(text: str) -> str:
    """Markdown that says exactly this text."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
