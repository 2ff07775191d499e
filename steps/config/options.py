"""What a build of an engine takes: its arguments with their types, and the variables it reads.

`conf/options/` has a file for each build that Reprise knows, made by steps/machine/vllm_source.py;
the step that makes an environment or an image writes one of what is really there. Arguments that
Reprise itself neither reads nor forbids are checked against such a file and by nothing else.
"""

import ast
import difflib
import operator
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pydantic import JsonValue, ValidationError

from steps.base.errors import SHOWN_COMPLAINTS, UserError, explain
from steps.base.record import canonical_json
from steps.base.strict import Strict
from steps.config.engine import RANGE, VllmArguments

FOLDER = "options"
"""The folder in `conf/`."""

FILE = "engine.json"
"""What an environment's or an image's step writes."""

PREFIX = "VLLM_"
"""Variables that are vLLM's by their name. Others may be read by any library below it."""

SHOWN = 8
"""How many values a message lists; of more, it names the nearest."""

DEEPEST = 8

CHOICES = ("Literal", "Enum")


class Option(Strict):
    """One argument. `type`: alternatives by `|`, of JSON's types, `Literal[...]`, `Enum[...]` (its
    names in any case) and names of nested configurations. Bounds as in pydantic's Field."""

    type: str
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None


class Options(Strict):
    """What one build takes. `nested`: configurations that arguments hold, by their class."""

    name: str
    source: str
    arguments: dict[str, Option]
    nested: dict[str, dict[str, Option]]
    environment: tuple[str, ...]


def of_build(conf: Path, build: str) -> Options:
    """The shipped options. Raises UserError for a build that has none, or a damaged file."""
    path = conf / FOLDER / f"{build}.json"
    if not path.is_file():
        raise UserError(
            f"build {build!r} isn't one of {', '.join(builds(conf))}; name the nearest to the "
            "engine that the environment or image has"
        )
    return read(path)


def builds(conf: Path) -> list[str]:
    """Names of the shipped files, by version."""
    return sorted((path.stem for path in (conf / FOLDER).glob("*.json")), key=_by_number)


def _by_number(name: str) -> list[tuple[bool, int, str]]:
    parts = re.findall(r"\d+|\D+", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


@cache
def read(path: Path) -> Options:
    """Raises UserError for a file that isn't one."""
    try:
        return Options.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path} doesn't say what an engine takes ({explain(error)})") from error


class Engine(Protocol):
    """The settings of an engine of such a build."""

    @property
    def arguments(self) -> VllmArguments: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def unread(self) -> Mapping[str, str]: ...


def require(options: Options, engine: Engine) -> None:
    """Raises UserError naming the first arguments and variables that this build doesn't take."""
    found = list(dict.fromkeys(_complaints(options, engine)))
    if found:
        more = f"; and {len(found) - SHOWN_COMPLAINTS} more" if found[SHOWN_COMPLAINTS:] else ""
        raise UserError("; ".join(found[:SHOWN_COMPLAINTS]) + more)


def _complaints(options: Options, engine: Engine) -> Iterator[str]:
    others: Mapping[str, VllmArguments] = getattr(engine, "arguments_on", {})
    for arguments in (engine.arguments, *others.values()):
        yield from _of_arguments(options, arguments)
    elsewhere: Mapping[str, Mapping[str, str]] = getattr(engine, "environment_on", {})
    names = dict.fromkeys([*engine.environment, *(n for own in elsewhere.values() for n in own)])
    yield from _of_environment(options, names, engine.unread)


def _of_arguments(options: Options, arguments: VllmArguments) -> Iterator[str]:
    check = _Check(options)
    for name, value in arguments.model_dump(mode="json", exclude_none=True).items():
        yield from check.named(f"arguments.{name}", name, options.arguments, value, "argument")


def _of_environment(
    options: Options, environment: Collection[str], unread: Iterable[str]
) -> Iterator[str]:
    known, silenced = set(options.environment), set(unread)
    for name in environment:
        if name.startswith(PREFIX) and name not in known | silenced:
            near = _nearest(name, known)
            yield (
                f"environment.{name}: {options.name} reads no such variable{near}; take it out, or "
                "say in engine.unread why it is kept"
            )
    for name in sorted(silenced):
        if name in known:
            yield f"unread.{name}: {options.name} reads it; take it out of engine.unread"
        elif name not in environment:
            yield f"unread.{name}: engine.environment has no such variable; take it out"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f", the nearest is {close[0]}" if close else ""


