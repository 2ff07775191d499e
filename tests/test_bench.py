"""What `make bench` keeps and draws, and its virtual Server."""

from pathlib import Path

from bench import kills, ratios, routing
from bench.scaling import GENERATIONS
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


def test_kills_try_every_kind_in_turn() -> None:
    kinds = list(kills.every_kind(["engine", "node"]))
    assert len(kinds) == len(set(kinds)) == 16
    assert {kind[:3] for kind in kinds[:8]} == {kind[:3] for kind in kinds}
