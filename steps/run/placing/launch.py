"""What starts engines on nodes: an order to the process that places them, its reply, and on each
node the engines' processes, which connect to LoadGen's by themselves.
"""

import subprocess
import sys

from steps import ROOT
from steps.base.strict import Positive, PositiveNumber, Strict
from steps.config.engine import Host, NodeKind
from steps.run.placing.hosts import die_with_parent

LOCAL = "local"
"""Address of a cluster that is made for the run: every node a raylet of its own on this machine."""


class Order(Strict):
    """What is to be started. `port`: where LoadGen's process listens; `key`: its secret, in hex.

    `kinds`, `hosts`, `checkout`: see steps.config.engine.Placement.
    """

    address: str
    nodes: Positive
    kinds: tuple[NodeKind, ...] = ()
    hosts: tuple[Host, ...] = ()
    checkout: str = str(ROOT)
    engines_per_node: Positive
    port: Positive
    key: str
    limit_s: PositiveNumber


class Reply(Strict):
    """`addresses` of the nodes, in order, once their engines are started; or what went wrong."""

    addresses: tuple[str, ...] = ()
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
        # A node whose agent is gone answers no more, as a whole one that lost its power.
        preexec_fn=die_with_parent,
    )
    assert process.stdin is not None
    process.stdin.write(key.encode())
    process.stdin.close()
    return process
