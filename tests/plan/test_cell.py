"""What the planner decides from is typed first: a file that lacks a key gets its name."""

from pathlib import Path

import pytest

from steps.base.errors import UserError
from steps.plan.make import make
from tests.conftest import edit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prune:\n  layers: 15\n  block: {by: layers, first: 7, last: 9}\n  workers: 1", "when"),
        ("prune: {layers: 15, when: before_quantize, workers: 1}", "block"),
        ("prune: [7, 9]", "prune"),
        ("prune: after_quantize", "prune"),
        ("finetune: {seed: 3}", "finetune.data"),
        ("quick_minimum: {prune: much}", "quick_check.prune"),
        ("quick_minimum: 0.9", "quick_check"),
    ],
)
def test_a_compression_without_a_key_is_told_which(project: Path, text: str, words: str) -> None:
    (project / "conf/compression/ours.yaml").write_text(
        f"defaults: [none, _self_]\nname: ours\n{text}\n", encoding="utf-8"
    )
    refused(project, words, "compression=ours")


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("precision/fp8.yaml", "tool: quark", "tool: [quark]", "quantize.tool"),
        ("precision/fp8.yaml", "format: fp8\n", "format: 8\n", "quantize.format"),
        ("hardware/cpu.yaml", "environment: cpu", "environment: [cpu]", "environment"),
        ("hardware/cpu.yaml", "    name: cpu\n", "", "container.engine.name"),
        ("length/short.yaml", "name: short", "name: {a: b}", "length"),
        ("runtime/native.yaml", "native: true", "native: perhaps", "effective.runtime.native"),
        ("benchmark/rehearsal.yaml", "quick_samples: 256", "quick_samples: few", "quick_run"),
        ("benchmark/rehearsal.yaml", "  embedded: steps/prepare/rehearsal/model\n", "", "model"),
        ("scheduler/local.yaml", "name: local", "name: elsewhere", "scheduler"),
    ],
)
def test_a_file_with_a_wrong_value_is_told_where(
    project: Path, file: str, old: str, new: str, words: str
) -> None:
    edit(project / "conf" / file, old, new)
    refused(project, words, "precision=fp8")


def refused(project: Path, words: str, *overrides: str) -> None:
    with pytest.raises(UserError) as caught:
        make(project, ["scenario=Offline", *overrides])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
