"""Pictures behind the harness: settings, sizes of answers, batches that wait, and bad numbers."""

import json
import sys
from array import array
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from steps.base.errors import UserError
from steps.config.engine import DiffusersEngine as Settings
from steps.config.generation import ImageGeneration
from steps.config.runs import RunConfig
from steps.run.engines import diffusers_engine
from steps.run.engines import engine as engines
from steps.run.engines.diffusers_engine import DiffusersEngine
from steps.run.engines.engine import Events, News
from tests.conftest import planned

AMD = ("experiment=amd-v5.1", "benchmark=stable-diffusion-xl", "scenario=Offline")
DIFFUSERS = ("experiment=sdxl-diffusers", "scenario=Offline")


def run(**changes: Any) -> dict[str, Any]:
    job = next(job for job in planned(*DIFFUSERS).jobs if job.step == "performance_run")
    return {**json.loads(job.config), **changes}


def settings(**arguments: Any) -> Settings:
    given = run()["engine"]
    given["arguments"] |= arguments
    return Settings.model_validate_json(json.dumps(given))


def test_answers_are_the_bytes_of_a_picture() -> None:
    generation = ImageGeneration(steps=20, guidance_scale=8, size=1024, negative_prompt="")
    assert generation.bytes == 3_145_728 and generation.words == (786_432, 786_432)
    with pytest.raises(ValidationError, match="a side of 33 pixels is odd; choose an even one"):
        ImageGeneration(steps=20, guidance_scale=8, size=33, negative_prompt="")


def test_an_engine_of_tokens_makes_no_pictures() -> None:
    RunConfig.model_validate_json(json.dumps(run()))
    tokens = {"min_tokens": 2, "max_tokens": 9, "eos_token_id": 2}
    with pytest.raises(ValidationError, match="engine diffusers makes pictures, and the benchmark"):
        RunConfig.model_validate_json(json.dumps(run(generation=tokens)))


def test_an_engine_has_one_more_batch_than_it_works_on() -> None:
    assert engines.places(settings(batch_size=8)) == 8
    assert engines.depth(settings(batch_size=8)) == 16


@pytest.mark.parametrize(("words", "parts"), [(786_432, 10), (768, 1)])
def test_large_answers_are_passed_on_in_parts(words: int, parts: int) -> None:
    answer = array("i", [7]) * words
    found = list(News.of(Events(completed=[(number, answer) for number in range(100)])))
    assert len(found) == parts
    assert sum(len(one.completed) for one in found) == 100


class Drawn(DiffusersEngine):
    """Draws nothing: what an answer holds is its caption's first id."""

    def __init__(self, arguments: Any, patience_s: float) -> None:
        super().__init__()
        self._arguments, self._patience_s = arguments, patience_s
        self._negative = [Ids(), Ids()]  # type: ignore[list-item]
        self.rows: list[list[list[int]]] = []

    def _pictures(self, rows: list[list[int]]) -> tuple[Any, list[bool]]:
        self.rows.append(rows)
        return [array("i", [row[0]]) for row in rows], [row[0] != 13 for row in rows]


class Ids:
    shape = (1, 2)


def asked(count: int, first: int = 0) -> list[tuple[int, list[int], tuple[int, ...]]]:
    return [(number, [number, 0, 0, 0], ()) for number in range(first, first + count)]


def test_a_batch_is_padded_with_its_last_caption() -> None:
    engine = Drawn(settings(batch_size=4).arguments, 0.0)
    engine.submit(asked(6))
    first, second = engine.step().completed, engine.step().completed
    assert [number for number, _ in first] == [0, 1, 2, 3]
    assert [number for number, _ in second] == [4, 5]
    assert [row[0] for row in engine.rows[1]] == [4, 5, 5, 5]
    assert engine.step().idle


