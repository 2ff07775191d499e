"""The ledger: each verdict on synthetic rows, and AMD's claims on the published ones."""

from pathlib import Path

import pytest

from steps.base.errors import UserError
from steps.mlperf.published import table
from steps.mlperf.published.result import Result, marked_duplicates
from steps.report.claims import model
from steps.report.claims.evaluate import ClaimResult, agrees, evaluate
from steps.report.claims.model import Claim, Ledger, Stated
from steps.report.comparison import tolerances
from steps.report.ledger import value_cell
from tests.synthetic import published_row as row

TOLERANCES = tolerances.Tolerances(
    partner={}, other=0.03, claims=tolerances.ClaimTolerances(parity=0.03, linear=0.05)
)


MI355X = {"accelerator": "AMD Instinct MI355X 288GB HBM3e", "precision": "mxfp4"}


def ratio_claim(**stated: object) -> Claim:
    default = {
        "words": "2×",
        "value": 2.0,
        "unit": "times",
        "decimals": 1,
        "meets": "rounds to",
    }
    return Claim.model_validate(
        {
            "id": "a",
            "section": "s",
            "claim": "c",
            "benchmarks": ["llama2-70b-99"],
            "scenario": "Offline",
            "systems": "both",
            "stated": {**default, **stated},
            "readings": [
                {
                    "words": "new over old",
                    "decides": True,
                    "compute": {
                        "kind": "ratio",
                        "numerator": {"what": "new", "select": {"gpus": ["MI355X"]}},
                        "denominator": {"what": "old", "select": {"gpus": ["MI325X"]}},
                    },
                }
            ],
        },
        strict=False,
    )


def verdict(claim: Claim, *rows: Result, own: tuple[Result, ...] = ()) -> ClaimResult:
    ledger = Ledger(source="here", round="v9.9", claims=(claim,))
    [result] = evaluate(ledger, rows, own, TOLERANCES)
    return result


def test_supported_with_rows_and_arithmetic() -> None:
    result = verdict(ratio_claim(), row(100.0), row(196.0, **MI355X))
    assert (result.verdict, result.value) == ("supported", 1.96)
    [reading] = result.readings
    assert reading.arithmetic == "196 / 100 = 1.960"
    assert [used.value for used in reading.rows] == [196.0, 100.0]
    assert reading.rows[0].link.endswith("inference_results_v9.9/tree/main/closed/Maker")
    assert result.agreeing == "1 of 1 reading"


def test_not_supported_shows_its_value() -> None:
    result = verdict(ratio_claim(), row(100.0), row(189.0, **MI355X))
    assert (result.verdict, result.value) == ("not supported", 1.89)


def test_not_verifiable_without_a_row() -> None:
    result = verdict(ratio_claim(), row(100.0))
    assert (result.verdict, result.value) == ("not verifiable from public data", None)
    assert result.readings[0].arithmetic == "no result of new is published"


def test_a_zero_is_never_divided_by() -> None:
    result = verdict(ratio_claim(), row(None), row(189.0, **MI355X))
    assert result.verdict == "not verifiable from public data"
    assert "the result is 0, not a positive number" in result.readings[0].arithmetic


def test_two_rows_where_one_is_meant_are_not_guessed_between() -> None:
    result = verdict(ratio_claim(), row(100.0), row(90.0, platform="other"), row(189.0, **MI355X))
    assert result.readings[0].arithmetic == "2 results match old, one is needed"
    twice = marked_duplicates([row(100.0), row(101.0), row(189.0, id="2", platform="b", **MI355X)])
    assert "2 rows for one system" in verdict(ratio_claim(), *twice).readings[0].arithmetic


def test_units_are_not_mixed() -> None:
    rows = (row(100.0), row(90.0, platform="other", unit="Samples/s"), row(9.0, **MI355X))
    assert "different units" in verdict(ratio_claim(), *rows).readings[0].arithmetic


