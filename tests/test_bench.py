"""What `make bench` keeps and draws, and its virtual Server."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from bench import deaths, kills, mixture, ratios, routing
from bench.scaling import GENERATIONS, in_order
from steps.run.sut.dispatch import Dispatcher


def test_what_is_kept_is_drawn(tmp_path: Path) -> None:
    ratios.keep(
        "speed", "ours over theirs", 0.98, {"ours": [0.985, 0.991], "split": [0.9]}, tmp_path
    )
    page = ratios.draw(tmp_path / "speed.json").read_text(encoding="utf-8")
    for text in ("ours over theirs", "ours, round 2: 0.991", "split, round 1: 0.900"):
        assert text in page


def test_routing_by_speed_holds_a_rate_that_turns_do_not() -> None:
    rate, queries = 45.0, 9000
    routed = routing.misses(routing.fleet(1), Dispatcher, rate, queries, seed=1)
    in_turn = routing.by_turns([1] * len(GENERATIONS))
    turns = routing.misses(routing.fleet(1), in_turn, rate, queries, seed=1)
    assert routed == 0
    assert turns > queries / 50


def test_engines_are_told_apart_by_their_start() -> None:
    started = []
    try:
        for _ in range(4):
            started.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
            time.sleep(0.02)
        own = [process.pid for process in started]
        assert in_order([own[2], own[0], own[3], own[1]]) == own
    finally:
        for process in started:
            process.communicate()


def test_kills_try_every_kind_in_turn() -> None:
    kinds = list(kills.every_kind(["engine", "node"]))
    assert len(kinds) == len(set(kinds)) == 16
    assert {kind[:3] for kind in kinds[:8]} == {kind[:3] for kind in kinds}


GO_ON = "./reproduce goes on from what is finished"
SAID = {
    ("step", "SIGKILL"): "error: accuracy_run: its process was ended by SIGKILL: somebody; log: x",
    ("step", "SIGSTOP"): "error: accuracy_run: results/x (process 7) has been stopped for 10 s "
    "(SIGSTOP) and is ended: void",
    ("engine", "SIGSEGV"): "error: accuracy_run: engine 0 was killed by SIGSEGV during the run, 3 "
    "samples waited for it; the run is void",
    ("engine", "SIGSTOP"): "error: accuracy_run: engine 1 is stopped and gave no sign of life for "
    "6 s at start; see the log",
    ("snakemake", "SIGKILL"): f"error: snakemake (process 7) was ended by SIGKILL; cut short: x; "
    f"{GO_ON}",
}


@pytest.mark.parametrize(("what", "name"), SAID)
def test_a_death_is_named_by_its_own_sentence_alone(what: str, name: str) -> None:
    trial = deaths.Trial(what, signal.Signals[name], 0.5)
    assert deaths.named(trial, 7, "accuracy_run", SAID[what, name])
    others = "\n".join(words for key, words in SAID.items() if key != (what, name))
    assert not deaths.named(trial, 7, "accuracy_run", others)


def test_deaths_are_counted_by_kind() -> None:
    trials = [deaths.Trial(what, number, 0) for number in deaths.SIGNALS for what in deaths.WHATS]
    wrong = deaths.Outcome("HANG", 180.0, "")
    outcomes = [(trial, deaths.Outcome(None, 1.0, "")) for trial in trials] + [(trials[0], wrong)]
    lines = deaths.table(outcomes).splitlines()
    assert len(lines) == 2 + len(trials)
    assert "| step | SIGKILL | 2 | 1 | 90.5 | 180.0 |" in lines


def test_experts_change_places_in_the_layers_named_alone() -> None:
    names = [
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"
        for layer in (7, 17)
        for expert in range(4)
    ]
    weights = {name: name.encode() for name in names}
    everywhere = mixture.exchanged(weights, 0, 2)
    assert [list(everywhere.values()).index(weights[name]) for name in names] == [
        *(2, 1, 0, 3),
        *(6, 5, 4, 7),
    ]
    one = mixture.exchanged(weights, 0, 2, ".layers.7.")
    assert [list(one.values()).index(weights[name]) for name in names] == [2, 1, 0, 3, 4, 5, 6, 7]
