"""Many engines of several speeds: the whole over the sum of its parts, with null engines.

A part is one engine alone on its share of the samples, measured in the same run of this bench, its
own last samples included. Compared with our dispatch: a static split like AMD's harness makes it
(every engine its part of the query at once), in equal shares and in hand-set weights. Server's
routing is bench.routing's subject.
"""

import argparse
import os
import random
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from bench import ratios, subjects
from bench.forks import Fork, forked
from bench.kills import descendants
from bench.subjects import OUTPUT_TOKENS, Measured
from steps.base.console import Console
from steps.config.layers import merged
from steps.config.runs import PerformanceRunConfig
from steps.mlperf.loadgen import DETAIL
from steps.run.sut import fleet
from steps.run.sut.dispatch import Dispatcher, Samples

GENERATIONS = (1.0, 1.0, 1.0, 1.0, 1.24, 1.24)
"""MI300X and MI325X: Llama 2 70B Offline on one node each, 27,854 and 34,454 tokens/s (v5.1)."""

HAND_WEIGHTS = (5, 5, 5, 5, 6, 6)
"""MangoBoost's for the same two generations."""

JITTER = 0.05
DATASET = 256
"""LoadGen rounds a query up to whole copies of it."""

PLACES = 32

ANSWERS_PER_SECOND = 15.0
"""As of Llama 2 70B on one accelerator: 4,307 tokens/s of MI325X (v5.1) are 14.7 answers."""


def static(weights: Sequence[float]) -> type[Dispatcher]:
    """A dispatcher that splits the query once at the start."""

    class Static(Dispatcher):
        def _pulled(self) -> dict[int, Samples]:
            edges = [self.pending * share / sum(weights) for share in accumulate(weights)]
            counts = [round(b) - round(a) for a, b in pairwise([0.0, *edges])]
            return {n: self.next(count) for n, count in enumerate(counts) if count}

    return Static


def speeds_of(factors: Iterable[float], seed: int) -> tuple[float, ...]:
    """Each engine with its own deviation, which no weight includes."""
    draw = random.Random(seed)
    return tuple(factor * draw.uniform(1 - JITTER, 1 + JITTER) for factor in factors)


def settings(
    speeds: Sequence[float], queries: int, tpot_ms: float, **changes: Any
) -> PerformanceRunConfig:
    """The configuration of an Offline run; `changes` are its engines'."""
    arguments = {
        "max_num_seqs": PLACES,
        "speeds": list(speeds),
        "ttft_ms": 10 * tpot_ms,
        "tpot_ms": tpot_ms,
        "jitter": JITTER,
    }
    engine = {"arguments": arguments, "placement": {"engines_per_node": len(speeds)}}
    counts = subjects.counts(DATASET, queries, target_qps=1.0)
    return subjects.config("Offline", {**counts, "engine": merged(engine, changes)})


def measure(
    config: PerformanceRunConfig,
    dispatcher: type[Dispatcher] | None,
    home: Path,
    console: Console,
) -> Measured:
    if dispatcher is not None:
        setattr(fleet, "Dispatcher", dispatcher)  # noqa: B010  (of this fork only)
    inputs = subjects.artifacts(home / "artifacts", DATASET)
    return subjects.run(config, inputs, home, console)


def offline(
    speeds: Sequence[float],
    queries: int,
    tpot_ms: float,
    dispatcher: type[Dispatcher] | None = None,
    **changes: Any,
) -> float:
    """Tokens per second from the first issue to the last answer."""
    config = settings(speeds, queries, tpot_ms, **changes)
    return forked(partial(measure, config, dispatcher)).tokens_per_second


