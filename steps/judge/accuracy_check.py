"""Are the answers of an accuracy run as good as the reference's?"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace
from steps.base.step import main
from steps.config.checks import NO_GATE, AccuracyCheckConfig, Bounds, Gates
from steps.mlperf.accuracy_text import read_scores
from steps.mlperf.loadgen import ANSWERS, DETAIL, loadgen_scenario
from steps.mlperf.loadgen_log import Detail, read_detail

REHEARSAL, IMAGES = "rehearsal", "stable-diffusion-xl"
TEXT = "accuracy.txt"


def step(
    config: AccuracyCheckConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes accuracy.txt (for the official checker) and accuracy.json.

    Raises UserError if the run proves nothing (wrong mode, samples missing) or a score misses the
    required gate.
    """
    run, dataset = (Manifest.read(inputs[role]) for role in ("run", "dataset"))
    prove_whole(read_detail(run.file(DETAIL)), config)
    log = run.file(ANSWERS)
    if config.scorer == IMAGES:
        scores, text = _images(config, log, dataset, workspace.directory)
    else:
        score = _rehearsal if config.scorer == REHEARSAL else _official
        tokenizer = Manifest.read(inputs["model"]).file("tokenizer.json")
        scores, text = score(config, log, dataset.file("evaluation.pkl"), tokenizer, console)
    path = workspace.directory / TEXT
    path.write_text(text, encoding="utf-8")
    gates = {name: _verdict(scores, path, gate) for name, gate in config.gates.items()}
    workspace.result = {"scores": scores, "gates": gates, "required": config.required}
    shown = json.dumps(workspace.result, indent=1, sort_keys=True) + "\n"
    print(shown)
    if config.required != NO_GATE:
        _require(gates[config.required], config)
    (workspace.directory / "accuracy.json").write_text(shown, encoding="utf-8")


_Scores = tuple[dict[str, float], str]
"""By the names of the script that prints them, and accuracy.txt."""


def _rehearsal(
    config: AccuracyCheckConfig, log: Path, table: Path, tokenizer: Path, console: Console
) -> _Scores:
    from steps.prepare.rehearsal.scores import score

    progress = console.progress(f"{config.scenario} ROUGE", config.dataset_size)
    found = score(log, table, tokenizer, progress.add)
    progress.close()
    return found


def _official(
    config: AccuracyCheckConfig, log: Path, table: Path, tokenizer: Path, console: Console
) -> _Scores:
    import pandas

    from steps.judge.scoring.score import score

    data = None if config.nltk_data is None else Path(config.nltk_data)
    totals = score(config.scorer, log, pandas.read_pickle(table), tokenizer, data)
    _require_all(totals.samples, config)
    return {name: float(value) for name, value in totals.result().items()}, totals.text()


def _images(config: AccuracyCheckConfig, log: Path, dataset: Manifest, folder: Path) -> _Scores:
    from steps.judge.scoring.images import Files, Gallery, score

    weights = config.weights
    if weights is None or weights.clip.path is None or weights.inception.path is None:
        raise UserError(
            "pictures are scored with CLIP and Inception-v3, whose weights have to be on this "
            "machine: set benchmark.scorer_weights.clip.path and .inception.path"
        )
    files = Files(
        captions=dataset.file("captions_source.tsv"),
        statistics=dataset.file("val2014.npz"),
        clip=Path(weights.clip.path),
        inception=Path(weights.inception.path),
        digests={"clip": weights.clip.sha256, "inception": weights.inception.sha256},
    )
    gallery = Gallery(folder / "images", [int(stem) for stem in config.kept.get("images", ())])
    found = score(log, files, gallery=gallery)
    _require_all(found.samples, config)
    return {name: float(value) for name, value in found.result().items()}, found.text()


def _require_all(samples: int, config: AccuracyCheckConfig) -> None:
    if samples != config.dataset_size:
        raise UserError(
            f"the accuracy log has {samples} samples of {config.dataset_size}; re-run the "
            "accuracy run"
        )


def prove_whole(detail: Detail, config: AccuracyCheckConfig) -> None:
    """Raises UserError unless LoadGen itself says that this was a whole accuracy run."""
    expected = {
        "effective_test_mode": "AccuracyOnly",
        "effective_scenario": loadgen_scenario(config.scenario),
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


def _verdict(scores: Mapping[str, float], text: Path, gate: Gates | Bounds) -> dict[str, Any]:
    return judged(scores, gate) if isinstance(gate, Gates) else bounded(text, gate)


def bounded(text: Path, gate: Bounds) -> dict[str, Any]:
    """One gate of a round: every metric as the checker will read it, within the round's bounds.

    `ratio` is of the bound that it comes nearest to missing: 1 or more passes. Raises UserError if
    a metric isn't there.
    """
    names = tuple(dict.fromkeys((*gate.minimum, *gate.maximum)))
    printed = read_scores(text, names)
    metrics: dict[str, dict[str, Any]] = {}
    for name in names:
        if name not in printed:
            raise UserError(f"{name} was not scored, and the round bounds it")
        score = float(printed[name][-1][1])
        bounds = {
            kind: values[name]
            for kind, values in (("minimum", gate.minimum), ("maximum", gate.maximum))
            if name in values
        }
        ratios = [score / bounds["minimum"]] if "minimum" in bounds else []
        if "maximum" in bounds:
            ratios.append(bounds["maximum"] / score if score > 0 else 1.0)
        ratio = min(ratios)
        metrics[name] = {"score": score, **bounds, "ratio": ratio, "passed": ratio >= 1}
    return {"passed": all(entry["passed"] for entry in metrics.values()), "metrics": metrics}


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


def _require(gate: Mapping[str, Any], config: AccuracyCheckConfig) -> None:
    for name, entry in gate["metrics"].items():
        if not entry["passed"]:
            raise UserError(
                f"accuracy of {config.scenario} misses gate {config.required}: {name} is "
                f"{entry['score']:.4f}, it must be {_limits(entry)} ({entry['ratio']:.2%} of the "
                f"{'bound' if isinstance(config.gates[config.required], Bounds) else 'reference'})"
            )


def _limits(entry: Mapping[str, Any]) -> str:
    if "minimum" not in entry:
        return f"at most {entry['maximum']:.4f}"
    if "maximum" in entry:
        return f"{entry['minimum']:.1f} to {entry['maximum']:.1f}"
    return f"at least {entry['minimum']:.4f}"


if __name__ == "__main__":
    main("accuracy_check", AccuracyCheckConfig, step)
