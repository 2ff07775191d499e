"""Finds what may not leave the site in a text, and replaces it by a placeholder."""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from steps.base.confidential.known import Known
from steps.base.confidential.placeholders import KINDS, PLACEHOLDERS
from steps.base.confidential.tokens import TOKEN

_REST = r"(?:/[^\s\"'`,;:()<>\[\]{}|\\]*)?"
_BEFORE = r"(?:(?<![\w.\-~/}])|(?<=://))"
_INTERNAL = r"(?:local|localdomain|lan|internal|intranet|corp|home\.arpa)"
_FULL_NAME = rf"(?:(?<![\w./-])|(?<=//))(?:[A-Za-z0-9][\w-]*\.)+{_INTERNAL}(?![\w.-]*\w)"
_IPV4 = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)"
_IPV6 = (
    r"(?<![\w:.])(?:(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}"
    r"|(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6})(?![\w:])"
)
_MAC = r"(?<![\w:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:])"
_REACHED = re.compile(r"(?:@|://)$")
_PORT = re.compile(r":\d{2,5}(?!\d)")
_DISTINCT = re.compile(r"[^A-Za-z]")

Judge = Callable[[re.Match[str]], bool]


class Finder:
    """Finds what may not leave one site. Names that are plain words count only where a host or a
    user is named.

    `kinds`: what is looked for, of KINDS.
    """

    def __init__(self, known: Known, kinds: Collection[str] = tuple(KINDS)) -> None:
        self._own = frozenset(known.addresses)
        paths = [rf"{_BEFORE}{p}{_REST}(?![\w])" for p in _longest(known.paths)]
        roots = "|".join(map(re.escape, sorted(known.roots)))
        tokens = [TOKEN.pattern, *_longest(known.tokens)]
        passes: list[tuple[str, list[str], Judge]] = [
            ("token", tokens, _always),
            ("path", [*paths, rf"{_BEFORE}/(?:{roots})/[^\s\"'`,;:()<>\[\]{{}}|\\]+"], _always),
            ("address", [_MAC, _IPV4, _IPV6], self._is_address),
            ("host", [_FULL_NAME, *_names(known.hosts)], _always),
            ("user", _names(known.users), _always),
        ]
        self._passes = [
            (kind, re.compile("|".join(parts)), judge)
            for kind, parts, judge in passes
            if parts and kind in kinds
        ]

    def redacted(self, text: str) -> tuple[str, Counter[str]]:
        """The text with placeholders, and how many were put in, by kind."""
        counts: Counter[str] = Counter()
        for kind, pattern, judge in self._passes:

            def replace(match: re.Match[str], kind: str = kind, judge: Judge = judge) -> str:
                if not judge(match):
                    return match[0]
                counts[kind] += 1
                return PLACEHOLDERS[kind]

            text = pattern.sub(replace, text)
        return text, counts

    def _is_address(self, match: re.Match[str]) -> bool:
        """Not what a version or a wildcard looks like: a public address needs a context."""
        text = match[0]
        if text in self._own:
            return True
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return re.fullmatch(_MAC, text) is not None and set(text) - set("0:") != set()
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            return False
        if address.version == 6:
            return address.is_link_local or address.is_private or address.is_global
        if text.startswith(("0.", "255.")):
            return False
        if address.is_private or address.is_link_local or text.startswith("100.64."):
            return True
        near = match.string[max(0, match.start() - 3) : match.start()]
        return bool(_REACHED.search(near) or _PORT.match(match.string, match.end()))


def _always(match: re.Match[str]) -> bool:
    return True


def _longest(literals: Iterable[str]) -> list[str]:
    return [re.escape(text) for text in sorted(literals, key=len, reverse=True)]


def _names(names: Iterable[str]) -> list[str]:
    """Patterns of hosts or users: as whole words, plain ones only in a context."""
    patterns = []
    for name in sorted(names, key=len, reverse=True):
        text = re.escape(name)
        if len(name) > 3 and _DISTINCT.search(name):
            patterns.append(rf"(?<![\w]){text}(?![\w])")
        else:
            patterns.append(rf"(?<=@){text}\b|(?<=://){text}\b|\b{text}(?=@|:\d{{2,5}}\b)")
            patterns.append(rf"(?i:(?<=host=)|(?<=host: )|(?<=user=)|(?<=user: )){text}\b")
            patterns.append(rf"(?i:(?<=host\": \")|(?<=name\": \")|(?<=user\": \")){text}(?=\")")
    return patterns
