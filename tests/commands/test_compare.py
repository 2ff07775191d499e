"""`./reproduce compare`: what a side may be, and what is said of two."""

import json
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.commands.cli import call
from steps.commands.compare import rendered, side
from steps.mlperf.published.result import Result
from steps.report.comparison.difference import Side, compare
from tests.synthetic import published_row as row


def own(*results: Result, **changes: object) -> Side:
    return Side(name="x", results=results, configurations={}, systems={}).model_copy(update=changes)


def test_published_results_by_id(capsys: pytest.CaptureFixture[str]) -> None:
    pair = ["5.1-0002/llama2-70b-99.9/Server", "5.1-0095/llama2-70b-99.9/Server"]
    assert call(["compare", *pair]) == 0
    text = capsys.readouterr().out
    assert "B -5.27 % against A" in text
    assert "32,027.6" in text
    assert "5.1.0@091d51f041" in text
    assert "target_qps" in text


def test_a_system_is_compared_result_by_result() -> None:
    found = compare(side("5.1-0002"), side("5.1-0095"))
    assert len(found.pairs) == 4
    assert {p.title.split(",")[0] for p in found.pairs} == {
        "llama2-70b-99 Offline fp8",
        "llama2-70b-99 Server fp8",
        "llama2-70b-99.9 Offline fp8",
        "llama2-70b-99.9 Server fp8",
    }
    assert len(found.only_a) == 2  # Mixtral
    assert len(found.only_b) == 2  # Interactive


def test_json_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    call(["compare", "--json", "5.1-0002/mixtral-8x7b/Offline", "5.1-0096/mixtral-8x7b/Offline"])
    [pair] = json.loads(capsys.readouterr().out)["pairs"]
    assert pair["ratio"] == pytest.approx(70035.6 / 68781.4)


def test_configuration_is_compared_where_both_state_it() -> None:
    a = own(row(100.0, platform="s"), configurations={"closed/Maker": {"x.seed": "0", "x.y": "1"}})
    b = own(
        row(110.0, platform="s", software="another"),
        configurations={"closed/Maker": {"x.seed": "1", "x.y": "1"}},
        systems={"s": {"cooling": "air"}},
    )
    [pair] = compare(a, b).pairs
    assert {(c.what, c.a, c.b) for c in pair.configuration} == {
        ("software", "an engine", "another"),
        ("x.seed", "0", "1"),
    }
    assert "+10.00 % against A" in rendered(compare(a, b))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (row(None), "not a positive number"),
        (row(1.0, unit="Samples/s"), "different units, Tokens/s and Samples/s"),
        (row(1.0, scenario="Server"), "different benchmarks or scenarios"),
    ],
)
def test_what_can_not_be_compared_is_said_and_not_divided(other: Result, words: str) -> None:
    [pair] = compare(own(row(100.0)), own(other)).pairs
    assert pair.ratio is None
    assert words in pair.reason
    assert "not compared" in rendered(compare(own(row(100.0)), own(other)))


def test_a_metric_is_the_same_under_both_names() -> None:
    """Publications have ROUGE1 where the scripts print rouge1."""
    a = own(row(100.0, accuracy={"ROUGE1": 44.4, "gsm8k_accuracy": 73.0}))
    b = own(row(100.0, accuracy={"rouge1": 44.5, "gsm8k": 74.0}))
    [pair] = compare(a, b).pairs
    scores = [(c.what, c.a, c.b) for c in pair.numbers if c.what.startswith("accuracy")]
    assert scores == [("accuracy rouge1", "44.4", "44.5"), ("accuracy gsm8k", "73", "74")]


@pytest.mark.parametrize(
    ("model", "remark"),
    [
        ("rehearsal", "+1509.00 % against A (of different models, llama2-70b-99 and rehearsal)"),
        ("llama2-70b-99.9", "+1509.00 % against A\n"),
    ],
)
def test_another_model_is_said(model: str, remark: str) -> None:
    text = rendered(compare(own(row(100.0)), own(row(1609.0, model=model))))
    assert remark in text


