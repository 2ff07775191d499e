"""What tools print is seldom what their documentation shows: nothing is lost but the odd field."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.odd_outputs import TOOLS, cases, check

EACH = 25
MANY = 10_000 // len(TOOLS) + 1


@pytest.mark.parametrize("name", TOOLS)
@settings(max_examples=EACH)
@given(data=st.data())
def test_one_odd_field_costs_itself_and_is_named(name: str, data: st.DataObject) -> None:
    check(TOOLS[name], data.draw(cases(TOOLS[name])))


@pytest.mark.long
@pytest.mark.parametrize("name", TOOLS)
@settings(max_examples=MANY, deadline=None)
@given(data=st.data())
def test_ten_thousand_outputs(name: str, data: st.DataObject) -> None:
    check(TOOLS[name], data.draw(cases(TOOLS[name])))
