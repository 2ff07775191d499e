"""Metrics of one answer, 0 to 100, as the reference scripts of v5.1.1 count them.

Sources: language/llama3.1-405b/evaluate-accuracy.py, language/mixtral-8x7b/evaluate-accuracy.py.
"""

import re

_UUID = re.compile(r"\w{8}-\w{4}-\w{4}-\w{4}-\w{12}")
_NUMBER = re.compile(r"-?[\d,]*\.?\d+")
ANSWER = "Answer: "
GSM8K_ANSWER = "The answer is"
NEXT_QUESTION = "\nQ:"


def niah_exact_match(truth: str, answer: str) -> float:
    """Needle in a haystack: UUIDs found, against the true ones in order, rounded to 0.01.

    The reference asks of each character of a true UUID whether it is anywhere in the answer's
    UUID, so a wrong UUID with nearly the same characters scores nearly full; this does the same.
    """
    found, true = _UUID.findall(answer), _UUID.findall(truth)
    if not found:
        return 0.0
    shares = (
        sum(character.lower() in one.lower() for character in other) / len(other)
        for one, other in zip(found, true, strict=False)
    )
    return round(sum(shares) / len(found) * 100, 2)


def qa_exact_match(truth: str, answer: str) -> float:
    """Questions: compares the text after the last "Answer: " with alternatives between bars."""
    said = answer.rpartition(ANSWER)[2]
    if said in truth:
        return 100.0
    plain = _without_blanks(said)
    return 100.0 if any(_without_blanks(one) in plain for one in truth.split("|")) else 0.0


def gsm8k_match(truth: str, answer: str) -> float:
    """The number after the last "The answer is", else the last number, equals the true one."""
    said = _as_number(_said_number(answer.split(NEXT_QUESTION)[0]).replace(",", ""))
    return 100.0 if said is not None and said == _as_number(truth) else 0.0


def _said_number(text: str) -> str:
    if GSM8K_ANSWER in text and (numbers := _NUMBER.findall(text.split(GSM8K_ANSWER)[-1])):
        return str(numbers[0])
    numbers = _NUMBER.findall(text)
    return str(numbers[-1]) if numbers else ""


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _without_blanks(text: str) -> str:
    return re.sub(r"\s+", "", text).lower()