def test_a_larger_system_is_compared_by_its_parts_too() -> None:
    pair = ["6.0-0001/llama2-70b-99.9/Offline", "6.0-0002/llama2-70b-99.9/Offline"]
    found = compare(*map(side, pair))
    [(node, accelerator)] = [one.numbers[1:3] for one in found.pairs]
    assert (node.what, node.a, node.b) == ("result per node, Tokens/s", "94,737.27", "103,480.00")
    assert (accelerator.a, accelerator.b) == ("11,978.28", "12,935.00"), "87 and 8, not 88"
    head = "B -90.07 % against A (of 87 and 8 accelerators: +7.99 % per accelerator)"
    assert head in rendered(found)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"nodes": 2}, ["node", "accelerator"]),
        ({"nodes": 2, "accelerators_per_node": 4}, ["node"]),
        ({"accelerators_per_node": 4}, ["accelerator"]),
        ({"nodes": None}, []),
        ({"nodes": 2, "unit": "Latency (ms)"}, []),
        ({}, []),
    ],
)
def test_parts_are_shown_where_their_counts_differ_and_say_something(
    changes: dict[str, Any], named: list[str]
) -> None:
    one, other = row(100.0, nodes=1, accelerators_per_node=8), {"nodes": 1, **changes}
    if "unit" in changes:
        one = one.model_copy(update={"unit": changes["unit"]})
    two = row(200.0, **{"accelerators_per_node": 8, **other})
    [pair] = compare(own(one), own(two)).pairs
    parts = [change.what for change in pair.numbers if " per " in change.what]
    assert parts == [f"result per {name}, Tokens/s" for name in named]
    assert bool(named) == (" per " in pair.remark)


def test_what_is_not_compared_has_no_percentage() -> None:
    text = rendered(compare(own(row(100.0)), own(row(1.0, unit="Samples/s"))))
    assert "result, Tokens/s and Samples/s" in text and " %" not in text


def test_several_results_pair_by_precision_and_platform() -> None:
    a = own(row(100.0, precision="fp8"), row(50.0, precision="bf16"))
    b = own(row(51.0, precision="bf16"), row(99.0, precision="fp8"))
    assert [pair.ratio for pair in compare(a, b).pairs] == pytest.approx([0.99, 1.02])


def test_an_experiment_half_done_is_shown_as_such(tmp_path: Path) -> None:
    cell = "s/b/p"
    done = tmp_path / "runs" / cell / "Offline/performance_run/manifest.json"
    done.parent.mkdir(parents=True)
    fields = {"step": "performance_run", "config": {}, "inputs": {}, "files": {}, "result": {}}
    done.write_text(json.dumps(fields))
    log = tmp_path / "logs" / cell / "Server/performance_run.log"
    log.parent.mkdir(parents=True)
    log.touch()
    found = side(str(tmp_path))
    assert found.name.endswith("(not finished)")
    assert found.missing == (
        "s/b/p/Offline: run, not reported yet",
        "s/b/p/Server: started, no performance run yet",
    )
    text = rendered(compare(found, own(row(1.0))))
    assert "no result of A has a counterpart in B" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *[("{", "isn't a report's"), ("{}", "experiment"), ("[]", "isn't a report's")],
        ("[" * 100_000, "isn't a report's"),
    ],
)
def test_a_damaged_summary_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "summary.json"
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        side(str(path))


def test_a_side_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is neither a directory, a summary.json nor"):
        side("elsewhere")
    with pytest.raises(UserError, match=r"has no result '5.1-9999'"):
        side("5.1-9999")
    with pytest.raises(UserError, match=r"no table of round 'v4.0'"):
        side("4.0-0001")
    with pytest.raises(UserError, match="holds no results"):
        side(str(tmp_path))
