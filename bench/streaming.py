"""What streaming costs: GB/s of pruning and quantizing over GB/s of a plain copy, peak memory.

A synthetic Llama checkpoint is made below a temporary directory. Copy, pruning and quantizing
alternate, each in a process of its own and timed until its files are on the disk; GB are those
read. Then both rewrites are killed at random moments until one of each gets through, and what it
leaves is compared with the uninterrupted output.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from steps.checkpoint.layout import CONFIG, INDEX, open_checkpoint
from steps.checkpoint.quantize import Mxfp4Config, mxfp4_transform
from steps.checkpoint.stream import Target, file_header, rewrite
from steps.prune.block import Block, prune_transform
from steps.record import sha256_file

LIMIT_S = 1800
HIDDEN, INTERMEDIATE, KEYS, HEAD = 2048, 8192, 512, 64  # of Llama-3.2-1B
VOCABULARY = 1024
DROPPED = 0.206
"""Share of the layers that goes: AMD's 26 of 126."""


@dataclass(frozen=True)
class Cost:
    """One timed run: seconds until its files are on the disk, CPU seconds, peak bytes."""

    read: int
    wall_s: float
    cpu_s: float
    peak: int
    idle: int


def layer_shapes(number: int) -> dict[str, tuple[int, ...]]:
    """The nine tensors of a decoder layer."""
    name = f"model.layers.{number}"
    return {
        f"{name}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        f"{name}.self_attn.k_proj.weight": (KEYS, HIDDEN),
        f"{name}.self_attn.v_proj.weight": (KEYS, HIDDEN),
        f"{name}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        f"{name}.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
        f"{name}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
        f"{name}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        f"{name}.input_layernorm.weight": (HIDDEN,),
        f"{name}.post_attention_layernorm.weight": (HIDDEN,),
    }


def make_checkpoint(directory: Path, size_gb: float) -> None:
    """A shard of 0.12 GB per layer; weights are normally distributed, rounded to bf16."""
    directory.mkdir()
    per_layer = 2 * sum(int(np.prod(shape)) for shape in layer_shapes(0).values())
    layers = max(round(size_gb * 1e9 / per_layer), 3)
    values = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32) * 0.02
    weights = memoryview((values.view(np.uint32) >> 16).astype(np.uint16)).cast("B")
    where: dict[str, str] = {}
    for number in range(layers):
        shapes = layer_shapes(number)
        if number == 0:
            shapes["model.embed_tokens.weight"] = (VOCABULARY, HIDDEN)
        if number == layers - 1:
            shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}
        file = f"model-{number + 1:05d}-of-{layers:05d}.safetensors"
        targets = [Target(name, "BF16", shape) for name, shape in shapes.items()]
        with (directory / file).open("wb") as stream:
            stream.write(file_header(targets, {}))
            left = sum(target.size for target in targets)
            while left:
                left -= stream.write(weights[: min(left, len(weights))])
        where |= dict.fromkeys(shapes, file)
    index = {"metadata": {}, "weight_map": where}
    (directory / INDEX).write_text(json.dumps(index), encoding="utf-8")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HIDDEN // HEAD,
        "num_key_value_heads": KEYS // HEAD,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "dtype": "bfloat16",
    }
    (directory / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def copy(source: Path, destination: Path) -> int:
    """Bytes read."""
    destination.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, destination / path.name)
    return sum(path.stat().st_size for path in source.glob("*.safetensors"))


def pruned(source: Path, destination: Path) -> int:
    """Bytes read: those of the layers that stay."""
    checkpoint = open_checkpoint(source)
    layers = len(checkpoint.shards)
    first = layers // 3
    transform = prune_transform(
        checkpoint, Block(first, first + max(round(layers * DROPPED), 1) - 1)
    )
    rewrite(checkpoint, destination, transform)
    return sum(tensor.size for tensor in checkpoint.tensors if transform.targets(tensor))


def quantized(source: Path, destination: Path) -> int:
    """Bytes read: all."""
    checkpoint = open_checkpoint(source)
    settings = Mxfp4Config(activations="mxfp4", scale_calculation_mode="even", exclude=("lm_head",))
    rewrite(checkpoint, destination, mxfp4_transform(checkpoint, settings))
    return sum(tensor.size for tensor in checkpoint.tensors)


