"""Engines on nodes over SSH or in a Slurm job: an agent on each, asked what it has before it starts
anything. Nodes that lack something, or differ in what decides a result, are named, and LoadGen
doesn't start.
"""

import contextlib
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from steps import ROOT
from steps.base.errors import UserError
from steps.base.record import sha256_file
from steps.base.version import Version
from steps.config.accelerators import Vendor
from steps.config.engine import NodeKind
from steps.machine.probes.differs import unfit
from steps.machine.runtime.image import Image
from steps.run.engines.accelerators import settings, summary
from steps.run.placing.choosing import chosen
from steps.run.placing.launch import SLURM, Door, Order, Reply
from steps.run.placing.lines import Line, close_all, commands
from steps.run.placing.seen import Began, Begin, Question, Seen, complaints
from steps.run.placing.sending import Shipment, image_of, send, weights_of

ASK_LIMIT_S = 60.0
"""How long a node may take to say what it is: tools of eight accelerators take seconds."""

WATCH_S = 0.5


@dataclass(frozen=True)
class Contained:
    """The image that engines run in, and the settings of its containers, as JSON."""

    image: Image
    settings: str


class Heard(NamedTuple):
    """`skew_s`: how far each node's clock is ahead of this machine's. `silent`: why a node gave no
    answer."""

    answers: dict[str, Seen]
    skew_s: dict[str, float]
    silent: dict[str, str]


