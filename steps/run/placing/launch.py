"""Starts engines on nodes: an order to the process that places them, its reply, and on each node
the engines' processes, which connect to LoadGen's.
"""

import subprocess
import sys
from collections.abc import Callable

from steps import ROOT
from steps.base import variables
from steps.base.processes import die_with_parent
from steps.base.strict import Positive, PositiveNumber, Strict
from steps.config.engine import Host, NodeKind

LOCAL = "local"
"""Address of a cluster that is made for the run: every node is a raylet on this machine."""


Door = Callable[[str], int]
"""Takes the address that the nodes use for this machine; returns the port on which LoadGen's
process listens.
"""


class Order(Strict):
    """What to start. `key`: the secret of LoadGen's process, in hex.

    `kinds`, `hosts`, `checkout`: see steps.config.engine.Placement.
    """

    address: str
    nodes: Positive
    kinds: tuple[NodeKind, ...] = ()
    hosts: tuple[Host, ...] = ()
    checkout: str = str(ROOT)
    engines_per_node: Positive
    key: str
    limit_s: PositiveNumber


class Reply(Strict):
    """First `host`, the address that the nodes use for this machine: LoadGen's process listens
    there and answers with its port, in a line. Then `addresses` of the nodes, in order, once their
    engines are started. `exposed`: sentences about what others on the network can reach. Or the
    error.
    """

    host: str | None = None
    addresses: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    error: str | None = None


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
