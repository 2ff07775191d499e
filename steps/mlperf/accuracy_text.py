"""accuracy.txt: the forms in which the reference scripts print their metrics.

The official checker (ACC_PATTERN, v5.1.1 and b66003e1) looks for them line by line.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from steps.base.untrusted import Damaged, lines_in, text_of

_QUOTED = re.compile(r"\s+'?([0-9.]+)")
_PLAIN = re.compile(r"\s([0-9.]+)")
LABELS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "ROUGE1": ("'rouge1':", _QUOTED),
    "ROUGE2": ("'rouge2':", _QUOTED),
    "ROUGEL": ("'rougeL':", _QUOTED),
    "ROUGELSUM": ("'rougeLsum':", _QUOTED),
    "GEN_LEN": ("'gen_len':", _PLAIN),
    "TOKENS_PER_SAMPLE": ("'tokens_per_sample':", _PLAIN),
    "CLIP_SCORE": ("'CLIP_SCORE':", _QUOTED),
    "FID_SCORE": ("'FID_SCORE':", _QUOTED),
    "gsm8k_accuracy": ("'gsm8k':", _PLAIN),
    "mbxp_accuracy": ("'mbxp':", _PLAIN),
    "exact_match": ("'exact_match':", _PLAIN),
    "vbench_score": ("'vbench_score':", _PLAIN),
    "DLRM_NE": ("metric/lifetime_ne/rating:", re.compile(r"\s*([0-9.]+)")),
    "DLRM_ACC": ("metric/lifetime_accuracy/rating:", re.compile(r"\s*([0-9.]+)")),
    "DLRM_AUC": ("metric/lifetime_gauc/rating:", re.compile(r"\s*([0-9.]+)")),
    "samples": ("'gen_num':", _PLAIN),
}
"""Metrics that stand behind a label anywhere in a line; `samples` is how many were scored."""

LEADING: Mapping[str, re.Pattern[str]] = {
    "acc": re.compile(r'(?:\{"accuracy|accuracy)[": ]*=?\s*([0-9.]+)'),
    "AUC": re.compile(r"AUC=([0-9.]+)"),
    "F1": re.compile(r"""\{["']exact_match["']:\s*[0-9.]+,\s*["']f1["']:\s*([0-9.]+)\}"""),
    "ACCURACY": re.compile(r"Word Error Rate:.*, accuracy=([0-9.]+)%"),
    "DICE": re.compile(r"Accuracy:\s*mean\s*=\s*([0-9.]+)"),
    "E2E_ACCURACY": re.compile(r"Accuracy:\s*([0-9.]+)"),
}
"""Metrics that a line begins with."""

ANYWHERE: Mapping[str, re.Pattern[str]] = {
    "mAP": re.compile(r"(?:mAP=|'Total':)\s*([0-9.]+)"),
    "F1_HIERARCHICAL": re.compile(r'\{.*"f1":\s*([0-9.]+).*\}'),
}
MAX_LINE_CHARACTERS = 20_000
MAX_TIMES = 50
HASH = re.compile(r"hash=(\w+)")

Scores = dict[str, list[tuple[int, str]]]
"""For each metric (and "hash") the line and text of each time it is printed."""


def read_scores(path: Path, metrics: tuple[str, ...]) -> Scores:
    """Raises Damaged for a file that can't be read or a value that isn't a number."""
    finders = [(metric, _finder(metric)) for metric in (*metrics, "samples")]
    found: Scores = {}
    for number, line in enumerate(lines_in(text_of(path)), start=1):
        if len(line) > MAX_LINE_CHARACTERS:
            raise Damaged(f"the line has more than {MAX_LINE_CHARACTERS} characters", number)
        for metric, value in _of_line(line, finders):
            if metric != "hash":
                _require_number(metric, value, number)
            times = found.setdefault(metric, [])
            times.append((number, value))
            if len(times) > MAX_TIMES:
                raise Damaged(f"{metric} is printed more than {MAX_TIMES} times", number)
    return found


def _of_line(line: str, finders: list[tuple[str, "_Finder"]]) -> Iterator[tuple[str, str]]:
    if hashed := HASH.fullmatch(line):
        yield "hash", hashed[1]
        return
    for metric, find in finders:
        if (value := find(line)) is not None:
            yield metric, value


def _require_number(metric: str, value: str, line: int) -> None:
    try:
        float(value)
    except ValueError as error:
        raise Damaged(f"{metric} is {value[:40]!r}, not a number", line) from error


_Finder = Callable[[str], str | None]


def _finder(metric: str) -> _Finder:
    if metric in LABELS:
        label, form = LABELS[metric]

        def labelled(line: str) -> str | None:
            at = line.rfind(label)  # the last one of a line counts, as for the official checker
            found = form.match(line, at + len(label)) if at >= 0 else None
            return found[1] if found else None

        return labelled
    pattern = LEADING.get(metric)
    matcher = pattern.match if pattern else ANYWHERE[metric].search

    def matched(line: str) -> str | None:
        found = matcher(line)
        return found[1] if found else None

    return matched
