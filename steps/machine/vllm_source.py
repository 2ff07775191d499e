"""What a build of vLLM takes, read from its source: EngineArgs, the configurations that arguments
hold, and the environment variables that it reads.

Nothing of vLLM is imported, which needs its device and up to a minute. Only Python's own library is
used, because an image's Python runs this file alone: `python vllm_source.py [PACKAGE]` prints it.
"""

import ast
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLAIN = ("int", "float", "bool", "str", "None", "Any", "object")
GENERIC = {
    **{"list": "list", "List": "list", "Sequence": "list", "tuple": "list", "Tuple": "list"},
    **{"set": "list", "Set": "list", "dict": "dict", "Dict": "dict", "Mapping": "dict"},
}
"""Python's containers, by the one of JSON that is written for them."""

WRAPPERS = ("Annotated", "Required", "SkipValidation", "Final")
BOUNDS = ("gt", "ge", "lt", "le")
HELD = ("ClassVar", "InitVar")
READ = re.compile(
    r"""(?:environ(?:\.get|\.setdefault|\.pop)?|getenv)\s*[(\[]\s*["']([A-Z][A-Z0-9_]{2,})["']"""
)
VERSION = re.compile(r"""^(?:__version__ = )?version = ["']([^"']+)["']""", re.MULTILINE)
TABLE = "environment_variables"
DEPTH = 12
"""How far names are followed; vLLM's aliases need four."""