@dataclass(frozen=True)
class _Check:
    """Values against the types of one build; every complaint begins with the value's place."""

    options: Options

    def named(
        self, place: str, name: str, known: Mapping[str, Option], value: JsonValue, what: str
    ) -> Iterator[str]:
        option = known.get(name)
        if option is None:
            yield f"{place}: {self.options.name} has no such {what}{_nearest(name, known)}"
            return
        wrong = self.value(place, _parsed(option.type), value, DEEPEST)
        yield from wrong or _outside(place, option, value)

    def value(self, place: str, node: ast.expr, value: JsonValue, depth: int) -> list[str]:
        """Empty if an alternative takes it; else what the one that was meant says of it."""
        if not depth:
            return []
        alternatives = list(_alternatives(node))
        tried = [self._one(place, one, value, depth - 1) for one in alternatives]
        if any(not wrong for wrong in tried):
            return []
        meant = [
            wrong for one, wrong in zip(alternatives, tried, strict=True) if self._meant(one, value)
        ]
        plain = " or ".join(ast.unparse(one) for one in alternatives if not _is_none(one))
        return meant[0] if meant else [f"{place} is {value!r:.60}, not {plain:.100}"]

    def _meant(self, node: ast.expr, value: JsonValue) -> bool:
        """Whether a wrong value is of this alternative's kind."""
        name = _name(node)
        if name in CHOICES:
            return type(value) in {type(one) for one in _values(node)}
        if name in self.options.nested:
            return isinstance(value, dict)
        return isinstance(node, ast.Subscript) and type(value).__name__ == name

    def _one(self, place: str, node: ast.expr, value: JsonValue, depth: int) -> list[str]:
        name = _name(node)
        if name in CHOICES:
            return _of_values(place, _values(node), value, any_case=name == "Enum")
        if name in self.options.nested and isinstance(value, dict):
            known = self.options.nested[name]
            return [
                said
                for key, inner in value.items()
                for said in self.named(f"{place}.{key}", key, known, inner, "key")
            ]
        if not _is(name, value):
            return [f"{place} is {value!r:.60}, not {name}"]
        if isinstance(node, ast.Subscript) and isinstance(value, list):
            return self._items(place, node.slice, value, depth)
        if isinstance(node, ast.Subscript) and isinstance(value, dict):
            held = node.slice
            return self._each(
                place, held.elts[-1] if isinstance(held, ast.Tuple) else held, value, depth
            )
        return []

    def _items(self, place: str, node: ast.expr, values: list[JsonValue], depth: int) -> list[str]:
        for at, value in enumerate(values):
            counts = isinstance(value, dict) and value.keys() == set(RANGE)
            plain = 0 if counts else value  # a range of whole numbers; its own type was checked
            if wrong := self.value(f"{place}[{at}]", node, plain, depth):
                return wrong
        return []

    def _each(
        self, place: str, node: ast.expr, values: dict[str, JsonValue], depth: int
    ) -> list[str]:
        for key, value in values.items():
            if wrong := self.value(f"{place}.{key}", node, value, depth):
                return wrong
        return []


@cache
def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from _alternatives(node.left)
        yield from _alternatives(node.right)
    else:
        yield node


def _name(node: ast.expr) -> str:
    """Name of a type, or of what it is a list or a mapping of."""
    return str(getattr(node.value if isinstance(node, ast.Subscript) else node, "id", ""))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _values(node: ast.expr) -> list[Any]:
    """What a Literal or an Enum allows."""
    held = node.slice if isinstance(node, ast.Subscript) else node
    each = held.elts if isinstance(held, ast.Tuple) else [held]
    return [one.value for one in each if isinstance(one, ast.Constant)]


def _of_values(place: str, known: list[Any], value: JsonValue, *, any_case: bool) -> list[str]:
    same = [one for one in known if type(one) is type(value)]
    if value in same or (any_case and str(value).lower() in (str(one).lower() for one in same)):
        return []
    names = [str(one) for one in known]
    if len(names) <= SHOWN:
        return [f"{place} is {value!r:.60}, not one of {', '.join(names)}"]
    return [f"{place} is {value!r:.60}, none of {len(names)} values{_nearest(str(value), names)}"]


def _is(name: str, value: JsonValue) -> bool:
    match name:
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "bool" | "str" | "list" | "dict":
            return type(value).__name__ == name
        case "":  # None
            return value is None
        case "Any":
            return True
    return isinstance(value, dict)  # of a nested configuration, one whose keys aren't known


def _outside(place: str, option: Option, value: JsonValue) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    for limit, holds, words in (
        (option.gt, operator.gt, "more than"),
        (option.ge, operator.ge, "at least"),
        (option.lt, operator.lt, "less than"),
        (option.le, operator.le, "at most"),
    ):
        if limit is not None and not holds(value, limit):
            yield f"{place} is {value}, and has to be {words} {limit:g}"


def dumped(name: str, source: str, found: Mapping[str, Any]) -> str:
    """A file's text: an argument a line, so that two builds can be compared."""
    Options.model_validate_json(canonical_json({"name": name, "source": source, **found}))
    nested = {key: _block("{}", _entries(one), 2) for key, one in found["nested"].items()}
    parts = {
        "name": canonical_json(name),
        "source": canonical_json(source),
        "arguments": _block("{}", _entries(found["arguments"]), 1),
        "nested": _block("{}", [f"{canonical_json(k)}: {text}" for k, text in nested.items()], 1),
        "environment": _block("[]", map(canonical_json, found["environment"]), 1),
    }
    return _block("{}", [f"{canonical_json(k)}: {text}" for k, text in parts.items()], 0) + "\n"


def _entries(fields: Mapping[str, Any]) -> list[str]:
    return [f"{canonical_json(name)}: {canonical_json(value)}" for name, value in fields.items()]


def _block(brackets: str, lines: Iterable[str], depth: int) -> str:
    inner = f"\n{' ' * (depth + 1)}"
    return f"{brackets[0]}{inner}{f',{inner}'.join(lines)}\n{' ' * depth}{brackets[1]}"
