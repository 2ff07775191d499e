"""A step's log once more, when the step has ended: engines and libraries write what they like."""

import os
from pathlib import Path

from steps.confidential.known import own_tokens
from steps.confidential.placeholders import PLACEHOLDERS


def scrub(log: Path) -> None:
    """Put a placeholder in the place of every token that was in the step's reach."""
    before = text = log.read_bytes()
    for token in own_tokens():
        text = text.replace(token.encode(), PLACEHOLDERS["token"].encode())
    if text != before:
        temporary = log.with_name(f".{log.name}.{os.getpid()}")
        temporary.write_bytes(text)
        os.replace(temporary, log)
