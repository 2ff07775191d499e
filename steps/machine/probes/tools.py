"""Calling other people's tools: never longer than a limit, never in another language, read only."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from steps.base.errors import UserError

LIMIT_S = 30.0
"""amd-smi and rocm-smi take up to several seconds on eight accelerators; more means a hung
driver."""

PLACES = ("/opt/rocm/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where tools are that a user's PATH may leave out."""

Value = TypeVar("Value")
Run = Callable[[Sequence[str]], str]


class MissingTool(UserError):
    """The program isn't installed."""


def run(command: Sequence[str], limit_s: float = LIMIT_S) -> str:
    """What the command prints. Raises MissingTool, or UserError if it fails or takes too long."""
    tool = command[0]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *PLACES])
    program = shutil.which(tool, path=path)
    if program is None:
        raise MissingTool(f"{tool} is not installed")
    try:
        process = subprocess.Popen(
            [program, *command[1:]],
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
        process.communicate()
        raise UserError(f"{tool} gave no answer in {limit_s:g} s") from error
    if process.returncode:
        last = (complaint.strip() or output.strip() or "no message").splitlines()[-1]
        raise UserError(f"{tool} fails with status {process.returncode}: {last:.200}")
    return output


def parser(tool: str) -> Callable[[Callable[[str], Value]], Callable[[str], Value]]:
    """Marks a function from a tool's output to values: whatever it trips over is a UserError.

    Formats change with versions, and a parser can't foresee how. What it doesn't understand is
    reported as the tool's, and the fields it would have filled stay missing.
    """

    def decorate(function: Callable[[str], Value]) -> Callable[[str], Value]:
        @functools.wraps(function)
        def checked(text: str) -> Value:
            try:
                return function(text)
            except UserError:
                raise
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
                what = " ".join(str(error).split())
                raise UserError(
                    f"{tool} answers in a format that isn't known here "
                    f"({type(error).__name__}: {what:.120})"
                ) from error
            except RecursionError as error:
                raise UserError(f"{tool} answers in a format that isn't known here") from error

        return checked

    return decorate


def unknown_format(tool: str, lacks: str) -> UserError:
    """The error for output that has no `lacks`."""
    return UserError(f"{tool} answers in a format that isn't known here: there is no {lacks}")


def text_or_none(value: Any) -> str | None:
    """A field's text; None for what tools write where they know nothing."""
    text = " ".join(str(value).split()) if value is not None else ""
    return None if text.strip("[]").lower() in ("", "n/a", "none", "unknown", "-") else text
