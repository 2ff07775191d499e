"""The cost of LoadGen and our harness: LoadGen Offline tokens/s over raw vLLM generate tokens/s.

Same weights, samples in the same order, engine arguments, environment and threads of arithmetic;
measurements alternate,
so that a change of the machine's speed affects both. Each is its own process,
forked from one that has vLLM imported already.
"""

import csv
import importlib
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import inside
from bench import ratios as kept
from bench.forks import forked
from steps.base.console import Console
from steps.base.record import Manifest, Workspace
from steps.config.generation import Generation
from steps.config.runs import PerformanceRunConfig
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import DETAIL, SAMPLES_FILE
from steps.prepare import samples
from steps.run.sut.run import execute

MODULE = "bench.offline_efficiency"


@dataclass(frozen=True)
class Measurement:
    """`order` holds the sample indices as LoadGen issued them.

    `cpu_s`: processor time of the whole process, the engine's start included. On a shared machine,
    it says more than the clock.
    """

    tokens_per_second: float
    order: list[int]
    cpu_s: float


class Subject(inside.Subject):
    """The two ways that are measured."""

    def loadgen(self, home: Path, console: Console) -> Measurement:
        """Every sample of the dataset once, in one Offline query."""
        execute("PerformanceOnly", self._once(), self.inputs, Workspace(home), console)
        detail = read_detail(home / DETAIL)
        with (home / SAMPLES_FILE).open(encoding="utf-8", newline="") as stream:
            order = [int(row["sample_index"]) for row in csv.DictReader(stream)]
        rate = float(detail.get("result_tokens_per_second"))
        return Measurement(rate, order, time.process_time())

    def raw(self, order: list[int]) -> Measurement:
        """vLLM's own `LLM.generate`, all samples in one call."""
        from vllm import LLM, SamplingParams

        self.engine_place()
        config = self.config
        prompts = samples.load(self.dataset)
        engine = LLM(
            model=str(Manifest.read(self.model).directory),
            skip_tokenizer_init=True,
            disable_log_stats=True,
            **config.engine.arguments.model_dump(exclude_none=True),
        )
        assert isinstance(config.generation, Generation)
        parameters = SamplingParams(
            temperature=0.0,
            min_tokens=config.generation.min_tokens,
            max_tokens=config.generation.max_tokens,
            stop_token_ids=list(config.generation.ends),
            detokenize=False,
        )

        def generate(token_ids: list[list[int]]) -> int:
            requests = [{"prompt_token_ids": ids} for ids in token_ids]
            outputs = engine.generate(requests, parameters, use_tqdm=False)
            return sum(len(output.outputs[0].token_ids) for output in outputs)

        generate(prompts.calibration[: config.engine.warmup_samples])
        asked = [prompts.evaluation[index] for index in order]
        begun = time.perf_counter()
        rate = generate(asked) / (time.perf_counter() - begun)
        return Measurement(rate, order, time.process_time())

    def _once(self) -> PerformanceRunConfig:
        """Counts that make LoadGen's one query contain every sample once, for any number."""
        size = len(samples.load(self.dataset).evaluation)
        counts = {
            "target_qps": 1.0,
            "min_duration_ms": 1,
            "min_query_count": size,
            "performance_sample_count_override": size,
        }
        loadgen = self.config.loadgen.model_copy(update=counts)
        return self.config.model_copy(update={"loadgen": loadgen})


def main() -> None:
    parser = inside.parser(MODULE)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.config is None:
        inside.run(MODULE, ["scenario=Offline"], sys.argv[1:])
        return
    subject = Subject.of(arguments)
    subject.engine_environment()
    importlib.import_module("vllm")  # once, inherited by every fork

    # Not counted: it brings the order and warms the machine's caches.
    order = forked(subject.loadgen).order

    def raw_in_order(home: Path, console: Console) -> Measurement:
        return subject.raw(order)

    raw, loadgen = [forked(raw_in_order)], []
    print(f"{len(order):,} samples, load average {os.getloadavg()[0]:.1f}")
    print("round   raw generate   LoadGen Offline   ratio to the raw ones before and after")
    ratios = []
    for number in range(1, arguments.rounds + 1):
        loadgen.append(forked(subject.loadgen))
        raw.append(forked(raw_in_order))
        rate = loadgen[-1].tokens_per_second
        ratios.append(rate / statistics.fmean(each.tokens_per_second for each in raw[-2:]))
        print(
            f"{number:>5} {raw[-1].tokens_per_second:>14,.0f} {rate:>17,.0f} {ratios[-1]:>7.3f}",
            flush=True,
        )
    kept.keep("efficiency", "LoadGen Offline over raw generate", 0.98, {"vLLM": ratios})
    rates = sorted(each.tokens_per_second for each in raw)
    print(
        f"LoadGen Offline ÷ raw generate: median {statistics.median(ratios):.3f}, "
        f"{min(ratios):.3f} to {max(ratios):.3f}; raw alone spreads {rates[-1] / rates[0] - 1:.1%}"
    )
    spent = [statistics.median(each.cpu_s for each in found) for found in (raw, loadgen)]
    print(
        f"processor time, start included: raw {spent[0]:.1f} s, LoadGen {spent[1]:.1f} s, raw ÷ "
        f"LoadGen {spent[0] / spent[1]:.3f}"
    )


if __name__ == "__main__":
    main()
