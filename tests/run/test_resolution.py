"""What an engine resolved against what it was asked, on stand-ins for vLLM's objects."""

import enum
from types import SimpleNamespace
from typing import Any

import pytest

from steps.config.resolved import Resolved
from steps.run.engines.resolution import compared, resolved


class Mode(enum.Enum):
    NONE = 0
    FULL = 2


def section(kind: str, **fields: Any) -> Any:
    made = type(kind, (), {"__module__": "vllm.config"})()
    made.__dict__.update(fields)
    return made


class dtype:
    def __str__(self) -> str:
        return "torch.bfloat16"


class Layer:
    """What a configuration of vLLM's holds besides its settings."""

    def __str__(self) -> str:
        raise AssertionError("a tensor's text takes long")


Layer.__module__ = "vllm.layers"


class Backend:
    @staticmethod
    def get_name() -> str:
        return "ROCM_AITER_FA"


class Scheme:
    kernel = Backend()


def engine(**over: Any) -> Any:
    layers = [
        SimpleNamespace(attn_backend=Backend),
        SimpleNamespace(quant_method=Scheme(), scheme=None),
        SimpleNamespace(quant_method=Scheme(), scheme=None),
        SimpleNamespace(),
    ]
    model = SimpleNamespace(modules=lambda: iter(layers))
    runner = SimpleNamespace(model=model)
    config = {
        "model_config": section(
            "ModelConfig", dtype=dtype(), quantization="quark", enforce_eager=False, _secret=1
        ),
        "cache_config": section(
            "CacheConfig", cache_dtype="fp8", num_gpu_blocks=1000, block_size=16
        ),
        "scheduler_config": section(
            "SchedulerConfig", max_num_seqs=64, async_scheduling=False, policy="fcfs"
        ),
        "compilation_config": section(
            "CompilationConfig",
            cudagraph_mode=Mode.FULL,
            cudagraph_capture_sizes=[1, 2, 4],
            static_forward_context={"layers.0": Layer()},
        ),
        "quant_config": object(),
    }
    config["compilation_config"].__dict__.update(over)
    return SimpleNamespace(
        vllm_config=SimpleNamespace(**config),
        model_executor=SimpleNamespace(
            driver_worker=SimpleNamespace(worker=SimpleNamespace(model_runner=runner))
        ),
    )


ASKED: dict[str, Any] = {
    **{"dtype": "bfloat16", "kv_cache_dtype": "fp8", "max_num_seqs": 64, "quantization": "quark"},
    "compilation_config": {"cudagraph_mode": "full", "cudagraph_capture_sizes": [4, 2, 1]},
}


def test_what_is_as_asked_is_no_difference() -> None:
    found = resolved(engine(), ASKED)
    assert found.differences == () and found.unresolved == ()
    assert (found.attention, found.quantization, found.graphs) == ("ROCM_AITER_FA", "quark", "FULL")
    assert (found.kv_cache_blocks, found.block_size) == (1000, 16)
    assert found.kernels == {"Scheme/Backend": 2}
    assert found.configuration["model_config"] == {
        **{"dtype": "bfloat16", "quantization": "quark", "enforce_eager": False}
    }
    layers = found.configuration["compilation_config"]
    assert isinstance(layers, dict) and layers["static_forward_context"] == {"layers.0": "Layer"}
    assert Resolved.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"async_scheduling": True},
            "arguments.async_scheduling: True was asked for, the engine has False",
        ),
        ({"max_num_seqs": 128}, "arguments.max_num_seqs: 128 was asked for, the engine has 64"),
        ({"kv_cache_dtype": "bfloat16"}, "arguments.kv_cache_dtype: 'bfloat16' was asked for"),
        (
            {"compilation_config": {"cudagraph_mode": "NONE"}},
            "compilation_config.cudagraph_mode: 'NONE' was asked for, the engine has 'FULL'",
        ),
        (
            {"compilation_config": {"cudagraph_capture_sizes": list(range(1, 50))}},
            "sizes: a list of 49 from 1 to 49 was asked for, the engine has [1, 2, 4]",
        ),
    ],
)
def test_a_silently_changed_argument_is_a_difference(asked: dict[str, Any], said: str) -> None:
    found = resolved(engine(), {**ASKED, **asked})
    assert len(found.differences) == 1 and said in found.differences[0]


def test_auto_is_whatever_the_engine_chose_and_synonyms_are_the_same() -> None:
    sections = resolved(engine(), {}).configuration
    assert compared({"dtype": "auto", "scheduling_policy": "FCFS"}, sections) == ([], [])
    assert compared({"dtype": "half"}, {"model_config": {"dtype": "float16"}}) == ([], [])
    assert compared({"swap_space": 4}, {"cache_config": {"swap_space": 4.0}}) == ([], [])


def test_what_no_section_says_is_named_and_no_difference() -> None:
    assert compared({"use_tqdm_on_load": False}, {}) == ([], ["use_tqdm_on_load"])


def test_an_engine_in_other_processes_says_what_it_can() -> None:
    far = SimpleNamespace(vllm_config=engine().vllm_config)
    found = resolved(far, ASKED)
    assert found.graphs == "FULL" and found.kernels == {} and found.attention == ""
