"""The cost of streaming: GB/s of pruning and quantizing over GB/s of a plain copy, peak memory.

A synthetic Llama checkpoint is made below a temporary directory. Copy, pruning and quantizing
alternate, each in its own process and timed until its files are on the disk; GB are those read.
Then both rewrites are killed at random moments until one of each finishes, and its output is
compared with the uninterrupted one.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from steps.base.record import sha256_file
from steps.prepare.checkpoint.layout import CONFIG, INDEX, open_checkpoint
from steps.prepare.checkpoint.quantize import Mxfp4Config, mxfp4_transform
from steps.prepare.checkpoint.stream import Target, file_header, rewrite
from steps.prepare.prune.block import Block, prune_transform

LIMIT_S = 1800
HIDDEN, INTERMEDIATE, KEYS, HEAD = 2048, 8192, 512, 64  # of Llama-3.2-1B
VOCABULARY = 1024
DROPPED = 0.206
"""Share of the layers that is dropped: AMD's 26 of 126."""


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


def copy(source: Path, destination: Path, _: int) -> int:
    """Bytes read."""
    destination.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, destination / path.name)
    return sum(path.stat().st_size for path in source.glob("*.safetensors"))


def pruned(source: Path, destination: Path, workers: int) -> int:
    """Bytes read: those of the remaining layers."""
    checkpoint = open_checkpoint(source)
    layers = len(checkpoint.shards)
    first = layers // 3
    transform = prune_transform(
        checkpoint, Block(first, first + max(round(layers * DROPPED), 1) - 1)
    )
    rewrite(checkpoint, destination, transform, workers=workers)
    return sum(tensor.size for tensor in checkpoint.tensors if transform.targets(tensor))


def quantized(source: Path, destination: Path, workers: int) -> int:
    """Bytes read: all."""
    checkpoint = open_checkpoint(source)
    settings = Mxfp4Config(activations="mxfp4", scale_calculation_mode="even", exclude=("lm_head",))
    transform = mxfp4_transform(checkpoint, settings)
    rewrite(checkpoint, destination, transform, workers=workers)
    return sum(tensor.size for tensor in checkpoint.tensors)


WORK: Mapping[str, Callable[[Path, Path, int], int]] = {
    "copy": copy,
    "prune": pruned,
    "quantize": quantized,
}


@dataclass(frozen=True)
class Task:
    """`workers`: shards at once; a copy has one."""

    name: str
    workers: int

    @property
    def label(self) -> str:
        return f"{self.name} x{self.workers}"


def timed(task: Task, source: Path, destination: Path) -> Cost:
    """Work in this process, so that its memory is only the work's."""
    idle = peak_bytes()
    started, used = time.monotonic(), time.process_time()
    read = WORK[task.name](source, destination, task.workers)
    for path in destination.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    wall, cpu = time.monotonic() - started, time.process_time() - used
    return Cost(read, wall, cpu, peak_bytes(), idle)


def peak_bytes() -> int:
    """The peak memory of this program: getrusage would count the parent's memory before exec."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def child(task: Task, source: Path, destination: Path) -> list[str]:
    work = [task.name, str(task.workers), str(source), str(destination)]
    return [sys.executable, "-m", "bench.streaming", "--work", *work]


def measure(task: Task, source: Path, destination: Path) -> Cost:
    done = subprocess.run(
        child(task, source, destination), stdout=subprocess.PIPE, check=True, timeout=LIMIT_S
    )
    return Cost(**json.loads(done.stdout))


def digests(directory: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(directory.iterdir())}


def kill_and_resume(
    task: Task, source: Path, destination: Path, kills: int, longest_s: float
) -> list[dict[str, str]]:
    """Digests of each finished output, with a running process killed `kills` times."""
    generator = random.Random(0)
    finished: list[dict[str, str]] = []
    hit = 0
    while hit < kills:
        process = subprocess.Popen(
            child(task, source, destination), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=generator.uniform(0.2, longest_s))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
            hit += 1
        else:
            finished.append(digests(destination))
            shutil.rmtree(destination)
    measure(task, source, destination)
    finished.append(digests(destination))
    shutil.rmtree(destination)
    return finished


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streaming")
    parser.add_argument("--size-gb", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--work", nargs=4, metavar=("NAME", "WORKERS", "SOURCE", "DESTINATION"))
    arguments = parser.parse_args()
    if arguments.work:
        name, workers, source, destination = arguments.work
        task = Task(name, int(workers))
        print(json.dumps(asdict(timed(task, Path(source), Path(destination)))))
        return
    copying = Task("copy", 1)
    tasks = [Task(name, count) for name in ("prune", "quantize") for count in arguments.workers]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        make_checkpoint(source, arguments.size_gb)
        costs, whole = speeds([copying, *tasks], source, Path(folder), arguments.rounds)
        if arguments.kills:
            for task in tasks[len(arguments.workers) - 1 :: len(arguments.workers)]:
                longest_s = 0.5 * statistics.median(cost.wall_s for cost in costs[task])
                outputs = kill_and_resume(
                    task, source, Path(folder) / "killed", arguments.kills, longest_s
                )
                same = all(output == whole[task] for output in outputs)
                print(
                    f"{task.label}: killed {arguments.kills} times, {len(outputs)} outputs were "
                    f"finished, {'all bit-identical' if same else 'NOT the same'}",
                    flush=True,
                )
                if not same:
                    raise SystemExit(1)


def speeds(
    tasks: Sequence[Task], source: Path, home: Path, rounds: int
) -> tuple[Mapping[Task, Sequence[Cost]], Mapping[Task, dict[str, str]]]:
    """Each one's cost per round, the copy first; and its output's digests."""
    shards = [path.stat().st_size for path in source.glob("*.safetensors")]
    print(f"{sum(shards) / 1e9:.2f} GB in {len(shards)} shards of {max(shards) / 1e9:.2f} GB")
    costs: dict[Task, list[Cost]] = {task: [] for task in tasks}
    whole: dict[Task, dict[str, str]] = {}
    for _ in range(rounds):
        for task in tasks:
            costs[task].append(measure(task, source, home / task.label))
            whole[task] = digests(home / task.label)
            shutil.rmtree(home / task.label)
    speed = {
        task: statistics.median(cost.read / cost.wall_s / 1e9 for cost in found)
        for task, found in costs.items()
    }
    for task, found in costs.items():
        peak = max(cost.peak for cost in found)
        more = max(cost.peak - cost.idle for cost in found)
        busy = statistics.median(cost.cpu_s / cost.wall_s for cost in found)
        work = statistics.median(cost.read / cost.cpu_s / 1e9 for cost in found)
        print(
            f"{task.label:<11} {speed[task]:.2f} GB/s, {speed[task] / speed[tasks[0]]:.2f} of a "
            f"copy; CPU busy {busy:.0%}, {work:.2f} GB per CPU second; "
            f"peak RSS {peak / 1e6:.0f} MB = {peak / max(shards):.2f} shards, "
            f"of which the work took {more / 1e6:.0f} MB",
            flush=True,
        )
    return costs, whole


if __name__ == "__main__":
    main()
