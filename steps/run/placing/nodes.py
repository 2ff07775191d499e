"""Engines on nodes: `python -m steps.run.placing.nodes [IMAGE SETTINGS]`, beside LoadGen's process.

On hosts over SSH and in a Slurm job, by agents (steps/run/placing/agents.py), in the image of that
manifest if there is one. Otherwise on a cluster of Ray.

Ray finds the nodes, starts an agent on each and ends it with this process or with its node; the
agent starts the engines' processes, which connect to LoadGen's process by themselves. Samples and
tokens don't pass through Ray: a socket carries thousands of them in one write, but every call of an
actor costs a fraction of a millisecond. Ray stays out of LoadGen's process for the same reason: its
threads would compete with those that LoadGen's times depend on.

Asked by one line of JSON on stdin (Order), answers by lines of JSON on stdout (Reply), and ends
when stdin does.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.accelerators import Vendor
from steps.config.engine import SSH, NodeKind
from steps.machine.probes.differs import unfit
from steps.machine.probes.machine import Prober, of_vendor
from steps.machine.probes.values import Accelerator
from steps.machine.runtime.image import Image
from steps.run.placing.agents import Agents, Contained
from steps.run.placing.choosing import chosen
from steps.run.placing.launch import AGAIN, LOCAL, SLURM, Door, Order, Reply, connecting
from steps.run.placing.protection import MODE, REFUSED, TOKEN_FILE, exposed, protect

POLL_S = 0.2

LET_BE = {f"RAY_EXPERIMENTAL_NOSET_{name}_VISIBLE_DEVICES": "1" for name in ("CUDA", "HIP", "ROCR")}
"""Ray assigns no accelerators to a process: steps.run.engines.pinning does, and one such variable
would count within the other.
"""


class Agent:
    """Runs on each node, as a Ray actor."""

    def launch(self, first: int, count: int, host: str, port: int, key: str, home: str) -> None:
        """Start this node's engines, numbered from `first`."""
        self._engines = [connecting(first + n, host, port, key, home) for n in range(count)]


def place(
    order: Order, door: Door, say: Callable[[Reply], None], contained: Contained | None = None
) -> Reply:
    """Start the engines of all nodes. Raises UserError. `say`: called from time to time while that
    takes long."""
    if order.address in (SSH, SLURM):
        agents = Agents(order, contained)
        _KEPT.append(agents)
        return agents.place(door, say)
    if order.address == LOCAL:
        protect()
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    limit = time.monotonic() + order.limit_s
    nodes = _nodes(order, limit)
    found = exposed(ray.get_runtime_context().gcs_address)
    host = "127.0.0.1" if order.address == LOCAL else ray.util.get_node_ip_address()
    port = door(host)
    agent = ray.remote(num_cpus=0, max_restarts=0)(Agent)
    asked = []
    for number, node in enumerate(nodes):
        affinity = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        # All of the node's: a measured run has it to itself, and counts its accelerators from 0.
        reserved = _accelerators(node) if order.kinds else 0
        placed = agent.options(
            scheduling_strategy=affinity, num_gpus=reserved, runtime_env=_environment(order)
        ).remote()
        _KEPT.append(placed)
        where = order.first[number], order.engines[number], host, port
        asked.append(placed.launch.remote(*where, order.key, order.checkout))
    try:
        ray.get(asked, timeout=max(limit - time.monotonic(), POLL_S))
    except GetTimeoutError as error:
        held = "; does something else use their accelerators? (ray status)" if order.kinds else ""
        raise UserError(
            f"Ray started no agent on every node within {order.limit_s:g} s{held}"
        ) from error
    except RayError as error:
        line = str(error).strip().splitlines()[-1]
        raise UserError(f"Ray could not start an agent on every node: {line}") from error
    return Reply(
        addresses=tuple(f"{node['NodeManagerAddress']}" for node in nodes),
        exposed=(found,) if found else (),
    )


_KEPT: list[Any] = []
"""What engines end with: Agents, the cluster that was made, the actors' handles (an actor lives as
long as its handle)."""


def _accelerators(node: dict[str, Any]) -> int:
    """The accelerators as Ray counts them."""
    return int(node["Resources"].get("GPU", 0))


def _environment(order: Order) -> dict[str, Any]:
    """The address of Ray's processes on a node."""
    return {"env_vars": {"PYTHONPATH": order.checkout, **LET_BE}}


def _nodes(order: Order, limit: float) -> list[dict[str, Any]]:
    """The cluster's nodes, those of the first kind first, by address; waits for them, within the
    limit."""
    import ray

    _join(order)
    looking = Looking(order)
    while True:
        alive = [node for node in ray.nodes() if node["Alive"]]
        late = time.monotonic() > limit
        if len(alive) >= order.nodes or late:
            alive.sort(key=_place)
            if not order.kinds and len(alive) >= order.nodes:
                return alive[: order.nodes]
            if not order.kinds:
                raise UserError(
                    f"the Ray cluster has {len(alive)} of {order.nodes} nodes; on each missing "
                    "one: ray start --address=HEAD:6379"
                )
            serving, reason = looking.chosen(alive)
            if serving:
                return serving
            # LoadGen's node may be one without accelerators, and another one still to come.
            full = sum(bool(_accelerators(node)) for node in alive) >= order.nodes
            if late or full:
                raise UserError(reason)
        time.sleep(POLL_S)


