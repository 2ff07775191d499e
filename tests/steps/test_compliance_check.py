"""TEST06 on token sequences."""

from hypothesis import given
from hypothesis import strategies as st

from steps.compliance_check import examine
from steps.loadgen_log import Answer

EOS = 2
BODY = st.lists(st.integers(3, 100), min_size=1, max_size=20)


def answer(tokens: list[int], **changes: object) -> Answer:
    fields: dict[str, object] = {
        "sample_index": 7,
        "tokens": tokens,
        "first_token": tokens[:1],
        "token_count": len(tokens),
    }
    return Answer(**{**fields, **changes})  # type: ignore[arg-type]


@given(BODY)
def test_a_proper_answer_passes(body: list[int]) -> None:
    found = examine([answer([*body, EOS])], EOS, timed=True)
    assert (found.bad_end, found.bad_first, found.bad_length) == (None, None, None)
    assert found.terminated == 1


@given(BODY, st.integers(2, 5))
def test_padding_with_end_tokens_fails(body: list[int], count: int) -> None:
    assert examine([answer(body + [EOS] * count)], EOS, timed=True).bad_end == 7


@given(BODY)
def test_an_answer_cut_at_its_limit_passes_but_does_not_count(body: list[int]) -> None:
    found = examine([answer(body)], EOS, timed=True)
    assert found.bad_end is None
    assert found.terminated == 0


@given(BODY)
def test_another_first_token_fails_where_it_is_timed(body: list[int]) -> None:
    wrong = [answer([*body, EOS], first_token=[body[0] + 1])]
    assert examine(wrong, EOS, timed=True).bad_first == 7
    assert examine(wrong, EOS, timed=False).bad_first is None
    assert examine([answer([*body, EOS], first_token=None)], EOS, timed=True).bad_first == 7


@given(BODY, st.integers(-3, 3).filter(bool))
def test_another_count_fails(body: list[int], off: int) -> None:
    assert examine([answer(body, token_count=len(body) + off)], EOS, timed=True).bad_length == 7
