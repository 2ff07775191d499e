"""Are the answers of an accuracy run as good as the reference's?"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace
from steps.base.step import main
from steps.config.checks import NO_GATE, AccuracyCheckConfig, Bounds, Gates
from steps.config.verdicts import (
    AccuracyVerdict,
    Complaint,
    GateVerdict,
    Metric,
    as_result,
    plain,
)
from steps.judge.disturbances import differences_of, window_of
from steps.mlperf.accuracy_text import read_scores
from steps.mlperf.detail import Detail, read_detail
from steps.mlperf.loadgen import ANSWERS, DETAIL, loadgen_scenario

REHEARSAL, IMAGES = "rehearsal", "stable-diffusion-xl"
TEXT = "accuracy.txt"


def step(
    config: AccuracyCheckConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Publishes an AccuracyVerdict; writes accuracy.txt (for the official checker) and
    accuracy.json. A run that proves nothing (wrong mode, samples missing) isn't scored.
    """
    run = Manifest.read(inputs["run"])
    detail = read_detail(run.file(DETAIL))
    complaints = tuple(unproven(detail, config))
    scores: dict[str, float] = {}
    gates: dict[str, GateVerdict] = {}
    if not complaints:
        scores, text, complaints = _scored(config, run, inputs, workspace.directory, console)
        path = workspace.directory / TEXT
        path.write_text(text, encoding="utf-8")
        gates = {name: _verdict(scores, path, gate) for name, gate in config.gates.items()}
        complaints = (*complaints, *missed(gates, config))
    verdict = AccuracyVerdict(
        holds=not complaints,
        complaints=complaints,
        window=window_of(run, config.window, console.say),
        differences=differences_of(run),
        scores=scores,
        gates=gates,
        required=config.required,
    )
    if not verdict.holds:
        console.say(verdict.why)
    workspace.result = as_result(verdict)
    shown = json.dumps(workspace.result, indent=1, sort_keys=True) + "\n"
    print(shown)
    (workspace.directory / "accuracy.json").write_text(shown, encoding="utf-8")


def _scored(
    config: AccuracyCheckConfig,
    run: Manifest,
    inputs: Mapping[str, Path],
    folder: Path,
    console: Console,
) -> tuple[dict[str, float], str, tuple[Complaint, ...]]:
    """Scores, accuracy.txt, and what is wrong with the samples that they are of."""
    dataset, log = Manifest.read(inputs["dataset"]), run.file(ANSWERS)
    if config.scorer == IMAGES:
        (scores, text), samples = _images(config, log, dataset, folder)
        return scores, text, tuple(_incomplete(samples, config))
    tokenizer = Manifest.read(inputs["model"]).file("tokenizer.json")
    table = dataset.file("evaluation.pkl")
    if config.scorer == REHEARSAL:
        return *_rehearsal(config, log, table, tokenizer, console), ()
    (scores, text), samples = _official(config, log, table, tokenizer)
    return scores, text, tuple(_incomplete(samples, config))


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
    config: AccuracyCheckConfig, log: Path, table: Path, tokenizer: Path
) -> tuple[_Scores, int]:
    import pandas

    from steps.judge.scoring.score import score

    data = None if config.nltk_data is None else Path(config.nltk_data)
    totals = score(config.scorer, log, pandas.read_pickle(table), tokenizer, data)
    scores = {name: float(value) for name, value in totals.result().items()}
    return (scores, totals.text()), totals.samples


def _images(
    config: AccuracyCheckConfig, log: Path, dataset: Manifest, folder: Path
) -> tuple[_Scores, int]:
    from steps.judge.scoring.given import files
    from steps.judge.scoring.images import Gallery, score

    gallery = Gallery(folder / "images", [int(stem) for stem in config.kept.get("images", ())])
    found = score(log, files(config.weights, dataset), gallery=gallery)
    scores = {name: float(value) for name, value in found.result().items()}
    return (scores, found.text()), found.samples


