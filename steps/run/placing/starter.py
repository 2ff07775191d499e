"""Starts a node's engines: `python -m steps.run.placing.starter --output PAPER`, in the image that
they run in, or in the checkout's environment.

PAPER is a file that nobody else can read, with LoadGen's address and key: neither a command line
nor a container's description may hold them. It is removed as soon as it is read.
"""

import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from steps import ROOT
from steps.run.placing.launch import connecting
from steps.run.placing.seen import Begin

FOLDER = Path("results/nodes")
POLL_S = 1.0


def handed(begin: Begin) -> Path:
    """The paper, in the part of the checkout that containers can write."""
    folder = ROOT / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{platform.node()}-{os.getpid()}.order"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(begin.model_dump_json())
    return path


def main() -> NoReturn:
    path = Path(sys.argv[sys.argv.index("--output") + 1])
    begin = Begin.model_validate_json(path.read_text(encoding="utf-8"))
    path.unlink()
    os.environ.update(begin.variables)
    engines = [
        connecting(begin.first + n, begin.host, begin.port, begin.key, str(ROOT))
        for n in range(begin.count)
    ]

    def end(number: int, frame: object) -> NoReturn:
        for engine in engines:
            engine.kill()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    while any(engine.poll() is None for engine in engines):
        time.sleep(POLL_S)
    sys.exit(0)


if __name__ == "__main__":
    main()
