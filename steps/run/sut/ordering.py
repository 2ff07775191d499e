"""The order in which Offline's samples are handed out."""

from collections.abc import Sequence


class LongestFirst:
    """Longest prompts first within each copy of LoadGen's sample set, which has `copy` samples.

    The rules allow no sorting beyond one copy. Copies are sorted when needed: an Offline query can
    have many, and the engines wait for the first.
    """

    def __init__(self, lengths: Sequence[int], copy: int) -> None:
        self._lengths = lengths
        self._copy = copy
        self._order: list[int] = []

    def numbers(self, indices: Sequence[int], first: int, end: int) -> list[int]:
        """The samples at places `first` to before `end` of the order; `indices` by number."""
        while len(self._order) < end:
            begin = len(self._order)
            numbers = range(begin, min(begin + self._copy, len(indices)))
            by_length = sorted(numbers, key=lambda n: self._lengths[indices[n]], reverse=True)
            self._order.extend(by_length)
        return self._order[first:end]
