"""Engines on the nodes of a Slurm job: `srun` starts one task per node, and the task its engines.
Slurm has allocated the nodes and ends the tasks with the job, so no Ray cluster is needed. The task
is `python -m steps.run.placing.tasks HOST PORT ENGINES`; it reads LoadGen's key from its stdin,
which srun passes on to all of them, and ends when that does.
"""

import os
import platform
import socket
import subprocess
import sys
import threading

from steps import ROOT
from steps.base.errors import UserError
from steps.run.placing.launch import Door, Order, connecting

ADDRESS = "slurm"
END_S = 10.0
JOB, TASK = "SLURM_JOB_ID", "SLURM_PROCID"
"""Slurm's variables with a process's job and a task's number."""


def own_address() -> str:
    """The address of this node's name; the name itself if it resolves to loopback only."""
    name = platform.node()
    try:
        found = socket.gethostbyname(name)
    except OSError:
        return name
    return name if found.startswith("127.") else found


class Tasks:
    """The tasks of one run."""

    def __init__(self, order: Order, root: str, door: Door) -> None:
        if JOB not in os.environ:
            raise UserError("placement.cluster=slurm needs a job of Slurm; choose scheduler=slurm")
        number = str(order.nodes)
        host = own_address()
        port = door("" if host == platform.node() else host)
        self._order = order
        self._process = subprocess.Popen(
            [
                *("srun", "--nodes", number, "--ntasks", number, "--ntasks-per-node", "1"),
                *("--cpu-bind=none", sys.executable, "-m", "steps.run.placing.tasks"),
                *(host, str(port), str(order.engines_per_node)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )

    def started(self) -> tuple[str, ...]:
        """The nodes' names, in order. Raises UserError if one's engines aren't started in time."""
        assert self._process.stdin is not None and self._process.stdout is not None
        timer = threading.Timer(self._order.limit_s, self._process.kill)
        timer.start()
        found: dict[int, str] = {}
        try:
            self._process.stdin.write(self._order.key + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                task, _, name = line.strip().partition(" ")
                found[int(task)] = name
                if len(found) == self._order.nodes:
                    break
        except BrokenPipeError:
            pass
        finally:
            timer.cancel()
        if len(found) < self._order.nodes:
            raise UserError(
                f"srun started engines on {len(found)} of {self._order.nodes} nodes; see the log "
                "for its message"
            )
        return tuple(found[task] for task in sorted(found))

    def shutdown(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()


def main() -> None:
    host, port, engines = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    key, task = sys.stdin.readline().strip(), int(os.environ[TASK])
    started = [connecting(task * engines + n, host, port, key, str(ROOT)) for n in range(engines)]
    print(task, platform.node(), flush=True)
    sys.stdin.read()
    for engine in started:
        engine.kill()


if __name__ == "__main__":
    main()
