"""Are the answers of an accuracy run as good as the reference's?"""

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steps.command import main
from steps.console import Console
from steps.errors import UserError
from steps.loadgen_log import Answer, Detail, read_answers, read_detail
from steps.record import Manifest, Workspace
from steps.rehearsal.notes import exact_facts
from steps.rouge import METRICS, rouge
from steps.schema import NO_GATE, AccuracyCheckConfig, Gates


def step(
    config: AccuracyCheckConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes accuracy.txt (for the official checker) and accuracy.json.

    Raises UserError if the run proves nothing (wrong mode, samples missing) or a score misses the
    required gate.
    """
    import pandas
    from tokenizers import Tokenizer

    run = Manifest.read(inputs["run"])
    dataset, model = Manifest.read(inputs["dataset"]), Manifest.read(inputs["model"])
    prove_whole(read_detail(run.file("mlperf_log_detail.txt")), config)
    answers = by_index(read_answers(run.file("mlperf_log_accuracy.json")), config.dataset_size)
    truths = list(pandas.read_pickle(dataset.file("evaluation.pkl"))["output"])
    tokenizer = Tokenizer.from_file(str(model.file("tokenizer.json")))
    texts = tokenizer.decode_batch([answer.tokens for answer in answers], skip_special_tokens=True)
    progress = console.progress(f"{config.scenario} ROUGE", len(texts))
    scores = {name: round(s, 4) for name, s in rouge(truths, texts, progress.add).items()}
    progress.close()
    tokens = sum(len(answer.tokens) for answer in answers)
    scores["tokens_per_sample"] = round(tokens / len(answers), 1)
    matches = map(exact_facts, texts, truths)
    scores["exact_match"] = round(100 * statistics.fmean(matches), 4)
    gates = {name: judged(scores, gate) for name, gate in config.gates.items()}
    workspace.result = {"scores": scores, "gates": gates, "required": config.required}
    text = json.dumps(workspace.result, indent=1, sort_keys=True) + "\n"
    print(text)
    if config.required != NO_GATE:
        _require(gates[config.required], config)
    (workspace.directory / "accuracy.json").write_text(text, encoding="utf-8")
    (workspace.directory / "accuracy.txt").write_text(
        accuracy_text(scores, sum(map(len, texts)), len(texts), tokens), encoding="utf-8"
    )


def prove_whole(detail: Detail, config: AccuracyCheckConfig) -> None:
    """Raises UserError unless LoadGen itself says that this was a whole accuracy run."""
    expected = {
        "effective_test_mode": "AccuracyOnly",
        "effective_scenario": "Offline" if config.scenario == "Offline" else "Server",
        "qsl_reported_total_count": config.dataset_size,
    }
    for key, value in expected.items():
        if detail.get(key) != value:
            raise UserError(
                f"the {config.scenario} accuracy run proves nothing: {key} is "
                f"{detail.get(key)!r}, not {value!r}; re-run it"
            )
    if detail.errors:
        raise UserError(
            f"LoadGen reported an error in the {config.scenario} accuracy run: "
            f"{detail.errors[0].value}; re-run it"
        )


def by_index(answers: Iterator[Answer], dataset_size: int) -> list[Answer]:
    """Answers in dataset order; raises UserError unless every sample is there exactly once."""
    found: dict[int, Answer] = {}
    for answer in answers:
        if answer.sample_index in found:
            raise UserError(
                f"sample {answer.sample_index} is logged twice; re-run the accuracy run"
            )
        found[answer.sample_index] = answer
    missing = [index for index in range(dataset_size) if index not in found]
    if missing or len(found) != dataset_size:
        raise UserError(
            f"the accuracy log has {len(found)} samples of {dataset_size} "
            f"(first missing: {missing[:1]}); re-run the accuracy run"
        )
    return [found[index] for index in range(dataset_size)]


def judged(scores: Mapping[str, float], gate: Gates) -> dict[str, Any]:
    """One gate: every metric at least reference times factor, tokens within the tolerance."""
    metrics = {
        name: {
            "score": scores[name],
            "minimum": reference * gate.factor,
            "ratio": scores[name] / reference,
            "passed": scores[name] >= reference * gate.factor,
        }
        for name, reference in gate.reference.items()
    }
    tokens = scores["tokens_per_sample"]
    tolerance = gate.tokens_per_sample_tolerance
    low, high = (gate.tokens_per_sample * (1 + sign * tolerance) for sign in (-1, 1))
    metrics["tokens_per_sample"] = {
        "score": tokens,
        "minimum": low,
        "maximum": high,
        "ratio": tokens / gate.tokens_per_sample,
        "passed": low <= tokens <= high,
    }
    return {"passed": all(entry["passed"] for entry in metrics.values()), "metrics": metrics}


def accuracy_text(scores: Mapping[str, float], characters: int, samples: int, tokens: int) -> str:
    """The dictionary as MLCommons' script prints it: plain floats, or the checker reads nothing."""
    shown = {name: float(scores[name]) for name in METRICS}
    # Answers are single lines, and ROUGE-Lsum of single lines is ROUGE-L.
    shown["rougeLsum"] = shown["rougeL"]
    counts = {"gen_len": characters, "gen_num": samples, "gen_tok_len": tokens}
    return (
        f"\nResults\n\n{ {**shown, **counts, 'tokens_per_sample': scores['tokens_per_sample']} }\n"
    )


def _require(gate: Mapping[str, Any], config: AccuracyCheckConfig) -> None:
    for name, entry in gate["metrics"].items():
        if not entry["passed"]:
            limits = f"at least {entry['minimum']:.4f}"
            if "maximum" in entry:
                limits = f"{entry['minimum']:.1f} to {entry['maximum']:.1f}"
            raise UserError(
                f"accuracy of {config.scenario} misses gate {config.required}: {name} is "
                f"{entry['score']:.4f}, it must be {limits} ({entry['ratio']:.2%} of the reference)"
            )


if __name__ == "__main__":
    main("accuracy_check", AccuracyCheckConfig, step)
