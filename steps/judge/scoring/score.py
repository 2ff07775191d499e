"""A whole accuracy log, streamed through all cores: memory doesn't grow with the log."""

import multiprocessing
import os
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.judge.scoring import code, exact, sentences
from steps.judge.scoring.forms import CODE, EXACT, FORMS, ROUGE, SUMS_OPTIONAL, Form
from steps.judge.scoring.sandbox import Sandbox
from steps.judge.scoring.whole import chosen
from steps.mlperf.loadgen_log import read_answers
from steps.mlperf.rouge import SUMS, Rouge

BATCH = 64
"""Answers that a process scores at a time."""


@dataclass
class Totals:
    """Sums over answers; a metric's mean is over the samples that it applies to."""

    form: Form
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    characters: int = 0
    samples: int = 0
    tokens: int = 0

    def add(self, metric: str, value: float) -> None:
        self.sums[metric] = self.sums.get(metric, 0.0) + value
        self.counts[metric] = self.counts.get(metric, 0) + 1

    def result(self) -> dict[str, float | str]:
        """The dictionary that the reference script prints: plain floats, integers and texts."""
        found: dict[str, float | str] = {}
        if self.form.graded:
            score = round(exact.whole(self.sums, self.counts), 3)
            return {exact.METRIC: score, "tokens_per_sample": round(self.tokens / self.samples, 1)}
        for name, total in self.sums.items():
            mean = total / self.counts[name]
            if self.form.decimals is not None and name.startswith("rouge"):
                mean = round(mean, self.form.decimals)
            found[name] = f"{mean}" if self.form.quoted else mean
        found |= {"gen_len": self.characters, "gen_num": self.samples}
        if self.form.tokens:
            found["gen_tok_len"] = self.tokens
            found["tokens_per_sample"] = round(self.tokens / self.samples, 1)
        return found

    def text(self) -> str:
        """accuracy.txt, without the hash of the log that its truncation adds."""
        if self.form.graded:
            return f"\n{self._by_kind()}\n\n'{exact.METRIC}': {self.result()[exact.METRIC]:.3f}\n"
        return f"\nResults\n\n{self.result()}\n"

    def _by_kind(self) -> str:
        lines = (
            f"{kind}: {self.sums[kind]:g} of {count} right, each question "
            f"{exact.REPEATS.get(kind, 1)} times"
            for kind, count in sorted(self.counts.items())
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class Tools:
    """What a scoring process needs: `data` is NLTK's, if sentences are needed. `graded`: special
    tokens say where an answer is."""

    tokenizer: Path
    data: Path | None
    sandbox: Sandbox | None
    graded: bool = False


_Item = tuple[str, str, str, bytes]
"""Kind, id, truth, and the answer's tokens: little-endian int32."""


def score(
    benchmark: str,
    log: Path,
    dataset: Any,
    tokenizer: Path,
    data: Path | None = None,
    only: frozenset[int] | None = None,
) -> Totals:
    """`dataset`: a table with the columns of the benchmark's form, one row a sample.

    `data`: a directory of NLTK's. Without it ROUGE-Lsum, which needs sentences, isn't counted, and
    blanks between sentences aren't changed. `only`: the samples of a compliance test instead of the
    whole dataset. Raises UserError unless the log answers every sample of the dataset exactly once
    and all files for scoring exist.
    """
    form = FORMS[benchmark]
    for column in filter(None, (form.truth, form.kind, form.id)):
        if column not in dataset.columns:
            raise UserError(f"the dataset has no column {column!r}; use the one of {benchmark}")
    truths: Sequence[Any] = list(dataset[form.truth])
    kinds: Sequence[str] = list(dataset[form.kind]) if form.kind else [form.only_kind] * len(truths)
    names = [str(name) for name in dataset[form.id]] if form.id else [""] * len(truths)
    _tokenizer_of(tokenizer)
    if form.graded:
        exact.require(kinds)
    sandbox = None if form.graded else _prepared(kinds, names, data)
    tools = Tools(tokenizer, data, sandbox, form.graded)
    items = (
        (
            kinds[answer.sample_index],
            names[answer.sample_index],
            str(truths[answer.sample_index]),
            array("i", answer.tokens).tobytes(),
        )
        for answer in chosen(read_answers(log), len(truths), log, only)
    )
    totals = Totals(form)
    for batch in _scored(_batches(items), tools):
        for kind, values, characters, tokens in batch:
            totals.samples += 1
            totals.tokens += tokens
            if form.gen_len_of is None or kind in form.gen_len_of:
                totals.characters += characters
            for metric, value in values:
                totals.add(metric, value)
    return totals


def _prepared(kinds: Sequence[str], names: Sequence[str], data: Path | None) -> Sandbox | None:
    """The sandbox, if one is needed. Raises UserError for what would otherwise fail after hours."""
    unknown = sorted({str(kind) for kind in kinds} - {*EXACT, *ROUGE, CODE})
    if unknown:
        raise UserError(f"the dataset has samples of kind {unknown[0]!r}, which no metric scores")
    if data is not None:
        sentences.use(data)
    elif any(SUMS in ROUGE.get(kind, ()) and kind not in SUMS_OPTIONAL for kind in set(kinds)):
        raise UserError(
            "ROUGE-Lsum looks at sentences; name NLTK's data (a directory with "
            "tokenizers/punkt_tab) with --nltk-data"
        )
    languages = {
        code.language_of(name) for kind, name in zip(kinds, names, strict=True) if kind == CODE
    } - {None}
    if not languages:
        return None
    code.require_tools(language for language in languages if language)
    return Sandbox.find()


def _batches(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    while batch := list(islice(items, BATCH)):
        yield batch


_Scored = list[tuple[str, list[tuple[str, float]], int, int]]


def _scored(batches: Iterator[list[_Item]], tools: Tools) -> Iterator[_Scored]:
    """Results in order, so that sums don't depend on processes' speed; few batches under way."""
    count = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        count, mp_context=context, initializer=_begin, initargs=(tools,)
    ) as pool:
        pending: deque[Future[_Scored]] = deque()
        started = False
        try:
            started = pool.submit(_started).result()
            for batch in batches:
                pending.append(pool.submit(_score, batch))
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            if not started:
                raise UserError(
                    "scoring processes can't start; see their messages above"
                ) from error
            raise UserError(
                "a scoring process was killed, probably out of memory; run it again on fewer "
                "cores (taskset)"
            ) from error


_tools: Tools
_failure: str | None = None
_tokenizer: Any = None
_rouge: Rouge


def _begin(tools: Tools) -> None:
    """Set up a process once. A failure is kept: raised here, nobody would get it."""
    global _tools, _tokenizer, _rouge, _failure
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        _tools, _rouge = tools, Rouge()
        _tokenizer = _tokenizer_of(tools.tokenizer)
        if tools.data is not None:
            sentences.use(tools.data)
    except Exception as error:  # whatever it is, whoever waits for a result has to be told
        _failure = f"{type(error).__name__}: {error}"


def _started() -> bool:
    """Raises UserError with what kept the process from starting."""
    if _failure is not None:
        raise UserError(f"scoring processes can't start: {_failure}")
    return True


def _tokenizer_of(path: Path) -> Any:
    """Raises UserError for a file that isn't a tokenizer."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{path} isn't a tokenizer ({error!s:.120}); name the model's") from error


def _score(batch: list[_Item]) -> _Scored:
    _started()
    tokens = [array("i", data).tolist() for *_, data in batch]
    texts = _tokenizer.decode_batch(tokens, skip_special_tokens=not _tools.graded)
    found: _Scored = []
    for (kind, name, truth, _), ids, text in zip(batch, tokens, texts, strict=True):
        # GSM8K's and MBXP's scripts take the answer as it is decoded.
        answer = text if _tools.graded or kind in _AS_DECODED else _lines(text)
        found.append((kind, _values(kind, name, truth, answer), len(answer), len(ids)))
    return found


_AS_DECODED = ("GSM8K", CODE)


def _lines(text: str) -> str:
    return text.strip() if _tools.data is None else sentences.on_lines(text.strip())


def _values(kind: str, name: str, truth: str, answer: str) -> list[tuple[str, float]]:
    if _tools.graded:
        return [(kind.lower(), float(exact.right(kind, truth, answer)))]
    if kind == CODE:
        if code.language_of(name) is None:
            return []
        assert _tools.sandbox is not None
        return [("mbxp", 100.0 * code.passes(name, truth, answer, _tools.sandbox))]
    if kind in EXACT:
        metric, judge = EXACT[kind]
        return [(metric, judge(truth if kind in _AS_DECODED else _lines(truth), answer))]
    metrics = [metric for metric in ROUGE[kind] if metric != SUMS or _tools.data is not None]
    scores = _rouge.score(metrics, _lines(truth), answer)
    return [(metric, 100.0 * value) for metric, value in zip(metrics, scores, strict=True)]
