"""What `python -m bench.mutants` changes, and what it says of a change that no test notices."""

from pathlib import Path

from bench import mutants
from tests.conftest import ROOT

SOURCE = '''"""A module."""


def holds(value: float, limit: float = 2) -> bool:
    """Whether it does."""
    if not limit and value:
        return False
    return value * 2 <= limit + 1
'''
PATH = Path("steps/x.py")


def changed() -> set[tuple[str, str]]:
    return {(mutant.before, mutant.after) for mutant in mutants.mutants(PATH, SOURCE)}


def test_every_kind_of_place_is_changed_one_at_a_time() -> None:
    assert changed() >= {
        ("if not limit and value:", "if not limit or value:"),
        ("if not limit and value:", "if +limit and value:"),
        ("return False", "return True"),
        ("return False", "return None"),
        ("return value * 2 <= limit + 1", "return value * 2 < limit + 1"),
        ("return value * 2 <= limit + 1", "return value / 2 <= limit + 1"),
        ("return value * 2 <= limit + 1", "return value * 3 <= limit + 1"),
        ("return value * 2 <= limit + 1", "return value * 2 <= limit - 1"),
        ("return value * 2 <= limit + 1", "return value * 2 <= limit + 2"),
    }
    for mutant in mutants.mutants(PATH, SOURCE):
        compile(mutant.text, str(PATH), "exec")
        assert mutant.text.count("def holds") == 1


def test_a_mutant_that_a_test_notices_is_killed_and_another_survives(tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / PATH).write_text(SOURCE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n  engine\n  e2e\n  long\n  system\n  command\n", encoding="utf-8"
    )
    (tmp_path / "test_x.py").write_text(
        "from steps.x import holds\ndef test(): assert holds(1.5) and not holds(9)\n",
        encoding="utf-8",
    )
    with mutants.testing(tmp_path, ("test_x.py",)) as tests:
        assert tests.passed()
        verdicts = {
            mutant.after: tests.kill(mutant)
            for mutant in mutants.mutants(PATH, SOURCE)
            if mutant.after in ("return value * 2 < limit + 1", "return value / 2 <= limit + 1")
        }
    assert verdicts == {
        "return value * 2 < limit + 1": True,
        "return value / 2 <= limit + 1": False,
    }
    assert (tmp_path / PATH).read_text(encoding="utf-8") == SOURCE


def test_the_table_has_a_row_for_each_survivor_and_room_for_its_reason() -> None:
    survivor = mutants.Mutant(PATH, 7, "if a | b:", "if a & b:", "")
    assert mutants.table([survivor]).splitlines()[-1] == (
        "| steps/x.py:7 | `if a | b:` | `if a & b:` | |"
    )


def test_every_parts_files_and_tests_are_there() -> None:
    for part in mutants.PARTS.values():
        assert all(list(ROOT.glob(pattern)) for pattern in part.files)
        assert all((ROOT / name).exists() for name in part.tests)
