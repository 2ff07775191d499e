"""`python -m bench.amds_quark --v0 DIR --quark DIR`: AMD's Quark 0.9 beside 0.13.

The rehearsal's Llama in FP8 and in MXFP4 with GPTQ, and a small Mixtral made of it in FP8 with
AutoSmoothQuant, each by both versions on the same calibration prompts. All are loaded by today's
vLLM, and Llama by V0 of vLLM 0.9.1, whose emulation is named beside it. Says ROUGE-L in percent of
the unquantized weights' with a paired bootstrap 95 % interval, what V0 can't do on a CPU with the
error it gives, and whether V0 and V1 compute with the same values of the weights.

`--v0`: an environment of bench.v0_environment. `--quark`: a directory of packages beside its own:

    DIR/bin/pip install --target QUARK amd-quark==0.9 accelerate==1.8.1 onnx==1.17.0 \\
        onnxsim==0.4.36 onnxruntime==1.22.0 evaluate==0.4.6 zstandard rich peft==0.15.2 datasets
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.quark_parts import plain
from steps import ROOT
from steps.base.bootstrap import ratio_interval
from steps.plan.frozen import frozen_plan
from steps.plan.plan import Job, Plan, load

LIMIT_S = 3600.0
MODEL = ROOT / "steps/prepare/rehearsal/model"

AMDS, TODAYS = "0.9", "0.13"
COMMON = {"kv_cache_dtype": "fp8", "exclude_layers": ["lm_head"], "seq_len": 512}
FP8 = {**COMMON, "quant_scheme": "w_fp8_a_fp8"}
MXFP4 = {**COMMON, "quant_scheme": "w_mxfp4_a_mxfp4", "quant_algo": "gptq", "group_size": 32}
MIXTURE = {
    **FP8,
    "exclude_layers": ["lm_head", "*.gate"],
    "quant_algo": "autosmoothquant",
    "min_kv_scale": 1.0,
}
OWN_FORM = {"version": AMDS, "data_type": "float16", "custom_mode": "fp8"}
ON_A_CPU = {"version": TODAYS, "data_type": "float32"}
RECIPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama fp8, Quark 0.9": ("llama", {**FP8, **OWN_FORM}),
    "llama fp8, Quark 0.13": ("llama", {**FP8, **ON_A_CPU}),
    "llama mxfp4-gptq, Quark 0.9": ("llama", {**MXFP4, "version": AMDS}),
    "llama mxfp4-gptq, Quark 0.13": ("llama", {**MXFP4, **ON_A_CPU}),
    "mixture fp8, Quark 0.9": ("mixture", {**MIXTURE, **OWN_FORM}),
    "mixture fp8, Quark 0.13": ("mixture", {**MIXTURE, **ON_A_CPU}),
}
"""Source and options of each checkpoint."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--v0", type=Path)
    parser.add_argument("--quark", type=Path)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--kept", type=Path, help="where checkpoints are kept; default: nowhere")
    options = parser.parse_args()
    if options.v0 is None or options.quark is None:
        parser.error("--v0 and --quark name no directories; --help says how they are made")
    with tempfile.TemporaryDirectory() as folder:
        home = options.kept or Path(folder)
        home.mkdir(exist_ok=True)
        Comparison(options.v0, options.quark, home.resolve(), options.prompts).run()