class Source:
    """The modules of one package, parsed when they are needed."""

    def __init__(self, package: Path) -> None:
        self._root = package.parent
        self._package = package.name
        self._modules: dict[str, ast.Module | None] = {}

    def module(self, name: str) -> "ast.Module | None":
        """None for another package's, and for one that this Python can't parse."""
        if name not in self._modules:
            self._modules[name] = self._parsed(name)
        return self._modules[name]

    def _parsed(self, name: str) -> "ast.Module | None":
        if name.split(".")[0] != self._package:
            return None
        path = self._root / name.replace(".", "/")
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                try:
                    return ast.parse(file.read_text(encoding="utf-8"))
                except (SyntaxError, ValueError):
                    return None
        return None

    def found(self, module: str, name: str, depth: int = DEPTH) -> "tuple[str, ast.stmt] | None":
        """The module and the statement that define a name as this module sees it."""
        tree = self.module(module)
        if tree is None or depth == 0:
            return None
        stars = []
        for statement in _statements(tree.body):
            if _defines(statement, name):
                return module, statement
            if isinstance(statement, ast.ImportFrom):
                origin = self._origin(module, statement)
                for alias in statement.names:
                    if (alias.asname or alias.name) == name:
                        return self.found(origin, alias.name, depth - 1)
                    stars += [origin] if alias.name == "*" else []
        hits = (self.found(origin, name, depth - 1) for origin in stars)
        return next((hit for hit in hits if hit), None)

    def _origin(self, module: str, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        parts = module.split(".")
        if not (self._root / module.replace(".", "/") / "__init__.py").is_file():
            parts = parts[:-1]
        parts = parts[: len(parts) - statement.level + 1]
        return ".".join([*parts, *([statement.module] if statement.module else [])])


def _statements(body: "list[ast.stmt]") -> "Iterator[ast.stmt]":
    """Also those that are only for type checkers, which have the true classes."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _statements(statement.body)
            yield from _statements(statement.orelse)
        elif isinstance(statement, ast.Try):
            yield from _statements(statement.body)
        else:
            yield statement


def _defines(statement: ast.stmt, name: str) -> bool:
    if isinstance(statement, ast.ClassDef):
        return statement.name == name
    if isinstance(statement, ast.Assign):
        return any(isinstance(t, ast.Name) and t.id == name for t in statement.targets)
    if isinstance(statement, ast.AnnAssign):
        return isinstance(statement.target, ast.Name) and statement.target.id == name
    alias = getattr(statement, "name", None)  # `type X = ...` of Python 3.12
    return isinstance(alias, ast.Name) and alias.id == name


class Reader:
    """Types of arguments as text: alternatives by `|`, of JSON's types, `Literal[...]`,
    `Enum[...]` (names in any case), and names of `nested` configurations."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.nested: dict[str, dict[str, Any]] = {}
        self._open: set[str] = set()

    def fields(self, module: str, name: str, depth: int = DEPTH) -> dict[str, Any]:
        """Name to type and bounds of what a class is made with, its bases' too."""
        home, definition = self._source.found(module, name) or ("", None)
        if not isinstance(definition, ast.ClassDef):
            return {}
        result: dict[str, Any] = {}
        for base in definition.bases:
            if isinstance(base, ast.Name) and depth:
                result |= self.fields(home, base.id, depth - 1)
        for statement in definition.body:
            if not isinstance(statement, ast.AnnAssign) or not isinstance(
                statement.target, ast.Name
            ):
                continue
            if _is_given(statement) and not statement.target.id.startswith("_"):
                result[statement.target.id] = {
                    "type": " | ".join(self.types(home, statement.annotation)) or "Any",
                    **self._bounds(home, statement.value),
                }
        return result

    def _bounds(self, module: str, value: "ast.expr | None", depth: int = 3) -> dict[str, float]:
        """Those of a pydantic Field, here or where an argument takes its default from."""
        if isinstance(value, ast.Call):
            found = {
                keyword.arg: keyword.value.value
                for keyword in value.keywords
                if keyword.arg in BOUNDS
                and isinstance(keyword.value, ast.Constant)
                and isinstance(keyword.value.value, (int, float))
            }
            if found or _called(value) != "get_field" or len(value.args) != 2:
                return found
            holder, attribute = value.args
            if isinstance(holder, ast.Name) and isinstance(attribute, ast.Constant):
                return self._bounds_of(module, holder.id, str(attribute.value), depth)
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
            return self._bounds_of(module, value.value.id, value.attr, depth)
        return {}

    def _bounds_of(self, module: str, owner: str, name: str, depth: int) -> dict[str, float]:
        home, definition = self._source.found(module, owner) or ("", None)
        if not isinstance(definition, ast.ClassDef) or not depth:
            return {}
        for statement in definition.body:
            if isinstance(statement, ast.AnnAssign) and _defines(statement, name):
                return self._bounds(home, statement.value, depth - 1)
        return {}

    def types(self, module: str, node: ast.expr, depth: int = DEPTH) -> list[str]:
        """Alternatives, each once; empty if none of them can be written in a configuration."""
        if not depth:
            return ["Any"]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                return self.types(module, ast.parse(node.value, mode="eval").body, depth - 1)
            except SyntaxError:
                return ["Any"]
        if isinstance(node, ast.Constant):
            return ["None"] if node.value is None else ["Any"]
        if isinstance(node, ast.BinOp):
            return self._union(module, [node.left, node.right], depth)
        if isinstance(node, ast.Subscript):
            return self._subscript(module, node, depth)
        if isinstance(node, ast.Attribute):
            return []  # torch.dtype and the like
        if isinstance(node, ast.Name):
            return self._name(module, node.id, depth)
        return ["Any"]

    def _union(self, module: str, nodes: "list[ast.expr]", depth: int) -> list[str]:
        return list(dict.fromkeys(t for node in nodes for t in self.types(module, node, depth - 1)))

    def _subscript(self, module: str, node: ast.Subscript, depth: int) -> list[str]:
        name = getattr(node.value, "id", getattr(node.value, "attr", ""))
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Optional":
            return self._union(module, [*inner, ast.Constant(None)], depth)
        if name == "Union":
            return self._union(module, inner, depth)
        if name == "Literal":
            return self._literal(module, inner, depth)
        if name in WRAPPERS:
            return self.types(module, inner[0], depth - 1)
        if name in GENERIC:
            return [_generic(GENERIC[name], [self.types(module, one, depth - 1) for one in inner])]
        if name in ("type", "Type", "Callable"):
            return []
        return ["Any"]

    def _literal(self, module: str, inner: "list[ast.expr]", depth: int) -> list[str]:
        """Its values, and those of the literals that it names."""
        values: list[Any] = []
        for node in inner:
            if isinstance(node, ast.Constant):
                values.append(node.value)
                continue
            for named in self.types(module, node, depth - 1):
                tree = ast.parse(named, mode="eval").body
                values += [one.value for one in ast.walk(tree) if isinstance(one, ast.Constant)]
        nones = ["None"] if None in values else []
        return [_of_values("Literal", [v for v in values if v is not None]), *nones]

    def _name(self, module: str, name: str, depth: int) -> list[str]:
        if name in PLAIN:
            return ["Any" if name == "object" else name]
        if name in GENERIC:
            return [GENERIC[name]]
        if name in ("Path", "PathLike"):
            return ["str"]
        if name in ("Callable", "type", "Type"):
            return []
        hit = self._source.found(module, name)
        if hit is None:
            return ["Any"]
        home, statement = hit
        if isinstance(statement, ast.ClassDef):
            return self._class(home, statement)
        value = getattr(statement, "value", None)
        if isinstance(value, ast.expr):
            return self.types(home, value, depth - 1)
        return ["Any"]

    def _class(self, home: str, definition: ast.ClassDef) -> list[str]:
        bases = {getattr(base, "id", getattr(base, "attr", "")) for base in definition.bases}
        if any(base.endswith("Enum") for base in bases):
            return [_of_values("Enum", _members(definition))]
        name = definition.name
        if name not in self.nested and name not in self._open:
            self._open.add(name)  # it may hold itself
            self.nested[name] = self.fields(home, name)
            self._open.remove(name)
        return [name] if name in self._open or self.nested[name] else ["Any"]


def _is_given(statement: ast.AnnAssign) -> bool:
    """Whether a class takes it: not a class variable, and not `init=False`."""
    named = {node.id for node in ast.walk(statement.annotation) if isinstance(node, ast.Name)}
    if named & set(HELD):
        return False
    keywords = statement.value.keywords if isinstance(statement.value, ast.Call) else []
    return not any(
        keyword.arg == "init"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is False
        for keyword in keywords
    )


def _called(call: ast.Call) -> str:
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))


