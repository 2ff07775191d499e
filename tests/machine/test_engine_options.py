"""What an engine's source says that it takes, read without importing it."""

import json
import sys
from pathlib import Path

import pytest

from steps.base.errors import UserError
from steps.machine import engine_options, vllm_source

FILES = {
    "__init__.py": "raise ImportError('nothing of it may run')\n",
    "_version.py": "__version__ = version = '9.9.1'\n",
    "engine/__init__.py": "",
    "engine/arg_utils.py": """
from typing import TYPE_CHECKING, ClassVar, Literal, Optional, Union
from vllm.config import Cache, Dtype, Extra, Mode, Passes, get_field
from . import nothing
import torch

class Base:
    inherited: int = 1

class EngineArgs(Base):
    model: str = "x"
    seqs: Optional[int] = None
    steps: "int | None" = 3
    dtype: Dtype = "auto"
    share: float = Cache.share
    mode: Mode = Mode.FAST
    passes: Union[Passes, dict, None] = get_field(Cache, "passes")
    sizes: list[int] | None = None
    device: Union[str, "torch.dtype", type[object]] = "cpu"
    unknown: "Missing" = None
    shared: ClassVar[int] = 1
    _private: int = 2
""",
    "config/__init__.py": "from .cache import *\nfrom vllm.config.modes import Mode\n",
    "config/modes.py": "import enum\nclass Mode(enum.Enum):\n    FAST = 1\n    SLOW = (1, 2)\n",
    "config/cache.py": """
from typing import Literal, Annotated
from pydantic import Field
Width = Literal["half", "float"]
Dtype = Literal["auto", Width]
class Passes:
    fuse: bool = True
    inner: "Passes | None" = None
    found: int = Field(default=0, init=False)
class Cache:
    share: float = Field(default=0.9, gt=0, le=1)
    passes: Passes = Field(default_factory=Passes)
""",
    "envs.py": """
import os
environment_variables = {"VLLM_A": lambda: os.getenv("VLLM_A"), "HOME_OF_B": lambda: 1}
""",
    "worker.py": "import os\nif os.environ.get('VLLM_OUTSIDE'): os.environ['AITER_X']\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "vllm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "vllm"


def test_types_are_followed_through_imports_aliases_and_nested_configurations(
    package: Path,
) -> None:
    found = vllm_source.read(package)
    assert {name: option["type"] for name, option in found["arguments"].items()} == {
        "inherited": "int",
        "model": "str",
        "seqs": "int | None",
        "steps": "int | None",
        "dtype": "Literal['auto', 'half', 'float']",
        "share": "float",
        "mode": "Enum['FAST', 1, 'SLOW']",
        "passes": "Passes | dict | None",
        "sizes": "list[int] | None",
        "device": "str",
        "unknown": "Any",
    }
    assert found["arguments"]["share"] == {"type": "float", "gt": 0, "le": 1}
    assert found["nested"] == {
        "Passes": {"fuse": {"type": "bool"}, "inner": {"type": "Passes | None"}}
    }
    assert found["environment"] == ["AITER_X", "HOME_OF_B", "VLLM_A", "VLLM_OUTSIDE"]


def test_a_python_lists_its_own_vllm_and_imports_nothing_of_it(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "env/bin/python"
    python.parent.mkdir(parents=True)
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    monkeypatch.setattr(engine_options, "script", lambda: path + SCRIPT)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    text = engine_options.of_environment(python)
    assert text is not None
    assert json.loads(text)["name"] == "vLLM 9.9.1" and '"source": "env"' in text


SCRIPT = engine_options.script()


def test_a_python_without_vllm_takes_nothing() -> None:
    assert engine_options.of_environment(Path(sys.executable)) is None


@pytest.mark.parametrize("before", ["", "sitecustomize says hello\n", '{"a": 1}\n[1, 2]\n'])
def test_what_a_python_prints_besides_is_passed_over(before: str) -> None:
    takes = {"arguments": {"seed": {"type": "int"}}, "nested": {}, "environment": ["VLLM_A"]}
    printed = before + json.dumps({"version": "9.9", "takes": takes}) + "\n\n"
    text = engine_options.text(printed, "env")
    assert text is not None and json.loads(text)["arguments"] == takes["arguments"]
    assert engine_options.text(f"{before}null\n", "env") is None


@pytest.mark.parametrize(
    "printed",
    [
        *("", "\n", "hello", "{", "3", "[]", "{}", '{"version": "9.9"}', "[" * 100_000),
        '{"version": "9.9", "takes": null}',
        '{"version": "9.9", "takes": {"arguments": ["seed"]}}',
        '{"version": "9.9", "takes": {"arguments": {"seed": 1}, "nested": {}, "environment": []}}',
        '{"version": "", "takes": {"arguments": {"a": {"b": 3}}, "nested": {}, "environment": []}}',
        '{"version": null, "takes": {"arguments": {}, "nested": {}, "environment": []}}',
    ],
    ids=lambda text: text[:40],
)
def test_a_python_that_says_something_else_is_an_error(printed: str) -> None:
    with pytest.raises(UserError, match=r"^env doesn't say what its vLLM takes: it printed '"):
        engine_options.text(printed, "env")


def test_a_python_that_cannot_say_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_options, "script", lambda: "raise OSError('disk gone')")
    with pytest.raises(UserError, match="can't say what its vLLM takes: OSError: disk gone"):
        engine_options.of_environment(Path(sys.executable))
