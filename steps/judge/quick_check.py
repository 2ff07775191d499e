"""What a step cost in accuracy, on a few prompts: runs behind a failed verdict refuse,
before hours are spent."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from steps.base.bootstrap import ratio_interval
from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace
from steps.base.step import main
from steps.config.checks import QuickCheckConfig
from steps.config.verdicts import Complaint, QuickVerdict, as_result
from steps.run.quick_run import ANSWERS

METRIC = "rougeL"
TRUE = ("output", "ref_output")
"""MLCommons' columns of true answers' texts: of Llama 2's dataset and of Mixtral's."""


def step(
    config: QuickCheckConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Compares answers with those of the source weights, prompt by prompt: a QuickVerdict.

    It fails if even the interval's upper end misses the minimum.
    """
    import numpy as np
    import pandas
    from tokenizers import Tokenizer

    model, dataset = Manifest.read(inputs["model"]), Manifest.read(inputs["dataset"])
    tokenizer = Tokenizer.from_file(str(model.file("tokenizer.json")))
    table = pandas.read_pickle(dataset.file("evaluation.pkl"))
    truths = list(table[next(name for name in TRUE if name in table)])
    scores = {
        role: np.array(_scores(Manifest.read(inputs[role]), tokenizer, truths))
        for role in ("run", "reference")
    }
    if not scores["reference"].any():
        raise UserError("the source weights answer nothing right; nothing can be compared")
    ratio, low, high = interval = ratio_interval(scores["run"], scores["reference"])
    if not all(map(math.isfinite, interval)):
        right = int((scores["reference"] > 0).sum())
        raise UserError(
            f"the source weights score above 0 on {right} of {len(scores['reference'])} prompts, "
            "too few for an interval; raise benchmark.quick_samples"
        )
    size = sum(
        entry["bytes"] for name, entry in model.files.items() if name.endswith(".safetensors")
    )
    complaints = tuple(_complaints(config, len(scores["run"]), interval))
    verdict = QuickVerdict(
        holds=not complaints,
        complaints=complaints,
        after=config.after,
        samples=len(scores["run"]),
        score=round(float(scores["run"].mean()), 4),
        ratio=round(ratio, 3),
        low=round(low, 3),
        high=round(high, 3),
        minimum=round(100 * config.minimum, 3),
        gigabytes=size / 1e9,
    )
    workspace.result = as_result(verdict)
    print(json.dumps(workspace.result))
    console.say(
        f"quick check after {config.after}: {ratio:.2f} % of the source's score [{low:.2f}, "
        f"{high:.2f}]"
    )
    if not verdict.holds:
        console.say(verdict.why)


def _complaints(
    config: QuickCheckConfig, samples: int, interval: tuple[float, float, float]
) -> Iterator[Complaint]:
    ratio, low, high = interval
    if high < 100 * config.minimum:
        yield Complaint(
            code="quick",
            words=f"after {config.after} the weights keep {ratio:.2f} % [{low:.2f}, {high:.2f}] of "
            f"the source's {METRIC} on {samples} prompts, {100 * config.minimum:.2f} % are wanted",
            value=round(high, 3),
            limit=round(100 * config.minimum, 3),
            fix="fix the compression, or lower its quick_minimum if the loss is meant",
        )


def _scores(run: Manifest, tokenizer: Any, truths: Sequence[str]) -> list[float]:
    """ROUGE-L of each answer, 0 to 100."""
    from steps.mlperf.rouge import Rouge

    answers = json.loads(run.file(ANSWERS).read_text(encoding="utf-8"))
    texts = tokenizer.decode_batch(answers, skip_special_tokens=True)
    rouge = Rouge()
    return [
        100 * rouge.score([METRIC], truth, text)[0]
        for truth, text in zip(truths, texts, strict=False)
    ]


if __name__ == "__main__":
    main("quick_check", QuickCheckConfig, step)
