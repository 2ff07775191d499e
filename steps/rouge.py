"""ROUGE as MLCommons' Llama 2 script counts it, without a network and on all cores."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence

METRICS = ("rouge1", "rouge2", "rougeL")
CHUNK = 256

_Pairs = list[tuple[str, str]]


def rouge(
    truths: Sequence[str], answers: Sequence[str], advance: Callable[[int], None]
) -> dict[str, float]:
    """Mean F-measure of each metric, 0 to 100, unrounded. `advance` hears of scored samples.

    Porter stemming is on, as in language/llama2-70b/evaluate-accuracy.py (v5.1.1).
    """
    pairs = list(zip(truths, answers, strict=True))
    chunks = [pairs[i : i + CHUNK] for i in range(0, len(pairs), CHUNK)]
    totals = dict.fromkeys(METRICS, 0.0)
    for sums, count in _scored(chunks):
        for metric, value in zip(METRICS, sums, strict=True):
            totals[metric] += value
        advance(count)
    return {metric: 100.0 * total / max(1, len(pairs)) for metric, total in totals.items()}


def rouge_each(truths: Sequence[str], answers: Sequence[str]) -> list[tuple[float, ...]]:
    """F-measures of each pair, 0 to 100, in the order of METRICS."""
    return [
        tuple(100.0 * value for value in _score([pair])[0])
        for pair in zip(truths, answers, strict=True)
    ]


def _scored(chunks: list[_Pairs]) -> Iterator[tuple[tuple[float, ...], int]]:
    if len(chunks) < 2:
        yield from map(_score, chunks)
        return
    # Results arrive in order, so the sums don't depend on which process was faster.
    with multiprocessing.get_context("spawn").Pool() as pool:
        yield from pool.imap(_score, chunks)


def _score(pairs: _Pairs) -> tuple[tuple[float, ...], int]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(METRICS), use_stemmer=True)
    scores = [scorer.score(truth, answer) for truth, answer in pairs]
    sums = tuple(sum(score[metric].fmeasure for score in scores) for metric in METRICS)
    return sums, len(scores)
