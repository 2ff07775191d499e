"""Own results of configured systems against the published table, through the real steps."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from steps.commands.compare import side
from steps.mlperf.published import table
from steps.report.comparison.difference import compare
from tests import synthetic
from tests.conftest import planned


def reported(home: Path, overrides: list[str], values: dict[str, float]) -> dict[str, Any]:
    """summary.json of an experiment whose results are `values`, by cell."""
    plan = planned(*overrides)
    synthetic.build(plan, home, values=values)
    synthetic.package(plan, home)
    summary: dict[str, Any] = json.loads(
        (synthetic.report(plan, home) / "summary.json").read_text()
    )
    return summary


def verdicts(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    keys = [cell["key"] for cell in summary["cells"]]
    return dict(zip(keys, summary["partners"], strict=True))


QUANTA = "quanta-mi325x/llama2-70b-99.9/none/fp8"


@pytest.fixture(scope="module")
def quanta(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    home = tmp_path_factory.mktemp("quanta")
    values = {
        f"{QUANTA}/Offline": 34_555.0 * 0.971,  # AMD's higher one of two
        f"{QUANTA}/Server": 32_027.6 * 0.96,
        f"{QUANTA}/Interactive": 18_407.2 * 1.031,
    }
    return reported(
        home, ["experiment=quanta-v5.1", "benchmark=llama2-70b-99.9"], values
    ), home / "made"


def test_a_partners_system_finds_its_published_rows(
    quanta: tuple[dict[str, Any], Path],
) -> None:
    found = verdicts(quanta[0])
    assert {key: (v["verdict"], v["reference"]["value"]) for key, v in found.items()} == {
        f"{QUANTA}/Offline": ("within tolerance", 34_555.0),
        f"{QUANTA}/Server": ("below tolerance, inside the partner band", 32_027.6),
        f"{QUANTA}/Interactive": ("above tolerance", 18_407.2),
    }
    assert {v["tolerance"] for v in found.values()} == {0.03}
    server = found[f"{QUANTA}/Server"]
    submitters = {partner["submitter"] for partner in server["partners"]}
    assert {"Quanta_Cloud_Technology", "Vultr", "MangoBoost"} <= submitters
    assert any("host processor: AMD EPYC 9755" in hint for hint in server["hints"])


def test_verdicts_are_in_the_csv_and_on_the_page(quanta: tuple[dict[str, Any], Path]) -> None:
    text = (quanta[1] / "summary.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[1]["verdict"] == "below tolerance, inside the partner band"
    assert float(rows[1]["difference"]) == pytest.approx(-0.04)
    assert float(rows[1]["amd_value"]) == 32_027.6
    markdown = (quanta[1] / "summary.md").read_text(encoding="utf-8")
    assert (
        "quanta-mi325x llama2-70b-99.9 fp8 Server: 4.0 % below AMD's published MI325X Server "
        "(32,027.6 Tokens/s), inside the published partner band of -5.3 … +0.3 %"
    ) in markdown
    assert "AMD's MI325X llama2-70b-99.9 fp8 Server 32,027.6 Tokens/s" in markdown


def test_accuracy_is_of_the_reference_though_the_round_gives_bounds(
    quanta: tuple[dict[str, Any], Path],
) -> None:
    """The bounds of llama2-70b-99.9 are 99.9 % of the reference model's scores."""
    cell = quanta[0]["cells"][0]
    assert cell["reference_ratios"] == {
        name: pytest.approx(0.999 * 1.0004, abs=1e-5) for name in ("ROUGE1", "ROUGE2", "ROUGEL")
    }
    assert {round(gate["lowest_ratio"], 6) for gate in cell["gates"]} == {1.0004}


def test_own_results_are_weighed_in_claims_without_deciding_them(
    quanta: tuple[dict[str, Any], Path],
) -> None:
    claims = quanta[0]["claims"]
    own = [reading for claim in claims for reading in claim["readings"] if reading["own"]]
    assert own
    assert not any(reading["decides"] for reading in own)


def test_mi300x_has_the_narrower_tolerance(tmp_path: Path) -> None:
    key = "dell-mi300x/llama2-70b-99.9/none/fp8/Server"
    chosen = ["experiment=dell-v5.1", "benchmark=llama2-70b-99.9", "scenario=Server"]
    found = verdicts(reported(tmp_path, chosen, {key: 24_593.8 * 0.985}))[key]
    assert (found["tolerance"], found["reference"]["value"]) == (0.01, 24_593.8)
    assert found["verdict"].startswith("below")


PRUNED = "amd-mi355x/llama3.1-405b/{}/mxfp4/Offline"


def test_a_pruned_model_is_compared_with_the_same_pruning(tmp_path: Path) -> None:
    values = {
        PRUNED.format("depth-pruned-21"): 2_000.0,
        PRUNED.format("depth-pruned-33-finetuned"): 2_100.0,
    }
    chosen = ["experiment=amd-v5.1", "system=amd-mi355x", "benchmark=llama3.1-405b"]
    summary = reported(tmp_path, chosen, values)
    found = verdicts(summary)
    rows = table.load("v5.1")
    published = {row.model: row.value for row in rows if row.benchmark == "llama3.1-405b"}
    for key, model in (
        (PRUNED.format("depth-pruned-21"), "llama3_1-405b_pruned"),
        (PRUNED.format("depth-pruned-33-finetuned"), "llama3_1-405b_finetuned"),
    ):
        assert found[key]["references"] == 1
        assert found[key]["reference"]["value"] == published[model]
    [first, second] = summary["cells"]
    assert (first["division"], first["compression"]) == ("open", "depth-pruned-21")
    assert second["compression"] == "depth-pruned-33-finetuned"
    page = (tmp_path / "made/index.html").read_text(encoding="utf-8")
    assert "depth-pruned-33-finetuned" in page
    made = side(str(tmp_path / "made"))
    [one, other] = compare(made, made).pairs
    assert one.ratio == other.ratio == 1


def test_a_mixed_cluster_has_no_reference_but_a_sum_of_parts(tmp_path: Path) -> None:
    key = "mangoboost-mi300x-mi325x/llama2-70b-99.9/none/fp8/Offline"
    chosen = [
        "experiment=mangoboost-v5.1",
        "system=mangoboost-mi300x-mi325x",
        "scenario=Offline",
    ]
    summary = reported(tmp_path, chosen, {key: 169_197.0})
    found = verdicts(summary)[key]
    assert found["verdict"] == "no published result matches"
    assert found["gpu"] == "MI300X + MI325X"
    [own] = [one for one in summary["scaling"] if one["source"] == "own"]
    assert own["nodes"] == 6
    counts = {(part["gpu"], part["accelerators"]) for part in own["parts"]}
    assert counts == {("MI300X", 32), ("MI325X", 16)}
    assert own["efficiency"] == pytest.approx(169_197 / (4 * 27_803.9 + 2 * 34_555.0))
