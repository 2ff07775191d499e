"""`import-round` on a small checkout: tables, bands, settings that ran, drafts of systems."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from steps.base.errors import UserError
from steps.commands.cli import main
from steps.commands.closed_rules import closed_rules
from steps.config.compose import compose
from steps.mlperf.published.importing import import_tables
from steps.mlperf.published.logs import LOG
from steps.mlperf.published.result import Result
from tests.conftest import ROOT
from tests.mlperf.test_published import ROW

LLAMA = {
    "Accelerator": "AMD Instinct MI355X 288GB HBM3e",
    "Platform": "8xMI355X",
    "weight_data_types": "fp4",
}


def log(path: Path, **values: object) -> None:
    base = {
        "loadgen_version": "9.9.0 @ 0123456789",
        "requested_scenario": "Offline",
        "effective_target_qps": 370,
        "effective_min_duration_ms": 3600000,
        "effective_samples_per_query": 1465200,
        "effective_performance_sample_count": 24576,
        "result_samples_per_second": 360.5,
    }
    meta = {"is_error": False, "is_warning": False}
    path.parent.mkdir(parents=True)
    path.write_text(
        "".join(
            f":::MLLOG {json.dumps({'key': k, 'value': v, 'time_ms': 0.0, 'metadata': meta})}\n"
            for k, v in {**base, **values}.items()
        )
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """AMD and one partner, in the layout of v6."""
    home = tmp_path / "checkout"
    rows = []
    for submitter, value in (("AMD", 100_000.0), ("Acme", 97_000.0)):
        for benchmark in ("llama2-70b-99", "llama2-70b-99.9"):
            where = f"closed/{submitter}/results/8xMI355X/{benchmark}/Offline"
            rows.append(
                {
                    **ROW,
                    **LLAMA,
                    "ID": f"9.9-{len(submitter):04}",
                    "Submitter": submitter,
                    "Model": benchmark,
                    "UsedModel": benchmark,
                    "Location": f"./{where}/performance/run_1",
                    "Performance_Result": value,
                }
            )
            log(home / where / LOG)
            rate = "370" if submitter == "AMD" else "365"
            (home / where / "user.conf").write_text(
                f"llama2-70b.Offline.target_qps = {rate}\n*.Offline.min_duration = 3600000\n"
            )
        systems = home / f"closed/{submitter}/systems"
        systems.mkdir()
        described = {"division": "closed", "submitter": submitter, "system_name": "a box", "x": ""}
        (systems / "8xMI355X.json").write_text(json.dumps(described))
    (home / "summary_results.json").write_text(json.dumps(rows))
    return home


def run(checkout: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    out = checkout.parent / "out"
    where = ["--tables", str(checkout.parent / "tables"), "--output", str(out)]
    assert main(["import-round", str(checkout), "--round", "v9.9", *where]) == 0
    return out, capsys.readouterr().out


def test_rows_bands_and_settings(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, said = run(checkout, capsys)
    assert "4 rows: 4 in the table, 4 of them on Instinct" in said
    assert "4 rows with facts of their log" in said
    [band] = list(csv.DictReader((out / "bands.csv").read_text().splitlines()))
    assert (band["partners"], band["lowest"], band["highest"]) == ("1", "-3.00 %", "-3.00 %")
    rows = list(csv.DictReader((out / "rows.csv").read_text().splitlines()))
    assert [row["model"] for row in rows] == ["llama2-70b-99.9"] * 2  # -99 is the same run
    assert (rows[0]["target_qps"], rows[0]["samples"]) == ("370", "1465200")
    packaged = json.loads((out / "user-conf.json").read_text())
    name = "closed/AMD/8xMI355X/llama2-70b-99.9/Offline"
    assert packaged[name] == {"min_duration": 3600000, "target_qps": 370}
    [contradiction] = list(csv.DictReader((out / "contradictions.csv").read_text().splitlines()))
    assert (contradiction["submitter"], contradiction["packaged"]) == ("Acme", "365")


def test_a_draft_of_a_system_composes(
    checkout: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = run(checkout, capsys)
    draft = out / "system/amd-8xmi355x.yaml"
    assert yaml.safe_load(draft.read_text())["system"]["fields"] == {"system_name": "a box"}
    (project / "conf/system" / draft.name).write_text(draft.read_text())
    (project / "conf/experiment/acme.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /length: rule\nexperiment_name: acme\n"
        "cells:\n  - {system: amd-8xmi355x, benchmark: llama2-70b-99.9, precision: mxfp4,\n"
        "      scenario: [Offline]}\n"
    )
    [composed] = compose(project / "conf", ["experiment=acme"]).cells
    cell = composed.values
    assert cell["system"]["id"] == "8xMI355X"
    assert cell["hardware"]["name"] == "mi355x"
    assert cell["steps"]["performance_run"]["loadgen"]["target_qps"] == 370


def test_a_damaged_log_is_counted_and_the_rest_is_read(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / "closed/Acme/results/8xMI355X/llama2-70b-99/Offline" / LOG
    path.write_text(":::MLLOG {")
    out, said = run(checkout, capsys)
    assert "3 rows with facts of their log" in said
    assert "1 without: the performance log can't be used" in said
    assert len((out / "rows.csv").read_text().splitlines()) == 3


@pytest.fixture
def open_result(checkout: Path) -> Result:
    """A result of the open division, of a round whose rules are known."""
    where = "open/AMD/results/8xMI355X/llama2-70b-99/Offline"
    (checkout / "open/AMD/src").mkdir(parents=True)
    shutil.move(checkout / "closed/AMD/results/8xMI355X/llama2-70b-99/Offline", checkout / where)
    row = {**ROW, **LLAMA, "Category": "open", "Submitter": "AMD", "version": "v6.0"}
    (checkout / "summary_results.json").write_text(json.dumps([{**row, "Location": where}]))
    (found,) = import_tables(checkout, "v6.0", checkout.parent / "tables").results
    return found


DESCRIPTIONS: dict[str, bytes] = {
    "no text": b'{"retraining": "\xff"}',
    "no JSON": b'{"retraining": ',
    "a list": b'["retraining"]',
    "deep": b'{"retraining": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "huge": b'{"retraining": "no"}' + b" " * (5 << 20),
}


@pytest.mark.parametrize("kind", [*DESCRIPTIONS, "pipe", "directory", "link"])
def test_a_damaged_file_of_a_submitter_costs_itself(
    checkout: Path, open_result: Result, kind: str
) -> None:
    folder = checkout / open_result.location
    for name in ("a.json", "README.md", "performance/run_1/odd"):
        path = folder / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "link":
            path.symlink_to("/dev/zero")
        else:
            path.write_bytes(DESCRIPTIONS[kind])
    found = {rule.rule: rule for rule in closed_rules(checkout, open_result, [open_result])}
    weights = found["weights aren't retrained"]
    assert not weights.met and weights.found.startswith("retraining: not stated; a.json: ")
    assert found["the model is whole"].met
    (folder / "b.json").write_text('{"retraining": "no"}')
    found = {rule.rule: rule for rule in closed_rules(checkout, open_result, [open_result])}
    assert found["weights aren't retrained"].met


def test_a_result_that_fills_the_disk_is_not_copied(checkout: Path, open_result: Result) -> None:
    with (checkout / open_result.location / "holes").open("wb") as stream:
        os.truncate(stream.fileno(), 1 << 42)
    with pytest.raises(UserError, match="GB to be checked as a closed result"):
        list(closed_rules(checkout, open_result, [open_result]))


def test_a_folder_that_is_no_checkout_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import-round", str(tmp_path), "--round", "v9.9"]) == 1
    assert "neither summary_results.json nor summary.csv" in capsys.readouterr().err
    assert main(["import-round", str(tmp_path / "x"), "--round", "v9.9"]) == 1
    assert "is not a directory" in capsys.readouterr().err
    assert not (ROOT / "steps/mlperf/published/v9.9.csv").exists()
