"""Partner verdicts and scaling, on synthetic rows and against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.mlperf.published import table
from steps.mlperf.published.result import Result, RunFacts, marked_duplicates
from steps.report.comparison import partner, scaling
from steps.report.comparison.tolerances import ClaimTolerances, Tolerances, load
from tests.synthetic import published_row as row

TOLERANCES = Tolerances(
    partner={"v9.9": {"MI325X": 0.03, "MI300X": 0.01}, "v5.1": {"MI325X": 0.03}},
    other=0.02,
    claims=ClaimTolerances(parity=0.03, linear=0.05),
)
MI300X = "AMD Instinct MI300X 192GB HBM3"
RUN = RunFacts(
    loadgen_version="5.1.0",
    target_qps=109,
    min_duration_s=600,
    duration_s=746,
    samples_per_second=106,
    ttft_p99_ms=1755,
    ttft_limit_ms=2000,
    tpot_p99_ms=198,
    tpot_limit_ms=200,
)


def amd(value: float, **changes: object) -> Result:
    return row(value, submitter="AMD", location=f"closed/AMD/{value}", **changes)


def mine(value: float | None, **changes: object) -> Result:
    return row(value, **{"submitter": "Us", "source": "own", "location": "results/x", **changes})


def others(*values: float) -> list[Result]:
    return [row(v, submitter=f"P{v}", location=f"closed/P{v}", platform=str(v)) for v in values]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (100.0, "within tolerance"),
        (97.0, "within tolerance"),
        (103.0, "within tolerance"),
        (103.1, "above tolerance"),
        (96.9, "below tolerance, inside the partner band"),
        (95.0, "below tolerance, inside the partner band"),
        (94.9, "below the partner band"),
    ],
)
def test_the_verdict_by_tolerance_and_band(value: float, verdict: str) -> None:
    found = partner.judge(mine(value), [amd(100.0), *others(95.0, 100.5)], TOLERANCES)
    assert found.verdict == verdict
    assert found.band == pytest.approx((-0.05, 0.005))
    assert found.difference == pytest.approx(value / 100 - 1)


def test_the_sentence_says_what_a_partner_asks() -> None:
    published = [amd(1000.0), *others(947.0, 1003.0)]
    found = partner.judge(mine(979.0), published, TOLERANCES)
    assert found.sentence == (
        "2.1 % below AMD's published MI325X Offline (1,000 Tokens/s), inside the published "
        "partner band of -5.3 … +0.3 %"
    )


def test_every_accelerator_has_its_own_tolerance() -> None:
    found = partner.judge(
        mine(98.5, accelerator=MI300X), [amd(100.0, accelerator=MI300X)], TOLERANCES
    )
    assert found.tolerance == 0.01
    assert found.verdict == "below tolerance, no partner to compare with"
    assert load().of("v5.1", "MI325X") == 0.03
    assert load().of("v5.1", "MI300X") == 0.01


def test_a_tolerance_belongs_to_a_round() -> None:
    """In v6.0 every partner is below AMD, most by more than v5.1's 3 %."""
    assert load().of("v6.0", "MI355X") == 0.05
    assert load().of("v6.0", "MI300X") == load().of("v7.0", "MI355X") == load().other
    later = amd(200.0, round="v10.0")
    found = partner.judge(mine(196.5, round="v11.0"), [amd(100.0), later], TOLERANCES)
    assert (found.difference, found.tolerance) == (pytest.approx(-0.0175), 0.02)


def test_partners_of_v6_are_judged_by_that_rounds_tolerance() -> None:
    rows = [row for row in table.load("v6.0") if row.nodes == 1 and row.gpu.startswith("MI355X")]
    verdicts = [
        partner.judge(row, rows, load())
        for row in partner.without_twins(rows)
        if row.submitter != "AMD"
    ]
    compared = [verdict for verdict in verdicts if verdict.difference is not None]
    assert len(compared) == 23
    assert [v.submitter for v in compared if v.verdict != "within tolerance"] == ["HPE"]
    assert all(verdict.difference < 0 for verdict in compared)
    capped = next(v for v in verdicts if "Power_Cap" in v.platform)
    assert capped.verdict == "no published result matches"


