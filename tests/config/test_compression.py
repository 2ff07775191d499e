"""What is planned for a compressed model: the order of the steps, what is shared, the gates."""

import json

import pytest

from steps.base.errors import UserError
from steps.plan.plan import Job, Plan
from tests.conftest import planned

OFFLINE = "scenario=Offline"


def offline(*overrides: str) -> Plan:
    return planned(OFFLINE, *overrides)


def keys(plan: Plan, step: str) -> list[str]:
    return [job.key for job in plan.jobs if job.step == step]


def one(plan: Plan, step: str, key: str) -> Job:
    return next(job for job in plan.jobs if (job.step, job.key) == (step, key))


def test_what_comes_before_quantizing_is_done_once_for_all_precisions() -> None:
    plan = offline("precision=bf16,fp8,mxfp4", "compression=depth33-finetuned,finetuned")
    assert keys(plan, "prune") == ["rehearsal/depth33-finetuned"]
    assert keys(plan, "finetune") == ["rehearsal/depth33-finetuned", "rehearsal/finetuned"]
    for precision in ("fp8", "mxfp4"):
        made = one(plan, "quantize", f"rehearsal/depth33-finetuned/{precision}")
        assert made.inputs["model"] == one(plan, "finetune", "rehearsal/depth33-finetuned").output
        assert "dataset" in made.inputs
    control, tuned = (json.loads(job.config) for job in plan.jobs if job.step == "finetune")
    assert control == tuned, "the control is trained as the pruned model is"


def test_only_steps_that_measure_depend_on_the_dataset() -> None:
    given = one(offline("compression=depth33"), "prune", "rehearsal/depth33")
    measured = one(offline("compression=depth33-measured"), "prune", "rehearsal/depth33-measured")
    assert ("dataset" in given.inputs, "dataset" in measured.inputs) == (False, True)
    streamed = one(offline("precision=mxfp4-streamed"), "quantize", "rehearsal/none/mxfp4-streamed")
    assert "dataset" not in streamed.inputs


def test_runs_wait_for_every_quick_check_of_their_weights() -> None:
    plan = offline("precision=bf16,fp8", "compression=none,depth33-finetuned")
    waits = {
        job.key.removeprefix("rehearsal-cpu/rehearsal/").removesuffix("/Offline"): [
            gate.split("/artifacts/quick_check/rehearsal-cpu/rehearsal/")[1].rsplit("-", 1)[0]
            for gate in job.gates
        ]
        for job in plan.jobs
        if job.step == "accuracy_run"
    }
    assert waits == {
        "none/bf16": [],
        "none/fp8": ["none/fp8/quantize"],
        "depth33-finetuned/bf16": ["depth33-finetuned/prune", "depth33-finetuned/finetune"],
        "depth33-finetuned/fp8": [
            "depth33-finetuned/prune",
            "depth33-finetuned/finetune",
            "depth33-finetuned/fp8/quantize",
        ],
    }


def test_another_minimum_judges_again_and_moves_nothing_else() -> None:
    before, after = (
        offline("precision=fp8", *more) for more in ([], ["compression.quick_minimum.quantize=0.9"])
    )
    changed = {
        job.step
        for job, other in zip(before.jobs, after.jobs, strict=True)
        if job.config != other.config
    }
    assert changed == {"quick_check", "submission", "provenance"}  # these name their overrides
    paths = [[job.output for job in plan.jobs] for plan in (before, after)]
    assert paths[0] == paths[1]


def test_weights_before_quantizing_run_without_emulation() -> None:
    plan = offline("precision=fp8", "compression=depth33")
    engines = {
        key.removeprefix("rehearsal-cpu/rehearsal"): json.loads(one(plan, "quick_run", key).config)[
            "engine"
        ]
        for key in keys(plan, "quick_run")
    }
    emulated = {key: engine.get("emulation", False) for key, engine in engines.items()}
    assert emulated == {"": False, "/depth33/prune": False, "/depth33/fp8/quantize": True}
    assert "kv_cache_dtype" not in engines["/depth33/prune"]["arguments"]
    assert engines["/depth33/fp8/quantize"]["arguments"]["kv_cache_dtype"] == "fp8"


def test_only_what_may_lose_accuracy_has_no_required_gate() -> None:
    plan = offline("precision=bf16,fp8,mxfp4,int2", "compression=none,depth21,depth33-finetuned")
    required = {
        tuple(job.key.split("/")[2:4]): json.loads(job.config)["required"]
        for job in plan.jobs
        if job.step == "accuracy_check"
    }
    ungated = {key for key, gate in required.items() if gate == "none"}
    assert ungated == {
        ("none", "mxfp4"),
        ("depth33-finetuned", "mxfp4"),
        *(("depth21", precision) for precision in ("bf16", "fp8", "mxfp4", "int2")),
    }
    assert {gate for key, gate in required.items() if key not in ungated} == {"99"}


def test_nothing_is_prepared_for_weights_that_stay_as_they_are() -> None:
    plan = offline()
    assert keys(plan, "environment") == ["cpu", "analysis"]
    assert not keys(plan, "quick_run")
    assert keys(offline("precision=fp8"), "environment") == ["cpu", "compress", "analysis"]


@pytest.mark.parametrize("compression", ["depth21", "depth33-finetuned", "finetuned"])
def test_the_closed_division_refuses_pruning_and_training(compression: str) -> None:
    with pytest.raises(UserError, match="of the closed division, where compression") as caught:
        offline(f"compression={compression}", "system.division=closed")
    assert ("trained further" in str(caught.value)) == (compression == "finetuned")
    assert offline("precision=fp8", "system.division=closed").jobs


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["compression=depth33", "compression.prune.block.last=15"], "no range of 15 layers"),
        (["compression=depth33-measured", "compression.prune.block.count=15"], "leaves none of 15"),
        (
            ["compression=depth33", "compression.prune.when=sometimes"],
            "when: input should be 'after_quantize'",
        ),
        (["precision=fp8", "compression.quick_minimum.quantize=2"], "minimum"),
        (["compression=finetuned", "compression.finetune.tokens=0"], "tokens"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        offline(*overrides)
    assert words in str(caught.value)
