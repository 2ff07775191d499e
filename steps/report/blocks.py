"""The blocks of a page. Built once, rendered as HTML, Markdown and CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Tone = Literal["", "good", "bad", "soft"]


@dataclass(frozen=True)
class Cell:
    """`sort` orders the column where the text doesn't; None sorts last.

    `more` is folded below the text: sentences that would make every row tall.
    """

    text: str
    sort: float | None = None
    href: str = ""
    tone: Tone = ""
    note: str = ""
    more: str = ""


@dataclass(frozen=True)
class Column:
    """`choices`: the column gets a menu of its values to filter by. `wide`: sentences, wrapped.

    `page_only`: left out of Markdown.
    """

    title: str
    numeric: bool = False
    choices: bool = False
    wide: bool = False
    page_only: bool = False


@dataclass(frozen=True)
class Table:
    """`name` is the table's id on the page; `caption` says what a row is.

    `page_only`: too long for a comment in a pull request.
    """

    kind: ClassVar[str] = "table"
    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    page_only: bool = False


MOST_ROWS = 60
"""The most rows of a table in Markdown: a comment in a pull request has 65,536 characters."""


def too_long(rows: Sequence[Sequence[Cell]]) -> bool:
    """Whether a table is for the page only."""
    return len(rows) > MOST_ROWS


@dataclass(frozen=True)
class Chart:
    """A Bokeh figure and the sentence that says how to read it.

    `description` says what it shows, for readers who can't see it.
    """

    kind: ClassVar[str] = "chart"
    title: str
    caption: str
    description: str
    figure: Any


@dataclass(frozen=True)
class Details:
    """Folded until opened; `name` is its id, which a link opens. `items` are listed."""

    kind: ClassVar[str] = "details"
    name: str
    summary: str
    text: str
    items: Sequence[str] = ()
    tables: Sequence[Table] = ()
    tone: Tone = ""
    badge: str = ""


@dataclass(frozen=True)
class Flow:
    """Stages in order, each with its steps."""

    kind: ClassVar[str] = "flow"
    stages: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Text:
    """A paragraph, or a list if there are several items."""

    kind: ClassVar[str] = "text"
    items: Sequence[str]


@dataclass(frozen=True)
class Picture:
    """`source`: a data: URL. `caption` is what it was asked to show."""

    source: str
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, below the name of what made them."""

    kind: ClassVar[str] = "pictures"
    title: str
    pictures: Sequence[Picture]


Block = Table | Chart | Details | Flow | Text | Pictures


@dataclass(frozen=True)
class Section:
    """A heading with an id, a sentence on what to see, and what follows.

    `source`: a URL that the sentence ends with, as a link.
    """

    name: str
    title: str
    lead: str
    blocks: Sequence[Block]
    source: str = ""


@dataclass(frozen=True)
class Card:
    """A number of the summary; `href` leads to where it comes from."""

    label: str
    value: str
    unit: str
    href: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Banner:
    """What a reader must know first. `items` are listed below `text`."""

    strong: str
    text: str
    items: Sequence[str] = ()
    tone: Tone = "bad"


@dataclass(frozen=True)
class Page:
    """The whole page, in reading order."""

    title: str
    subtitle: str
    banner: Banner
    cards: Sequence[Card]
    sections: Sequence[Section]

    def charts(self) -> list[Chart]:
        """In reading order."""
        return [
            block
            for section in self.sections
            for block in section.blocks
            if isinstance(block, Chart)
        ]


def number(value: float | None, digits: int = 1, **how: Any) -> Cell:
    """A number with thousands separated; an en dash for None."""
    text = "–" if value is None else f"{value:,.{digits}f}"
    return Cell(text, sort=value, **how)


def share(value: float | None, digits: int = 1, signed: bool = False, **how: Any) -> Cell:
    """A share as percent."""
    sign = "+" if signed else ""
    text = "–" if value is None else f"{100 * value:{sign}.{digits}f} %"
    return Cell(text, sort=value, **how)


def significant(value: float | None, **how: Any) -> Cell:
    """A published number with its published digits."""
    return Cell("–" if value is None else f"{value:,.10g}", sort=value, **how)


def of_limit(p99_ms: float | None, limit_ms: float | None, href: str = "") -> Cell:
    """A latency beside its limit; bad beyond it."""
    if p99_ms is None:
        return Cell("–")
    beyond = limit_ms is not None and p99_ms > limit_ms
    limit = "" if limit_ms is None else f"/ {limit_ms:,.0f}"
    tone: Tone = "bad" if beyond else ""
    return Cell(f"{p99_ms:,.1f}", sort=p99_ms, href=href, note=limit, tone=tone)
