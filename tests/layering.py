"""Holds the layers of steps/, as `python -m tests.layering` in `make lint`: a layer imports only
lower ones, and no module imports itself by way of others. Imports within functions count.
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

LAYERS = (
    *("base", "mlperf", "config", "plan", "machine", "prepare"),
    *("run", "judge", "submit", "report", "schedule", "commands"),
)
"""Folders of steps/, the lowest first."""

REGISTRY = "steps.plan.registry"
PLANLESS = ("run", "judge", "submit")
"""Steps get what was planned as arguments: of the plan they know only the registry's names."""

Imports = dict[str, dict[str, int]]
"""By module: the modules that it imports, each with the line of the first import."""


def problems(root: Path) -> list[str]:
    """One sentence for each import that has to go, and for each module outside the layers."""
    paths = sorted(path.relative_to(root) for path in root.glob("steps/**/*.py"))
    found = [
        f"{path} is in no layer; the folders of steps/ are {', '.join(LAYERS)}"
        for path in paths
        if path != Path("steps/__init__.py") and path.parts[1] not in LAYERS
    ]
    if found:
        return found
    files = {_module(path): root / path for path in paths}
    imports = {module: _imports(module, path, files) for module, path in files.items()}
    return [*_upward(imports), *_past_the_registry(imports), *_circles(imports)]


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _layer(module: str) -> str:
    """`steps` itself, which all may import, has none."""
    return module.split(".")[1] if "." in module else ""


def _imports(module: str, path: Path, files: dict[str, Path]) -> dict[str, int]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif not isinstance(node, ast.ImportFrom):
            continue
        else:
            source = resolve_name("." * node.level + (node.module or ""), package)
            whole = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in files else source for name in whole]
        for name in names:
            if name in files and name != "steps":
                found[name] = min(node.lineno, found.get(name, node.lineno))
    return found


def _each(imports: Imports) -> Iterator[tuple[str, str, str]]:
    """Both ends of every import, and a sentence that names them."""
    for module, targets in imports.items():
        for target, line in targets.items():
            yield module, target, f"{module}, line {line}, imports {target}"


def _upward(imports: Imports) -> Iterator[str]:
    height = {"": -1} | {layer: number for number, layer in enumerate(LAYERS)}
    for module, target, words in _each(imports):
        ours, theirs = _layer(module), _layer(target)
        if height[theirs] > height[ours]:
            yield f"{words}: {theirs} is above {ours or 'steps itself'}"


def _past_the_registry(imports: Imports) -> Iterator[str]:
    for module, target, words in _each(imports):
        if _layer(module) in PLANLESS and _layer(target) == "plan" and target != REGISTRY:
            yield f"{words}: {_layer(module)} knows of the plan only {REGISTRY}"


def _circles(imports: Imports) -> Iterator[str]:
    left = {module: set(targets) for module, targets in imports.items()}
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle = error.args[1]
            yield f"a circle of imports: {' <- '.join(circle)}"
            left[circle[1]].discard(circle[0])
        else:
            return


if __name__ == "__main__":
    found = problems(Path(__file__).resolve().parent.parent)
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)