def three_readings(*named: int) -> Claim:
    """New over old, over half of it and over twice of it; with 100 and 200 only the first is 2×."""
    claim = ratio_claim()
    first = claim.readings[0]
    assert isinstance(first.compute, model.Ratio)
    readings = []
    for n, value in enumerate((100.0, 50.0, 200.0)):
        literal = model.Operand(what="old", value=value, source="here")
        compute = first.compute.model_copy(update={"denominator": literal})
        readings.append(first.model_copy(update={"compute": compute, "named": n in named}))
    return claim.model_copy(update={"readings": tuple(readings)})


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((), "not supported: holds under 1 of 3 readings"),
        ((0,), "supported under 1 of 3 readings"),
        ((1,), "not supported: holds under 1 of 3 readings"),
        ((0, 1), "not supported: holds under 1 of 3 readings"),
    ],
)
def test_the_reading_that_the_words_name_decides_else_most_of_them(
    named: tuple[int, ...], expected: str
) -> None:
    result = verdict(three_readings(*named), row(200.0, **MI355X))
    assert result.sentence == expected
    assert result.value == (2.0 if expected.startswith("supported") else 4.0)


def test_half_of_the_readings_are_not_most() -> None:
    claim = three_readings()
    two = claim.model_copy(update={"readings": claim.readings[:2]})
    assert verdict(two, row(200.0, **MI355X)).verdict == "not supported"


def test_an_open_result_meets_each_rule_of_the_closed_division_or_not() -> None:
    """Rows of the round's table, each with the file that shows it."""
    found = {r.id: r for r in evaluate(model.load(), table.load("v5.1"), (), TOLERANCES)}
    llama = found["open-meets-closed-llama2"].readings[0]
    assert llama.arithmetic.startswith("12 of 12 rules met; of the submission, not counted: ")
    pruned = found["open-meets-closed-pruned-21"].readings[0]
    assert "not met: accuracy and the answers' length are within their bounds" in pruned.arithmetic
    assert "not met: the model is whole" in pruned.arithmetic
    tuned = found["open-meets-closed-pruned-33"].readings[0]
    assert "not met: weights aren't retrained (retraining: Yes)" in tuned.arithmetic
    rules = table.closed_rules("v5.1")
    assert len(rules) == 11  # AMD's four, AMD_MangoBoost's four, Krai's three
    assert all(one.evidence.startswith("open/") for each in rules.values() for one in each)


def test_any_reading_that_decides_can_support_and_others_can_not() -> None:
    claim = ratio_claim()
    open_claim = claim.model_copy(
        update={
            "readings": (
                claim.readings[0],
                claim.readings[0].model_copy(update={"words": "also", "decides": False}),
            )
        }
    )
    result = verdict(open_claim, row(100.0), row(150.0, **MI355X))
    assert result.verdict == "not supported"
    assert [reading.agrees for reading in result.readings] == [False, None]


def test_an_own_result_takes_the_published_ones_place_beside_it() -> None:
    own = row(210.0, source="own", round="own", submitter="Us", location="results/x", **MI355X)
    result = verdict(ratio_claim(), row(100.0), row(196.0, **MI355X), own=(own,))
    assert [(r.words, r.value) for r in result.readings] == [
        ("new over old", 1.96),
        ("own result; new over old", 2.1),
    ]
    assert result.readings[1].rows[0].link == "results/x"
    assert result.verdict == "supported"
    assert len(verdict(ratio_claim(), row(100.0), row(196.0, **MI355X)).readings) == 1


def test_a_literal_operand_is_marked_as_secondary() -> None:
    claim = ratio_claim()
    reading = claim.readings[0]
    assert isinstance(reading.compute, model.Ratio)
    literal = model.Operand(what="old", value=98.0, source="the press")
    compute = reading.compute.model_copy(update={"denominator": literal})
    changed = claim.model_copy(
        update={"readings": (reading.model_copy(update={"compute": compute}),)}
    )
    result = verdict(changed, row(196.0, **MI355X))
    assert result.verdict == "supported"
    assert result.secondary_sources == ("old: the press",)


@pytest.mark.parametrize(
    ("meets", "value", "stated", "decimals", "expected"),
    [
        ("rounds to", 2.65, 2.7, 1, True),
        ("rounds to", 2.649, 2.7, 1, False),
        ("rounds to", 91.5, 91, 0, True),
        ("rounds to", 91.51, 91, 0, False),
        ("parity", 97.0, 100, 0, True),
        ("parity", 103.1, 100, 0, False),
        ("linear", 95.0, 100, 0, True),
        ("linear", 94.9, 100, 0, False),
        ("at most", 3.0, 3, 0, True),
        ("at most", 3.1, 3, 0, False),
        ("at least", 99.0, 99, 0, True),
        ("at least", 98.9, 99, 0, False),
    ],
)
def test_agreement_at_its_edges(
    meets: str, value: float, stated: float, decimals: int, expected: bool
) -> None:
    claim = Stated.model_validate(
        {
            "words": "w",
            "value": stated,
            "unit": "percent",
            "decimals": decimals,
            "meets": meets,
        }
    )
    assert agrees(value, claim, TOLERANCES) is expected


