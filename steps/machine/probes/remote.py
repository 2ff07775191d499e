"""The vendors' tools on other machines, over SSH: as the user has configured it, no questions."""

import shlex
from collections.abc import Sequence

from steps.base.errors import UserError
from steps.machine.probes.tools import PLACES, FailedTool, MissingTool, Run, run

OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}
"""ssh asks nothing and notices a host that is gone; all else is the user's configuration."""

UNREACHABLE = 255
"""Status of ssh where the connection failed."""

NOT_FOUND = 127
"""Status of a shell that knows no such program."""


class UnreachableError(UserError):
    """A host that doesn't answer."""


def words(host: str, remote: str) -> list[str]:
    """The command that has a host's shell do something."""
    options = [word for key, value in OPTIONS.items() for word in ("-o", f"{key}={value}")]
    return ["ssh", "-T", *options, "--", host, remote]


def unreachable(host: str, reason: str) -> str:
    return (
        f"host {host} can't be reached: {reason}; `ssh -o BatchMode=yes {host} true` must work "
        "without a question"
    )


def on(host: str) -> Run:
    """Calls tools there as tools.run does here. Also raises UnreachableError."""

    def called(command: Sequence[str]) -> str:
        found = f"PATH=$PATH:{':'.join(PLACES)} LC_ALL=C {shlex.join(command)}"
        try:
            return run(words(host, found))
        except FailedTool as error:
            if error.status == UNREACHABLE:
                raise UnreachableError(unreachable(host, error.last)) from error
            if error.status == NOT_FOUND:
                raise MissingTool(f"{command[0]} is not installed") from error
            reason = f"{command[0]} fails with status {error.status}: {error.last}"
            raise FailedTool(reason, error.output, error.status, error.last) from error

    return called
