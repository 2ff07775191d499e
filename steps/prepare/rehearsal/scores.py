"""Scores of the rehearsal benchmark: ROUGE as Llama 2's script counts it, and facts that are right.

Answers are single lines of a grammar, so ROUGE-Lsum needs no split into sentences.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from steps.base.errors import UserError
from steps.mlperf.loadgen_log import Answer, read_answers
from steps.mlperf.rouge import Rouge
from steps.prepare.rehearsal.notes import exact_facts

METRICS = ("rouge1", "rouge2", "rougeL")


def score(
    log: Path, table: Path, tokenizer: Path, advance: Callable[[int], None]
) -> tuple[dict[str, float], str]:
    """Scores, 0 to 100, and accuracy.txt. `advance` gets the number of scored samples.

    Raises UserError unless the log answers every sample of the table exactly once.
    """
    import pandas
    from tokenizers import Tokenizer

    truths = list(pandas.read_pickle(table)["output"])
    answers = by_index(read_answers(log), len(truths))
    decoder = Tokenizer.from_file(str(tokenizer))
    texts = decoder.decode_batch([answer.tokens for answer in answers], skip_special_tokens=True)
    rouge, found = Rouge(), []
    for truth, text in zip(truths, texts, strict=True):
        found.append(rouge.score(METRICS, truth, text))
        advance(1)
    scores = {
        metric: round(100 * statistics.fmean(values), 4)
        for metric, values in zip(METRICS, zip(*found, strict=True), strict=True)
    }
    tokens = sum(len(answer.tokens) for answer in answers)
    scores["tokens_per_sample"] = round(tokens / len(answers), 1)
    facts = map(exact_facts, texts, truths)
    scores["exact_match"] = round(100 * statistics.fmean(facts), 4)
    return scores, accuracy_text(scores, sum(map(len, texts)), len(texts), tokens)


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


def accuracy_text(scores: Mapping[str, float], characters: int, samples: int, tokens: int) -> str:
    """The dictionary as MLCommons' script prints it: plain floats, or the checker reads nothing."""
    shown = {name: float(scores[name]) for name in METRICS}
    # Answers are single lines, and ROUGE-Lsum of single lines is ROUGE-L.
    shown["rougeLsum"] = shown["rougeL"]
    counts = {"gen_len": characters, "gen_num": samples, "gen_tok_len": tokens}
    return (
        f"\nResults\n\n{ {**shown, **counts, 'tokens_per_sample': scores['tokens_per_sample']} }\n"
    )
