"""Samples to train on, as token ids: the rehearsal's own, or those of RULER's generator."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from steps.base.errors import UserError
from steps.base.untrusted import json_of
from steps.config.compression import NotesData, RulerData

TRAINING, VALIDATION = "training.jsonl", "validation.jsonl"
IGNORED = -100
"""Label that the loss skips: that of prompts."""

SEED = 9
"""Seed of the rehearsal's training stream, which has no evaluation or calibration prompts."""

Sample = tuple[list[int], int]
"""Token ids of prompt and answer, and where the answer starts."""


def write(
    settings: NotesData | RulerData,
    model: Path,
    cutoff: int,
    directory: Path,
    files: Sequence[Path] = (),
) -> None:
    """JSON lines with `input_ids` and `labels`, of at most `cutoff` tokens each; `files` are
    RULER's sets.

    UserError for files that are missing, damaged or too short, and if no answer is left.
    """
    if isinstance(settings, NotesData):
        training, validation = _notes(settings)
    else:
        training, validation = ruler(settings, files, _tokenizer(model))
    for name, samples in ((TRAINING, training), (VALIDATION, validation)):
        whole = [(ids[:cutoff], start) for ids, start in samples]
        kept = [(ids, start) for ids, start in whole if start < len(ids)]
        if not kept:
            raise UserError(
                f"no answer of the {len(whole)} samples lies within compression.finetune."
                f"cutoff_len={cutoff} tokens; raise it"
            )
        with (directory / name).open("w", encoding="utf-8") as stream:
            for ids, start in kept:
                labels = [IGNORED] * start + ids[start:]
                stream.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")


def _notes(settings: NotesData) -> tuple[list[Sample], list[Sample]]:
    from steps.prepare.rehearsal import dataset

    count = settings.training_samples + settings.validation_samples
    samples = [dataset.sample(prompt) for prompt in islice(dataset.training(SEED), count)]
    return samples[: settings.training_samples], samples[settings.training_samples :]


def _tokenizer(model: Path) -> Callable[[str], list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    return partial(tokenizer.encode, add_special_tokens=False)


def ruler(
    settings: RulerData, files: Sequence[Path], encode: Callable[[str], list[int]]
) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples of all sets, in the order of the files."""

    def sample(prompt: str, answer: str) -> Sample:
        asked = encode(prompt)
        return [*asked, *encode(answer)], len(asked)

    training: list[Sample] = []
    validation: list[Sample] = []
    wanted = settings.training_samples_per_set + settings.validation_samples_per_set
    for file in files:
        pairs = list(_pairs(file, settings.end))
        if len(pairs) < wanted:
            raise UserError(
                f"{file} has {len(pairs)} samples, and {wanted} are wanted of each set; generate "
                "them with NUM_SAMPLES as large"
            )
        training += [sample(*pair) for pair in pairs[: settings.training_samples_per_set]]
        validation += [sample(*pair) for pair in pairs[-settings.validation_samples_per_set :]]
    return training, validation


def _pairs(path: Path, end: str) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"{path} can't be read ({error.strerror}); make the training sets again"
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            fields = json_of(line)
            yield str(fields["input"]), "\n".join(map(str, fields["outputs"])) + end
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"line {number} of {path} isn't a RULER sample with input and outputs; "
                "generate the set again"
            ) from error