GPU_VERDICTS = {
    "mi355x-fp4-over-mi325x-fp8": ("not verifiable from public data", None),
    "pruned-21-throughput": ("not verifiable from public data", None),
    "pruned-21-accuracy": ("not supported", 96.07),
    "pruned-33-throughput": ("not verifiable from public data", None),
    "pruned-33-accuracy": ("not supported", 96.77),
    "mi355x-4-nodes-over-mi300x-4-nodes": ("supported", 3.40),
    "mi355x-8-nodes-linear": ("not supported", 87.09),
    "mi325x-over-h200-llama2-interactive": ("supported", 91.26),
    "mi325x-over-h200-llama2-offline": ("supported", 101.23),
    "mi325x-over-h200-llama2-server": ("supported", 99.35),
    "mi325x-over-h200-mixtral-offline": ("supported", 11.40),
    "mi325x-over-h200-mixtral-server": ("supported", 98.86),
    "mi325x-over-h200-sdxl-offline": ("supported", 100.40),
    "mi325x-over-h200-sdxl-server": ("not supported", 91.34),
    "mi325x-partners-llama2": ("not supported", 15.43),
    "mi325x-partners-mixtral": ("not supported", 6.66),
    "mi300x-partners-llama2": ("not supported", 4.36),
    "mi300x-partners-mixtral": ("supported", 0.60),
    "mixed-server": ("supported", 153076),
    "mixed-offline": ("supported", 169197),
    "mixed-server-efficiency": ("supported", 94.04),
    "mixed-offline-efficiency": ("supported", 93.83),
    "mi355x-520b-parameters": ("supported", 523.64),
    "open-meets-closed-llama2": ("supported", 100),
    "open-meets-closed-pruned-21": ("not supported", 83.33),
    "open-meets-closed-pruned-33": ("not supported", 75),
    "supermicro-2-nodes-offline": ("supported", 97.58),
    "supermicro-2-nodes-server": ("not supported", 90.68),
    "supermicro-3-nodes-offline": ("supported", 97.22),
    "supermicro-3-nodes-server": ("not supported", 91.43),
    "dell-2-nodes-offline": ("supported", 96.78),
    "dell-2-nodes-server": ("supported", 96.94),
}
"""Worked out by hand from summary_results.json: the ledger has to come to the same."""


def test_amds_claims_on_published_rows() -> None:
    results = evaluate(model.load(), table.load("v5.1"), (), TOLERANCES)
    found = {
        r.id: (r.verdict, None if r.value is None else pytest.approx(r.value, abs=0.005))
        for r in results
    }
    assert found == GPU_VERDICTS


def test_every_claim_shows_its_rows_or_says_what_is_missing() -> None:
    for result in evaluate(model.load(), table.load("v5.1"), (), TOLERANCES):
        for reading in result.readings:
            assert reading.arithmetic
            if reading.value is not None and "GB" not in reading.arithmetic:
                assert reading.rows
    [four_nodes] = [
        r
        for r in evaluate(model.load(), table.load("v5.1"), (), TOLERANCES)
        if r.id == "mi355x-4-nodes-over-mi300x-4-nodes"
    ]
    assert four_nodes.secondary_sources


def test_a_damaged_ledger_is_refused_by_its_key(tmp_path: Path) -> None:
    path = tmp_path / "ledger.yaml"
    path.write_text("source: x\nround: v5.1\nclaims: [{id: a}]\n")
    with pytest.raises(UserError, match=r"claims\.0\.section"):
        model.load(path)
    path.write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        model.load(path)


def test_tolerances_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "tolerances.yaml"
    claims = "claims: {parity: 0.03, linear: 0.05}\n"
    path.write_text("partner: {v9.9: {MI300X: 3}}\nother: 0.03\n" + claims)
    with pytest.raises(UserError, match=r"partner\.v9\.9\.MI300X"):
        tolerances.load(path)
    path.write_text("partner: {v9.9: {MI300X: 0.03}}\n" + claims)
    with pytest.raises(UserError, match="other"):
        tolerances.load(path)


def test_a_number_of_parameters_has_the_digits_that_it_is_known_by() -> None:
    assert value_cell(523.6363636, "billion parameters").text == "523.6 billion parameters"
    assert value_cell(1042110.0, "Tokens/s").text == "1,042,110 Tokens/s"
