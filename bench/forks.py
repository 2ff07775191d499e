"""Each measurement in its own process: LoadGen allows one run per process."""

import multiprocessing
import multiprocessing.connection
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from steps.base.console import Console
from steps.base.errors import UserError

LIMIT_S = 600.0
END_S = 5.0
"""How long a measurement may take to clean up after its result."""

Result = TypeVar("Result")

Measure = Callable[[Path, Console], Result]
"""A measurement, given an empty directory and a console whose log takes the engine's output."""


class Fork(Generic[Result]):
    """A measurement that has begun."""

    def __init__(self, measure: Measure[Result]) -> None:
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_report, args=(measure, sender))
        self._process.start()
        sender.close()

    def result(self) -> Result:
        """Ends the bench with the measurement's message if it fails."""
        try:
            if not self._receiver.poll(LIMIT_S):
                raise SystemExit(f"a measurement gave no result within {LIMIT_S:.0f} s")
            failure, found = self._receiver.recv()
        except EOFError as error:
            raise SystemExit("a measurement ended without a result") from error
        finally:
            self._process.join(END_S)
            self._process.kill()
            self._process.join()
        if failure:
            raise SystemExit(failure)
        result: Result = found
        return result


def forked(measure: Measure[Result]) -> Result:
    return Fork(measure).result()


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
