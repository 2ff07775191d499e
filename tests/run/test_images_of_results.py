"""The image that an engine ran in is part of what was measured."""

from pathlib import Path

import pytest

from steps.base.record import publish
from steps.config.run_results import EngineIdentity
from steps.run.sut.run import _image

BASE = "rocm/amd-mlperf:mi355x_llama2_70b_inference_6.0"
ENGINE = {"name": "vllm", "version": "0.14.0", "generation": "V1", "device": "rocm"}


def words(engine: dict[str, str]) -> str:
    return EngineIdentity.model_validate(engine).words


def image(home: Path, digest: str, step: str = "container") -> dict[str, str]:
    with publish(home / digest, step=step, config={}, inputs={}, code="") as workspace:
        base = f"{BASE}@sha256:{digest}"
        workspace.result = {"image": "sha256:" + "1" * 64, "base": base, "python": "python3"}
    return _image({"environment": home / digest / "manifest.json"})


def test_one_tag_of_two_digests_is_two_softwares(tmp_path: Path) -> None:
    first, second = (words({**ENGINE, **image(tmp_path, digest)}) for digest in ("aa", "bb"))
    assert first != second
    for said, digest in ((first, "aa"), (second, "bb")):
        assert said.startswith("vllm 0.14.0 (V1, rocm) in ")
        assert f"{BASE}@sha256:{digest}" in said


def test_an_engine_in_a_native_environment_names_no_image(tmp_path: Path) -> None:
    assert image(tmp_path, "aa", step="environment") == {}
    assert _image({}) == {}
    assert words({**ENGINE, "device": "cpu"}) == "vllm 0.14.0 (V1, cpu)"


def test_results_of_before_generations_were_named_are_read() -> None:
    assert words({"name": "vllm", "version": "0.32.0", "device": "cpu"}) == "vllm 0.32.0 (cpu)"


@pytest.mark.parametrize("base", [None, "python:3.11"])
def test_an_image_of_an_older_record_is_named_by_its_configuration(
    tmp_path: Path, base: str | None
) -> None:
    config = {"base": base} if base else {}
    with publish(tmp_path / "old", step="container", config=config, inputs={}, code="") as made:
        made.result = {"image": "sha256:" + "1" * 64, "python": "python3"}
    found = _image({"environment": tmp_path / "old/manifest.json"})["image"]
    assert found.endswith("built as sha256:111111111111")
    assert found.startswith(base or "a base that its record doesn't name")
