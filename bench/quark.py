"""Quark in memory beside streaming: peak memory in sizes of the model, and seconds, to MXFP4.

A synthetic Llama checkpoint is made below a temporary directory. Each way runs in its own process;
Quark twice, with one calibration token and with all of them, so that the difference is the cost of
the data. Needs the environment `compress` (any run with precision=mxfp4 makes it).
"""

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.streaming import VOCABULARY, make_checkpoint, peak_bytes, quantized
from steps import ROOT
from steps.config.compression import QuarkOptions
from steps.plan.plan import environment_directory
from steps.prepare.quantize import quark

LIMIT_S = 3600


@dataclass(frozen=True)
class Cost:
    """Seconds and the peak of memory in bytes at the end of each phase, in order."""

    phases: dict[str, tuple[float, int]]

    @property
    def seconds(self) -> float:
        """The seconds of the work, without importing Quark."""
        return sum(took for name, (took, _) in self.phases.items() if name != "import")

    @property
    def peak(self) -> int:
        return max(peak for _, peak in self.phases.values())

    @property
    def imported(self) -> int:
        """The memory of Quark and torch before the model is loaded; part of every later peak."""
        return self.phases.get("import", (0.0, 0))[1]


class Phases:
    """A clock that is called when the next phase begins."""

    def __init__(self) -> None:
        self.ended: dict[str, tuple[float, int]] = {}
        self._name = ""
        self._since = 0.0

    def begin(self, name: str) -> None:
        now = time.monotonic()
        if self._name:
            self.ended[self._name] = (now - self._since, peak_bytes())
        self._name, self._since = name, now


def work(source: Path, destination: Path, samples: int, tokens: int) -> Cost:
    """Quantize in this process. No samples: streaming."""
    phases = Phases()
    if samples == 0:
        phases.begin("stream")
        quantized(source, destination, 1)
    else:
        draw = random.Random(0)
        prompts = [[draw.randrange(VOCABULARY) for _ in range(tokens)] for _ in range(samples)]
        destination.mkdir()
        options = QuarkOptions(
            version="0.13",
            quant_scheme="w_mxfp4_a_mxfp4",
            kv_cache_dtype="fp8",
            exclude_layers=("lm_head",),
            seq_len=tokens,
            data_type="float32",
        )
        quark.quantize(source, destination, options, prompts, begins=phases.begin)
    for path in destination.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    phases.begin("")
    return Cost(phases.ended)


def measure(source: Path, destination: Path, samples: int, tokens: int) -> Cost:
    python = ROOT / environment_directory(ROOT, "compress") / "bin/python"
    arguments = ["--work", str(source), str(destination)]
    counts = [f"--samples={samples}", f"--tokens={tokens}"]
    done = subprocess.run(
        [python, "-m", "bench.quark", *arguments, *counts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quark")
    parser.add_argument("--size-gb", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--work", nargs=2, type=Path, metavar=("SOURCE", "DESTINATION"))
    arguments = parser.parse_args()
    if arguments.work:
        source, destination = arguments.work
        cost = work(source, destination, arguments.samples, arguments.tokens)
        print(json.dumps(asdict(cost)))
        return
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), arguments.size_gb, arguments.samples, arguments.tokens)


def report(home: Path, size_gb: float, samples: int, tokens: int) -> None:
    source = home / "source"
    make_checkpoint(source, size_gb)
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB of bf16 in {len(list(source.glob('*.safetensors')))} shards")
    found = {}
    for name, counts in {
        "streaming": (0, 0),
        "Quark, 1 token": (1, 1),
        f"Quark, {samples * tokens:,} tokens": (samples, tokens),
    }.items():
        cost = found[name] = measure(source, home / name, *counts)
        print(
            f"{name}: {cost.seconds:.1f} s, peak {cost.peak / 1e9:.2f} GB = "
            f"{cost.peak / size:.2f} models ({(cost.peak - cost.imported) / size:.2f} without "
            "what imports take)"
        )
        for phase, (took, peak) in cost.phases.items():
            print(f"  {phase:<10} {took:7.1f} s, peak so far {peak / size:.2f} models", flush=True)
    streaming, single, whole = found.values()
    print(
        f"Quark over streaming: {single.seconds / streaming.seconds:.1f} times as long without "
        f"calibration data, {whole.seconds / streaming.seconds:.1f} times with; "
        f"{whole.peak / streaming.peak:.1f} times the memory"
    )


if __name__ == "__main__":
    main()
