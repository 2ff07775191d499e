"""What bench.amds_quark has done in other environments: `python -m bench.quark_parts PART TASK`.

TASK is a file of JSON; what is found is written beside it, as TASK with the ending .found.
"""

import argparse
import json
import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.answers import answered
from steps.base import threads

CALIBRATED = 16
"""Calibration prompts: Quark 0.9 takes ten seconds for one on a CPU."""

EXPERTS, NOISE = 4, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quark_parts")
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("task", type=Path)
    options = parser.parse_args()
    PARTS[options.part](json.loads(options.task.read_text(encoding="utf-8")), options.task)


def plain(name: str) -> str:
    """A checkpoint's name as that of a file."""
    return name.replace(" ", "-").replace(",", "")


def found(task: Path, result: Any) -> None:
    task.with_suffix(".found").write_text(json.dumps(result), encoding="utf-8")


def upcycle(task: Mapping[str, Any], path: Path) -> None:
    """A Mixtral of a Llama: experts are its network with noise, and a random gate weighs them. All
    are used, for a random gate would leave some that no calibration prompt reaches. The step
    upcycle draws others; the numbers in docs/explanation/measurements.md are of these."""
    import torch
    from safetensors.torch import load_file, save_file

    source, home = Path(task["source"]), Path(task["to"])
    home.mkdir()
    dense, generator = load_file(source / "model.safetensors"), torch.Generator().manual_seed(0)
    names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    made = {}
    for name, values in dense.items():
        part = next((part for part in names if f".mlp.{part}." in name), None)
        if part is None:
            made[name] = values
            continue
        moe = f"{name.split('.mlp.')[0]}.block_sparse_moe"
        for expert in range(EXPERTS):
            drawn = torch.randn(values.shape, generator=generator)
            noisy = values.float() + NOISE * values.float().std() * drawn
            made[f"{moe}.experts.{expert}.{names[part]}.weight"] = noisy.to(values.dtype)
        if part == "gate_proj":
            gate = 0.5 * torch.randn(EXPERTS, values.shape[1], generator=generator)
            made[f"{moe}.gate.weight"] = gate.to(values.dtype)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    for key in ("mlp_bias", "attention_bias", "pretraining_tp"):
        config.pop(key, None)
    config |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    config |= {"num_local_experts": EXPERTS, "num_experts_per_tok": EXPERTS, "sliding_window": None}
    (home / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(made, home / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (home / name).write_bytes((source / name).read_bytes())
    found(path, {})


def quantize(task: Mapping[str, Any], path: Path) -> None:
    from steps.config.compression import QuarkOptions
    from steps.prepare.quantize import quark
    from steps.prepare.rehearsal import dataset

    frame = dataset.calibration(CALIBRATED)
    options = QuarkOptions.model_validate_json(json.dumps(task["options"]))
    threads.take(1)
    to = Path(task["to"])
    made = to.with_name(f".{to.name}")
    made.mkdir()
    prompts = [list(map(int, tokens)) for tokens in frame["tok_input"]]
    described = quark.quantize(Path(task["source"]), made, options, prompts, list(frame["input"]))
    made.rename(to)
    found(path, described)


def answer(task: Mapping[str, Any], path: Path) -> None:
    """What each case answers, and the engine's identity; or the error."""

    def answers(engine: Any) -> dict[str, Any]:
        return {"answers": answered(engine, task["prompts"]), "identity": engine.identity()}

    found(path, dict(forked(task, path, answers)))


def values(task: Mapping[str, Any], path: Path) -> None:
    """Write the values of the weights that each case computes with."""
    import torch

    to = Path(task["to"])
    to.mkdir(exist_ok=True)

    def loaded(start: Any, prompts: Any) -> Any:
        from steps.run.engines.vllm_engine import VllmEngine

        _without_marlin()
        engine = VllmEngine()
        engine.start(start)
        return engine

    def written(engine: Any) -> dict[str, Any]:
        place = engine._engine.model_executor
        for name in ("driver_worker", "worker", "model_runner", "model"):
            place = getattr(place, name, place)
        kept = {}
        for module_name, module in place.named_modules():
            for name in ("weight", "w13_weight", "w2_weight"):
                if hasattr(module, name) and hasattr(module, f"{name}_scale"):
                    where = module_name.removesuffix(".routed_experts")
                    kept[f"{where}.{name}"] = computed_with(module, name)
        torch.save(kept, to / "values")
        return {"kept": len(kept)}

    results = {}
    for name, one in forked(task, path, written, loaded):
        results[name] = one
        if "error" not in one:
            (to / "values").rename(to / f"{plain(name)}.pt")
    found(path, results)


def _without_marlin() -> None:
    """V0 loads experts without FP8's hardware for a kernel of CUDA's, which answers nothing here
    anyway: with that off their values can be read."""
    from vllm.model_executor.layers.quantization import fp8

    class Plain(fp8.Fp8MoEMethod):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.use_marlin = False

    if hasattr(fp8, "prepare_moe_fp8_layer_for_marlin"):
        fp8.Fp8MoEMethod = Plain


def computed_with(module: Any, name: str) -> Any:
    """A weight in fp32, times its scales; MXFP4's are applied when it is loaded."""
    weight, scale = getattr(module, name).data.float(), getattr(module, f"{name}_scale")
    if scale is None or not scale.is_floating_point():
        return weight
    scale = scale.data.float()
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1) if scale.numel() > 1 else [])


