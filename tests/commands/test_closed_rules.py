"""What an open result meets of the closed division's rules, read from a stranger's checkout."""

from pathlib import Path

import pytest

from steps.commands.closed_rules import SCENARIOS, closed_rules
from steps.mlperf.published.result import Result
from steps.mlperf.published.table import ClosedRule
from tests.submit.validate import trees
from tests.submit.validate.trees import OPEN, SYSTEM

SDXL = f"open/Other/results/{SYSTEM}/stable-diffusion-xl/Offline"


def result(location: str, **fields: object) -> Result:
    division, submitter, _, platform, model, scenario = location.split("/")
    known = {
        **{"source": "published", "round": "v5.1", "id": "1", "availability": "available"},
        **{"suite": "datacenter", "system": "a box", "software": "s", "operating_system": "o"},
        **{"nodes": 1, "accelerators_per_node": 8, "accelerator": "AMD Instinct MI355X"},
        **{"processor": "a CPU", "processors_per_node": 2, "precision": "fp8", "accuracy": {}},
        **{"value": 1.0, "unit": "Tokens/s", "benchmark": model},
        **{"division": division, "submitter": submitter, "platform": platform, "model": model},
        **{"scenario": scenario.capitalize(), "location": location},
    }
    return Result.model_validate({**known, **fields})


TUNED = result(trees.TUNED, benchmark="llama3.1-405b")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    trees.build(tmp_path / "checkout")
    return tmp_path / "checkout"


def rules(checkout: Path, row: Result, *others: Result) -> dict[str, ClosedRule]:
    return {rule.rule: rule for rule in closed_rules(checkout, row, [row, *others])}


def test_scenarios_of_another_submitter_or_division_do_not_count(checkout: Path) -> None:
    """Two submitters may call a platform and a model alike."""
    strangers = [
        TUNED.model_copy(update={"scenario": "Server", **other})
        for other in ({"submitter": "Another"}, {"division": "network"}, {"platform": "2xA"})
    ]
    found = rules(checkout, TUNED, *strangers)[SCENARIOS]
    assert (found.met, found.found) == (
        False,
        "submitted: Offline; Server or Interactive is required",
    )
    own = TUNED.model_copy(update={"scenario": "Interactive"})
    assert rules(checkout, TUNED, *strangers, own)[SCENARIOS].met


def test_each_benchmark_is_asked_for_its_own_scenarios_and_tests(checkout: Path) -> None:
    home = checkout / "closed/Example"
    home.rename(checkout / "open/Other")
    row = result(SDXL)
    found = rules(checkout, row)
    assert found[SCENARIOS].found == "submitted: Offline; Server is required"
    tests = found["every compliance test is there and verified"]
    folder = f"open/Other/compliance/{SYSTEM}/stable-diffusion-xl/Offline"
    assert (tests.met, tests.evidence) == (True, folder), "TEST01 and TEST04 have three files"
    (checkout / folder / "TEST04/verify_performance.txt").unlink()
    tests = rules(checkout, row)["every compliance test is there and verified"]
    assert (tests.met, tests.evidence) == (False, f"{folder}/TEST04/verify_performance.txt")


def test_one_test_with_one_file_is_named_by_it(checkout: Path) -> None:
    home = checkout / "closed/Example"
    home.rename(checkout / "open/Other")
    row = result(f"open/Other/results/{SYSTEM}/llama2-70b-99/Offline")
    tests = rules(checkout, row)["every compliance test is there and verified"]
    assert tests.evidence.endswith("/llama2-70b-99/Offline/TEST06/verify_accuracy.txt")


MEASURED = f"{OPEN}/measurements/{SYSTEM}/my-405b/Offline"


@pytest.mark.parametrize(
    ("name", "content", "rule", "said"),
    [
        ("8xExample.json", b"[" * 100_000, "weights aren't retrained", "it isn't JSON"),
        ("8xExample.json", b"\xff", "weights aren't retrained", "byte 0xff is not UTF-8"),
        ("8xExample.json", b"[]", "weights aren't retrained", "it holds no JSON object"),
        (
            "8xExample.json",
            b'{"retraining": "yes\\u0007"}',
            "weights aren't retrained",
            "retraining: yes",
        ),
        ("README.md", b"\xff depth-pruned", "the model is whole", "README.md is about pruning"),
    ],
)
def test_what_cannot_be_read_is_said_and_meets_nothing(
    name: str, content: bytes, rule: str, said: str, checkout: Path
) -> None:
    (checkout / MEASURED / name).write_bytes(content)
    found = rules(checkout, TUNED)[rule]
    assert not found.met and said in found.found


def test_a_link_in_a_strangers_tree_leads_nowhere(checkout: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("pruned", encoding="utf-8")
    readme = checkout / MEASURED / "README.md"
    readme.unlink()
    readme.symlink_to(secret)
    assert rules(checkout, TUNED)["the model is whole"].met