WORK: Mapping[str, Callable[[Path, Path], int]] = {
    "copy": copy,
    "prune": pruned,
    "quantize": quantized,
}


def timed(name: str, source: Path, destination: Path) -> Cost:
    """In this process, so that its memory is that of the work alone."""
    idle = peak_bytes()
    started, used = time.monotonic(), time.process_time()
    read = WORK[name](source, destination)
    for path in destination.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    wall, cpu = time.monotonic() - started, time.process_time() - used
    return Cost(read, wall, cpu, peak_bytes(), idle)


def peak_bytes() -> int:
    """Of this program: getrusage would count the parent's memory before exec."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def child(name: str, source: Path, destination: Path) -> list[str]:
    return [sys.executable, "-m", "bench.streaming", "--work", name, str(source), str(destination)]


def measure(name: str, source: Path, destination: Path) -> Cost:
    done = subprocess.run(
        child(name, source, destination), stdout=subprocess.PIPE, check=True, timeout=LIMIT_S
    )
    return Cost(**json.loads(done.stdout))


def digests(directory: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(directory.iterdir())}


def kill_and_resume(
    name: str, source: Path, destination: Path, kills: int, longest_s: float
) -> tuple[dict[str, str], int]:
    """Digests of what is there at last, and how many of the kills hit a running process."""
    generator = random.Random(0)
    hit = 0
    for _ in range(kills):
        process = subprocess.Popen(
            child(name, source, destination), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=generator.uniform(0.2, longest_s))
            shutil.rmtree(destination)  # It got through: begin again, a kill is due.
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
            hit += 1
    if not destination.exists():
        measure(name, source, destination)
    return digests(destination), hit


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streaming")
    parser.add_argument("--size-gb", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--work", nargs=3, metavar=("NAME", "SOURCE", "DESTINATION"))
    arguments = parser.parse_args()
    if arguments.work:
        name, source, destination = arguments.work
        print(json.dumps(asdict(timed(name, Path(source), Path(destination)))))
        return
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), arguments.size_gb, arguments.rounds, arguments.kills)


def report(home: Path, size_gb: float, rounds: int, kills: int) -> None:
    source = home / "source"
    make_checkpoint(source, size_gb)
    shards = [path.stat().st_size for path in source.glob("*.safetensors")]
    print(f"{sum(shards) / 1e9:.2f} GB in {len(shards)} shards of {max(shards) / 1e9:.2f} GB")
    costs: dict[str, list[Cost]] = {name: [] for name in WORK}
    whole: dict[str, dict[str, str]] = {}
    for _ in range(rounds):
        for name in WORK:
            costs[name].append(measure(name, source, home / name))
            whole[name] = digests(home / name)
            shutil.rmtree(home / name)
    speed = {
        name: statistics.median(cost.read / cost.wall_s / 1e9 for cost in found)
        for name, found in costs.items()
    }
    for name, found in costs.items():
        peak = max(cost.peak for cost in found)
        more = max(cost.peak - cost.idle for cost in found)
        busy = statistics.median(cost.cpu_s / cost.wall_s for cost in found)
        work = statistics.median(cost.read / cost.cpu_s / 1e9 for cost in found)
        print(
            f"{name:<9} {speed[name]:.2f} GB/s, {speed[name] / speed['copy']:.2f} of a copy; "
            f"CPU busy {busy:.0%}, {work:.2f} GB per CPU second; "
            f"peak RSS {peak / 1e6:.0f} MB = {peak / max(shards):.2f} shards, "
            f"of which the work took {more / 1e6:.0f} MB",
            flush=True,
        )
    for name in ("prune", "quantize"):
        longest = 0.5 * statistics.median(cost.wall_s for cost in costs[name])
        resumed, hit = kill_and_resume(name, source, home / name, kills, longest)
        same = "bit-identical" if resumed == whole[name] else "NOT the same"
        print(f"{name}: killed {hit} times, resumed output {same}", flush=True)
        if resumed != whole[name]:
            raise SystemExit(1)
        shutil.rmtree(home / name)


if __name__ == "__main__":
    main()
