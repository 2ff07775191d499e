"""`./reproduce [COMMAND] [arguments]`: reads the command line and calls the command's module.

Heavy modules are imported where they are used (steps/plan/frozen.py says why); all commands are in
steps/commands/table.py.
"""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from steps import ROOT
from steps.base.arguments import Parser, UsageError, is_override, nearest
from steps.base.console import plain_output
from steps.base.errors import UserError, shown
from steps.commands.table import COMMANDS, RUN
from steps.schedule import supervisor

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses, as docs/reference/commands.md states them."""

CLOCKS = "results/clocks*.json"
"""steps.run.clocks.STATES, which is imported only if there are some."""

PROGRAM = "./reproduce"
HELP = ("-h", "--help")
VERSION = "--version"
"""Asks for the version, commit and state of this checkout."""

ABOUT = f"""\
{PROGRAM} [OVERRIDE ...] [--site FILE] [-- ARGUMENT OF SNAKEMAKE ...]
       {PROGRAM} COMMAND [ARGUMENT ...]
       {PROGRAM} {VERSION}"""

MORE = f"""\
overrides:
  experiment=rehearsal-full, precision=bf16,fp8, set.Server.target_qps=30 ...
  without any: experiment=rehearsal

example:
  {PROGRAM} plan experiment=rehearsal-full"""

REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or have your quota raised",
    errno.EROFS: "give results/ and .envs/ (links may lead elsewhere) a disk that can be written",
    errno.EACCES: "give yourself the right to it, or run as its owner",
    errno.EPERM: "give yourself the right to it, or run as its owner",
    errno.EIO: "look at the disk (dmesg)",
    errno.ESTALE: "mount its file system again",
}
"""By errno; what else there is says enough of itself."""


def parser(names: Iterable[str] = COMMANDS) -> Parser:
    """The parser of these commands; what one takes is declared when it is first asked for."""
    whole = Parser(prog=PROGRAM, usage=ABOUT, epilog=MORE)
    commands = whole.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", prog=PROGRAM, required=True
    )
    for name in names:
        entry = COMMANDS[name]
        commands.add_parser(
            name,
            declare=_declaring(entry.module),
            help=entry.about,
            description=f"{entry.about[0].upper()}{entry.about[1:]}.",
            epilog=f"example:\n  {PROGRAM} {name} {entry.example}".rstrip(),
        )
    return whole


def _declaring(module: str) -> Callable[[Parser], None]:
    def declare(one: Parser) -> None:
        importlib.import_module(module).declare(one)

    return declare


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and what it takes. Raises UsageError, and SystemExit after `--help`."""
    given = list(arguments)
    if not given or (given[0] not in HELP and _belongs_to_run(given[0])):
        given.insert(0, RUN)
    name, passed_on = given[0], []
    if name not in (*COMMANDS, *HELP):
        raise UsageError(
            f"{name!r} is not a command{nearest(name, COMMANDS)} ({PROGRAM} --help names them all)"
        )
    if "--" in given:
        split = given.index("--")
        given, passed_on = given[:split], given[split + 1 :]
        if name != RUN:
            raise UsageError(f"{name} starts no Snakemake that could take what follows --")
    found = parser(COMMANDS if name in HELP else [name]).parse_args(given)
    found.passed_on, found.arguments = passed_on, given[1:]
    return found


def _belongs_to_run(word: str) -> bool:
    return word.startswith("-") or is_override(word)


def call(arguments: Sequence[str]) -> int:
    """Do what a command line says; raises what keeps it from being done."""
    if list(arguments) == [VERSION]:
        from steps.base.version import Version

        print(Version.of(ROOT))
        return DONE
    given = parsed(arguments)
    return int(importlib.import_module(COMMANDS[given.command].module).command(given))


def main(arguments: Sequence[str]) -> int:
    """The exit status; what went wrong is one sentence on stderr."""
    with plain_output():
        return _main(arguments)


def _main(arguments: Sequence[str]) -> int:
    try:
        _go_back()
        _reset_clocks()
        return call(arguments)
    except SystemExit as ended:  # argparse's, after --help
        return int(ended.code or DONE)
    except UsageError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return USAGE
    except UserError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: {shown(unusable(error))}", file=sys.stderr)
        return FAILED


def unusable(error: OSError) -> str:
    """A file or disk that can't be used, as a sentence with what to do."""
    where = f"{error.filename}: " if error.filename else ""
    remedy = REMEDIES.get(error.errno or 0, "fix that")
    return f"{where}{error.strerror or error}; {remedy}, and run again"


def _reset_clocks() -> None:
    """What a run that was killed had set on this machine (steps/run/clocks.py)."""
    if not any(ROOT.glob(CLOCKS)):
        return
    from steps.run.clocks import restore

    if said := restore(ROOT):
        print(said, file=sys.stderr, flush=True)


def _go_back() -> None:
    """To where the user stands, whose relative paths are from there; `reproduce` left it."""
    directory = os.environ.pop("REPRISE_DIRECTORY", None)
    if directory is None:
        return
    try:
        os.chdir(directory)
    except OSError as error:
        raise UserError(
            f"{directory} can't be entered ({error.strerror}); start from a directory that is there"
        ) from error


def command_line() -> NoReturn:
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    except BrokenPipeError:
        status = FAILED
    supervisor.release()
    raise SystemExit(status)


if __name__ == "__main__":
    command_line()
