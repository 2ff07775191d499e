"""Each measurement in its own process: LoadGen allows one run per process."""

import multiprocessing
import multiprocessing.connection
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from steps.base.console import Console
from steps.base.errors import UserError

LIMIT_S = 600.0
END_S = 5.0
"""How long a measurement may take to clean up after its result."""

Result = TypeVar("Result")

Measure = Callable[[Path, Console], Result]
"""A measurement, given an empty directory and a console whose log takes the engine's output."""


def forked(measure: Measure[Result]) -> Result:
    """The result of a measurement; ends the bench with its message if it fails."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(measure, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(LIMIT_S):
            raise SystemExit(f"a measurement gave no result within {LIMIT_S:.0f} s")
        failure, found = receiver.recv()
    except EOFError as error:
        raise SystemExit("a measurement ended without a result") from error
    finally:
        process.join(END_S)
        process.kill()
        process.join()
    if failure:
        raise SystemExit(failure)
    result: Result = found
    return result


def _report(
    measure: Measure[Result], sender: "multiprocessing.connection.Connection[object, object]"
) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress would tear the table apart
    with tempfile.TemporaryDirectory() as folder:
        try:
            sender.send((None, measure(Path(folder), Console(Path(folder) / "log"))))
        except UserError as error:
            sender.send((f"error: {error}", None))
        except Exception:
            sender.send((traceback.format_exc(), None))
    os._exit(0)
