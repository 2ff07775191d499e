"""`./reproduce explain CODE`: explains a finding of `./reproduce validate`."""

import argparse
import difflib
import textwrap

from steps.base.arguments import Parser
from steps.base.errors import UserError
from steps.submit.validate.findings import Code, codes

WIDTH = 88


def declare(parser: Parser) -> None:
    """The code of a finding."""
    parser.add_argument("code", nargs="?", metavar="CODE", help="default: all, a line each")


def command(given: argparse.Namespace) -> int:
    """One code in full, or every code in a line when none is named."""
    if given.code is None:
        for code in codes().values():
            print(f"{code.name:<28} {code.severity.value:<8} {code.why}")
        return 0
    name: str = given.code
    if name not in codes():
        near = difflib.get_close_matches(name, codes(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "./reproduce explain lists them all"
        raise UserError(f"there is no finding {name!r}; {hint}")
    print(explained(codes()[name]))
    return 0


def explained(code: Code) -> str:
    """Severity, why, fix, and how the official checker treats it."""
    passes = "lets it pass" if code.strict else "rejects it too"
    parts = (
        ("why", code.why),
        ("fix", code.fix),
        ("official checker v5.1.1", f"{passes} ({code.official})"),
    )
    lines = [f"{code.name} ({code.severity.value})"]
    for name, words in parts:
        lines += ["", textwrap.fill(f"{name}: {words}", WIDTH, subsequent_indent="  ")]
    return "\n".join(lines)