def _place(node: dict[str, Any]) -> tuple[str, int]:
    return node["NodeManagerAddress"], node["NodeManagerPort"]


class Looking:
    """The accelerators of a cluster's nodes: each is asked once, with its vendor's tools."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._found: dict[str, tuple[Accelerator, ...]] = {}

    def chosen(self, nodes: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
        """Nodes for every kind, in order; or none, and a sentence about what is missing."""
        self._ask([node for node in nodes if node["NodeID"] not in self._found])
        how = "on each missing one: ray start --address=HEAD:6379"
        return chosen(self._order.kinds, nodes, self._unfit, _address, how)

    def _ask(self, nodes: list[dict[str, Any]]) -> None:
        import ray
        from ray.exceptions import GetTimeoutError, RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        vendors = {kind.accelerator.vendor for kind in self._order.kinds}
        look = ray.remote(num_cpus=0, max_retries=0)(_listed)
        asked = [
            look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                runtime_env=_environment(self._order),
            ).remote(sorted(vendors))
            for node in nodes
        ]
        for node, answer in zip(nodes, asked, strict=True):
            try:
                found = ray.get(answer, timeout=self._order.limit_s)
            except GetTimeoutError as error:
                raise UserError(
                    f"{_address(node)} didn't say within {self._order.limit_s:g} s what "
                    "accelerators it has; check it with amd-smi or nvidia-smi, and raise "
                    "start_limit_s if it is only slow"
                ) from error
            except RayError as error:
                line = str(error).strip().splitlines()[-1]
                raise UserError(
                    f"{_address(node)} can't be asked for its accelerators ({line}); is the "
                    f"checkout at {self._order.checkout} on it?"
                ) from error
            self._found[node["NodeID"]] = found

    def _unfit(self, kind: NodeKind, node: dict[str, Any]) -> str:
        """Why a node isn't of this kind; "" if it is."""
        wanted, found = kind.accelerator, self._found[node["NodeID"]]
        if difference := unfit(wanted, kind.modes, found):
            return difference
        if _accelerators(node) < wanted.count_per_node:
            return (
                f"Ray was started with {_accelerators(node)} accelerators; start it with "
                f"--num-gpus={wanted.count_per_node}"
            )
        return ""


def _address(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"


def _listed(vendors: list[Vendor]) -> tuple[Accelerator, ...]:
    """Runs on a node, as a task of Ray."""
    return next(filter(None, (of_vendor(vendor, Prober()) for vendor in vendors)), ())


def _join(order: Order) -> None:
    """Join the cluster, or make the one on this machine."""
    import ray
    from ray import exceptions

    if order.address == LOCAL:
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        _KEPT.append(cluster)
        for _ in range(order.nodes):
            cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        return
    try:
        ray.init(address=order.address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise UserError(
            f"there is no Ray cluster at {order.address}; on the head: ray start --head, on every "
            "other node: ray start --address=HEAD:6379"
        ) from error
    except getattr(exceptions, REFUSED, ConnectionError) as error:
        raise UserError(
            f"the Ray cluster at {order.address} asks for a token that ./reproduce doesn't have; "
            f"run it with {MODE}=token and {TOKEN_FILE}=FILE in the environment"
        ) from error


def main() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Replies alone go to the pipe; Ray and its processes print where they like.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = Order.model_validate_json(sys.stdin.readline())
    contained = None
    if sys.argv[1:]:
        manifest, settings = sys.argv[1:]
        contained = Contained(Image.of(Manifest.read(Path(manifest))), settings)

    def say(reply: Reply) -> None:
        replies.write(reply.model_dump_json() + "\n")
        replies.flush()

    def door(host: str) -> int:
        say(Reply(host=host))
        return int(sys.stdin.readline())

    try:
        reply = place(order, door, say, contained)
    except UserError as error:
        reply = Reply(error=str(error))
    except ImportError as error:
        reply = Reply(
            error=f"Ray can't be imported ({error}); its environment is envs/cluster.lock, "
            "beside vLLM envs/cpu-cluster.lock (hardware=cpu-cluster)"
        )
    with contextlib.suppress(OSError):
        say(reply)
        for kept in _KEPT:
            if isinstance(kept, Agents) and not reply.error:
                kept.watch(say)  # of engines that haven't connected yet LoadGen's process hears it
        for line in sys.stdin:
            if line.strip() == AGAIN:
                say(Reply(nodes=_described()))
    _end()


def _described() -> tuple[dict[str, Any], ...]:
    return tuple(one for kept in _KEPT if isinstance(kept, Agents) for one in kept.described())


def _end() -> None:
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    for kept in reversed(_KEPT):
        if hasattr(kept, "shutdown"):
            kept.shutdown()


if __name__ == "__main__":
    main()
