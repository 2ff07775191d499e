"""A system's file from outside `conf/`, read so that nothing in it stops or fills the machine."""

import re
from pathlib import Path

import yaml

from steps.base.errors import UserError
from steps.base.untrusted import Damaged, text_of

PACKAGE = "# @package _global_"
"""What a system's file begins with."""

HEADER = re.compile(r"# *@package +_global_")

MAX_DEPTH = 50
MAX_NODES = 100_000
"""With every alias (`*name`) written out, as OmegaConf does; systems of conf/ have hundreds."""


def site_text(site: Path) -> str:
    """The file's text, without the mark that editors put before UTF-8.

    Raises UserError for anything but a text of reasonable size and depth, and for a file that Hydra
    would put in the wrong place. Not for wrong YAML: the parser says where.
    """
    try:
        text = text_of(site.resolve(strict=True)).removeprefix("\ufeff")
    except (Damaged, OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"--site {site}: {reason}; it has to be YAML in UTF-8") from error
    if not _has_package(text):
        raise UserError(f"--site {site} lacks its first line; put `{PACKAGE}` before all others")
    try:
        reason = _excess(text)
    except yaml.YAMLError:
        return text
    if reason:
        raise UserError(
            f"--site {site} {reason}; write it out, it needs no more than conf/system/*"
        )
    return text


def absent(site: Path) -> UserError:
    """What is said of a file that isn't there."""
    return UserError(
        f"--site {site} is not a file; docs/tutorial/partner-rerun.md shows how to write one"
    )


def _has_package(text: str) -> bool:
    """Whether Hydra will find it: it looks in the comments that a file begins with."""
    for line in map(str.strip, text.splitlines()):
        if HEADER.fullmatch(line):
            return True
        if line and not line.startswith("#"):
            return False
    return False


def _excess(text: str) -> str | None:
    """What of a document is too much: depth, or size once its aliases are written out.

    From the parser's events, which come one after the other whatever the document is nested like.
    """
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    size = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, size))
            size += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = size - before
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in open_):
                return f"has an alias *{event.anchor} within what it stands for"
            size += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
        if len(open_) > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} deep"
        if size > MAX_NODES:
            return f"has more than {MAX_NODES:,} entries, its aliases written out"
    return None
