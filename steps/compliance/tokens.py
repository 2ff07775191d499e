"""TEST06: are the logged tokens the ones that were counted and timed?"""

from collections.abc import Iterable
from dataclasses import dataclass

from steps.errors import UserError
from steps.loadgen_log import Answer


@dataclass
class Findings:
    """Counts over all logged samples, and the sample index of the first failure of each kind."""

    samples: int = 0
    terminated: int = 0
    bad_end: int | None = None
    bad_first: int | None = None
    bad_length: int | None = None


def examine(answers: Iterable[Answer], eos_token_id: int, *, timed: bool) -> Findings:
    """The three checks of compliance/TEST06/run_verification.py (v5.1.1), on integers.

    An answer may end in one end-of-sequence token, not more (padding would be counted as output);
    its first token must be the one that was timed; its length must be the count that was reported.
    """
    found = Findings()
    for answer in answers:
        found.samples += 1
        trailing = 0
        for token in reversed(answer.tokens):
            if token != eos_token_id:
                break
            trailing += 1
        found.terminated += trailing == 1
        index = answer.sample_index
        if trailing > 1 and found.bad_end is None:
            found.bad_end = index
        first = answer.first_token
        if (
            timed
            and found.bad_first is None
            and (not first or answer.tokens[: len(first)] != first)
        ):
            found.bad_first = index
        if found.bad_length is None and answer.token_count != len(answer.tokens):
            found.bad_length = index
    return found


def require(found: Findings, where: str, min_samples: int, eos_token_id: int) -> None:
    """Raises UserError, beginning with `where`, unless all three checks hold and prove anything."""
    if found.samples < min_samples:
        raise UserError(f"{where}: {found.samples} samples were logged, it needs {min_samples}")
    for index, what in (
        (found.bad_end, "ends in more than one end-of-sequence token"),
        (found.bad_first, "does not begin with the first token that was timed"),
        (found.bad_length, "has another length than the token count that was reported"),
    ):
        if index is not None:
            raise UserError(f"{where}: sample {index} {what}")
    if not found.terminated:
        # With a wrong id the check above could not fail, so that none ends proves nothing.
        raise UserError(
            f"{where}: no answer ends in token {eos_token_id}, so the end-of-sequence "
            "check shows nothing; is benchmark.generation.eos_token_id the model's?"
        )


def text(*, timed: bool) -> str:
    """verify_accuracy.txt of a test that holds, in the words that the official checker looks for.

    An Offline run has no first tokens to check.
    """
    return (
        f"First token check pass: {'True' if timed else 'Skipped'}\n"
        "EOS check pass: True\n"
        "Sample length check pass: True\n"
        "TEST06 verification complete\n"
    )
