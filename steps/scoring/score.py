"""A whole accuracy log, streamed through all cores: memory doesn't grow with the log."""

import multiprocessing
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from steps.errors import UserError
from steps.loadgen_log import Answer, read_answers
from steps.scoring.metrics import gsm8k_match, niah_exact_match, qa_exact_match

BATCH = 64
"""Answers that a process scores at a time: half a second of ROUGE."""

EXACT: Mapping[str, tuple[str, Callable[[str, str], float]]] = {
    "niah_em": ("exact_match", niah_exact_match),
    "qa_em": ("exact_match", qa_exact_match),
    "GSM8K": ("gsm8k", gsm8k_match),
}
"""What a dataset calls a kind of sample, the metric it counts for, and how it is judged."""

ROUGE: Mapping[str, tuple[str, ...]] = {
    "rouge": ("rougeL",),
    "OpenOrca": ("rouge1", "rouge2", "rougeL"),
}
UNSCORED = ("MBXP",)
"""Kinds whose score needs the generated code to be run."""


@dataclass(frozen=True)
class Form:
    """How a benchmark's dataset and its script's output look. `decimals`: None is unrounded."""

    truth: str
    kind: str | None
    only_kind: str
    decimals: int | None
    gen_len_of: tuple[str, ...] | None


FORMS: Mapping[str, Form] = {
    "llama2-70b": Form("output", None, "OpenOrca", 4, None),
    "llama3.1-405b": Form("gt_output", "metric", "", None, None),
    "mixtral-8x7b": Form("gt_output", "dataset", "", 4, ("OpenOrca",)),
}
"""Columns of the reference datasets (v5.1.1); gen_len counts the characters of these kinds."""


@dataclass
class Totals:
    """Sums over answers; a metric's mean is over the samples that it speaks of."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    characters: int = 0
    samples: int = 0
    tokens: int = 0
    unscored: int = 0

    def add(self, metric: str, value: float) -> None:
        self.sums[metric] = self.sums.get(metric, 0.0) + value
        self.counts[metric] = self.counts.get(metric, 0) + 1

    def result(self, decimals: int | None) -> dict[str, float]:
        """The dictionary that the reference script prints: plain floats and integers."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        if decimals is not None:
            means = {
                name: round(mean, decimals) if name.startswith("rouge") else mean
                for name, mean in means.items()
            }
        return {
            **means,
            "gen_len": self.characters,
            "gen_num": self.samples,
            "gen_tok_len": self.tokens,
            "tokens_per_sample": round(self.tokens / self.samples, 1),
        }


_Item = tuple[str, str, bytes]
"""Kind, truth, and the answer's tokens: little-endian int32."""


def score(benchmark: str, log: Path, dataset: Any, tokenizer: Path) -> Totals:
    """`dataset`: a table with the columns of the benchmark's form, one row a sample.

    Raises UserError unless the log answers every sample of it exactly once.
    """
    form = FORMS[benchmark]
    for column in filter(None, (form.truth, form.kind)):
        if column not in dataset.columns:
            raise UserError(f"the dataset has no column {column!r}; use the one of {benchmark}")
    truths: Sequence[Any] = list(dataset[form.truth])
    kinds: Sequence[str] = list(dataset[form.kind]) if form.kind else [form.only_kind] * len(truths)
    unknown = sorted({str(kind) for kind in kinds} - {*EXACT, *ROUGE, *UNSCORED})
    if unknown:
        raise UserError(f"the dataset has samples of kind {unknown[0]!r}, which nothing scores")
    totals = Totals()
    items = (
        (kinds[answer.sample_index], str(truths[answer.sample_index]), _packed(answer))
        for answer in _each_once(read_answers(log), len(truths), log)
    )
    for batch in _scored(_batches(items), tokenizer):
        for kind, values, characters, tokens in batch:
            totals.samples += 1
            totals.tokens += tokens
            totals.unscored += kind in UNSCORED
            if form.gen_len_of is None or kind in form.gen_len_of:
                totals.characters += characters
            for metric, value in values:
                totals.add(metric, value)
    return totals


def _packed(answer: Answer) -> bytes:
    return array("i", answer.tokens).tobytes()


def _each_once(answers: Iterator[Answer], size: int, log: Path) -> Iterator[Answer]:
    seen = bytearray(size)
    count = 0
    for answer in answers:
        index = answer.sample_index
        if not 0 <= index < size:
            raise UserError(f"{log}: the dataset has {size} samples, none is number {index}")
        if seen[index]:
            raise UserError(f"{log}: sample {index} is answered twice; use an accuracy run's log")
        seen[index] = 1
        count += 1
        yield answer
    if count != size:
        first = seen.index(0)
        raise UserError(
            f"{log}: {count} samples of {size} are answered (sample {first} is not); use the "
            "untruncated log of an accuracy run"
        )


def _batches(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    while batch := list(islice(items, BATCH)):
        yield batch


_Scored = list[tuple[str, list[tuple[str, float]], int, int]]


def _scored(batches: Iterator[list[_Item]], tokenizer: Path) -> Iterator[_Scored]:
    """In order, so that sums don't depend on which process was faster; few batches under way."""
    count = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        count, mp_context=context, initializer=_begin, initargs=(str(tokenizer),)
    ) as pool:
        pending: deque[Future[_Scored]] = deque()
        try:
            for batch in batches:
                pending.append(pool.submit(_score, batch))
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a scoring process was killed, probably for want of memory; run it again on fewer "
                "cores (taskset)"
            ) from error


_tokenizer: Any = None
_scorers: dict[tuple[str, ...], Any] = {}


def _begin(tokenizer: str) -> None:
    """What each process needs once."""
    global _tokenizer
    from rouge_score.rouge_scorer import RougeScorer
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _tokenizer = Tokenizer.from_file(tokenizer)
    for metrics in ROUGE.values():
        _scorers[metrics] = RougeScorer(list(metrics), use_stemmer=True)


def _score(batch: list[_Item]) -> _Scored:
    tokens = [array("i", data).tolist() for *_, data in batch]
    texts = _tokenizer.decode_batch(tokens, skip_special_tokens=True)
    found: _Scored = []
    for (kind, truth, _), ids, text in zip(batch, tokens, texts, strict=True):
        # GSM8K's script takes the answer as it is decoded, the others without outer blanks.
        answer = text if kind == "GSM8K" else text.strip()
        values: list[tuple[str, float]] = []
        if kind in EXACT:
            metric, judge = EXACT[kind]
            values = [(metric, judge(truth if kind == "GSM8K" else truth.strip(), answer))]
        elif kind in ROUGE:
            scores = _scorers[ROUGE[kind]].score(truth.strip(), answer)
            values = [(name, 100.0 * scores[name].fmeasure) for name in ROUGE[kind]]
        found.append((kind, values, len(answer), len(ids)))
    return found
