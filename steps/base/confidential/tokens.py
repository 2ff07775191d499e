"""Patterns of tokens, and of the keys whose values are tokens. Pure: reads no machine."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from steps.base.errors import UserError

TOKEN = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    r"(?<!-)hf_[A-Za-z0-9_]{8,}|(?<=-)hf_[A-Za-z0-9]{30,}"  # Hugging Face; Llama-2-7b-hf_V2 is none
    r"|gh[pousr]_[A-Za-z0-9_]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"  # GitHub, GitLab
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"  # AWS
    r"|xox[abprs]-[\w-]{10,}|sk-[A-Za-z0-9_-]{20,}|nvapi-[\w-]{20,}|dckr_pat_[\w-]{16,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+"  # JSON web tokens
    r"|AGE-SECRET-KEY-1[A-Z0-9]{20,}"
    r")"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?<=://)[^/\s:@\"']+:[^/\s:@\"']+(?=@)"  # user:password@host
    r"|(?<=[Bb]earer )[\w.~+/-]{8,}"
)

SECRET_NAME = re.compile(
    r"(?i)(?:^|[_.-])(?:token|secret|passwd|password|pass_?phrase|api_?key|access_?key"
    r"|private_?key|credentials?)$"
)
"""Matches an environment variable or a configuration key whose value is a token."""

_REFERENCE = "give it by reference, as fetch.token={environment: NAME} or {file: PATH}"


def refuse_typed(overrides: list[str]) -> None:
    """UserError, which doesn't repeat the value, for an override that holds a token."""
    for text in overrides:
        key, _, value = text.partition("=")
        named = SECRET_NAME.search(key) and not value.lstrip().startswith(("{", "null"))
        if named or TOKEN.search(text):
            shown = TOKEN.sub("...", key)
            raise UserError(
                f"override {shown} holds a token, which every result would carry; {_REFERENCE}"
            )


def refuse_configured(composed: Mapping[str, Any], where: str) -> None:
    """The same for a configuration, from any file."""
    for key, text in strings(composed):
        if text and (TOKEN.search(text) or _secret(key)):
            shown = ".".join(TOKEN.sub("...", part) for part in key)
            raise UserError(
                f"{where}: {shown} holds a token, which every result would carry; {_REFERENCE}"
            )


def _secret(key: tuple[str, ...]) -> bool:
    return bool(key and SECRET_NAME.search(key[-1]))


def strings(value: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in a configuration, with the keys that lead to it."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from strings(below, (*key, str(name)))
    elif isinstance(value, list | tuple):
        for below in value:
            yield from strings(below, key)
    elif isinstance(value, str):
        yield key, value
