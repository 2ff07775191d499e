"""Engines on the nodes of a Ray cluster: `python -m steps.sut.nodes`, beside LoadGen's process.

Ray finds the nodes, starts an agent on each and ends it with this process or with its node; the
agent starts the engines' processes, which connect to LoadGen's process by themselves. Samples and
tokens don't pass through Ray: a socket carries thousands of them in one write, where a call of an
actor costs a fraction of a millisecond each. Ray stays out of LoadGen's process for the same
reason: its threads would take turns with those that LoadGen's times depend on.

Asked by one line of JSON on stdin (Order), answers by lines of JSON on stdout (Reply), and ends
when stdin does.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from steps.errors import UserError
from steps.strict import Positive, PositiveNumber, Strict
from steps.sut import tasks

ROOT = Path(__file__).resolve().parents[2]

LOCAL = "local"
"""Address of a cluster that is made for the run: every node a raylet of its own on this machine."""

DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""

POLL_S = 0.2


class Order(Strict):
    """What is to be started. `port`: where LoadGen's process listens; `key`: its secret, in hex."""

    address: str
    nodes: Positive
    engines_per_node: Positive
    port: Positive
    key: str
    limit_s: PositiveNumber


class Reply(Strict):
    """`addresses` of the nodes, in order, once their engines are started; or what went wrong."""

    addresses: tuple[str, ...] = ()
    error: str | None = None


class Agent:
    """On each node, as a Ray actor."""

    def launch(self, first: int, count: int, host: str, port: int, key: str) -> int:
        """Start this node's engines, numbered from `first`; returns the agent's process id."""
        self._engines = [connecting(first + n, host, port, key) for n in range(count)]
        return os.getpid()


def connecting(number: int, host: str, port: int, key: str) -> "subprocess.Popen[bytes]":
    """An engine's process that connects to LoadGen's; the key goes through a pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "steps.sut.worker", "--connect", host, str(port), str(number)],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=_die_with_parent,
    )
    assert process.stdin is not None
    process.stdin.write(key.encode())
    process.stdin.close()
    return process


def _die_with_parent() -> None:
    """A node whose agent is gone answers no more, as a whole one that lost its power."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def place(order: Order) -> tuple[str, ...]:
    """Start the engines of all nodes; returns the nodes' addresses. Raises UserError."""
    if order.address == tasks.ADDRESS:
        engines = tasks.Tasks(order, str(ROOT))
        _AGENTS.append(engines)
        return engines.started()
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = _nodes(order)
    host = "127.0.0.1" if order.address == LOCAL else ray.util.get_node_ip_address()
    agent = ray.remote(num_cpus=0, max_restarts=0)(Agent)
    asked = []
    for number, node in enumerate(nodes):
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        placed = agent.options(
            scheduling_strategy=where,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        ).remote()
        _AGENTS.append(placed)
        first = number * order.engines_per_node
        asked.append(
            placed.launch.remote(first, order.engines_per_node, host, order.port, order.key)
        )
    try:
        ray.get(asked, timeout=order.limit_s)
    except RayError as error:
        line = str(error).strip().splitlines()[-1]
        raise UserError(f"Ray could not start an agent on every node: {line}") from error
    return tuple(f"{node['NodeManagerAddress']}" for node in nodes)


_AGENTS: list[Any] = []
"""An actor lives as long as somebody holds its handle."""


def _nodes(order: Order) -> list[dict[str, Any]]:
    """The cluster's first nodes by address; waits for them, within the limit."""
    import ray

    _join(order)
    limit = time.monotonic() + order.limit_s
    while True:
        alive = [node for node in ray.nodes() if node["Alive"]]
        if len(alive) >= order.nodes:
            break
        if time.monotonic() > limit:
            raise UserError(
                f"the Ray cluster has {len(alive)} of {order.nodes} nodes; on each missing one: "
                "ray start --address=HEAD:6379"
            )
        time.sleep(POLL_S)
    alive.sort(key=lambda node: (node["NodeManagerAddress"], node["NodeManagerPort"]))
    return alive[: order.nodes]


def _join(order: Order) -> None:
    import ray

    if order.address == LOCAL:
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        for _ in range(order.nodes):
            cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
        _AGENTS.append(cluster)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        return
    try:
        ray.init(address=order.address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise UserError(
            f"there is no Ray cluster at {order.address}; on the head: ray start --head, on every "
            "other node: ray start --address=HEAD:6379"
        ) from error


def main() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Replies alone go to the pipe; Ray and its processes print where they like.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = Order.model_validate_json(sys.stdin.readline())
    try:
        reply = Reply(addresses=place(order))
    except UserError as error:
        reply = Reply(error=str(error))
    except ImportError as error:
        reply = Reply(
            error=f"Ray can't be imported ({error}); its environment is envs/cluster.lock, "
            "beside vLLM envs/cpu-cluster.lock (hardware=cpu-cluster)"
        )
    with contextlib.suppress(OSError):
        replies.write(reply.model_dump_json() + "\n")
        replies.flush()
        sys.stdin.read()
    _end()


def _end() -> None:
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    for kept in _AGENTS:
        if hasattr(kept, "shutdown"):
            kept.shutdown()


if __name__ == "__main__":
    main()
