"""What the command lines of all commands have in common."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

WIDTH, NAMES_WIDTH = 100, 28


class UsageError(Exception):
    """A command line that can't be read, in one sentence; the exit status is 2."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Paragraphs are filled; one that has indented lines stays as it is."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=NAMES_WIDTH, width=WIDTH)

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # argparse forgets their indentation
            self._action_max_length += self._indent_increment

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super(argparse.RawDescriptionHelpFormatter, self)._fill_text
        return "\n\n".join(
            paragraph if "\n  " in paragraph else fill(paragraph, width, indent)
            for paragraph in text.strip().split("\n\n")
        )


class Parser(argparse.ArgumentParser):
    """Options may stand between words and have no short forms; errors are UsageErrors.

    `declare` adds the arguments when they are first needed, so that a command's module is imported
    only for that command.
    """

    def __init__(self, declare: "Callable[[Parser], None] | None" = None, **given: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **given)
        self._declare = declare
        self._reading = False

    def declared(self) -> "Parser":
        """This parser, with its arguments."""
        if self._declare is not None:
            declare, self._declare = self._declare, None
            declare(self)
        return self

    @property
    def name(self) -> str:
        """The command's, which is the last word of what is typed before its arguments."""
        return self.prog.rpartition(" ")[2]

    def options(self) -> list[str]:
        """Names of all options, as they are typed."""
        actions = self.declared()._actions
        return [name for action in actions for name in action.option_strings]

    def nested(self) -> "dict[str, Parser]":
        """Parsers of the words that this one takes first, by word."""
        for action in self.declared()._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}

    def format_help(self) -> str:
        self.declared()
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Raises UsageError for an argument that isn't known."""
        if self._reading:  # argparse reads options and words in two passes
            return super().parse_known_args(args, namespace)
        whole = bool(self.nested())
        if not whole:  # before a value of one that isn't known is taken for a word
            self._refuse(word for word in args or () if word.startswith("-"))
        self._reading = True
        try:
            read = super().parse_known_args if whole else self.parse_known_intermixed_args
            found, unknown = read(args, namespace)
        finally:
            self._reading = False
        self._refuse(unknown)
        return found, unknown

    def _refuse(self, words: Iterable[str]) -> None:
        known = self.options()
        for word in words:
            if word.partition("=")[0] not in known:
                hint = nearest(word.partition("=")[0], known)
                self.error(f"{self.name} takes no {word!r}{hint}")

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("argument OVERRIDE: ").removeprefix("argument ")
        raise UsageError(f"{words} ({self.prog} --help)")


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that says no to `word`: the names most like it, if there are any."""
    import difflib  # only for what is refused

    near = difflib.get_close_matches(word, list(known), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


class _Once(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice, and takes one file")
        setattr(namespace, self.dest, values)


def plan_arguments(parser: Parser) -> None:
    """Those that choose a plan: `overrides` and `site`."""
    parser.add_argument(
        "overrides",
        nargs="*",
        type=override,
        metavar="OVERRIDE",
        help="Hydra's: experiment=rehearsal-full, precision=bf16,fp8, set.Server.target_qps=30; "
        "without any: experiment=rehearsal",
    )
    site_argument(parser)


def as_typed(overrides: Sequence[str], site: Path | None) -> list[str]:
    """What chose a plan, as a user types it."""
    return [*overrides, *(["--site", str(site)] if site else [])]


def site_argument(parser: Parser) -> None:
    """`--site FILE`, as an absolute path."""
    parser.add_argument(
        "--site",
        type=_site,
        action=_Once,
        metavar="FILE",
        help="a system of your own, in a file outside conf/",
    )


def json_argument(parser: "argparse._ActionsContainer", what: str) -> None:
    """`--json`; `what` it prints."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def override(text: str) -> str:
    """A word that Hydra understands; raises ArgumentTypeError for any other."""
    if is_override(text):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is not an override such as experiment=rehearsal or scenario=Server"
    )


def is_override(text: str) -> bool:
    """Whether a word sets, adds (`+`) or deletes (`~`) a key."""
    return text.startswith("~") or ("=" in text and not text.startswith("-"))


def _site(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("takes a file, as in --site acme.yaml")
    return Path(text).absolute()
