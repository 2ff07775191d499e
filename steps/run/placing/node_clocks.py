"""`python -m steps.run.placing.node_clocks ORDER -- COMMAND...`: a run whose engines are on several
nodes, at the clocks that it was submitted with (steps/run/clocks.py).

Each node sets and resets its own: an agent there holds them until its connection ends, however this
process ends. What undoes them is written down on the node, before they are set: after a kill of the
agent itself, the next one there resets them, and so does the next ./reproduce.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import NoReturn

from steps.base import processes, wrapped
from steps.base.errors import UserError, shown
from steps.base.strict import Strict
from steps.config.engine import Host, NodeKind, Power
from steps.machine.probes.differs import unfit
from steps.machine.probes.machine import Prober, of_vendor
from steps.run import clocks
from steps.run.placing.lines import Line, commands

HOLD = "--clocks"
"""The agent's argument."""

SET_LIMIT_S = 4 * clocks.LIMIT_S
"""A node's two commands, and the tools that say what it is at."""


class OfKind(Strict):
    """The clocks of nodes of a kind."""

    kind: NodeKind
    power: Power


class Wanted(Strict):
    """What a node gets: the clocks of all kinds, of which it is one."""

    kinds: tuple[OfKind, ...]


class Order(Wanted):
    """The nodes too: see steps.run.placing.launch.Order."""

    address: str
    hosts: tuple[Host, ...] = ()
    checkout: str


class Held(Strict):
    """A node's answer, once when they are set and once when they are reset. `error`: why not."""

    error: str | None = None


# ---- a node's side -------------------------------------------------------------------------------


def hold(root: Path) -> int:
    """Set this node's clocks, and reset them when stdin ends or a signal ends this process."""
    signal.signal(signal.SIGTERM, _end)
    wanted = Wanted.model_validate_json(sys.stdin.readline())
    changed = None
    try:
        if said := clocks.restore(root):
            print(said, file=sys.stderr, flush=True)
        changed = clocks.set_for_run(power_of(wanted), root)
        _say(Held())
        sys.stdin.read()
    except UserError as error:
        _say(Held(error=shown(str(error))))
        return 1
    finally:
        complaint = clocks.reset(changed, root) if changed else ""
    _say(Held(error=complaint or None))
    return 1 if complaint else 0


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _say(held: Held) -> None:
    with contextlib.suppress(OSError):  # nobody may be there any more
        print(held.model_dump_json(), flush=True)


def power_of(wanted: Wanted, prober: Prober | None = None) -> Power:
    """The clocks of the kind that this node is of. Raises UserError if it is of none."""
    asked, whys = prober or Prober(), []
    for one in wanted.kinds:
        found = of_vendor(one.kind.accelerator.vendor, asked)
        why = unfit(one.kind.accelerator, one.kind.modes, found)
        if not why:
            return one.power
        whys.append(f"{one.kind.hardware}: {why}")
    raise UserError(f"the clocks can't be set, as this node is of no kind ({'; '.join(whys)})")


# ---- LoadGen's machine ---------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """The command's exit status; 1 if a node's clocks can't be set, and then nothing runs."""
    processes.die_with_parent(signal.SIGTERM)
    order, _, *command = arguments
    lines: list[Line] = []
    try:
        complaints = _begun(Order.model_validate_json(order), lines)
        status = 1 if complaints else wrapped.run(command)
    except UserError as error:
        complaints, status = [str(error)], 1
    except KeyboardInterrupt:  # while clocks are set; later the command gets it
        complaints, status = [], 128 + signal.SIGINT
    finally:
        left = _ended(lines)
    for complaint in complaints or left:
        print(f"error: {shown(complaint)}", file=sys.stderr, flush=True)
    return status


def _begun(order: Order, lines: list[Line]) -> list[str]:
    """Have all nodes set theirs, at once; returns what went wrong. Raises UserError if no node can
    be asked."""
    wanted = Wanted(kinds=order.kinds)
    for name, start in commands(order.address, order.hosts, order.checkout):
        lines.append(Line(name, start(HOLD), order.checkout))
    for line in lines:
        line.tell(wanted)
    until = time.monotonic() + SET_LIMIT_S

    def missing(line: Line) -> str:
        try:
            return _error(line, until)
        except UserError as error:
            return str(error)

    return _all(missing, lines)


def _ended(lines: Sequence[Line]) -> list[str]:
    """Have all reset; returns what went wrong, and then the node has it written down."""
    for line in lines:
        line.close()
    until = time.monotonic() + SET_LIMIT_S

    def left(line: Line) -> str:
        try:
            return _error(line, until)
        except UserError as error:
            if not line.ended():
                return str(error)
            # As by Ctrl-C, which ends ssh too.
            return f"{line.name}: its connection ended first; it resets its clocks by itself"

    complaints = _all(left, lines)
    for line in lines:
        line.wait(until)
    return complaints


def _error(line: Line, until: float) -> str:
    """Raises UserError without an answer."""
    error = line.hear(Held, until).error
    return f"{line.name}: {error}" if error else ""


def _all(ask: Callable[[Line], str], lines: Sequence[Line]) -> list[str]:
    if not lines:
        return []
    with ThreadPoolExecutor(len(lines)) as pool:
        return list(filter(None, pool.map(ask, lines)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
