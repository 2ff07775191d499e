"""Results are typed: written as before, read back through one function, refused in a sentence."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.base.record import Manifest, publish
from steps.config.environments import EnvironmentResult, ImageResult
from steps.config.resolved import Resolved
from steps.config.results import Result, result_of
from steps.config.run_results import EngineIdentity, ProbeResult, Report, RunAccelerators, RunResult
from steps.config.submission import ProvenanceResult
from steps.config.weights import WeightsResult
from tests.conftest import ROOT
from tests.running import run_result

RUN = Manifest(Path("results/runs/x"), "performance_run", {}, {}, {}, run_result())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"duration_s": "long"}, "duration_s"),
        ({"engine": {"name": "null"}}, "engine.version"),
        ({"tries": 0}, "tries"),
        ({"resolved": {"attention": 3}}, "resolved.attention"),
        ({"journal": []}, "journal"),
        ({"failures": "none"}, "failures"),
    ],
)
def test_a_result_that_is_none_of_its_kind_is_refused_in_a_sentence(
    change: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError) as refused:
        result_of(replace(RUN, result=run_result(**change)), RunResult)
    said = str(refused.value)
    assert said.startswith("results/runs/x holds a result of performance_run that this version")
    assert named in said and "\n" not in said and said.endswith("which makes it again")


@pytest.mark.parametrize("kind", [RunResult, ImageResult, WeightsResult, EnvironmentResult])
def test_a_result_without_what_makes_it_one_is_refused(kind: type[Result]) -> None:
    with pytest.raises(UserError, match="can't read"):
        result_of(replace(RUN, result={}), kind)


def test_results_of_earlier_and_later_versions_are_read() -> None:
    """Those of before tries, engines' words and images were recorded; and keys of a later one."""
    ran = result_of(replace(RUN, result=run_result(humidity=0.4)), RunResult)
    assert (ran.tries, ran.degraded, ran.resolved, ran.journal) == (1, (), None, None)
    assert ran.engine.image is None and ran.dropped_variables == 0
    image = replace(RUN, result={"image": "sha256:0", "python": "python3"})
    assert result_of(image, ImageResult).base is None
    made = result_of(replace(RUN, result={"name": "cpu"}), EnvironmentResult)
    assert made.python == "of an unknown version"
    probed = result_of(replace(RUN, result={"duration_s": 600.0}), ProbeResult)
    assert (probed.ended, probed.lasted_s) == ("complete", 600.0)


def test_accelerators_are_read_back_each_with_its_own_or_all_with_one() -> None:
    said = {
        "listed": "2 × AMD Instinct MI325X",
        "architecture": "gfx942",
        "driver": None,
        "memory_mib": [262128, None],
        "bus": ["0000:05:00.0", None],
        "before": {"power_cap_w": 1000.0, "compute_partition": ["SPX", "CPX"], "soc_pstate": 1},
        "after": {},
    }
    ran = result_of(replace(RUN, result=run_result(accelerators=said)), RunResult)
    assert isinstance(ran.accelerators, RunAccelerators)
    assert ran.accelerators.memory_mib == (262128, None)
    assert ran.dumped()["accelerators"] == said
    several = {"nodes": [said, None]}
    ran = result_of(replace(RUN, result=run_result(accelerators=several)), RunResult)
    assert ran.dumped()["accelerators"] == several
    with pytest.raises(UserError, match=r"accelerators\.RunAccelerators\.listed"):
        result_of(replace(RUN, result=run_result(accelerators={"bus": []})), RunResult)


def test_a_result_is_written_as_it_was_said() -> None:
    """What a step left out stands nowhere, and what engines say stands whole: the form of records
    is that of before results had types."""
    resolved = Resolved(attention="FLASH", configuration={"model": {"dtype": "bfloat16"}})
    report = Report(engines=(), failures=(), degraded=("engine 0 died",))
    found = RunResult(
        mode="PerformanceOnly",
        scenario="Server",
        engine=EngineIdentity(name="null", version="1", device="none", threads=1, emulated=False),
        **report.given(),
        loadgen_version="5.1.2",
        resolved=resolved,
        samples=1,
        output_tokens=2,
        duration_s=3,
    ).dumped()
    assert found == {
        "mode": "PerformanceOnly",
        "scenario": "Server",
        "engine": {
            "name": "null",
            "version": "1",
            "device": "none",
            "threads": 1,
            "emulated": False,
        },
        "engines": [],
        "failures": [],
        "degraded": ["engine 0 died"],
        "loadgen_version": "5.1.2",
        "resolved": resolved.model_dump(mode="json", exclude={"configuration"}),
        "samples": 1,
        "output_tokens": 2,
        "duration_s": 3,
    }
    assert "kv_cache_blocks" in found["resolved"]
    assert ProvenanceResult.model_validate({"log": 3, "code": 1}).dumped() == {"log": 3, "code": 1}


def test_weights_keep_what_was_said_of_those_that_they_were_made_from(tmp_path: Path) -> None:
    source = {"name": "tiny", "simulated": False, "recipe": {"phases": [1, 2]}}
    with publish(tmp_path / "model", step="model", config={}, inputs={}, code="") as workspace:
        workspace.result = source
    made = result_of(Manifest.read(tmp_path / "model/manifest.json"), WeightsResult)
    assert made.dumped() == source
    pruned = made.but(dropped_layers=(1, 2)).but(format="mxfp4", simulated=True)
    assert pruned.dumped() == {
        **source,
        "dropped_layers": [1, 2],
        "format": "mxfp4",
        "simulated": True,
    }


def test_nothing_reads_or_writes_a_result_but_through_its_type() -> None:
    """`manifest.result["duration_s"]` finds out in a user's hands that the key is another one."""
    readers = ("steps/config/results.py", "steps/config/verdicts.py", "steps/base/record.py")
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("steps", "bench")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.relative_to(ROOT).as_posix() not in readers
        for line in _raw(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, found
    planted = (
        "a = run.result['x']\nb = run.result.get('y')\nc = 'z' in run.result\nd = {**m.result}\n"
        "w.result['x'] = 1\nw.result = {'x': 1}\nw.result.update(x=1)\nw.result |= {'x': 1}"
    )
    assert sorted(_raw(ast.parse(planted))) == [1, 2, 3, 4, 5, 6, 7, 8]
    typed = "w.result = made.dumped()\nw.result = as_result(verdict)\nw.result |= probed.dumped()"
    assert list(_raw(ast.parse(typed))) == []


LOOKS = ("get", "update", "setdefault", "pop", "items", "keys", "values")


def _raw(tree: ast.Module) -> Iterator[int]:
    """Lines that take or set a part of something's `result`, or look into it, as of a dictionary;
    and those that make one of anything but a typed result."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Subscript) or (
            isinstance(node, ast.Attribute) and node.attr in LOOKS
        ):
            parts = [node.value]
        elif isinstance(node, ast.Compare):
            parts = node.comparators
        elif isinstance(node, ast.Dict):
            parts = [value for key, value in zip(node.keys, node.values, strict=True) if not key]
        elif isinstance(node, ast.Assign | ast.AugAssign) and not _is_typed(node.value):
            parts = node.targets if isinstance(node, ast.Assign) else [node.target]
        for part in parts:
            if isinstance(part, ast.Attribute) and part.attr == "result":
                yield node.lineno


def _is_typed(value: ast.expr) -> bool:
    """A call of `dumped` or of `as_result`."""
    called = value.func if isinstance(value, ast.Call) else None
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in ("dumped", "as_result")
