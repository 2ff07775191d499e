"""The table at the end of a run, and what fails it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import snakemake_warnings
from tests.conftest import ROOT
from tests.ending import Reviewed, Skip, listed, table, unlisted
from tests.programs import missing, needs

LIMIT_S = 60
PLANTED = """
import warnings
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_skipped(n):
    pytest.skip("no moon\\n  tonight")

@pytest.mark.long
def test_long():
    assert False

def test_sound():
    WARNS
"""

CONFTEST = """
from tests.ending import pytest_addoption, pytest_configure
"""


def ran(home: Path, *arguments: str, warns: str = "pass") -> tuple[int, str]:
    """pytest in a folder with the project's settings and a planted file."""
    (home / "tests").mkdir()
    (home / "tests/__init__.py").touch()
    shutil.copy(ROOT / "tests/ending.py", home / "tests")
    shutil.copy(ROOT / "pyproject.toml", home)
    (home / "tests/conftest.py").write_text(CONFTEST, encoding="utf-8")
    (home / "tests/reviewed.yaml").write_text("skips: []\n", encoding="utf-8")
    text = PLANTED.replace("WARNS", warns)
    (home / "tests/test_planted.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "not long", *arguments],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(("workers", "how", "expected"), [("0", (), 0), ("2", ("--reviewed",), 1)])
def test_a_skip_is_in_the_table_and_fails_a_reviewed_run(
    tmp_path: Path, workers: str, how: tuple[str, ...], expected: int
) -> None:
    status, text = ran(tmp_path, "-n", workers, *how)
    assert status == expected, text
    assert "2 tests skipped, 2 of them unlisted" in text
    assert "2  tests/test_planted.py  no moon tonight (not in tests/reviewed.yaml)" in text
    assert "left to make test-real: 1 test (long 1)" in text


def test_a_warning_that_is_not_listed_fails_its_test(tmp_path: Path) -> None:
    status, text = ran(tmp_path, "-n", "0", warns="warnings.warn('old', DeprecationWarning)")
    assert status == 1 and "DeprecationWarning: old" in text


def test_a_list_holds_for_its_tests_and_its_reason_only() -> None:
    reviewed = [Reviewed("tests/a/*::test_x(*)", "no moon*", "there is none")]
    known = Skip("tests/a/test_b.py::test_x[1]", "no moon tonight")
    others = [Skip("tests/a/test_b.py::test_y", known.reason), Skip(known.test, "no sun")]
    assert unlisted([known, *others], reviewed) == others
    assert [line.split()[0] for line in table([known, known, *others], reviewed)] == ["1", "2", "1"]


def test_every_listed_skip_says_why_and_names_tests_that_are_there() -> None:
    for entry in listed():
        assert entry.because
        assert list(ROOT.glob(entry.tests.partition("::")[0])), entry.tests


def test_a_program_that_is_absent_is_named_with_its_package() -> None:
    assert missing(("sh",), "dash") == ""
    assert missing(("sh", "no-such-program"), "thing") == (
        "no no-such-program (apt-get install thing)"
    )

    def test() -> None:
        pass

    marks = {mark.name: mark for mark in needs("sh", packages="dash")(test).pytestmark}  # type: ignore[attr-defined]
    assert set(marks) == {"system", "skipif"} and marks["skipif"].args == (False,)


def test_a_warning_of_snakemake_is_found_by_its_words() -> None:
    words = "falling back to greedy scheduler."
    assert any(words in known for known in snakemake_warnings.sentences())
    said = f"Failed to solve scheduling problem with ILP solver in time (10s), {words}\n"
    assert len(snakemake_warnings.found(said)) >= 1
    assert snakemake_warnings.found("x.py:3: DeprecationWarning: gone\n") == [
        "DeprecationWarning: gone"
    ]
    assert snakemake_warnings.found("rehearsal: 25 of 25 jobs to run\n") == []
