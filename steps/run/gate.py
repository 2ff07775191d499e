"""`python -m steps.run.gate STEP LOG GATE... -- COMMAND...`: becomes the command if all gates pass.

Gates are verdicts that a measured run waits for and doesn't read. Behind one that failed the
run would only cost time.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import write_atomically
from steps.config import verdicts
from steps.config.verdicts import Verdict


def require(gates: Iterable[Path]) -> None:
    """Raises UserError naming the first gate that failed, and why."""
    for path in gates:
        verdict = verdicts.read(path, Verdict)
        if not verdict.holds:
            raise UserError(f"not run, because {path.parent} failed: {verdict.why}")


def main(arguments: list[str]) -> int:
    """Exit status 1 without a run; the log says why, as the terminal does."""
    split = arguments.index("--")
    (step, log, *gates), command = arguments[:split], arguments[split + 1 :]
    try:
        require(map(Path, gates))
    except UserError as error:
        said = f"error: {step}: {error}"
        print(said, file=sys.stderr)
        write_atomically(Path(log), said + "\n")
        return 1
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
