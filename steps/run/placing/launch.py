"""Starts engines on nodes: an order to the process that places them, its reply, and on each node
the engines' processes, which connect to LoadGen's.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue

from steps import ROOT
from steps.base import variables
from steps.base.processes import die_with_parent
from steps.base.strict import Positive, PositiveNumber, Strict
from steps.config.engine import Host, NodeKind, Placement

LOCAL = "local"
"""Address of a cluster that is made for the run: every node is a raylet on this machine."""

SLURM = "slurm"
"""Address of the cluster that is the Slurm job in which the run is."""


AGAIN = "again"
"""A line to the process that places engines: what are the nodes' accelerators set to now?"""

Door = Callable[[str], int]
"""Takes the address that the nodes use for this machine; returns the port on which LoadGen's
process listens.
"""


class Order(Strict):
    """What to start. `engines`: how many on each node, in order. `key`: the secret of LoadGen's
    process, in hex. `weights`: the manifest of what every engine loads, as a path in the checkout.

    `kinds`, `hosts`, `checkout`: see steps.config.engine.Placement.
    """

    address: str
    engines: Annotated[tuple[Positive, ...], Field(min_length=1)]
    kinds: tuple[NodeKind, ...] = ()
    hosts: tuple[Host, ...] = ()
    checkout: str = str(ROOT)
    key: str
    limit_s: PositiveNumber
    weights: str = ""

    @property
    def nodes(self) -> int:
        return len(self.engines)

    @property
    def first(self) -> tuple[int, ...]:
        """The number of each node's first engine."""
        return (0, *accumulate(self.engines))[: self.nodes]


class Reply(Strict):
    """First `host`, the address that the nodes use for this machine: LoadGen's process listens
    there and answers with its port, in a line. Then `addresses` of the nodes, in order, once their
    engines are started. `exposed`: sentences about what others on the network can reach. `notes`:
    of what differs between nodes and keeps no run from starting. Or the error. `nodes`: the answer
    to AGAIN, node by node. `working`: it goes on, and what takes so long.
    """

    host: str | None = None
    addresses: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    nodes: tuple[dict[str, JsonValue], ...] = ()
    error: str | None = None
    working: str = ""


def engines_of(placement: Placement) -> tuple[int, ...]:
    """How many engines each node has, in order."""
    seats = [seat.node for seat in placement.seats]
    return tuple(seats.count(node) for node in range(placement.nodes))


def socket_of(output: Path) -> Path:
    """Where, in the checkout, a run in a container reaches what starts its nodes from outside
    (steps/run/placing/outside.py); `output`: the run's folder. As short as a socket's name has to
    be, and relative, so that it is wherever the checkout is.
    """
    name = hashlib.sha256(os.path.relpath(output.absolute(), ROOT).encode()).hexdigest()[:16]
    return Path("results/nodes") / f"{name}.sock"


def connecting(number: int, host: str, port: int, key: str, home: str) -> "subprocess.Popen[bytes]":
    """An engine's process that connects to LoadGen's; the key goes through a pipe.

    `home`: the checkout on this node.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "steps.run.engines.worker",
            "--connect",
            host,
            str(port),
            str(number),
        ],
        stdin=subprocess.PIPE,
        cwd=home,
        env=variables.kept(),  # a cluster's own processes have the shell's that started them
        # A node whose agent is gone answers no more, as a whole one that lost its power.
        preexec_fn=die_with_parent,
    )
    assert process.stdin is not None
    process.stdin.write(key.encode())
    process.stdin.close()
    return process
