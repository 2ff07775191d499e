"""TEST09: are a system's answers in performance mode as long as the reference's?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import sqrt

from steps.config.verdicts import Complaint
from steps.mlperf.compliance import Test
from steps.mlperf.loadgen_log import Answer

LENGTHS = "verify_output_len.txt"
MEAN = "Mean output tokens"


@dataclass
class Lengths:
    """The token count of every logged answer, and the samples answered."""

    tokens: list[int] = field(default_factory=list)
    samples: set[int] = field(default_factory=set)

    @property
    def mean(self) -> float:
        return sum(self.tokens) / max(1, len(self.tokens))

    @property
    def deviation(self) -> float:
        mean = self.mean
        squares = sum((count - mean) ** 2 for count in self.tokens)
        return sqrt(squares / max(1, len(self.tokens)))


def measure(answers: Iterable[Answer]) -> Lengths:
    """Counted as in compliance/TEST09/run_verification.py (b66003e1): int32 tokens."""
    found = Lengths()
    for answer in answers:
        found.tokens.append(len(answer.tokens))
        found.samples.add(answer.sample_index)
    return found


def complaints(found: Lengths, rule: Test, official: str) -> Iterator[Complaint]:
    """Whether enough samples are answered, with the required length."""
    wanted = rule.samples(official)
    if len(found.samples) < wanted:
        yield Complaint(
            code="samples",
            words=f"TEST09 fails: {len(found.samples)} samples were logged, it needs {wanted}",
            value=float(len(found.samples)),
            limit=float(wanted),
            fix="place the test's audit.config where LoadGen looks for it",
        )
    elif missed := rule.missed(official, found.mean):
        yield Complaint(
            code="tokens_per_sample",
            words=f"TEST09 fails: an answer has {found.mean:.2f} tokens on average, {missed}",
            value=found.mean,
            fix="answers may be neither cut nor padded",
        )


def text(found: Lengths, rule: Test, official: str) -> str:
    """verify_output_len.txt of a test that passes."""
    bounds = rule.bounds[official]
    return (
        "TEST09: output tokens in performance mode\n\n"
        f"Total samples: {len(found.tokens)}\n"
        f"{MEAN}: {found.mean:.2f}\n"
        f"Min output tokens: {min(found.tokens)}\n"
        f"Max output tokens: {max(found.tokens)}\n"
        f"Std deviation: {found.deviation:.2f}\n\n"
        f"Min threshold: {bounds['minimum']:g}\n"
        f"Max threshold: {bounds['maximum']:g}\n"
        "Min check pass: True\n"
        "Max check pass: True\n\n"
        "TEST PASS\n"
    )