class Comparison:
    """Makes, loads and compares; each part in the environment that it needs."""

    def __init__(self, v0: Path, quark: Path, home: Path, prompts: int) -> None:
        from steps.prepare.rehearsal import dataset

        self.home = home
        self.plan = load(frozen_plan(ROOT, ["scenario=Offline", "precision=fp8"]))
        self.frame = dataset.evaluation(prompts)
        self.truths = list(self.frame["output"])
        today = self._job("performance_run")
        self.config = json.loads(today.config)
        self.pythons = {
            AMDS: (v0 / "bin/python", str(quark)),
            TODAYS: (ROOT / self._job("quantize").environment / "bin/python", ""),
            "V0": (v0 / "bin/python", ""),
            "V1": (ROOT / today.environment / "bin/python", ""),
        }

    def _job(self, step: str) -> Job:
        return job_of(self.plan, step)

    def run(self) -> None:
        sources = {"llama": MODEL, "mixture": self.home / "mixture"}
        if not sources["mixture"].is_dir():
            self.part("V1", "upcycle", {"source": str(MODEL), "to": str(sources["mixture"])})
        made = {name: self.quantized(name, sources) for name in RECIPES}
        every = {"llama bf16": sources["llama"], "mixture bf16": sources["mixture"], **made}
        v1 = self.answered("V1", every, emulated=True)
        llamas = {name: path for name, path in every.items() if name.startswith("llama")}
        v0 = self.answered("V0", llamas, emulated=True)
        self.table({"V1": v1, "V0": v0})
        same(v0, v1)
        self.refused(made)
        self.values(made)

    def quantized(self, name: str, sources: Mapping[str, Path]) -> Path:
        source, options = RECIPES[name]
        destination = self.home / plain(name)
        if not (destination / "config.json").is_file():
            begun = time.monotonic()
            task = {
                "source": str(sources[source]),
                "to": str(destination),
                "options": dict(options),
            }
            self.part(str(options["version"]), "quantize", task)
            print(f"{name}: made in {time.monotonic() - begun:.0f} s", flush=True)
        return destination

    def cases(self, version: str, weights: Mapping[str, Path], emulated: bool) -> list[Any]:
        found = []
        for name, path in weights.items():
            config = json.loads(json.dumps(self.config))
            engine = config["engine"]
            engine["emulation"] = emulated and "bf16" not in name
            if "bf16" in name or version == "V0":
                engine["arguments"].pop("kv_cache_dtype", None)
            if version == "V0":
                engine["environment"]["VLLM_USE_V1"] = "0"
                engine["arguments"]["enable_chunked_prefill"] = False
            found.append({"name": name, "weights": str(path), "config": config})
        return found

    def answered(self, version: str, weights: Mapping[str, Path], emulated: bool) -> Any:
        known = self.home / f"answers-{version}-{len(self.truths)}.json"
        if not known.is_file():
            prompts = [list(map(int, tokens)) for tokens in self.frame["tok_input"]]
            cases = self.cases(version, weights, emulated)
            found = self.part(version, "answer", {"cases": cases, "prompts": prompts})
            known.write_text(json.dumps(found), encoding="utf-8")
        return json.loads(known.read_text(encoding="utf-8"))

    def table(self, found: Mapping[str, Any]) -> None:
        reference: dict[str, Any] = {}
        print("| weights | vLLM | equal to the dataset's answers | ROUGE-L, % of bf16 in V1 |")
        print("|---|---|---|---|")
        for version, answers in found.items():
            for name, one in answers.items():
                if "error" in one:
                    print(f"| {name} | {version} | fails: {one['error']} | |", flush=True)
                    continue
                scores, right = self.scored(one["answers"])
                kind = name.split()[0]
                reference.setdefault(kind, scores)
                ratio, low, high = ratio_interval(scores, reference[kind])
                identity = one["identity"]
                engine = f"{identity['version']} {identity['generation']}, {identity['kernels']}"
                print(
                    f"| {name} | {engine} | {right} of {len(scores)} | "
                    f"{ratio:.2f} [{low:.2f}, {high:.2f}] |",
                    flush=True,
                )

    def scored(self, answers: Sequence[Sequence[int]]) -> tuple[Any, int]:
        """ROUGE-L of each answer, and how many are the dataset's, word for word."""
        import numpy as np
        from tokenizers import Tokenizer

        from steps.mlperf.rouge import Rouge

        tokenizer, rouge = Tokenizer.from_file(str(MODEL / "tokenizer.json")), Rouge()
        texts = tokenizer.decode_batch(answers, skip_special_tokens=True)
        pairs = list(zip(self.truths, texts, strict=True))
        return (
            np.array([100 * rouge.score(["rougeL"], *pair)[0] for pair in pairs]),
            sum(truth == text for truth, text in pairs),
        )

    def refused(self, made: Mapping[str, Path]) -> None:
        """What V0 says on a CPU to what it can't do there."""
        amds = {name: path for name, path in made.items() if name.endswith(AMDS)}
        cases = [
            {**case, "name": f"{case['name']}, without emulation"}
            for case in self.cases("V0", amds, emulated=False)
        ]
        mixture = {name: path for name, path in amds.items() if name.startswith("mixture")}
        cases += [
            {**case, "name": f"{case['name']}, emulated"}
            for case in self.cases("V0", mixture, emulated=True)
        ]
        llama = {name: path for name, path in amds.items() if name.startswith("llama fp8")}
        for case in self.cases("V0", llama, emulated=True):
            case["config"]["engine"]["arguments"]["kv_cache_dtype"] = "fp8"
            cases.append({**case, "name": f"{case['name']}, KV cache in FP8"})
        prompts = [list(map(int, tokens)) for tokens in self.frame["tok_input"][:4]]
        found = self.part("V0", "answer", {"cases": cases, "prompts": prompts})
        for name, one in found.items():
            print(f"V0, {name}: {one.get('error', 'answers')}", flush=True)

    def values(self, made: Mapping[str, Path]) -> None:
        """The weights' values that V0 and V1 compute with, of Quark 0.9's checkpoints."""
        amds = {name: path for name, path in made.items() if name.endswith(AMDS)}
        for version in ("V0", "V1"):
            cases = self.cases(version, amds, emulated=True)
            self.part(version, "values", {"cases": cases, "to": str(self.home / version)})
        for name in amds:
            folders = [str(self.home / version / f"{plain(name)}.pt") for version in ("V0", "V1")]
            found = self.part("V1", "differ", {"folders": folders})
            print(f"{name}: V0's values of the weights beside V1's: {found['says']}", flush=True)

    def part(self, where: str, part: str, task: Mapping[str, Any]) -> Any:
        """What a part of bench.quark_parts finds in one of the environments."""
        python, above = self.pythons[where]
        path = self.home / f"{part}.json"
        path.write_text(json.dumps(task), encoding="utf-8")
        path.with_suffix(".found").unlink(missing_ok=True)
        command = [str(python), "-m", "bench.quark_parts", part, str(path)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (above, str(ROOT)))),
            "PATH": f"{python.parent}:{os.environ['PATH']}",  # ninja, by which Quark compiles
            "HF_HUB_OFFLINE": "1",
            "MAX_JOBS": "1",
        }
        log = self.home / f"{part}-{where}.log"
        with log.open("a", encoding="utf-8") as stream:
            done = subprocess.run(
                command,
                timeout=LIMIT_S,
                env=environment,
                cwd=self.home,
                stdout=stream,
                stderr=stream,
            )
        if done.returncode:
            sys.exit(f"{part} in {python} failed; its log ends with:\n{log.read_text()[-2000:]}")
        return json.loads(path.with_suffix(".found").read_text(encoding="utf-8"))


def job_of(plan: Plan, step: str) -> Job:
    return next(job for job in plan.jobs if job.step == step)


def same(v0: Mapping[str, Any], v1: Mapping[str, Any]) -> None:
    for name in v0:
        if "answers" in v0[name] and "answers" in v1[name]:
            pairs = list(zip(v0[name]["answers"], v1[name]["answers"], strict=True))
            equal = sum(a == b for a, b in pairs)
            print(f"{name}: V0 and V1 equal token for token: {equal} of {len(pairs)}", flush=True)


if __name__ == "__main__":
    main()
