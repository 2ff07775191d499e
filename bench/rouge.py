"""ROUGE of an accuracy log beside the library call that the reference scripts make.

    python -m bench.rouge [--samples 24576] [--compared 1024]

Texts of 220 words each, drawn with a language's frequencies (Zipf); answers share two thirds of
their truth's words. All samples are scored from a LoadGen log, including reading and decoding; for
`compared` ones the library's numbers are compared with ours, and its rate is measured.
"""

import argparse
import tempfile
import time
from array import array
from itertools import accumulate
from pathlib import Path
from random import Random

import pandas
from rouge_score.rouge_scorer import RougeScorer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from steps.judge.scoring.score import score
from steps.mlperf.rouge import Rouge

METRICS = ("rouge1", "rouge2", "rougeL")
WORDS, LENGTH = 20_000, 220
SHARED = 2 / 3


def vocabulary() -> list[str]:
    """Words with endings that stemming takes off."""
    endings = ("", "s", "ing", "ed", "ation", "ally")
    return [f"w{number}x{endings[number % len(endings)]}" for number in range(WORDS)]


def pairs(samples: int, words: list[str]) -> list[tuple[str, str]]:
    """Truths and answers."""
    random = Random(7)
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(words))))
    found = []
    for _ in range(samples):
        truth = random.choices(words, cum_weights=weights, k=LENGTH)
        other = random.choices(words, cum_weights=weights, k=LENGTH)
        answer = [a if random.random() < SHARED else b for a, b in zip(truth, other, strict=True)]
        found.append((" ".join(truth), " ".join(answer)))
    return found


def written(home: Path, words: list[str], answers: list[str]) -> tuple[Path, Path]:
    """A tokenizer of whole words, and an accuracy log of these answers."""
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token=words[0]))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(home / "tokenizer.json"))
    with (home / "log").open("w", encoding="utf-8") as stream:
        stream.write("[\n")
        for index, answer in enumerate(answers):
            data = array("i", [numbers[word] for word in answer.split()]).tobytes().hex().upper()
            end = "\n]\n" if index + 1 == len(answers) else ",\n"
            entry = f'"seq_id" : {index}, "qsl_idx" : {index}, "data" : "{data}"'
            stream.write(f"{{ {entry} }}{end}")
    return home / "tokenizer.json", home / "log"


def main() -> int:
    """Exit status 0 if every number equals the library's."""
    parser = argparse.ArgumentParser(prog="python -m bench.rouge", description=__doc__)
    parser.add_argument("--samples", type=int, default=24_576)
    parser.add_argument("--compared", type=int, default=1_024)
    chosen = parser.parse_args()
    words = vocabulary()
    drawn = pairs(chosen.samples, words)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer, log = written(Path(folder), words, [answer for _, answer in drawn])
        table = pandas.DataFrame({"output": [truth for truth, _ in drawn]})
        begun = time.monotonic()
        result = score("llama2-70b", log, table, tokenizer).result()
        ours = time.monotonic() - begun
    compared = drawn[: chosen.compared]
    library, rouge = RougeScorer(list(METRICS), use_stemmer=True), Rouge()
    begun = time.monotonic()
    theirs = [library.score(*pair) for pair in compared]
    seconds = time.monotonic() - begun
    differing = sum(
        rouge.score(METRICS, *pair) != [found[metric].fmeasure for metric in METRICS]
        for pair, found in zip(compared, theirs, strict=True)
    )
    rate, reference = chosen.samples / ours, len(compared) / seconds
    print(f"{chosen.samples} samples in {ours:.1f} s: {rate:.0f}/s, {result}")
    print(f"library call: {len(compared)} samples in {seconds:.1f} s: {reference:.1f}/s")
    print(f"ratio {rate / reference:.1f}; {differing} of {len(compared)} differ in any bit")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
