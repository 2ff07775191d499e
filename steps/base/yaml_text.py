"""YAML, read so that whatever is wrong in it ends in one sentence that says where.

Only what JSON has too is taken, as OmegaConf takes it: a date is a text, and 1e3 a number.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError, SafeConstructor

from steps.base.errors import UserError, explain
from steps.base.record import canonical_json
from steps.base.strict import Strict
from steps.base.untrusted import MAX_COMPLAINT, reason_of

Kind = TypeVar("Kind", bound=Strict)

TAG = "tag:yaml.org,2002:"
PLAIN = frozenset(
    TAG + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)


class _Placed(SafeConstructor):
    """Says where a value isn't of its kind: for `!!bool maybe` Python's own error names no
    place."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind = str(node.tag).removeprefix(TAG)
            said = f"{str(node.value)[:MAX_COMPLAINT]!r} is no {kind}"
            raise ConstructorError(None, None, said, node.start_mark) from error


SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML has it: ten times as fast."""

EXPONENT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
"""A number too; PyYAML's own rule wants a dot and a sign in it."""


def _kinds() -> dict[Any, list[tuple[str, Any]]]:
    """What a text may stand for, by its first character."""
    found = {
        first: [(tag, pattern) for tag, pattern in known if tag in PLAIN]
        for first, known in SAFE.yaml_implicit_resolvers.items()
    }
    for first in "-+0123456789":
        found[first] = [*found.get(first, ()), (TAG + "float", EXPONENT)]
    return found


LOADER: Any = type("Loader", (_Placed, SAFE), {"yaml_implicit_resolvers": _kinds()})


def value_of(text: str, name: str) -> Any:
    """What a text stands for. Raises UserError, which calls the text `name`, for one that isn't
    YAML, for a key that is given twice and for a value of another kind than JSON's.
    """
    try:
        return _constructed(text)
    except RecursionError as error:
        raise UserError(f"{name} can't be read: it is nested too deeply; make it flat") from error
    except yaml.YAMLError as error:
        raise UserError(f"{name} can't be read: {' '.join(str(error).split())}") from error


def value_at(path: Path) -> Any:
    """What a file stands for. Raises UserError for a file that can't be read."""
    return value_of(text_at(path), str(path))


def text_at(path: Path) -> str:
    """Raises UserError for a file that can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {reason_of(error)}; restore it") from error


def mapping_of(path: Path, *, or_nothing: bool = False) -> dict[str, Any]:
    """The keys and values that a file holds. Raises UserError for a file that can't be read, or
    that holds something else; with `or_nothing`, a file of nothing has none.
    """
    return mapping_in(text_at(path), str(path), or_nothing=or_nothing)


def mapping_in(text: str, name: str, *, or_nothing: bool = False) -> dict[str, Any]:
    """As `mapping_of`, of the text of a file that sentences call `name`."""
    found = value_of(text, name)
    if or_nothing and found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"{name} can't be read: it has no keys with values; restore it")
    return found


def typed(path: Path, kind: type[Kind], **more: Any) -> Kind:
    """A data file, checked; `more`: keys besides its own. Raises UserError naming the key."""
    found = {**mapping_of(path), **more}
    try:
        return kind.model_validate_json(canonical_json(found))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}; fix it there") from error


def _constructed(text: str) -> Any:
    loader = LOADER(text)
    try:
        document = loader.get_single_node()
        if document is None:
            return None
        for node, complaint in _complaints(document):
            raise ConstructorError(None, None, complaint, node.start_mark)
        return loader.construct_document(document)
    finally:
        loader.dispose()


def _complaints(document: yaml.Node) -> Iterator[tuple[yaml.Node, str]]:
    seen, left = set[int](), [document]
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.tag not in PLAIN:
            yield node, f"a value of {node.tag} has no place here"
        if isinstance(node, yaml.MappingNode):
            left += [one for pair in node.value for one in pair]
            for key in _repeated(node):
                yield key, f"key {str(key.value)[:MAX_COMPLAINT]!r} is there twice"
        elif isinstance(node, yaml.SequenceNode):
            left += node.value


def _repeated(mapping: yaml.MappingNode) -> Iterator[yaml.Node]:
    """Keys that it has before; only << may be there several times."""
    seen = set[tuple[str, str]]()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != TAG + "merge":
            if (key.tag, key.value) in seen:
                yield key
            seen.add((key.tag, key.value))
