"""`./reproduce validate DIR`: is a submission tree valid by the rules of its round?"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from steps.base.arguments import Parser
from steps.base.errors import UserError, shown
from steps.mlperf.rounds import names, usual
from steps.submit.validate.render import as_json, as_object, compared, official_object, page, text
from steps.submit.validate.submission import Report, validate

if TYPE_CHECKING:
    from steps.submit.validate.official import Difference, Official
    from steps.submit.validate.official_tools import Tool

STDOUT = "-"


def declare(parser: Parser) -> None:
    """The tree, its round, and how findings are written."""
    parser.description = (
        "Check a submission tree: everything the official checker enforces, and what it lets "
        "pass. Exit status 1 means that an error was found."
    )
    parser.add_argument("directory", type=Path, help="the directory that holds closed/ or open/")
    parser.add_argument("--round", default=usual(), choices=names(), help="default: %(default)s")
    parser.add_argument(
        "--json", nargs="?", const=STDOUT, metavar="FILE", help="findings and results as JSON"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page as well")
    parser.add_argument(
        "--official",
        type=Path,
        metavar="PATH",
        help="also run the checker, truncation and report tools of this checkout of "
        "mlcommons/inference and compare verdicts",
    )
    parser.add_argument(
        "--official-python",
        default=sys.executable,
        metavar="PROGRAM",
        help="a Python with numpy, pandas and xlsxwriter, which the official report tool needs",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="default: as many as cores")


def command(chosen: argparse.Namespace) -> int:
    """Exit status 0 if no error was found, 1 if one was; the tree is only read."""
    if chosen.processes is not None and chosen.processes < 1:
        raise UserError(f"--processes is {chosen.processes}, give 1 or more")
    outputs = [Path(name) for name in (chosen.json, chosen.html) if name not in (None, STDOUT)]
    for output in outputs:
        _outside(output, chosen.directory)
    report = validate(chosen.directory, chosen.round, processes=chosen.processes)
    content = as_object(report)
    told = list(text(report))
    if chosen.official is not None:
        found = _officially(chosen, report)
        content["official"] = official_object(*found)
        told += ["", *compared(*found)]
    if chosen.html is not None:
        _write(chosen.html, page(report))
    if chosen.json not in (None, STDOUT):
        _write(Path(chosen.json), as_json(content) + "\n")
    if chosen.json == STDOUT:
        print(as_json(content))
    for line in [] if chosen.json == STDOUT else told:
        print(shown(line))
    return 0 if report.valid() else 1


def _officially(
    chosen: argparse.Namespace, report: Report
) -> "tuple[Official, list[Difference], list[Tool]]":
    import tempfile

    from steps.submit.validate.official import differences, run_official
    from steps.submit.validate.official_tools import run_tools

    with tempfile.TemporaryDirectory(prefix="official-") as folder:
        scratch = Path(folder)
        official = run_official(chosen.official, chosen.directory, chosen.round, scratch)
        tools = run_tools(
            *(chosen.official, chosen.directory, report, official, scratch),
            chosen.official_python,
        )
    return official, differences(report, official), tools


def _outside(output: Path, tree: Path) -> None:
    """A report inside the tree would be the next finding."""
    resolved, root = os.path.realpath(output), os.path.realpath(tree)
    if os.path.commonpath([resolved, root]) == root:
        raise UserError(f"{output} is in the tree that is checked; write it elsewhere")


def _write(path: Path, content: str) -> None:
    from steps.base.record import write_atomically

    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}); choose another") from error