def _members(definition: ast.ClassDef) -> list[Any]:
    """Names, and values as far as they are plain and no code's address."""
    found: list[Any] = []
    for statement in definition.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            found.append(statement.targets[0].id)
            value = getattr(statement.value, "value", None)
            if isinstance(value, int) or (isinstance(value, str) and value and "." not in value):
                found.append(value)
    return list(dict.fromkeys(found))


def _of_values(kind: str, values: list[Any]) -> str:
    return f"{kind}[{', '.join(map(repr, values))}]"


def _generic(name: str, inner: "list[list[str]]") -> str:
    """A tuple's first item stands for all of them, a mapping's last for its values."""
    held = [" | ".join(types) or "Any" for types in inner]
    if name == "list":
        return f"list[{held[0]}]"
    return f"dict[str, {held[-1]}]" if len(held) == 2 else "dict"


def variables(source: Source, package: Path) -> list[str]:
    """Names in the table of vllm.envs, and what its code reads past the table."""
    found = set()
    hit = source.found(f"{package.name}.envs", TABLE)
    value = getattr(hit[1], "value", None) if hit else None
    if isinstance(value, ast.Dict):
        found |= {str(key.value) for key in value.keys if isinstance(key, ast.Constant)}
    for path in sorted(package.rglob("*.py")):
        found |= set(READ.findall(path.read_text(encoding="utf-8", errors="replace")))
    return sorted(found)


def version(package: Path) -> str:
    """As its build wrote it; "" for a checkout."""
    path = package / "_version.py"
    written = path.read_text(encoding="utf-8") if path.is_file() else ""
    return "".join(VERSION.findall(written)[:1])


def read(package: Path) -> dict[str, Any]:
    """`arguments`, `nested` configurations and `environment` of the vLLM in this directory."""
    source = Source(package)
    reader = Reader(source)
    arguments = reader.fields(f"{package.name}.engine.arg_utils", "EngineArgs")
    nested = {name: fields for name, fields in sorted(reader.nested.items()) if fields}
    return {
        "arguments": arguments,
        "nested": nested,
        "environment": variables(source, package),
    }


def installed() -> "Path | None":
    """Where this Python has vLLM; None: nowhere. It isn't imported."""
    spec = importlib.util.find_spec("vllm")
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else installed()
    print(json.dumps({"version": version(place), "takes": read(place)} if place else None))
