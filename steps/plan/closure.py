"""Which files a module's process runs: its own, and those of every module of ours that it imports
or names, by reading them and without running any.

A module whose name is a text (`python -m`, `import_module`) counts like an import; a name
that ends in a dot stands for all modules below it.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path

PACKAGE = "steps"
FILES = 1024
"""So many are remembered in a process, by their text: several times what `steps/` has."""

PLUMBING: Mapping[str, str] = {
    "steps/base/step.py": "hands on configuration and inputs, and both are recorded as they are",
    "steps/base/record.py": "stores what a step gives it, in a form that has its own number",
    "steps/base/version.py": "says which version this is",
    "steps/base/console.py": "prints",
    "steps/base/errors.py": "words of refusals, after which there is no result",
    "steps/base/deaths.py": "words on processes that ended without a result",
    "steps/plan/registry.py": "names steps and folders; what a job is given is in its plan",
    "steps/plan/spec.py": "the type of the table of steps",
}
"""Files that can't change a result, each with the reason: they aren't counted, nor is what only
they import."""

_NAMED = re.compile(rf"\b{PACKAGE}(?:\.[A-Za-z_]\w*)+\.?")


def closure(module: str, root: Path) -> tuple[str, ...]:
    """Paths relative to `root`, sorted, without PLUMBING."""
    return Closures(root).of(module)


class Closures:
    """Closures of the modules of one checkout; each file is read once."""

    def __init__(self, root: Path) -> None:
        found = sorted(path.relative_to(root) for path in root.glob(f"{PACKAGE}/**/*.py"))
        self._files = {_module(path): path.as_posix() for path in found}
        self._needs: Callable[[str], frozenset[str]] = cache(
            lambda module: frozenset(self._below(_mentioned(_text(root / self._files[module]))))
        )

    def of(self, module: str) -> tuple[str, ...]:
        """The files of a module that is started with `python -m`."""
        seen, due = set[str](), list(self._started(module))
        while due:
            one = due.pop()
            if one in seen or self._files[one] in PLUMBING:
                continue
            seen.add(one)
            due.extend(self._needs(one))
        return tuple(sorted(self._files[one] for one in seen))

    def _below(self, mentioned: Iterable[tuple[str, bool]]) -> Iterator[str]:
        for name, started in mentioned:
            if name.endswith("."):
                yield from (module for module in self._files if module.startswith(name))
            yield from self._started(name) if started else self._imported(name)

    def _started(self, name: str) -> Iterator[str]:
        yield from self._imported(name)
        if f"{name}.__main__" in self._files:
            yield f"{name}.__main__"

    def _imported(self, name: str) -> Iterator[str]:
        """A module and the packages that it is in; of a name within a module, that module."""
        parts = name.rstrip(".").split(".")
        whole = (".".join(parts[: number + 1]) for number in range(len(parts)))
        yield from (module for module in whole if module in self._files)


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@lru_cache(FILES)
def _mentioned(text: str) -> tuple[tuple[str, bool], ...]:
    """Names of ours in a file, and whether each is only a text, by which a module is started."""
    return tuple(_mentions(ast.parse(text)))


def _mentions(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    unread = {id(node) for node in _unread(tree)}
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", False) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((name, True) for name in _NAMED.findall(node.value))


def _unread(tree: ast.Module) -> Iterator[ast.AST]:
    """Docstrings, and what only a type checker imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from (inner for one in node.body for inner in ast.walk(one))
