"""Cleans a step's log after the step has ended: engines and libraries write what they like."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.base.confidential.finder import Finder
from steps.base.confidential.known import Known, own_tokens


def scrub(log: Path, config: Mapping[str, Any]) -> None:
    """Replace every token that the step could read, and every host that it knew: its own, and those
    that its configuration names. The terminal has shown them already.
    """
    known = Known(tokens=own_tokens())
    known.add_host(platform.node())
    known.add_config(config)
    before = log.read_bytes().decode(errors="surrogateescape")
    text, counts = Finder(known, kinds=("token", "host")).redacted(before)
    if counts:
        temporary = log.with_name(f".{log.name}.{os.getpid()}")
        temporary.write_bytes(text.encode(errors="surrogateescape"))
        os.replace(temporary, log)
