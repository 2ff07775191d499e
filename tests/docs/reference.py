"""docs/reference/configuration.md and system.schema.json, made from the types of the configuration.

`python -m tests.docs.reference` (`make reference`) writes both; a test keeps them in step. A key's
description is the string below its field, or the sentence of the class's docstring that begins with
the key in backticks.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any, get_args

from pydantic import BaseModel, RootModel, TypeAdapter
from pydantic_core import PydanticUndefined

from steps import ROOT
from steps.base.strict import Scenario
from steps.commands.tune.config import TuneConfig
from steps.config import options
from steps.config.engine import Engine
from steps.config.engine_planned import PlannedEngine
from steps.config.fetch import FetchSettings
from steps.config.groups import Cluster, Hardware, System
from steps.config.journal import JournalSettings
from steps.config.layers import SELECTORS
from steps.config.loadgen import Loadgen
from steps.config.runtime import Runtime
from steps.config.scale import Scale
from steps.config.scheduler import Scheduler
from steps.config.window import WindowBounds
from steps.mlperf.rounds import load, names
from steps.plan.registry import STEPS
from steps.report.comparison.tolerances import Tolerances
from tests.docs import replaced

PAGE = ROOT / "docs/reference/configuration.md"
SCHEMA = ROOT / "docs/reference/system.schema.json"

HEAD = """\
# Configuration keys

`make reference` writes this page from the types that check the configuration. An unknown key, a
missing one or a value of another type is an error that names the key. `./reproduce ls` lists the
values of every group.

A value lives in `conf/`, so most keys have no default: "required" means that some file of `conf/`,
or your own, sets it. A key of a group is overridden as `group.key=value`, for instance
`length.min_query_count=700`; [set](../how-to/overrides.md#set-a-value) wins over every file.

## Completion in an editor

`docs/reference/system.schema.json` is a JSON Schema of a system's file, in `conf/system/` or passed
as `--site`. Editors with a YAML language server complete and check keys if the file begins with

```yaml
# yaml-language-server: $schema=https://…/docs/reference/system.schema.json
```

A path on your machine works as well. The schema allows what a layer may leave out; `./reproduce
plan` checks the whole.
"""


@dataclass(frozen=True)
class Section:
    """A part of the page: the types whose keys it lists."""

    title: str
    where: str
    types: tuple[Any, ...]


SECTIONS = (
    Section("System", "`conf/system/NAME.yaml`, a `--site` file, or `system.KEY=`", (System,)),
    Section(
        "Engines that Reprise starts",
        "`hardware.engine`, `engine.settings` and `system.engine`, in layers",
        (Engine,),
    ),
    Section("Engines that Reprise plans", "the same places", (PlannedEngine,)),
    Section("LoadGen", "`benchmark.loadgen` and `system.loadgen`, in layers", (Loadgen,)),
    Section("Hardware", "`conf/hardware/NAME.yaml`", (Hardware,)),
    Section("Cluster", "`conf/cluster/NAME.yaml`, `conf/hosts.yaml`", (Cluster,)),
    Section("Runtime", "`conf/runtime/NAME.yaml`", (Runtime,)),
    Section("Scheduler", "`conf/scheduler/NAME.yaml`", (Scheduler,)),
    Section("Fetching", "`conf/fetch.yaml`", (FetchSettings,)),
    Section("Scale", "`conf/scale/NAME.yaml`, and below it by benchmark and compression", (Scale,)),
    Section("Tune", "`conf/tune.yaml`", (TuneConfig,)),
    Section("Journal", "`conf/journal.yaml`", (JournalSettings,)),
    Section("Window", "`conf/window.yaml`", (WindowBounds,)),
    Section("Tolerances", "`conf/tolerances.yaml`", (Tolerances,)),
    Section(
        "Steps",
        "what a step is given: its key of `conf/steps.yaml` collects it from the groups above",
        tuple(kind for spec in STEPS.values() for kind in (spec.config, spec.planned) if kind),
    ),
)


# ---- types --------------------------------------------------------------------------------------


def models(kind: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, those in their fields included, each as often as it is met."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
        return
    for argument in get_args(kind):
        yield from models(argument)


def listed() -> list[tuple[Section, list[type[BaseModel]]]]:
    """Every model once, in the first section that has it."""
    seen: dict[type[BaseModel], None] = {}
    found = []
    for section in SECTIONS:
        fresh = [
            model
            for model in dict.fromkeys(one for kind in section.types for one in models(kind))
            if model not in seen and not issubclass(model, RootModel)
        ]
        seen |= dict.fromkeys(fresh)
        found.append((section, fresh))
    return found


# ---- descriptions -------------------------------------------------------------------------------


@cache
def descriptions(model: type[BaseModel]) -> Mapping[str, str]:
    """What is said of each key, by the model or by a base of it."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base.__module__.startswith("steps."):
            found |= _in_docstring(base) | _below_fields(base)
    chosen = {key: CHOSEN for key in CHOOSES if _has_one_value(model, key)}
    return {key: text for key, text in (chosen | found).items() if key in model.model_fields}


CHOOSES = ("kind", "by", "source", "name")
"""Keys that say which of several types a mapping is of, where a type has one value of them."""
CHOSEN = "this value chooses the keys of this table."


def _has_one_value(model: type[BaseModel], key: str) -> bool:
    field = model.model_fields.get(key)
    return field is not None and len(get_args(field.annotation)) == 1


def _in_docstring(model: type[BaseModel]) -> dict[str, str]:
    """Sentences that begin with keys: "`a`: one.", "`a`, `b` and `c` are two."."""
    text = " ".join((model.__doc__ or "").split())
    keys = "|".join(map(re.escape, sorted(model.model_fields, key=len, reverse=True)))
    if not keys:
        return {}
    one = rf"`(?:{keys})`"
    head = rf"(?:(?<=^)|(?<=[.;] )){one}(?:(?:,| and|, and) {one})*"
    starts = list(re.finditer(head, text))
    found = {}
    for start, following in zip_longest(starts, starts[1:]):
        sentence = text[start.start() : following.start() if following else None]
        for key in re.findall(rf"`({keys})`", start.group()):
            found[key] = _sentence(sentence, start.group(), key)
    return found


def _sentence(sentence: str, head: str, key: str) -> str:
    """Without the key itself, where it is followed by a colon."""
    rest = sentence[len(head) :]
    text = rest[1:] if rest.startswith(":") and head == f"`{key}`" else sentence
    return text.strip().rstrip(";")


def _below_fields(model: type[BaseModel]) -> dict[str, str]:
    """Strings below the fields of a class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


# ---- the page -----------------------------------------------------------------------------------


def page() -> str:
    """The whole text of configuration.md."""
    lines = [HEAD]
    for section, found in listed():
        lines += [f"## {section.title}", "", f"In {section.where}.", ""]
        for model in found:
            lines += _table(model)
    return "\n".join(lines)


def _table(model: type[BaseModel]) -> list[str]:
    about = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    properties = model.model_json_schema()["properties"] if model.model_fields else {}
    rows = [
        f"| `{key}` | {_type(properties[key])} | {_default(model, key)} "
        f"| {_cell(descriptions(model).get(key, ''))} |"
        for key in model.model_fields
    ]
    head = ["| key | type | default | meaning |", "|---|---|---|---|"] if rows else []
    text = [_cell(about), ""] if model.__doc__ and "doc" not in model.__dict__ else []
    return [f"### {model.__name__}", "", *text, *head, *rows, ""]


def _cell(text: str) -> str:
    """Text that a table shows as it is, with YAML's word for None; backticks do so themselves."""
    text = re.sub(r"\bNone\b", "null", text.replace("|", "\\|"))
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else part.replace("*", "\\*").replace("<", "\\<")
        for part in parts
    )