def differ(task: Mapping[str, Any], path: Path) -> None:
    """Whether two files of values agree."""
    import torch

    files = [Path(name) for name in task["folders"]]
    if absent := [file.parent.name for file in files if not file.is_file()]:
        found(path, {"says": f"{' and '.join(absent)} can't load it"})
        return
    one, other = (torch.load(file, weights_only=True) for file in files)
    if one.keys() != other.keys():
        found(path, {"says": f"other layers: {sorted(one.keys() ^ other.keys())[:4]}"})
        return
    total = sum(values.numel() for values in one.values())
    apart = sum(int((one[name] != other[name]).sum()) for name in one)
    largest = max(float((one[n] - other[n]).abs().max() / other[n].abs().max()) for n in one)
    found(
        path,
        {
            "says": f"{total - apart} of {total} equal in {len(one)} layers, the largest "
            f"difference is {largest:.3g} of its layer's largest value"
        },
    )


def forked(
    task: Mapping[str, Any], path: Path, measure: Any, begin: Any = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What `measure` makes of each engine: vLLM is imported once, and each case is a fork."""
    from steps.config.runs import PerformanceRunConfig
    from steps.run.engines import vllm_versions as versions

    environment = task["cases"][0]["config"]["engine"]["environment"]
    threads.take(1)
    versions.bind(1)
    os.environ.update(environment)
    threads.told(1)
    import vllm.model_executor.models.registry as registry

    # It imports vLLM once more in a process of its own.
    registry._run_in_subprocess = lambda function: function()
    for case in task["cases"]:
        answered = path.with_suffix(".case")
        answered.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            config = PerformanceRunConfig.model_validate_json(json.dumps(case["config"]))
            prompts = task.get("prompts") or [[1, 4]]
            result = tried(config, Path(case["weights"]), prompts, measure, begin)
            answered.write_text(json.dumps(result), encoding="utf-8")
            os._exit(0)
        os.waitpid(child, 0)
        ended = {"error": "its process ended; see the log"}
        yield case["name"], json.loads(answered.read_text()) if answered.is_file() else ended


def tried(config: Any, weights: Path, prompts: Any, measure: Any, begin: Any) -> dict[str, Any]:
    from steps.run.engines.engine import Start, started

    try:
        start = Start(weights, config.engine, config.generation, False)
        return dict(measure((begin or started)(start, prompts[:1])))
    except BaseException as error:
        traceback.print_exc()
        cause = error.__cause__ or error
        line = (str(cause).strip().splitlines() or [""])[-1]
        return {"error": f"{type(cause).__name__}: {line[:300]}"}


PARTS = {
    "upcycle": upcycle,
    "quantize": quantize,
    "answer": answer,
    "values": values,
    "differ": differ,
}

if __name__ == "__main__":
    main()
