"""The command of a process that is only there around it."""

import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

from steps.base import processes


def run(command: Sequence[str]) -> int:
    """The command's exit status. Signals that end this process end the command first, so that what
    was done for it is undone.
    """
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        elif child.poll() is None:
            child.send_signal(number)

    for number in processes.ENDS:
        signal.signal(number, pass_on)
    child = subprocess.Popen(command, preexec_fn=processes.die_with_parent)
    for came in early:
        pass_on(came, None)
    status = child.wait()
    return status if status >= 0 else 128 - status