def mixed(queries: int, tpot_ms: float, rounds: int) -> None:
    print(
        f"Offline, {queries:,} samples on {len(GENERATIONS)} engines {GENERATIONS}, each ±"
        f"{JITTER:.0%} for good and ±{JITTER:.0%} from second to second; tokens/s over the sum"
    )
    kinds: dict[str, type[Dispatcher] | None] = {
        "ours": None,
        "static split": static([1] * len(GENERATIONS)),
        "hand weights": static(HAND_WEIGHTS),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(1, rounds + 1):
        speeds = speeds_of(GENERATIONS, number)
        total = sum(speeds)
        parts = sum(offline([speed], round(queries * speed / total), tpot_ms) for speed in speeds)
        full = sum(PLACES / tpot_ms * 1000 * speed for speed in speeds)
        for name, kind in kinds.items():
            found[name].append(offline(speeds, queries, tpot_ms, kind) / parts)
        columns = [f"{name} {values[-1]:.3f}" for name, values in found.items()]
        print(
            f"{number}: {'; '.join(columns)}; the parts themselves reach {parts / full:.3f} of "
            f"their steady speed; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    ratios.keep("offline-mixed", "tokens/s over the sum of the parts'", 0.98, found)


def equal(queries: int, tpot_ms: float, engines: Sequence[int], rounds: int) -> None:
    print(f"Offline, {queries:,} samples per engine, equal engines; tokens/s over n times one's")
    found: dict[str, list[float]] = {f"{n} engines": [] for n in engines}
    for number in range(1, rounds + 1):
        one = offline([1.0], queries, tpot_ms)
        steady = PLACES / tpot_ms * 1000
        columns = [f"1: {one / steady:.3f} of its steady speed"]
        for n in engines:
            rate = offline([1.0] * n, n * queries, tpot_ms) / n
            found[f"{n} engines"].append(rate / one)
            columns.append(f"{n}: {rate / one:.3f} ({rate / steady:.3f})")
        print(f"{number}: {'; '.join(columns)}; load {os.getloadavg()[0]:.1f}", flush=True)
    ratios.keep("offline-equal", "tokens/s over n times one engine's", 0.97, found)


def ordered(queries: int, tpot_ms: float, rounds: int) -> None:
    """Cases where a prompt's token takes a twentieth of an answer's time, and twice its time."""
    weights = (0.05, 2.0)
    print(
        f"Offline, {queries:,} samples on {len(GENERATIONS)} engines {GENERATIONS}, prompts "
        f"sorted within each copy of {DATASET}; tokens/s, longest first over as issued"
    )
    found: dict[str, list[float]] = {f"prompt token {weight:g}": [] for weight in weights}
    for number in range(1, rounds + 1):
        speeds = speeds_of(GENERATIONS, number)
        for weight, values in zip(weights, found.values(), strict=True):
            costs = {"prompt_token_ms": weight * tpot_ms}
            rates = [
                offline(speeds, queries, tpot_ms, offline_order=order, arguments=costs)
                for order in ("longest_first", "as_issued")
            ]
            values.append(rates[0] / rates[1])
        columns = [f"{name} {values[-1]:.3f}" for name, values in found.items()]
        print(f"{number}: {'; '.join(columns)}; load {os.getloadavg()[0]:.1f}", flush=True)
    ratios.keep("offline-order", "tokens/s, longest prompts first over as issued", 1.0, found)


@dataclass(frozen=True)
class Nodes:
    """`nodes`: each with the speeds of its engines. `lost`: the one that is killed half-way."""

    nodes: tuple[tuple[float, ...], ...]
    lost: int | None = None

    @property
    def speeds(self) -> tuple[float, ...]:
        return tuple(speed for node in self.nodes for speed in node)


EIGHT, FASTER, SEVEN = (1.0,) * 8, (1.24,) * 8, (1.0,) * 7
CLUSTERS: dict[str, Nodes] = {
    "8 nodes": Nodes((EIGHT,) * 8),
    "4 and 2 nodes": Nodes((EIGHT,) * 4 + (FASTER,) * 2),
    "12 nodes, 94 engines": Nodes((EIGHT,) * 10 + (SEVEN,) * 2),
    "12 nodes, one lost": Nodes((EIGHT,) * 10 + (SEVEN,) * 2, lost=3),
}
"""Published ones. v5.1: eight nodes of MI355X, four of MI300X with two of MI325X. v6.0: 94
accelerators."""

WORKER = "steps.run.engines.worker"
KILLED_AT = 0.5


def clusters(names: Sequence[str], seconds: float, rounds: int) -> None:
    """Engines answer at the pace of accelerators, so that two cores are no bottleneck. The
    last answers of a short run count more than those of the rules' ten minutes."""
    tpot_ms = 1000 * PLACES / (OUTPUT_TOKENS * ANSWERS_PER_SECOND)
    queries = round(seconds * ANSWERS_PER_SECOND)
    print(
        f"Offline, {queries:,} samples per engine at {ANSWERS_PER_SECOND:g} a second, each engine ±"
        f"{JITTER:.0%} for good and from second to second; work done over the sum of the parts"
    )
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1, rounds + 1):
        part = _part(queries, tpot_ms)
        for name in names:
            cluster = CLUSTERS[name]
            speeds = speeds_of(cluster.speeds, number)
            wanted = part * sum(speeds)
            total = round(queries * sum(speeds))
            if cluster.lost is None:
                found[name].append(offline(speeds, total, tpot_ms) / wanted)
            else:
                first = sum(map(len, cluster.nodes[: cluster.lost]))
                lost = range(first, first + len(cluster.nodes[cluster.lost]))
                found[name].append(_without(speeds, lost, total, tpot_ms, seconds, wanted))
            print(
                f"{number}: {name} {found[name][-1]:.3f}; load {os.getloadavg()[0]:.1f}", flush=True
            )
    ratios.keep("offline-clusters", "work done over the sum of the parts'", 0.97, found)


def _part(queries: int, tpot_ms: float) -> float:
    """Tokens per second of one engine alone: the mean of several that run at once, as how long the
    last answers of one take is chance."""
    configs = [settings([1.0], queries + extra, tpot_ms) for extra in range(0, PLACES, PLACES // 4)]
    begun = [Fork(partial(measure, config, None)) for config in configs]
    return mean(fork.result().tokens_per_second for fork in begun)


def _without(
    speeds: Sequence[float],
    lost: range,
    queries: int,
    tpot_ms: float,
    seconds: float,
    wanted: float,
) -> float:
    """Over what the engines that are left could do in the time that is left."""
    config = settings(speeds, queries, tpot_ms, placement={"on_failure": "redispatch"})
    after_s = KILLED_AT * seconds

    def killing(home: Path, console: Console) -> Measured:
        threading.Thread(target=_kill, args=(os.getpid(), lost, home, after_s), daemon=True).start()
        return measure(config, None, home, console)

    done = forked(killing)
    if len(done.result.failures) != len(lost):
        raise SystemExit(f"{len(done.result.failures)} engines were lost, not {len(lost)}")
    left = 1 - sum(speeds[n] for n in lost) / sum(speeds)
    whole_s = min(after_s, done.seconds)
    return done.tokens / (wanted * (whole_s + left * (done.seconds - whole_s)))


def _kill(pid: int, lost: range, home: Path, after_s: float) -> None:
    """From LoadGen's first moment on."""
    while not list(home.glob(f"**/{DETAIL}")):
        time.sleep(0.05)
    time.sleep(after_s)
    engines = in_order(child for child, line in descendants(pid) if WORKER in line)
    for number in lost:
        os.kill(engines[number], signal.SIGKILL)


def in_order(pids: Iterable[int]) -> list[int]:
    """Processes of this machine as they were started; /proc lists them in any order."""
    return sorted(pids, key=_started)


def _started(pid: int) -> tuple[int, int]:
    """Several are started in one tick of the kernel's clock."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[19]), pid


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling")
    parser.add_argument("part", nargs="*", default=["mixed", "equal", "ordered"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--queries", type=int, default=24_576)
    parser.add_argument("--tpot-ms", type=float, default=0.4)
    parser.add_argument("--seconds", type=float, default=60, help="of a run of clusters")
    parser.add_argument("--cluster", nargs="*", default=[*CLUSTERS], choices=[*CLUSTERS])
    arguments = parser.parse_args()
    parts: dict[str, Any] = {
        "mixed": lambda: mixed(arguments.queries, arguments.tpot_ms, arguments.rounds),
        "equal": lambda: equal(
            arguments.queries // 6, arguments.tpot_ms, (2, 4, 8), arguments.rounds
        ),
        "clusters": lambda: clusters(arguments.cluster, arguments.seconds, arguments.rounds),
        "ordered": lambda: ordered(arguments.queries // 4, arguments.tpot_ms, arguments.rounds),
    }
    for part in arguments.part:
        parts[part]()


if __name__ == "__main__":
    main()