def test_a_benchmark_of_one_target_alone_is_kept() -> None:
    rows = table.load("v6.0")
    kept = partner.without_twins([row for row in rows if row.submitter in ("AMD", "Cisco")])
    assert {row.submitter for row in kept if row.benchmark == "llama2-70b-99"} == {"Cisco"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenario": "Server"}, "scenario Server"),
        ({"benchmark": "mixtral-8x7b"}, "benchmark mixtral-8x7b"),
        ({"nodes": 2}, "nodes 2"),
        ({"accelerators_per_node": 4}, "accelerators a node 4"),
        ({"division": "open"}, "division open"),
        ({"precision": "mxfp4"}, "precision mxfp4"),
        ({"accelerator": MI300X}, "accelerator MI300X"),
        ({"accelerator": "N/A"}, "no accelerator that was published"),
        ({"unit": "Queries/s"}, "none in this unit"),
    ],
)
def test_another_kind_of_result_is_not_compared(change: dict[str, object], words: str) -> None:
    found = partner.judge(mine(100.0, **change), [amd(100.0)], TOLERANCES)
    assert found.verdict == "no published result matches"
    assert found.difference is None
    assert words in found.sentence


def test_a_result_that_is_no_number_gets_no_verdict() -> None:
    found = partner.judge(mine(None), [amd(100.0)], TOLERANCES)
    assert found.verdict == "no result to compare"
    assert "not a positive number" in found.sentence


def test_two_references_are_said_and_the_higher_counts() -> None:
    found = partner.judge(mine(100.0), [amd(100.0), amd(104.0, platform="2")], TOLERANCES)
    assert found.references == 2
    assert found.reference is not None
    assert found.reference.value == 104.0


def test_a_row_given_twice_is_no_reference() -> None:
    twice = marked_duplicates([amd(100.0), amd(104.0)])
    assert partner.judge(mine(100.0), twice, TOLERANCES).verdict == "no published result matches"


def test_hints_name_what_differs_and_where_there_is_room() -> None:
    run = RUN.model_copy(
        update={"loadgen_version": "5.0.21", "target_qps": 103.0, "tpot_p99_ms": 140.0}
    )
    server = {"scenario": "Server", "benchmark": "llama2-70b-99.9", "round": "v5.1"}
    found = partner.judge(
        mine(95.0, run=run, software="another", **server),
        [amd(100.0, run=RUN, **server)],
        TOLERANCES,
        clock="2,100 MHz",
    )
    assert found.hints == (
        "software: another; AMD's an engine",
        "LoadGen: 5.0.21; AMD's 5.1.0",
        "target_qps: 103; AMD's 109",
        "accelerator clock: 2,100 MHz; AMD's scripts set 1,600 MHz",
        "p99 TTFT leaves 12 % of its limit, AMD's 12 %",
        "p99 TPOT leaves 30 % of its limit, AMD's 1 %: a higher target_qps may fit",
    )


def test_a_published_result_is_no_part_of_its_own_band() -> None:
    rows = table.load("v5.1")
    [vultr] = [
        r
        for r in rows
        if (r.submitter, r.benchmark, r.scenario) == ("Vultr", "llama2-70b-99.9", "Server")
    ]
    found = partner.judge(vultr, rows, TOLERANCES)
    assert found.difference == pytest.approx(-0.0527, abs=1e-4)
    assert found.verdict == "below the partner band"
    own = vultr.model_copy(update={"source": "own", "location": "results/x", "value": 31350.0})
    sentence = partner.judge(own, rows, TOLERANCES).sentence
    assert sentence.startswith("2.1 % below AMD's published MI325X Server")
    assert sentence.endswith("inside the published partner band of -5.3 … +0.3 %")


@given(st.floats(0.01, 1e7), st.lists(st.floats(0.01, 1e7), max_size=5))
def test_any_numbers_give_a_verdict_that_fits_its_difference(
    value: float, partners: list[float]
) -> None:
    found = partner.judge(mine(value), [amd(100.0), *others(*partners)], TOLERANCES)
    assert found.difference is not None
    assert (found.verdict == "within tolerance") == (
        abs(found.difference) <= 0.03 + partner.ROUNDING
    )
    assert found.sentence


