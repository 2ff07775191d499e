"""LoadGen's early stopping, by its published consequences and by its definition."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.mlperf.early_stopping import allowed_misses, needed_share

# The least number of queries that holds with so many misses: what LoadGen 5.1.2 says of its runs.
LEAST = {0: 459, 1: 662, 2: 838, 5: 1307, 10: 2010, 50: 6898, 100: 12571, 200: 23527}


@pytest.mark.parametrize(("misses", "least"), LEAST.items())
def test_the_least_queries_that_hold(misses: int, least: int) -> None:
    assert allowed_misses(least) == misses
    assert allowed_misses(least - 1) == misses - 1


@pytest.mark.parametrize(
    ("queries", "misses"), [(8313, 62), (13368, 107), (15000, 121), (24576, 209), (49152, 440)]
)
def test_whole_sample_sets(queries: int, misses: int) -> None:
    assert allowed_misses(queries) == misses


@given(st.integers(1, 3000))
@settings(max_examples=30)
def test_by_its_definition_in_exact_arithmetic(queries: int) -> None:
    def at_most(misses: int) -> Fraction:
        share = Fraction(1, 100)
        return sum(
            (comb(queries, k) * share**k * (1 - share) ** (queries - k) for k in range(misses + 1)),
            Fraction(0),
        )

    allowed = allowed_misses(queries)
    assert at_most(allowed) < Fraction(1, 100) if allowed >= 0 else True
    assert at_most(allowed + 1) >= Fraction(1, 100)


@pytest.mark.parametrize(("queries", "share"), [(24576, 0.9915), (8313, 0.9925), (458, 1.0)])
def test_the_share_that_must_keep_a_limit(queries: int, share: float) -> None:
    assert needed_share(queries) == pytest.approx(share, abs=5e-5)
