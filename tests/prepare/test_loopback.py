"""The mirror of a dress rehearsal: what it serves is fetched and checked as what is published."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas
import pytest

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Origin, publish
from steps.config.artifacts import DatasetConfig, DatasetFilesConfig, ModelConfig
from steps.config.mirror import ADDRESS, SERVED, MirrorConfig
from steps.plan.plan import Job, Plan
from steps.prepare import calibration, dataset, dataset_files, mirror, model
from tests.conftest import planned

ROWS = 40
KINDS: Mapping[str, tuple[Any, Any]] = {
    "mirror": (mirror.step, MirrorConfig),
    "model": (model.step, ModelConfig),
    "dataset_files": (dataset_files.step, DatasetFilesConfig),
    "dataset": (dataset.step, DatasetConfig),
}
CELLS = {
    "llama2-70b-99.9": "amd-mi300x",
    "mixtral-8x7b": "amd-mi300x",
    "llama3.1-405b": "amd-mi355x",
    "stable-diffusion-xl": "amd-mi325x-epyc-9655",
}


def fewer(value: Any) -> Any:
    """The same configuration with a few rows."""
    if isinstance(value, dict):
        return {key: ROWS if key == "rows" else fewer(inner) for key, inner in value.items()}
    return value


def config_of(job: Job) -> dict[str, Any]:
    config: dict[str, Any] = fewer(json.loads(job.config))
    if "evaluation_count" in config:
        config |= {"evaluation_count": ROWS, "calibration_count": ROWS}
    return config


def make(plan: Plan, step: str, home: Path, **changes: Any) -> Manifest:
    """One job as its process makes it."""
    run, kind = KINDS[step]
    job = next(job for job in plan.jobs if job.step == step)
    inputs = {role: home / path for role, path in job.inputs.items() if role != "environment"}
    config = {**config_of(job), **changes}
    target, log = (home / job.output).parent, home / "log"
    with publish(target, step=step, config=config, inputs=inputs, code="c", origin=Origin()) as w:
        run(kind.model_validate_json(json.dumps(config)), inputs, w, Console(log))
    return Manifest.read(home / job.output)


def plan_of(benchmark: str) -> Plan:
    asked = (f"benchmark={benchmark}", f"system={CELLS[benchmark]}")
    return planned("experiment=amd-v5.1", "scale=dress", "scenario=Offline", *asked)


@pytest.mark.parametrize("benchmark", CELLS)
def test_weights_come_from_it_as_from_where_they_are_published(
    benchmark: str, tmp_path: Path
) -> None:
    plan = plan_of(benchmark)
    make(plan, "mirror", tmp_path)
    made = make(plan, "model", tmp_path)
    names = set(made.files)
    if benchmark == "stable-diffusion-xl":
        assert {"checkpoint_pipe/model_index.json", "latents.pt"} <= names
        return
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    kind = json.loads(made.file("config.json").read_text(encoding="utf-8"))["model_type"]
    assert kind == ("mixtral" if benchmark == "mixtral-8x7b" else "llama")
    fetched = made.result.get("fetched_from")
    assert fetched == (None if benchmark == "mixtral-8x7b" else ADDRESS)


@pytest.mark.parametrize("benchmark", [name for name in CELLS if "diffusion" not in name])
def test_prompts_pass_the_checks_of_mlcommons_files(benchmark: str, tmp_path: Path) -> None:
    plan = plan_of(benchmark)
    make(plan, "mirror", tmp_path)
    make(plan, "dataset_files", tmp_path)
    made = make(plan, "dataset", tmp_path)
    table = pandas.read_pickle(made.file("evaluation.pkl"))
    assert len(table) == ROWS
    assert made.result["evaluation"]["file"].endswith(".gz")
    assert made.result["official"] is False
    if benchmark == "llama3.1-405b":
        assert set(table["metric"]) == {"rouge", "qa_em"}
    (quantized, *_) = (json.loads(job.config) for job in plan.jobs if job.step == "quantize")
    assert quantized["options"]["calibrate_answers"]
    prompts = calibration.load(made.directory / "manifest.json", ROWS)
    longer = calibration.load(made.directory / "manifest.json", ROWS, answers=True)
    assert all(len(whole) > len(part) for whole, part in zip(longer, prompts, strict=True))


def test_what_was_changed_in_it_is_served_to_nobody(tmp_path: Path) -> None:
    plan = plan_of("llama2-70b-99.9")
    made = make(plan, "mirror", tmp_path)
    (weights,) = (made.directory / SERVED).rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        make(plan, "model", tmp_path)


def test_a_proxy_of_the_site_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    plan = plan_of("llama2-70b-99.9")
    make(plan, "mirror", tmp_path)
    assert make(plan, "model", tmp_path).result["fetched_from"] == ADDRESS


def test_without_a_dress_rehearsal_nothing_answers_by_that_address(tmp_path: Path) -> None:
    plan = plan_of("llama2-70b-99.9")
    job = next(job for job in plan.jobs if job.step == "model")
    config = config_of(job)
    config["fetch"] |= {"attempts": 1, "retry_wait_s": 0.01, "stall_limit_s": 2.0}
    with (
        pytest.raises(UserError, match=r"mirror\.localhost"),
        publish(tmp_path / "m", step="model", config=config, inputs={}, code="c") as w,
    ):
        model.step(
            ModelConfig.model_validate_json(json.dumps(config)), {}, w, Console(tmp_path / "log")
        )
