"""`./reproduce explain CODE`: explains a finding of `./reproduce validate`."""

import difflib
import textwrap

from steps.base.errors import UserError
from steps.submit.validate.findings import Code, codes

WIDTH = 88


def command(arguments: list[str]) -> int:
    """Explain one code in full, or list every code if none is given."""
    if len(arguments) > 1 or any(argument in ("-h", "--help") for argument in arguments):
        print("./reproduce explain [CODE]")
        return 0 if arguments[0] in ("-h", "--help") else 2
    if not arguments:
        for code in codes().values():
            print(f"{code.name:<28} {code.severity.value:<8} {code.why}")
        return 0
    name = arguments[0]
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