class Agents:
    """The agents of one run."""

    def __init__(self, order: Order, contained: Contained | None = None) -> None:
        self._order = order
        self._contained = contained
        self._commands = dict(commands(order.address, order.hosts, order.checkout))
        self._lines = [
            Line(name, start(), order.checkout) for name, start in self._commands.items()
        ]
        self._ending = threading.Event()
        self._serving: list[str] = []

    def place(self, door: Door, say: Callable[[Reply], None]) -> Reply:
        """Look at every node, choose those that serve, send them what they lack, start their
        engines. Raises UserError. `say`: called from time to time while it goes on."""
        heard = self.asked(min(ASK_LIMIT_S, self._order.limit_s))
        if heard.silent:
            raise UserError("; ".join(heard.silent.values()))
        found = list(complaints(heard.answers, heard.skew_s, Version.of(ROOT).commit))
        if fatal := [one.text for one in found if one.fatal]:
            raise UserError("; ".join(fatal))
        names, lacking = self.chosen(heard.answers)
        if lacking:
            raise UserError(lacking)
        send(
            list(self._lacking({name: heard.answers[name] for name in names})),
            self._commands,
            lambda working: say(Reply(working=working)),
        )
        host = address(self._order.address, [heard.answers[name].peer for name in names])
        counts = dict(zip(names, self._order.engines, strict=True))
        self._serving = names
        if failed := self.begun(counts, host or platform.node(), door(host)):
            raise UserError("; ".join(f"{name}: {why}" for name, why in failed.items()))
        return Reply(addresses=tuple(names), notes=tuple(one.text for one in found))

    def asked(self, limit_s: float, *, hold: bool = True) -> Heard:
        """What every node says; all are asked at once. `hold`: keep other runs from them."""
        question = self._question(hold)
        asked_at = time.time()
        for line in self._lines:
            line.tell(question)
        until = time.monotonic() + limit_s
        heard = Heard({}, {}, {})
        for line in self._lines:
            try:
                seen = line.hear(Seen, until)
            except UserError as error:
                heard.silent[line.name] = str(error)
                continue
            heard.answers[line.name] = seen
            heard.skew_s[line.name] = skew(asked_at, seen.clock_s, line.heard_s)
        return heard

    def described(self) -> tuple[dict[str, Any], ...]:
        """What accelerators the serving nodes have and what they are set to now, in the nodes'
        order; {} of one that gives no answer."""
        lines = {line.name: line for line in self._lines}
        question = Question(hold=False, vendors=self._vendors())
        for name in self._serving:
            lines[name].tell(question)
        until = time.monotonic() + ASK_LIMIT_S
        return tuple(_described(lines[name], until) for name in self._serving)

    def _vendors(self) -> tuple[Vendor, ...]:
        return tuple(sorted({kind.accelerator.vendor for kind in self._order.kinds}))

    def watch(self, say: Callable[[Reply], None]) -> None:
        """Say it once when an agent has ended, from now on."""
        threading.Thread(target=self._watched, args=(say,), daemon=True).start()

    def _watched(self, say: Callable[[Reply], None]) -> None:
        while not self._ending.wait(WATCH_S):
            for line in self._lines:
                if line.ended():
                    with contextlib.suppress(OSError):
                        say(Reply(error=line.end()))
                    return

    def shutdown(self) -> None:
        self._ending.set()
        close_all(self._lines)

    def _question(self, hold: bool) -> Question:
        contained, weights = self._contained, self._order.weights
        return Question(
            hold=hold,
            vendors=self._vendors(),
            image=contained.image if contained else None,
            container=contained.settings if contained else "",
            weights={weights: sha256_file(ROOT / weights)} if weights else {},
        )

    def chosen(self, answers: Mapping[str, Seen]) -> tuple[list[str], str]:
        """The nodes that serve, in the order of the kinds."""
        names = list(answers)
        if not self._order.kinds:
            if len(names) < self._order.nodes:
                return [], f"the job has {len(names)} of {self._order.nodes} nodes"
            return names[: self._order.nodes], ""

        def wrong(kind: NodeKind, name: str) -> str:
            said = unfit(kind.accelerator, kind.modes, answers[name].accelerators)
            if not answers[name].accelerators:
                said = next(iter(answers[name].problems), said)
            return said

        return chosen(self._order.kinds, names, wrong, str)

    def _lacking(self, chosen: Mapping[str, Seen]) -> Iterator[tuple[str, Shipment]]:
        """What nodes are sent. Raises UserError for weights that can't be read here."""
        for name, seen in chosen.items():
            if seen.image is False and self._contained is not None:
                yield name, image_of(self._contained.image, self._contained.settings)
            for path, wrong in seen.weights.items():
                if wrong is None:
                    yield name, weights_of(path)

    def begun(self, counts: Mapping[str, int], host: str, port: int) -> dict[str, str]:
        """Start so many engines on nodes, which are numbered in this order; none: a node only tries
        whether it reaches LoadGen's process there. Returns why it failed, by node.
        """
        lines, first = {line.name: line for line in self._lines}, 0
        for name, count in counts.items():
            begin = Begin(host=host, port=port, key=self._order.key, first=first, count=count)
            lines[name].tell(begin)
            first += count
        until = time.monotonic() + self._order.limit_s
        failed = {}
        for name in counts:
            try:
                error = lines[name].hear(Began, until).error
            except UserError as complaint:
                error = str(complaint)
            if error:
                failed[name] = error
        return failed


def _described(line: Line, until: float) -> dict[str, Any]:
    try:
        found = line.hear(Seen, until).accelerators
    except UserError:
        return {}
    return {**summary(found), "settings": settings(found)} if found else {}


def skew(before: float, said: float, after: float) -> float:
    """How far a clock is ahead, of a moment between two of ours; 0.0 if it may be right."""
    if before <= said <= after:
        return 0.0
    return said - (after if said > after else before)


def address(cluster: str, peers: Sequence[str]) -> str:
    """The address by which all nodes know this machine; "" if they don't agree on one that is its
    own. A connection by way of another host comes from that."""
    known = {peer for peer in peers if peer}
    if cluster == SLURM:
        known = {own_address()}
    if len(known) != 1:
        return ""
    (one,) = known
    return one if _is_own(one) else ""


def own_address() -> str:
    """The address of this node's name; "" if it resolves to loopback only."""
    try:
        found = socket.gethostbyname(platform.node())
    except OSError:
        return ""
    return "" if found.startswith("127.") else found


def _is_own(host: str) -> bool:
    try:
        with socket.create_server((host, 0)):
            return True
    except OSError:
        return False
