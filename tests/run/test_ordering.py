"""Offline's order: sorted within one copy of the sample set, and never beyond."""

from hypothesis import given
from hypothesis import strategies as st

from steps.run.sut.ordering import LongestFirst

LENGTHS = [5, 9, 1, 7]


@given(st.permutations(range(4)), st.permutations(range(4)), st.lists(st.integers(0, 8)))
def test_each_copy_is_sorted_by_itself(one: list[int], other: list[int], stops: list[int]) -> None:
    indices = [*one, *other]
    subject, fed, order = LongestFirst(LENGTHS, copy=4), 0, []
    for end in [*sorted(stops), 8]:
        order.extend(subject.numbers(indices, fed, end))
        fed = end
    assert [indices[number] for number in order] == [1, 3, 0, 2] * 2
    assert sorted(order[:4]) == [0, 1, 2, 3]


def test_samples_of_one_length_stay_as_they_were_issued() -> None:
    assert LongestFirst([3, 3, 3], copy=3).numbers([2, 0, 1], 0, 3) == [0, 1, 2]
