"""`validate --official`: verdicts of the official tools, told apart from ours.

The tools are stand-ins of this test that say what a case needs; bench.validate and the end-to-end
comparison run the real ones.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.commands.cli import call
from tests.submit.validate import trees

CHECKER = """
import csv, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(given["--csv"], "w", newline="") as stream:
    writer = csv.DictWriter(stream, ["Location", "Result", "Units", "Accuracy"])
    writer.writeheader()
    writer.writerows(ROWS)
sys.exit(0)
"""
TRUNCATION = """
import pathlib, shutil, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
shutil.copytree(given["--input"], given["--output"])
for name in NAMES:
    (pathlib.Path(given["--output"]) / name / "accuracy/accuracy.txt").write_text("hash=1")
"""
REPORT = """
import json, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(given["--input"].replace(".csv", "_results.json"), "w") as stream:
    json.dump(ROWS, stream)
"""


@pytest.fixture
def said(
    fresh_tree: Callable[[], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """What `validate --official` says of a valid tree if the tools say this of its results."""
    root = fresh_tree()
    home = tmp_path / "checkout/tools/submission"
    home.mkdir(parents=True)
    call(["validate", str(root), "--json", str(tmp_path / "own.json")])
    results = json.loads((tmp_path / "own.json").read_text(encoding="utf-8"))["results"]
    rows = [
        {
            "Location": f"{r['division']}/{r['submitter']}/results/{r['system']}/{r['model']}"
            f"/{r['directory']}",
            "Result": r["result"],
            "Units": r["units"],
            "Accuracy": r["accuracy"],
        }
        for r in results
    ]

    def write(name: str, program: str, **values: object) -> None:
        lines = "".join(f"{key} = {value!r}\n" for key, value in values.items())
        (home / name).write_text(lines + program, encoding="utf-8")

    def run(
        *,
        truncated: tuple[str, ...] = (),
        published: dict[str, float] | None = None,
        power: tuple[dict[str, object], ...] = (),
    ) -> list[str]:
        write("submission_checker.py", CHECKER, ROWS=[*rows, *power])
        write("truncate_accuracy_log.py", TRUNCATION, NAMES=truncated)
        found = [
            {
                "Location": row["Location"],
                "Performance_Result": (published or {}).get(row["Location"], row["Result"]),
                "Performance_Units": row["Units"],
                "Accuracy": row["Accuracy"],
            }
            for row in rows
        ]
        if published is not None:
            write("generate_final_report.py", REPORT, ROWS=found)
        capsys.readouterr()
        call(["validate", str(root), "--official", str(tmp_path / "checkout")])
        lines = capsys.readouterr().out.splitlines()
        return lines[lines.index("official checker: passes, 6 results") :]

    return run


def test_tools_that_agree_are_said_to(said: Callable[..., list[str]]) -> None:
    assert said(published={})[1:] == [
        "no result is judged differently",
        "official truncate_accuracy_log.py: 0 differences",
        "official generate_final_report.py: 0 differences",
    ]


def test_measured_power_is_no_other_result(said: Callable[..., list[str]]) -> None:
    """The checkers write it as a second row of the same result."""
    row = {"Location": trees.SERVER, "Result": 10434.7, "Units": "Watts", "Accuracy": ""}
    assert said(power=(row,))[1] == "no result is judged differently"


def test_a_log_that_the_tool_would_shorten_is_named(said: Callable[..., list[str]]) -> None:
    assert said(truncated=(trees.SERVER,))[2:4] == [
        "official truncate_accuracy_log.py: 1 difference",
        f"  {trees.SERVER}: official truncates the log; Reprise truncated already",
    ]


def test_a_result_that_is_published_otherwise_is_named(said: Callable[..., list[str]]) -> None:
    lines = said(published={trees.SERVER: 5.0})
    assert lines[3] == "official generate_final_report.py: 1 difference"
    assert lines[4].startswith(f"  {trees.SERVER}: official 5.0 Tokens/s ROUGE1: 44.5")


def test_a_tool_that_is_not_there_is_no_agreement(said: Callable[..., list[str]]) -> None:
    last = said()[-1]
    assert last == "official generate_final_report.py: not compared: it is not in this checkout"