def _incomplete(samples: int, config: AccuracyCheckConfig) -> Iterator[Complaint]:
    if samples != config.dataset_size:
        yield Complaint(
            code="samples",
            words=f"the accuracy log has {samples} samples of {config.dataset_size}",
            value=float(samples),
            limit=float(config.dataset_size),
        )


def unproven(detail: Detail, config: AccuracyCheckConfig) -> Iterator[Complaint]:
    """Why LoadGen itself doesn't say that this was a whole accuracy run."""
    expected = {
        "effective_test_mode": "AccuracyOnly",
        "effective_scenario": loadgen_scenario(config.scenario),
        "qsl_reported_total_count": config.dataset_size,
    }
    for key, value in expected.items():
        if detail.get(key) != value:
            yield Complaint(
                code=key,
                words=f"the {config.scenario} accuracy run proves nothing: {key} is "
                f"{detail.get(key)!r}, not {value!r}",
                value=plain(detail.get(key)),
                limit=plain(value),
            )
    if detail.errors:
        yield Complaint(
            code="error",
            words=f"LoadGen reported an error in the {config.scenario} accuracy run: "
            f"{detail.errors[0].value}",
        )


def _verdict(scores: Mapping[str, float], text: Path, gate: Gates | Bounds) -> GateVerdict:
    return judged(scores, gate) if isinstance(gate, Gates) else bounded(text, gate)


def bounded(text: Path, gate: Bounds) -> GateVerdict:
    """One gate of a round: every metric as the checker will read it, within the round's bounds.

    `ratio` is of the bound that it comes nearest to missing: 1 or more passes. Raises UserError if
    a metric isn't there; one that is bounded above alone need not be.
    """
    names = tuple(dict.fromkeys((*gate.minimum, *gate.maximum)))
    printed = read_scores(text, names)
    metrics: dict[str, Metric] = {}
    for name in names:
        if name not in printed and name not in gate.minimum:
            continue
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
        metrics[name] = Metric(score=score, **bounds, ratio=ratio, passed=ratio >= 1)
    return _of_all(metrics)


def judged(scores: Mapping[str, float], gate: Gates) -> GateVerdict:
    """One gate: every metric at least reference times factor, tokens within the tolerance."""
    metrics = {
        name: Metric(
            score=scores[name],
            minimum=reference * gate.factor,
            ratio=scores[name] / reference,
            passed=scores[name] >= reference * gate.factor,
        )
        for name, reference in gate.reference.items()
    }
    tokens = scores["tokens_per_sample"]
    tolerance = gate.tokens_per_sample_tolerance
    low, high = (gate.tokens_per_sample * (1 + sign * tolerance) for sign in (-1, 1))
    metrics["tokens_per_sample"] = Metric(
        score=tokens,
        minimum=low,
        maximum=high,
        ratio=tokens / gate.tokens_per_sample,
        passed=low <= tokens <= high,
    )
    return _of_all(metrics)


def _of_all(metrics: dict[str, Metric]) -> GateVerdict:
    return GateVerdict(passed=all(one.passed for one in metrics.values()), metrics=metrics)


def missed(gates: Mapping[str, GateVerdict], config: AccuracyCheckConfig) -> Iterator[Complaint]:
    """Each metric that misses the required gate."""
    if config.required == NO_GATE:
        return
    against = "bound" if isinstance(config.gates[config.required], Bounds) else "reference"
    for name, metric in gates[config.required].metrics.items():
        if not metric.passed:
            below = metric.minimum is not None and metric.score < metric.minimum
            yield Complaint(
                code=name,
                words=f"accuracy of {config.scenario} misses gate {config.required}: {name} is "
                f"{metric.score:.4f}, it must be {_limits(metric)} ({metric.ratio:.2%} of the "
                f"{against})",
                value=metric.score,
                limit=metric.minimum if below else metric.maximum,
            )


def _limits(metric: Metric) -> str:
    if metric.minimum is None:
        return f"at most {metric.maximum:.4f}"
    if metric.maximum is not None:
        return f"{metric.minimum:.1f} to {metric.maximum:.1f}"
    return f"at least {metric.minimum:.4f}"


if __name__ == "__main__":
    main("accuracy_check", AccuracyCheckConfig, step)
