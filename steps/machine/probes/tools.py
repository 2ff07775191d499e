"""Calls other people's tools: read-only, within a time limit, in the C locale."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from steps.base.errors import UserError
from steps.machine.probes.losses import Losses

LIMIT_S = 30.0
"""amd-smi and rocm-smi take up to several seconds on eight accelerators; more means a hung
driver."""

END_S = 3.0
"""How long a killed tool may take to end."""

PLACES = ("/opt/rocm/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
"""Directories of tools that a user's PATH may lack."""

Value = TypeVar("Value")
Said = TypeVar("Said", covariant=True)
Run = Callable[[Sequence[str]], str]

FORMAT_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""Exceptions of code that reads a format which has changed."""


class MissingTool(UserError):
    """The program isn't installed."""


class FailedTool(UserError):
    """The program ended with a status other than 0. `output`: what it printed. `last`: the last
    line of its complaint."""

    def __init__(self, reason: str, output: str, status: int = 1, last: str = "") -> None:
        super().__init__(reason)
        self.output, self.status, self.last = output, status, last


class Parser(Protocol[Said]):
    """Parses a tool's output; notes in `lost` the fields that it lacks."""

    def __call__(self, text: str, lost: Losses | None = None) -> Said: ...


def program(tool: str) -> str | None:
    """Where a tool is, by PATH and PLACES; None: it isn't installed."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *PLACES])
    return shutil.which(tool, path=path)


def run(command: Sequence[str], limit_s: float = LIMIT_S) -> str:
    """What the command prints. Raises MissingTool, or UserError if it fails or takes too long."""
    tool = command[0]
    path = program(tool)
    if path is None:
        raise MissingTool(f"{tool} is not installed")
    try:
        process = subprocess.Popen(
            [path, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"{tool} can't be started ({error.strerror})") from error
    try:
        output, complaint = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        # The whole session: a child that keeps the pipe open would make us wait for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # its kernel call doesn't return
            process.communicate(timeout=END_S)
        raise UserError(f"{tool} gave no answer in {limit_s:g} s") from error
    if process.returncode:
        last = (complaint.strip() or output.strip() or "no message").splitlines()[-1][:200]
        reason = f"{tool} fails with status {process.returncode}: {last}"
        raise FailedTool(reason, output, process.returncode, last)
    return output


def parser(tool: str) -> Callable[[Callable[[str, Losses], Value]], Parser[Value]]:
    """Marks a function that parses a tool's output: its exceptions become a UserError.

    Formats change with versions, and a parser can't foresee how. A field that it doesn't understand
    is one named loss (Losses); if it understands nothing, the error names the tool.
    """

    def decorate(function: Callable[[str, Losses], Value]) -> Parser[Value]:
        @functools.wraps(function)
        def checked(text: str, lost: Losses | None = None) -> Value:
            losses = Losses() if lost is None else lost
            losses.tool = tool
            try:
                return function(text, losses)
            except UserError:
                raise
            except FORMAT_ERRORS as error:
                what = " ".join(str(error).split())
                raise UserError(
                    f"{tool} answers in a format that isn't known here "
                    f"({type(error).__name__}: {what:.120})"
                ) from error
            except RecursionError as error:
                raise UserError(f"{tool} answers in a format that isn't known here") from error

        return checked

    return decorate


def rocm_cards(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An answer of rocm-smi, and its cards in order, with keys in small letters.

    Raises UserError for one without cards.
    """
    answer = json_in(text, "rocm-smi", "'card0'", _has_cards)
    names = sorted(
        (name for name in answer if re.fullmatch(CARD, name)),
        key=lambda name: int(name.removeprefix("card")),
    )
    records = [record_of(answer[name]) for name in names]
    return answer, [{key.lower(): value for key, value in record.items()} for record in records]


CARD = r"card\d{1,4}"


def _has_cards(value: Any) -> bool:
    return isinstance(value, dict) and any(re.fullmatch(CARD, name) for name in value)


def json_in(text: str, tool: str, lacks: str, fits: Callable[[Any], bool]) -> Any:
    """The first JSON value in the text that fits: tools print warnings before it and after it.

    Raises UserError, as unknown_format() does, if there is none.
    """
    decoder = json.JSONDecoder()
    at = 0
    while (at := _opening(text, at)) >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            at += 1
            continue
        if fits(value):
            return value
        at = end
    raise unknown_format(tool, lacks)


def _opening(text: str, at: int) -> int:
    """Where the next brace or bracket is, -1 if there is none."""
    return min((i for i in (text.find("{", at), text.find("[", at)) if i >= 0), default=-1)


def are_records(value: Any) -> bool:
    """A list as tools print it of their devices; "[1]" in a line of a log isn't one."""
    return isinstance(value, list) and any(isinstance(entry, dict) for entry in value)


def record_of(value: Any) -> Mapping[str, Any]:
    """An object of JSON; tools write "N/A" or null where none applies."""
    return value if isinstance(value, dict) else {}


def unknown_format(tool: str, lacks: str) -> UserError:
    """The error for output without `lacks`."""
    return UserError(f"{tool} answers in a format that isn't known here: there is no {lacks}")