def _default(model: type[BaseModel], key: str) -> str:
    field = model.model_fields[key]
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "empty"
    return f"`{json.dumps(field.default)}`"


def _type(entry: Mapping[str, Any]) -> str:
    """A JSON Schema in words."""
    if "$ref" in entry:
        name = str(entry["$ref"]).rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})" if name in _anchors() else name
    for several in ("anyOf", "oneOf"):
        if several in entry:
            return " or ".join(dict.fromkeys(_type(one) for one in entry[several]))
    if "const" in entry:
        return f"`{json.dumps(entry['const'])}`"
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    return _plain(entry)


def _plain(entry: Mapping[str, Any]) -> str:
    kind = entry.get("type", "any")
    if kind == "array":
        items = entry.get("items", {})
        return f"list of {_type(items)}" if items else "list"
    if kind == "object":
        patterns = list(entry.get("patternProperties", {}).values())
        inner = patterns[0] if patterns else entry.get("additionalProperties", True)
        return f"map to {_type(inner)}" if isinstance(inner, Mapping) else "map"
    words = {"string": "text", "integer": "whole number", "number": "number", "null": "null"}
    bounds = [
        f"{sign} {entry[name]:g}"
        for name, sign in (
            ("exclusiveMinimum", ">"),
            ("minimum", "≥"),
            ("exclusiveMaximum", "<"),
            ("maximum", "≤"),
        )
        if name in entry
    ]
    if "pattern" in entry and entry["pattern"] not in USUAL:
        bounds.append(f"like `{entry['pattern']}`")
    text = " ".join([words.get(kind, "yes or no" if kind == "boolean" else kind), *bounds])
    return text.replace("|", "\\|")


