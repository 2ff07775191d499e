"""`./reproduce completion bash|zsh`: a script that completes commands, options and overrides.

Commands and options are written into the script. Groups and their values are read from the
checkout's conf/ whenever a word is completed, so a new system is there at once.
"""

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path

from steps import ROOT
from steps.base.arguments import Parser
from steps.commands.cli import parser as whole
from steps.commands.ls import HIDDEN
from steps.commands.table import COMMANDS

SHELLS = ("bash", "zsh")
TEMPLATES = Path(__file__).parent / "completions"


def declare(parser: Parser) -> None:
    """The shell."""
    parser.description = (
        "Print a script that makes a shell complete commands, options, groups and their values. "
        "Bash reads it from its folder of completions or by `source`; zsh reads it by `source`, "
        "after compinit."
    )
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS))


def command(given: argparse.Namespace) -> int:
    """Prints the script."""
    print(script(given.shell), end="")
    return 0


def script(shell: str) -> str:
    """The script, for one of SHELLS."""
    words = "\n".join(
        f"        {shlex.quote(place)}) words={shlex.quote(' '.join(found))} ;;"
        for place, found in vocabulary()
    )
    text = (TEMPLATES / f"reproduce.{shell}").read_text(encoding="utf-8")
    return (
        text.replace("@WORDS@", words)
        .replace("@COMMANDS@", " ".join(COMMANDS))
        .replace("@HIDDEN@", "|".join(HIDDEN))
        .replace("@ROOT@", shlex.quote(str(ROOT)))
    )


def vocabulary() -> Iterator[tuple[str, list[str]]]:
    """What is typed first, without options ("compliance TEST01"), and what may follow."""
    for name, one in whole().nested().items():
        nested = one.nested()
        yield name, [*one.options(), *nested, *_choices(one)]
        for word, inner in nested.items():
            yield f"{name} {word}", inner.options()


def _choices(one: Parser) -> list[str]:
    """Words that the command takes one of, other than those with arguments of their own."""
    return [
        word
        for action in one.declared()._actions
        if not action.option_strings and isinstance(action.choices, tuple)
        for word in action.choices
    ]
