"""From vLLM's objects after the start to what it resolved, and to where that isn't what was asked.

Versions keep things in different places: what isn't found is left out, never guessed.
"""

import enum
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from steps.config.resolved import Resolved

ELSEWHERE = {
    "kv_cache_dtype": ("cache_config", "cache_dtype"),
    "attention_backend": ("attention_config", "backend"),
    "scheduling_policy": ("scheduler_config", "policy"),
}
"""Arguments that a configuration has by another name. Others keep theirs."""

SAME = {"half": "float16", "float": "float32"}
AUTO = "auto"
CONFIG, DTYPE = "Config", "dtype"
"""Ends of names of vLLM's configurations, and PyTorch's class of types."""

LONGEST = 300
DEEPEST = 5
SHOWN = 12
"""How many items of a list a sentence shows."""


def resolved(engine: Any, asked: Mapping[str, JsonValue]) -> Resolved:
    """What an LLMEngine says; `asked`: what it was given, by EngineArgs' names."""
    vllm_config = getattr(engine, "vllm_config", None)
    sections = {
        name: _plain(value)
        for name, value in (vars(vllm_config) if vllm_config is not None else {}).items()
        if type(value).__name__.endswith(CONFIG)
    }
    modules = list(_modules(engine))
    cache, compilation = (
        _section(sections, name) for name in ("cache_config", "compilation_config")
    )
    found, unresolved = compared(asked, sections)
    blocks = cache.get("num_gpu_blocks") or cache.get("num_cpu_blocks")
    return Resolved(
        attention=", ".join(sorted({name for m in modules if (name := _attention(m))})),
        quantization=str(_section(sections, "model_config").get("quantization") or ""),
        kernels=dict(sorted(Counter(k for m in modules if (k := _kernel(m))).items())),
        graphs=_graphs(compilation, _section(sections, "model_config")),
        kv_cache_blocks=blocks if isinstance(blocks, int) else None,
        block_size=size if isinstance(size := cache.get("block_size"), int) else None,
        unresolved=tuple(unresolved),
        differences=tuple(found),
        configuration=sections,
    )


def _section(sections: Mapping[str, JsonValue], name: str) -> dict[str, JsonValue]:
    found = sections.get(name)
    return found if isinstance(found, dict) else {}


def _graphs(compilation: Mapping[str, JsonValue], model: Mapping[str, JsonValue]) -> str:
    """Before vLLM had modes: graphs, unless it is eager."""
    mode = compilation.get("cudagraph_mode")
    if isinstance(mode, str):
        return mode
    eager = model.get("enforce_eager")
    return {True: "NONE", False: "FULL"}.get(eager, "") if isinstance(eager, bool) else ""


# ---- the model ---------------------------------------------------------------------------------


def _modules(engine: Any) -> Iterator[Any]:
    """Layers of the model, if it is in this process."""
    place = getattr(engine, "model_executor", None)
    for name in ("driver_worker", "worker", "model_runner", "model"):
        place = getattr(place, name, place)
    modules = getattr(place, "modules", None)
    if callable(modules):
        yield from modules()


def _attention(module: Any) -> str:
    backend = getattr(module, "attn_backend", None)
    name = getattr(backend, "get_name", None)
    try:
        return str(name()) if callable(name) else ""
    except Exception:  # a backend of another version may want arguments
        return str(getattr(backend, "__name__", ""))


def _kernel(module: Any) -> str:
    """The class that computes a layer: a quantization's method, its scheme's, and its kernel's."""
    method = getattr(module, "quant_method", None)
    if method is None:
        return ""
    scheme = getattr(module, "scheme", None)
    kernel = getattr(scheme or method, "kernel", None) or getattr(method, "fp8_linear", None)
    return "/".join(type(one).__name__ for one in (method, scheme, kernel) if one is not None)


# ---- comparison --------------------------------------------------------------------------------


def compared(
    asked: Mapping[str, JsonValue], sections: Mapping[str, JsonValue]
) -> tuple[list[str], list[str]]:
    """Differences, a sentence each, and arguments that no section says anything of."""
    said, unresolved = [], []
    for name, value in asked.items():
        found = list(_values(name, value, sections))
        if not found:
            unresolved.append(name)
        elif not any(_same(value, one) for one in found):
            said += list(_sentences(f"arguments.{name}", value, found[0]))
    return said, unresolved


def _values(name: str, value: JsonValue, sections: Mapping[str, JsonValue]) -> Iterator[JsonValue]:
    if isinstance(value, dict) and name in sections:
        yield sections[name]
        return
    if name in ELSEWHERE:
        section, key = ELSEWHERE[name]
        own = _section(sections, section)
        yield from [own[key]] if key in own else []
        return
    for held in sections.values():
        if isinstance(held, dict) and name in held:
            yield held[name]


def _same(asked: JsonValue, found: JsonValue) -> bool:
    if isinstance(asked, str) and asked.lower() == AUTO:
        return True
    if isinstance(asked, dict):
        return isinstance(found, dict) and all(
            _same(value, found.get(key)) for key, value in asked.items()
        )
    if isinstance(asked, list) and isinstance(found, list):
        return sorted(map(str, asked)) == sorted(map(str, found))
    if isinstance(asked, bool) or isinstance(found, bool):
        return asked is found
    if isinstance(asked, int | float) and isinstance(found, int | float):
        return math.isclose(asked, found)
    words = [SAME.get(str(one).lower(), str(one).lower()) for one in (asked, found)]
    return words[0] == words[1]


def _sentences(place: str, asked: JsonValue, found: JsonValue) -> Iterator[str]:
    if isinstance(asked, dict) and isinstance(found, dict):
        for key, value in asked.items():
            if not _same(value, found.get(key)):
                yield from _sentences(f"{place}.{key}", value, found.get(key))
        return
    yield f"{place}: {_shown(asked)} was asked for, the engine has {_shown(found)}"


def _shown(value: JsonValue) -> str:
    if isinstance(value, list) and len(value) > SHOWN:
        return f"a list of {len(value)} from {value[0]} to {value[-1]}"
    return f"{value!r:.100}"


def _plain(value: Any, depth: int = DEEPEST) -> JsonValue:
    """As JSON; layers, tensors and all else that is no configuration by the name of its class."""
    if value is None or isinstance(value, bool | int):
        return value.name if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value[:LONGEST]
    if not depth:
        return type(value).__name__
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(inner, depth - 1) for inner in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    kind = type(value)
    if kind.__module__.split(".")[0] == "vllm" and kind.__name__.endswith(CONFIG):
        own = {k: v for k, v in vars(value).items() if not k.startswith("_")}
        return _plain(own, depth - 1)
    return str(value).removeprefix("torch.") if kind.__name__ == DTYPE else kind.__name__
