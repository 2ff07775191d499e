"""`./reproduce show`: each value with the file that says it and what that overrode."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.commands import show
from steps.commands.cli import call
from steps.plan import make as planning
from steps.plan.origins import read
from tests.config.test_overrides import SERVER
from tests.conftest import ACME_SITE, ROOT, copy_project

GOLDEN = ROOT / "tests/golden/amd-v5.1-show.csv"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that `show` works in."""
    home = copy_project(tmp_path / "home")
    monkeypatch.setattr(show, "ROOT", home)
    return home


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert call(["show", *words]) == 0
    return capsys.readouterr().out


def test_ten_cells_of_amd_are_shown_with_their_files(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with GOLDEN.open(encoding="utf-8", newline="") as stream:
        wanted = list(csv.DictReader(stream))
    cells = {row["cell"] for row in wanted}
    assert len(cells) == 10
    keys = dict.fromkeys(row["key"] for row in wanted)
    chosen = ("experiment=amd-v5.1", "benchmark=llama2-70b-99.9,mixtral-8x7b")
    found = json.loads(shown(capsys, *chosen, "--json", *keys))
    said = [
        {
            "cell": cell,
            "key": one["key"],
            "value": str(one["value"]),
            "file": one["source"]["file"],
            "path": one["source"]["path"],
            "over": " < ".join(f"{other['value']} {other['file']}" for other in one["over"]),
        }
        for cell in found
        for one in found[cell]
        if cell in cells
    ]
    by_place = {(row["cell"], row["key"]): row for row in said}
    assert by_place == {(row["cell"], row["key"]): row for row in wanted}


def test_what_was_planned_is_answered_without_composing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shown(capsys, "scenario=Server")

    def composed(*_: object) -> Any:
        raise AssertionError("composed again")

    monkeypatch.setattr(planning, "compose", composed)
    assert shown(capsys, "scenario=Server") == first
    code = (
        "import sys; from pathlib import Path; from steps.commands import show; "
        "show.ROOT = Path(sys.argv[1]); from steps.commands.cli import call; "
        "call(['show', 'scenario=Server']); "
        "print([m for m in ('hydra', 'omegaconf', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(here)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.stdout == f"{first}[]\n", "nothing heavy is loaded"


def test_origins_that_are_lost_are_made_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shown(capsys, "scenario=Server", "target_qps")
    (stored,) = (here / "results/plans/origins").iterdir()
    whole = stored.read_bytes()
    stored.unlink()
    assert shown(capsys, "scenario=Server", "target_qps") == first
    for damaged in (b"", bytes(len(whole)), whole[:-9]):
        stored.write_bytes(damaged)
        assert shown(capsys, "scenario=Server", "target_qps") == first


def test_a_key_shows_every_layer(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = "engine.settings.by_hardware.mi300x.by_scenario.Server.arguments.max_num_seqs"
    for key in ("engine.max_num_seqs", "engine.arguments.max_num_seqs"):
        assert shown(capsys, *SERVER, "set.Server.engine.max_num_seqs=64", key).splitlines() == [
            "engine.max_num_seqs = 64",
            "  command line: set.Server.engine.max_num_seqs",
            f"  over 650: conf/engine/llama2-70b.yaml: {place}",
            "  over 256: conf/engine/vllm-rocm.yaml: engine.settings.arguments.max_num_seqs",
        ]


def test_an_override_of_hydra_is_shown_over_its_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, "scenario=Server", "hardware.engine.warmup_samples=7", "engine")
    assert "engine.warmup_samples = 7\n  command line: hardware.engine.warmup_samples" in text
    assert "  over 32: conf/hardware/cpu.yaml: hardware.engine.warmup_samples" in text
    assert "target_qps" not in text


def test_cells_that_differ_have_lines_of_their_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, "scenario=Server,Offline", "target_qps", "min_query_count")
    assert "target_qps = 80  at Offline" in text and "target_qps = 15  at Server" in text
    assert "min_query_count = 662\n" in text
    table = shown(capsys, "scenario=Server,Offline")
    assert [line.split()[:3] for line in table.splitlines() if "target_qps" in line] == [
        ["Server", "target_qps", "15"],
        ["Offline", "target_qps", "80"],
    ]


def test_two_cells_are_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--diff", "Server", "Offline", "target_qps", "engine")
    (row,) = [line.split() for line in text.splitlines() if line.startswith("target_qps")]
    assert row[1:4] == ["15", "conf/system/rehearsal-cpu.yaml", "80"]
    assert "engine." not in text
    text = shown(capsys, "scenario=Server", "--diff", "precision=bf16", "precision=fp8", "engine")
    assert [line.split()[:2] for line in text.splitlines()[4:]] == [
        ["engine.kv_cache_dtype", "–"],
        ["engine.emulation", "–"],
    ]
    same = shown(capsys, "--diff", "Server", "Server")
    assert "both have the same settings" in same


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["engine.max_num_seq"], "has engine.max_num_seq; did you mean engine.max_num_seqs"),
        (["target_qpz"], "did you mean target_qps?"),
        (["--diff", "Server", "bf16"], "'bf16' names 3; name one of Offline, Server, Interactive"),
        (["--diff", "Servr", "Offline"], "'Servr' names 0; name one of Offline, Server"),
    ],
)
def test_what_is_not_there_is_named(here: Path, words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        call(["show", *words])
    assert said in str(caught.value)


def test_a_site_is_named_without_its_folder(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "acme-mi325x.yaml"
    site.write_text(ACME_SITE, encoding="utf-8")
    chosen = ("experiment=amd-v5.1", "benchmark=llama2-70b-99.9", "scenario=Server")
    text = shown(capsys, *chosen, "--site", str(site), "target_qps", "submitter")
    assert "target_qps = 104\n  --site acme-mi325x.yaml: system.loadgen.by_model" in text
    assert "  over 109: conf/benchmark/llama2-70b-99.yaml" in text
    assert "submitter = Acme\n  --site acme-mi325x.yaml" in text
    assert "  over AMD: conf/system/amd-mi300x.yaml: system.submitter" in text
    for stored in (here / "results/plans/origins").iterdir():
        assert str(tmp_path) not in stored.read_text(encoding="utf-8")
        assert read(stored.read_text(encoding="utf-8"))