USUAL = (r"^[A-Za-z0-9][A-Za-z0-9._-]*$",)
"""Patterns that aren't worth a word: names without blanks."""


@cache
def _anchors() -> frozenset[str]:
    return frozenset(model.__name__ for _, found in listed() for model in found)


# ---- the schema ---------------------------------------------------------------------------------


def site_schema() -> dict[str, Any]:
    """A JSON Schema of a system's file: every key optional, layers at any depth."""
    engines = TypeAdapter(Engine | PlannedEngine).json_schema()
    loadgen = Loadgen.model_json_schema()
    system = System.model_json_schema()
    runtime, scheduler = Runtime.model_json_schema(), TypeAdapter(Scheduler).json_schema()
    definitions: dict[str, Any] = {}
    for one in (engines, loadgen, system, runtime, scheduler):
        definitions |= one.get("$defs", {})
    _name_arguments(definitions["VllmArguments"])
    keys = dict(system["properties"])
    keys |= {
        "loadgen": _layer("loadgen"),
        "engine": _layer("engine"),
        "fields": _layer("fields"),
        "target_qps": _group({name: {"type": "number"} for name in get_args(Scenario)}),
    }
    settings = _merged_properties(engines, definitions)
    definitions |= {
        "loadgen": _layered("loadgen", loadgen["properties"]),
        "engine": _layered("engine", settings),
        "fields": _layered("fields", {name: {"type": "string"} for name in _fields()}),
    }
    properties = {
        "defaults": DEFAULTS,
        "system": _group(keys),
        "runtime": _group(runtime["properties"]),
        "scheduler": _group(_merged_properties(scheduler, definitions)),
    }
    properties |= {name: {"type": "object"} for name in FREE}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A system of Reprise: conf/system/NAME.yaml or a --site file",
        **_group(properties),
        "$defs": definitions,
    }
    return _optional(whole)  # type: ignore[no-any-return]


def _name_arguments(vllm: dict[str, Any]) -> None:
    """Those of every build that is known, so that an editor completes them."""
    builds = (options.of_build(ROOT / "conf", build) for build in options.builds(ROOT / "conf"))
    named = sorted({name for build in builds for name in build.arguments})
    vllm["properties"] = {**{name: {} for name in named}, **vllm["properties"]}
    vllm["additionalProperties"] = False


DEFAULTS = {
    "description": "What the file builds on: systems of conf/system, _self_, overrides of groups.",
    "type": "array",
    "items": {"anyOf": [{"type": "string"}, {"type": "object"}]},
}
FREE = ("hardware", "cluster", "engine", "benchmark", "precision", "compression", "length", "fetch")
"""Groups of which a system's file may change anything."""


def _fields() -> list[str]:
    """Fields of a system description, of any round."""
    rounds = [load(name) for name in names()]
    return sorted(
        {
            field
            for one in rounds
            for fields in (
                one.system_fields,
                one.system_fields_network,
                one.system_fields_optional,
            )
            for field in fields
        }
    )


def _layer(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _group(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _layered(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    deeper = {"type": "object", "additionalProperties": _layer(name)}
    return _group({**properties, **dict.fromkeys(SELECTORS, deeper)})


def _merged_properties(one: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of all members of a union: a key that several have may be any of theirs."""
    found: dict[str, list[Any]] = {}
    for member in _members(one, definitions):
        for key, entry in member["properties"].items():
            if entry not in found.setdefault(key, []):
                found[key].append(entry)
    return {
        key: entries[0] if len(entries) == 1 else {"anyOf": entries}
        for key, entries in found.items()
    }


def _members(one: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "$ref" in one:
        yield from _members(definitions[one["$ref"].rsplit("/", 1)[1]], definitions)
    for inner in (*one.get("oneOf", ()), *one.get("anyOf", ())):
        yield from _members(inner, definitions)
    if "properties" in one:
        yield one


INTERPOLATED = {"type": "string", "pattern": r"\$\{"}
SCALARS = ("string", "integer", "number", "boolean", "array")


def _optional(node: Any) -> Any:
    """No key is required; null removes what a base says; ${...} may stand for any value."""
    if isinstance(node, list):
        return [_optional(one) for one in node]
    if not isinstance(node, dict):
        return node
    named = "properties" in node
    result = {
        key: _optional(value)
        for key, value in node.items()
        if not (named and key == "required") and key != "discriminator"
    }
    simple = node.get("type") in SCALARS or "enum" in node or "const" in node
    return {"anyOf": [result, INTERPOLATED, {"type": "null"}]} if simple else result


def schema_text() -> str:
    """The whole text of system.schema.json."""
    return json.dumps(site_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all three files."""
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    replaced.PAGE.write_text(replaced.page(), encoding="utf-8")


if __name__ == "__main__":
    main()