EFFICIENCIES = {
    ("MangoBoost", 6, "Offline"): 0.9383,
    ("MangoBoost", 6, "Server"): 0.9404,
    ("Supermicro_MangoBoost", 2, "Offline"): 0.9758,
    ("Supermicro_MangoBoost", 2, "Server"): 0.9068,
    ("Supermicro_MangoBoost", 3, "Offline"): 0.9722,
    ("Supermicro_MangoBoost", 3, "Server"): 0.9143,
    ("Dell_MangoBoost", 2, "Offline"): 0.9678,
    ("Dell_MangoBoost", 2, "Server"): 0.9694,
    ("AMD_MangoBoost", 4, "Offline"): 0.9426,
    ("AMD_MangoBoost", 8, "Offline"): 0.8709,
}
"""Worked out by hand from the published rows of llama2-70b-99.9."""


def test_published_clusters_against_the_sum_of_their_parts() -> None:
    rows = [r for r in table.load("v5.1") if "MI3" in r.gpu and r.benchmark == "llama2-70b-99.9"]
    found = {
        (s.submitter, s.nodes, s.scenario): pytest.approx(s.efficiency, abs=5e-5)
        for s in scaling.scaling(rows)
        if s.nodes > 1
    }
    assert found == EFFICIENCIES


def test_a_mixed_cluster_shows_its_arithmetic() -> None:
    both = {
        "accelerator": f"{MI300X} (x32), AMD Instinct MI325X 256GB HBM3e (x16)",
        "nodes": 6,
    }
    rows = [amd(100.0, accelerator=MI300X), amd(150.0), mine(650.0, **both)]
    [found] = [s for s in scaling.scaling(rows) if s.nodes == 6]
    assert found.efficiency == pytest.approx(650 / 700)
    assert found.arithmetic == "650 / (4 × 100 AMD + 2 × 150 AMD) = 92.86 %"


def test_own_nodes_are_the_parts_of_own_clusters() -> None:
    rows = [amd(100.0), mine(90.0), mine(176.0, nodes=2, location="results/y")]
    [found] = [s for s in scaling.scaling(rows) if s.nodes == 2]
    assert found.arithmetic == "176 / (2 × 90 Us) = 97.78 %"


def test_a_missing_part_is_said_not_guessed() -> None:
    [found] = scaling.scaling([mine(176.0, nodes=2)])
    assert found.efficiency is None
    assert found.arithmetic == "no single-node MI325X result of the same kind is known"
    zero = [amd(100.0).model_copy(update={"value": None, "problems": ("it is 0",)})]
    assert scaling.scaling([*zero, mine(176.0, nodes=2)])[0].efficiency is None


def test_nodes_with_fewer_accelerators_count_by_their_accelerators() -> None:
    uneven = {"accelerator": f"{MI300X} (x15)", "nodes": 2}
    rows = [amd(80.0, accelerator=MI300X), mine(147.0, **uneven)]
    [found] = [one for one in scaling.scaling(rows) if one.nodes == 2]
    assert found.accelerators == 15
    assert found.arithmetic == "147 / (15/8 × 80 AMD) = 98.00 %"


EFFICIENCIES_V6 = {
    ("AMD", "llama2-70b-99.9", 87, "Offline"): 0.926,
    ("AMD", "llama2-70b-99.9", 87, "Server"): 0.932,
    ("AMD", "llama2-70b-99.9", 87, "Interactive"): 0.981,
    ("AMD", "gpt-oss-120b", 94, "Offline"): 0.924,
    ("AMD", "gpt-oss-120b", 94, "Server"): 0.933,
    ("Cisco", "llama2-70b-99", 16, "Offline"): 1.013,
    ("Cisco", "llama2-70b-99", 16, "Server"): 0.999,
    ("Cisco", "llama2-70b-99", 16, "Interactive"): 1.004,
    ("Dell_MangoBoost", "llama2-70b-99.9", 24, "Offline"): 0.958,
    ("Dell_MangoBoost", "llama2-70b-99.9", 24, "Server"): 0.946,
}
"""Per GPU, worked out by hand: AMD's clusters have 87 of 88 and 94 of 96 accelerators in use.
Dell_MangoBoost's MI300X is Dell's; with MangoBoost's own it would be 95.5 and 94.0 %."""


def test_published_clusters_of_v6_by_their_accelerators() -> None:
    rows = partner.without_twins([r for r in table.load("v6.0") if "MI3" in r.gpu])
    found = {
        (s.submitter, s.benchmark, s.accelerators, s.scenario): s.efficiency
        and pytest.approx(s.efficiency, abs=1e-3)
        for s in scaling.scaling(rows)
        if s.nodes > 1
    }
    assert found == EFFICIENCIES_V6