def test_a_server_waits_for_others_but_not_for_long() -> None:
    engine = Drawn(settings(batch_size=4).arguments, 0.05)
    engine.submit(asked(2))
    idle = 0
    while not (found := engine.step()).completed:
        assert found.idle
        idle += 1
    assert idle > 3 and len(found.completed) == 2
    engine.submit(asked(4))
    assert len(engine.step().completed) == 4


def test_a_picture_of_no_numbers_voids_the_run() -> None:
    engine = Drawn(settings(batch_size=4).arguments, 0.0)
    engine.submit(asked(2, first=13))
    with pytest.raises(UserError, match="1 of 2 pictures of a batch have values that aren't"):
        engine.step()


def test_a_caption_for_other_encoders_is_refused() -> None:
    engine = Drawn(settings(batch_size=4).arguments, 0.0)
    with pytest.raises(UserError, match="a caption of 3 token ids was asked for, and the two"):
        engine.submit([(0, [1, 2, 3], ())])


def test_a_device_that_fails_is_no_fault_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pipeline:
        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> "Pipeline":
            return cls()

        def to(self, device: str) -> None:
            raise RuntimeError("Found no driver on your system.\nSee https://...")

    installed = ModuleType("diffusers")
    for name in ("EulerDiscreteScheduler", "StableDiffusionXLPipeline"):
        setattr(installed, name, Pipeline)
    monkeypatch.setitem(sys.modules, "diffusers", installed)
    monkeypatch.setattr(diffusers_engine, "_require_whole", lambda pipeline, home: None)
    (tmp_path / "model_index.json").touch()
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").touch()
    engine = Drawn(settings(batch_size=4).arguments, 0.0)
    engine._dtype = "float16"
    with pytest.raises(UserError) as refused:
        engine._loaded(tmp_path)
    assert str(refused.value) == (
        "PyTorch can't put the pipeline on device cuda: Found no driver on your system.; see "
        "whether its driver is loaded, and what else has its memory"
    )


def test_amds_row_can_be_planned_with_diffusers() -> None:
    jobs = planned(*DIFFUSERS).jobs
    found = next(json.loads(job.config) for job in jobs if job.step == "performance_run")
    assert found["engine"]["kind"] == "diffusers"
    assert found["engine"]["arguments"]["dtype"] == "float16"
    (kind,) = found["engine"]["placement"]["kinds"]
    assert kind["modes"] == {"compute": "SPX", "memory": "NPS1"}
    assert not any(job.limitation for job in jobs)


def test_the_long_rehearsal_has_the_lengths_and_pictures_of_the_round() -> None:
    plan = planned("experiment=rehearsal-sdxl-full", "scenario=Offline")
    configs = {job.step: json.loads(job.config) for job in plan.jobs}
    assert configs["dataset"]["evaluation_count"] == 5000
    rules = configs["performance_run"]["rules"]
    assert rules["min_duration_ms"] == 600_000 and rules["performance_sample_count"] == 5000
    assert configs["performance_run"]["loadgen"]["min_duration_ms"] is None
    assert len(configs["accuracy_check"]["kept"]["images"]) == 10
    assert "2747" in configs["accuracy_check"]["kept"]["images"]
    short = planned("experiment=rehearsal-sdxl", "scenario=Offline")
    (check,) = (json.loads(job.config) for job in short.jobs if job.step == "accuracy_check")
    assert check["kept"]["images"] == [str(number) for number in range(10)]
    assert check["gates"] != configs["accuracy_check"]["gates"]


def test_closed_pictures_have_the_rounds_size() -> None:
    with pytest.raises(UserError, match="a picture has 3,145,728 bytes, and one of 512 pixels"):
        planned(*AMD, "benchmark.generation.size=512")


def test_tests_take_as_many_queries_as_is_configured() -> None:
    def queries(*more: str) -> set[int | None]:
        jobs = planned(*AMD, *more).jobs
        runs = [json.loads(job.config) for job in jobs if job.step == "compliance_run"]
        return {one["loadgen"]["min_query_count"] for one in runs}

    assert queries() == {None}
    assert queries("+benchmark.loadgen.compliance_min_query_count=700") == {700}
