"""Several engines, each in its own process, fed by measured speed and watched.

One thread waits for messages of all of them, hands out samples and passes answers on. A dead engine
is noticed by its closed connection, by its silence, or by samples without progress; then the run
fails and names it, or its samples go to the others (placement.on_failure). Answers of an engine
that a sample was taken from are dropped, so no sample is answered twice.
"""

import os
import selectors
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from steps.base.errors import UserError
from steps.config.engine import Engine
from steps.config.resolved import Resolved
from steps.config.run_results import EngineReport, Report
from steps.run.engines import wire
from steps.run.engines.engine import News, depth, places
from steps.run.engines.link import Link, Still
from steps.run.engines.pace import Slow
from steps.run.placing.cluster import Cluster
from steps.run.sut.backend import POLL_S, Job
from steps.run.sut.dispatch import Dispatcher, Replica
from steps.run.sut.health import Speed, degraded

READ_SHARE = 0.25
"""Share of a start's time: an engine that reads none of its prompts for so long is named before all
of it is over; a socket that takes a part first waits twice."""


class Fleet:
    """Backend over engine processes."""

    depth: int | None = None

    def __init__(self, job: Job) -> None:
        self._job = job
        self._config = job.start.config
        self._placement = job.start.config.placement
        self._seats = self._placement.seats
        self._cluster = (
            None
            if self._placement.cluster == "none"
            else Cluster(self._placement, self._config.start_limit_s, job.manifest, job.outside)
        )
        self._links: list[Link] = []
        self._ready: dict[int, wire.Ready] = {}
        self._missing: set[int] = set()
        """Engines that could not start; the run continues without them."""
        self._selector = selectors.DefaultSelector()
        self._progress: list[float] = []
        """When each engine last made progress or had nothing to do."""
        self._failures: list[str] = []
        self._slow_steps: list[tuple[int, Slow]] = []
        self._checked_s = 0.0
        self._woken = False
        self._wake_end, self._waker = os.pipe()
        os.set_blocking(self._wake_end, False)
        self._selector.register(self._wake_end, selectors.EVENT_READ)

    # ---- start and end --------------------------------------------------------------------------

    def start(self) -> None:
        begun = time.monotonic()
        self._links = self._launched()
        job = self._job
        columns = wire.packed(job.prompts), wire.packed(job.stops), wire.packed(job.warmup)
        for number, link in enumerate(self._links):
            self._selector.register(link, selectors.EVENT_READ, number)
        waiting = list(range(self._placement.nodes))
        while len(self._ready) + len(self._missing) < len(self._links):
            for node in self._next_to_load(waiting):
                waiting.remove(node)
                for number, seat in enumerate(self._seats):
                    if seat.node == node and number not in self._missing:
                        self._assign(number, *columns)
            for number in self._heard(POLL_S):
                self._starting(number, begun)
            self._check_starts()
        for number, share in self._slow({n: r.rate for n, r in self._ready.items()}).items():
            self._job.say(
                f"{self._links[number].name} is at {share:.0%} of its equals' speed in the warm-up"
            )
        now = time.monotonic()
        self._progress = [now for _ in self._links]
        settings = [self._settings(number) for number in range(len(self._links))]
        room = [places(one) for one in settings]
        usual = next(iter(self._ready.values()))
        rates = [self._ready.get(n, usual).rate for n in range(len(self._links))]
        self._dispatcher = Dispatcher(
            [
                Replica(place, depth(one) - place, rate)
                for place, one, rate in zip(room, settings, rates, strict=True)
            ],
            [len(prompt) for prompt in self._job.prompts],
            prompt_weight=self._placement.prompt_token_weight,
            latency_bound=self._job.start.first_tokens,
        )
        for number in self._missing:
            self._dispatcher.lost(number)

    def _next_to_load(self, waiting: Sequence[int]) -> Sequence[int]:
        """Nodes whose engines may start to load now, of those that haven't yet."""
        most = self._placement.nodes_loading or self._placement.nodes
        settled = self._ready.keys() | self._missing
        loading = {seat.node for number, seat in enumerate(self._seats) if number not in settled}
        return waiting[: max(most - len(loading.difference(waiting)), 0)]

    def _assign(self, number: int, *columns: tuple[bytes, bytes]) -> None:
        link = self._links[number]
        # Before it reads, its modules may come from a slow disk.
        link.limit(READ_SHARE * self._config.start_limit_s)
        self._send(number, self._assignment(number, *columns), starting=True)
        if number not in self._missing:
            link.limit(self._placement.silence_limit_s)

    def close(self) -> None:
        for link in self._links:
            link.close()
        for link in self._links:
            link.end()
        if self._cluster:
            self._cluster.close()

    @property
    def sent_s(self) -> float:
        return self._cluster.sent_s if self._cluster else 0.0

    def _launched(self) -> list[Link]:
        if self._cluster:
            links = self._cluster.links()
            for sentence in (*self._cluster.exposed, *self._cluster.notes):
                self._job.say(f"warning: {sentence}")
            return links
        return [Link.to_process(f"engine {n}") for n in range(len(self._seats))]

    def _assignment(self, number: int, *columns: tuple[bytes, bytes]) -> wire.Assignment:
        prompts, stops, warmup = columns
        return wire.Assignment(
            start=replace(self._job.start, config=self._settings(number), number=number),
            place=self._seats[number].place,
            prompts=prompts,
            stops=stops,
            warmup=warmup,
        )

    def _settings(self, number: int) -> Engine:
        """The configuration of one engine: its node's hardware may have its own arguments."""
        kind = self._placement.kind(self._seats[number].node)
        if kind is None:
            return self._config
        own = {
            "arguments": self._config.arguments_on.get(kind.hardware),
            "environment": self._config.environment_on.get(kind.hardware),
        }
        own = {name: value for name, value in own.items() if value is not None}
        return self._config.model_copy(update=own) if own else self._config

    def _starting(self, number: int, begun: float) -> None:
        message = self._message(number, starting=True)
        if isinstance(message, wire.Ready):
            self._ready[number] = message
            first = next(iter(self._ready.values()))
            if message.identity != first.identity:
                raise UserError(
                    f"{self._links[number].name} is {message.identity}, another one "
                    f"{first.identity}: all must be the same; fix the environments"
                )
            self._require_own(number, message)
            seconds = time.monotonic() - begun
            ready, total = len(self._ready), len(self._links)
            self._job.say(
                f"{self._links[number].name} is ready, {ready} of {total}, {seconds:.0f} s"
            )

    def _require_own(self, number: int, ready: wire.Ready) -> None:
        """Raises UserError if an engine got another number of accelerators than it was given, or
        one that another engine of its node has too.
        """
        if not ready.bus:
            return  # an engine without a runtime of accelerators in its process
        name, given = self._links[number].name, len(ready.accelerators.split(","))
        if len(ready.bus) != given:
            raise UserError(
                f"{name} was given {given} accelerators and its process sees {len(ready.bus)} "
                f"({', '.join(ready.bus)}); {self._placement.device_variable} doesn't act: see the "
                "log, or set placement.device_variable to another one"
            )
        for other, known in self._ready.items():
            shared = set(known.bus) & set(ready.bus) if other != number else set()
            if shared and self._seats[other].node == self._seats[number].node:
                raise UserError(
                    f"{name} and {self._links[other].name} both got accelerator "
                    f"{min(shared)}; {self._placement.device_variable} doesn't act: see the log, "
                    "or set placement.device_variable to another one"
                )

    def _check_starts(self) -> None:
        """A loading engine may be silent for long, but not one that is stopped."""
        for number, link in enumerate(self._links):
            if number in self._ready or number in self._missing or not link.stopped():
                continue
            if (silent_s := link.silent_s()) > self._placement.silence_limit_s:
                self._gone(
                    number,
                    f"is stopped and gave no sign of life for {silent_s:.0f} s",
                    starting=True,
                )

    # ---- samples --------------------------------------------------------------------------------

    def submit(self, numbers: Sequence[int], indices: Sequence[int]) -> None:
        self._dispatcher.add(numbers, indices)
        self._hand_out()

    def step(self) -> list[News]:
        found = []
        for number in self._heard(POLL_S):
            message = self._message(number)
            if isinstance(message, News):
                found.append(self._still_its_own(number, message))
            elif isinstance(message, wire.SlowSteps):
                self._note(number, message)
        self._check()
        self._hand_out()
        return found

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            os.write(self._waker, b"x")

    def _hand_out(self) -> None:
        now = time.monotonic()
        for number, samples in self._dispatcher.assign(now).items():
            if len(self._dispatcher.replicas[number].taken) == len(samples[0]):
                self._progress[number] = now
            self._send(number, wire.Submit(*samples))

    def _still_its_own(self, engine: int, brought: News) -> News:
        """Drops answers to samples that were taken from this engine."""
        now = time.monotonic()
        self._progress[engine] = now
        first = self._dispatcher.started(engine, brought.first)
        return News(first, self._dispatcher.completed(engine, brought.completed, now))

    # ---- news and deaths ------------------------------------------------------------------------

    def _heard(self, limit_s: float) -> list[int]:
        """Engines that sent a message or whose connection is closed; waits until there is one."""
        found = []
        for key, _ in self._selector.select(limit_s):
            if key.data is None:
                os.read(self._wake_end, 4096)
                self._woken = False  # last: whoever wakes before it, is served after this step
            else:
                found.append(key.data)
        return found

    def _send(self, number: int, message: wire.Message, *, starting: bool = False) -> None:
        try:
            self._links[number].send(message)
        except Still as error:
            self._gone(number, str(error), starting=starting)
        except OSError:
            self._gone(number, None, starting=starting)

    def _message(self, number: int, *, starting: bool = False) -> wire.Message:
        try:
            message = self._links[number].receive()
        except wire.Garbled as error:
            self._gone(number, f"sent something that isn't a message ({error})", starting=starting)
            return wire.Alive()
        except Still as error:
            self._gone(number, str(error), starting=starting)
            return wire.Alive()
        except (EOFError, OSError):
            self._gone(number, None, starting=starting)
            return wire.Alive()
        if isinstance(message, wire.Failed):
            if starting and message.expected and self._placement.on_failure == "fail":
                raise UserError(f"{self._links[number].name}: {message.text}")
            self._gone(number, f"died: {message.text}", starting=starting)
        return message

    def _check(self) -> None:
        """Finds silent engines and those without progress; checks several times a second, not at
        every message.
        """
        now = time.monotonic()
        if now - self._checked_s < POLL_S:
            return
        self._checked_s = now
        for number, replica in enumerate(self._dispatcher.replicas):
            if not replica.alive:
                continue
            silent_s, still_s = self._links[number].silent_s(), now - self._progress[number]
            if silent_s > self._placement.silence_limit_s:
                self._gone(number, f"gave no sign of life for {silent_s:.0f} s")
            elif replica.taken and still_s > self._config.stall_limit_s:
                self._gone(number, f"made no progress for {still_s:.0f} s")

    def _gone(self, number: int, why: str | None, *, starting: bool = False) -> None:
        """The engine is dead. `why` None: its connection is closed; its process has the reason."""
        link = self._links[number]
        self._selector.unregister(link)
        ended = link.end()
        phrase = f"{link.name} {why or ended}"
        if starting:
            self._missing.add(number)
            alone = len(self._missing) == len(self._links)
            if self._placement.on_failure == "fail" or alone:
                raise UserError(f"{phrase} at start; see the log for its last message")
            self._failures.append(f"{phrase} at start; the run continues without it")
            self._job.say(self._failures[-1])
            return
        waiting = len(self._dispatcher.replicas[number].taken)
        if self._placement.on_failure == "fail":
            raise UserError(
                f"{phrase} during the run, {waiting} samples waited for it; the run is void"
            )
        self._dispatcher.lost(number)
        if not any(replica.alive for replica in self._dispatcher.replicas):
            raise UserError(f"{phrase} during the run and was the last one; the run is void")
        self._failures.append(f"{phrase}; {waiting} samples went to others")
        self._job.say(self._failures[-1])

    # ---- for the result -------------------------------------------------------------------------

    def slow(self) -> list[tuple[int, Slow]]:
        return self._slow_steps

    def _note(self, number: int, told: wire.SlowSteps) -> None:
        now = time.perf_counter()
        for step, ago_s in zip(told.steps, told.ago_s, strict=True):
            self._slow_steps.append((number, step._replace(at=now - ago_s)))

    def identity(self) -> dict[str, str]:
        return next(iter(self._ready.values())).identity

    def resolved(self) -> Resolved:
        every = [self._ready[number].resolved for number in sorted(self._ready)]
        said = dict.fromkeys(one for engine in every for one in engine.differences)
        return every[0].model_copy(update={"differences": tuple(said)})

    def threads(self) -> int:
        return next(iter(self._ready.values())).threads

    def report(self) -> Report:
        found = []
        for number, ready in sorted(self._ready.items()):
            replica = self._dispatcher.replicas[number]
            found.append(
                EngineReport(
                    name=self._links[number].name,
                    device=ready.device,
                    accelerators=ready.accelerators,
                    **_bound(ready),
                    threads=ready.threads,
                    start_s=round(ready.start_s, 3),
                    samples=replica.samples,
                    output_tokens=replica.tokens,
                    sample_tokens_per_s=round(replica.rate, 3),
                    warmup_sample_tokens_per_s=round(ready.rate, 3),
                )
            )
        exposed = {"exposed": tuple(self._cluster.exposed)} if self._cluster else {}
        return Report(
            engines=tuple(found),
            failures=tuple(self._failures),
            degraded=tuple(self._degraded()),
            **exposed,
        )

    def nodes(self) -> tuple[dict[str, Any], ...]:
        return self._cluster.nodes() if self._cluster else ()

    def _degraded(self) -> list[str]:
        """Over the whole run: engines slower than their equals, dead or absent; a sentence each."""
        replicas = self._dispatcher.replicas
        rates = {
            n: replicas[n].tokens / replicas[n].sample_s
            for n in self._ready
            if replicas[n].tokens and replicas[n].sample_s
        }
        slow = self._slow(rates)
        said = {n: f"ran at {share:.0%} of the speed of its equals" for n, share in slow.items()}
        said |= {n: "died during the run" for n in self._ready if not replicas[n].alive}
        said |= dict.fromkeys(self._missing, "could not start")
        return [f"{self._links[n].name} {what}" for n, what in sorted(said.items())]

    def _slow(self, rates: Mapping[int, float]) -> dict[int, float]:
        speeds = {n: Speed(self._ready[n].device, rate) for n, rate in rates.items()}
        return degraded(speeds, self._placement.degraded_below)


def _bound(ready: wire.Ready) -> dict[str, Any]:
    """What an engine on accelerators is bound to; nothing for one on a CPU."""
    found = {"bus": tuple(ready.bus), "cpus": ready.cpus, "numa_node": ready.memory}
    return {name: value for name, value in found.items() if value not in ((), "", None)}
