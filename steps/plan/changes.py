"""What is different between a result and what its plan wants: keys with their old and new value,
files of the code. One phrase each."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from steps.base.record import FORMAT, Manifest, Record, canonical_json
from steps.plan.code import Code
from steps.plan.plan import Job
from steps.plan.registry import STEPS

REMADE = ("verdicts", "submission", "provenance")
"""Stages whose results cost seconds: damaged ones, and an earlier version's, are made again."""

LIMITS = ("start_limit_s", "stop_limit_s")
"""Settings of a container by which a step ends or not, and with the same result."""

LONGEST = 60
SHOWN = 3
ABSENT = "absent"


def changes(job: Job, manifest: Manifest, record: Record) -> Iterator[str]:
    """Keys of the configuration, then of the container, whose value isn't the plan's and that the
    step uses."""
    if canonical_json(manifest.config) != job.config:
        planned = json.loads(job.config)
        unused = STEPS[job.step].unused(planned)
        found = _changed("", manifest.config, planned)
        yield from (_words(*one) for one in found if one[0] not in unused)
    if record.number == FORMAT:
        then, now = _settings(record.origin.container), _settings(job.container)
        yield from (_words(*one) for one in _changed("container", then, now))


def in_short(words: Iterable[str]) -> str:
    """The first of them, and how many more there are; "" for none."""
    found = list(words)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{', '.join(found[:SHOWN])}{more}"


def older(job: Job, record: Record) -> str | None:
    """Words for a result of an earlier version that has to be made again: its code isn't known.

    Measured ones and artifacts stay: they cost hours, and who wants them again asks for it.
    """
    if record.number == FORMAT or STEPS[job.step].stage not in REMADE:
        return None
    return f"made by an earlier version of Reprise (format {record.number} of records)"


def code_changes(record: Record, code: Code) -> str | None:
    """Files of the code that aren't what they were; None if all are, or nobody wrote them down."""
    if record.number < FORMAT or record.code == code.digest:
        return None
    then, now = record.origin.sources, code.files
    names = sorted(name for name in {**then, **now} if then.get(name) != now.get(name))
    version = record.origin.version
    since = f" since commit {version.commit[:12]}" if version and version.commit else ""
    return f"code changed{since}: {in_short(names)}"


def _settings(container: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(container) if container else {}
    return {name: value for name, value in settings.items() if name not in LIMITS}


def _changed(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Leaves that differ; lists are leaves."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new or type(old) is not type(new):
            yield key, old, new
        return
    for name in sorted(old.keys() | new.keys()):
        below = f"{key}.{name}" if key else name
        yield from _changed(below, old.get(name, ABSENT), new.get(name, ABSENT))


def _words(key: str, old: Any, new: Any) -> str:
    return f"{key} {_shown(old)} → {_shown(new)}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
