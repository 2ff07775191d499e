"""TEST06: are the logged tokens the ones that were counted and timed?"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from steps.config.verdicts import Complaint
from steps.mlperf.loadgen_log import Answer

BAD_LENGTH = "has another length than the token count that was reported"
BAD_FIRST = "does not begin with the first token that was timed"
BAD_END = "ends in more than one end-of-sequence token"
CODES = {BAD_LENGTH: "length", BAD_FIRST: "first", BAD_END: "padding"}


@dataclass
class Findings:
    """Counts over all logged samples; `faults` has the first sample of each kind of fault.

    `lengths`: that answers have, in tokens.
    """

    samples: int = 0
    terminated: int = 0
    lengths: set[int] = field(default_factory=set)
    faults: dict[str, int] = field(default_factory=dict)


def fault(
    tokens: Sequence[int],
    first: Sequence[int] | None,
    count: int | None,
    ends: Container[int],
    *,
    timed: bool,
) -> str:
    """The check of TEST06 that one answer fails; "" if none.

    The three checks of compliance/TEST06/run_verification.py (v5.1.1), on integers: the length of
    an answer must be the count that was reported; its first token must be the one that was timed;
    it may end in one end-of-sequence token, not more (padding would be counted as output).
    """
    if count != len(tokens):
        return BAD_LENGTH
    if timed and (not first or tokens[: len(first)] != first):
        return BAD_FIRST
    if len(tokens) > 1 and tokens[-1] == tokens[-2] and tokens[-1] in ends:
        return BAD_END
    return ""


def examine(answers: Iterable[Answer], ends: Container[int], *, timed: bool) -> Findings:
    """Check every answer of a test's log; `ends` are the model's end-of-sequence tokens."""
    found = Findings()
    for answer in answers:
        found.samples += 1
        found.lengths.add(len(answer.tokens))
        wrong = fault(answer.tokens, answer.first_token, answer.token_count, ends, timed=timed)
        if wrong:
            found.faults.setdefault(wrong, answer.sample_index)
        if wrong != BAD_END and answer.tokens and answer.tokens[-1] in ends:
            found.terminated += 1
    return found


def complaints(found: Findings, where: str, min_samples: int) -> Iterator[Complaint]:
    """Which of the three checks fail, each beginning with `where`."""
    if found.samples < min_samples:
        yield Complaint(
            code="samples",
            words=f"{where}: {found.samples} samples were logged, it needs {min_samples}",
            value=float(found.samples),
            limit=float(min_samples),
        )
    for what, index in found.faults.items():
        yield Complaint(code=CODES[what], words=f"{where}: sample {index} {what}")


def unended(
    found: Findings, where: str, ends: Sequence[int], max_tokens: int | None
) -> Iterator[Complaint]:
    """Whether answers of a system that keeps them end before `max_tokens` and none in such a token:
    with wrong ids the check of ends could not fail. Weights that lost their layers may well answer
    until they are cut there.
    """
    named = " or ".join(map(str, ends))
    if not found.terminated and found.lengths - {max_tokens}:
        yield Complaint(
            code="end",
            words=f"{where}: no answer ends in token {named} and not all were cut at {max_tokens} "
            "tokens, so the end-of-sequence check shows nothing",
            fix="is benchmark.generation.eos_token_id the model's?",
        )


def text(*, timed: bool) -> str:
    """verify_accuracy.txt of a test that passes, with the lines that the checker looks for.

    An Offline run has no first tokens to check.
    """
    return (
        f"First token check pass: {'True' if timed else 'Skipped'}\n"
        "EOS check pass: True\n"
        "Sample length check pass: True\n"
        "TEST06 verification complete\n"
    )
