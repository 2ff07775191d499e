"""How a run of the tests ends: what was skipped and why, and nothing that isn't in the list.

`tests/reviewed.yaml` lists skips and warnings that may be. With `--reviewed`, a skip that isn't
listed there fails the run; without it, the table only marks it.
"""

import fnmatch
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

LIST = Path(__file__).with_name("reviewed.yaml")
REAL = ("engine", "e2e", "long", "system", "command")
"""Marks of what `make test` leaves to `make test-real`."""

LEFT = "tests_left_to_make_test_real"


@dataclass(frozen=True)
class Skip:
    """`test`: a node id; `reason`: what the test says."""

    test: str
    reason: str


@dataclass(frozen=True)
class Reviewed:
    """A skip that may be: `tests` and `reason` are patterns of the shell; `because`: why it may."""

    tests: str
    reason: str
    because: str

    def holds(self, skip: Skip) -> bool:
        return fnmatch.fnmatchcase(_plain(skip.test), self.tests) and fnmatch.fnmatchcase(
            skip.reason, self.reason
        )


def _plain(test: str) -> str:
    """A node id without brackets, which are parts of a pattern."""
    return test.replace("[", "(").replace("]", ")")


def listed(path: Path = LIST) -> list[Reviewed]:
    return [
        Reviewed(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["skips"]
    ]


def unlisted(skips: Iterable[Skip], reviewed: Sequence[Reviewed]) -> list[Skip]:
    return [skip for skip in skips if not any(entry.holds(skip) for entry in reviewed)]


def table(skips: Sequence[Skip], reviewed: Sequence[Reviewed]) -> list[str]:
    """A row per file and reason: how many tests, whether that is listed."""
    rows: dict[tuple[str, str, bool], int] = defaultdict(int)
    apart = set(unlisted(skips, reviewed))
    for skip in skips:
        rows[skip.test.partition("::")[0], skip.reason, skip not in apart] += 1
    lines = [
        (str(number), file, reason if known else f"{reason} (not in tests/{LIST.name})")
        for (file, reason, known), number in sorted(rows.items())
    ]
    widths = [max((len(line[column]) for line in lines), default=0) for column in (0, 1)]
    return [f"{n:>{widths[0]}}  {file:<{widths[1]}}  {why}" for n, file, why in lines]


def skip_of(report: Any) -> Skip:
    """The skip in a test's report; an expected failure keeps its reason elsewhere."""
    if hasattr(report, "wasxfail"):
        return Skip(report.nodeid, f"expected to fail: {report.wasxfail}")
    _, _, reason = report.longrepr
    return Skip(report.nodeid, re.sub(r"\s+", " ", str(reason).removeprefix("Skipped: ")))


class Ending:
    """The plugin; with pytest-xdist its hooks run in the workers and in the process above them."""

    def __init__(self, config: pytest.Config) -> None:
        self._strict: bool = config.getoption("reviewed")
        self._left: dict[str, int] = {}
        self._config = config

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            name = next((mark for mark in REAL if item.get_closest_marker(mark)), "")
            if name:
                self._left[name] = self._left.get(name, 0) + 1

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Any:
        to_above = getattr(self._config, "workeroutput", None)
        if to_above is not None:
            to_above[LEFT] = self._left
        result = yield
        if self._strict and self._apart() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Every worker collects, and leaves, the same tests."""
        self._left = getattr(node, "workeroutput", {}).get(LEFT, self._left)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        skips = self._skips()
        apart = self._apart()
        title = f"{_tests(len(skips))} skipped, {len(apart)} of them unlisted"
        terminalreporter.section(title, red=bool(apart), green=not apart, sep="=")
        for line in table(skips, listed()):
            terminalreporter.write_line(line)
        if self._left:
            kinds = ", ".join(f"{name} {number}" for name, number in sorted(self._left.items()))
            total = _tests(sum(self._left.values()))
            terminalreporter.write_line(f"left to make test-real: {total} ({kinds})")

    def _skips(self) -> list[Skip]:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        stats = reporter.stats if reporter is not None else {}
        return [
            skip_of(report) for kind in ("skipped", "xfailed") for report in stats.get(kind, [])
        ]

    def _apart(self) -> list[Skip]:
        return unlisted(self._skips(), listed())


def _tests(number: int) -> str:
    return f"{number:,} test{'' if number == 1 else 's'}"


def pytest_addoption(parser: pytest.Parser) -> None:
    words = f"fail for a skip that tests/{LIST.name} doesn't list"
    parser.addoption("--reviewed", action="store_true", help=words)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Ending(config), "ending")
