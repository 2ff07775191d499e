"""Layers: which of two values of a setting applies."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steps.config.layers import SELECTORS, effective, merged, selections

POINT = {**dict.fromkeys(SELECTORS, ""), "by_scenario": "Server", "by_hardware": "mi325x"}

settings = st.dictionaries(
    st.text(max_size=2),
    st.recursive(
        st.integers() | st.text(max_size=2),
        lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=4,
)


def test_the_more_specific_setting_wins() -> None:
    layer = {
        "size": 1,
        "by_scenario": {"Server": {"size": 2}, "Offline": {"size": 3}},
        "by_hardware": {"mi325x": {"by_scenario": {"Server": {"size": 4}}}},
    }
    assert effective([layer], POINT) == {"size": 4}
    assert effective([layer], {**POINT, "by_hardware": "mi300x"}) == {"size": 2}
    assert effective([layer], {**POINT, "by_scenario": "Interactive"}) == {"size": 1}


def test_a_later_layer_wins_over_a_more_specific_earlier_one() -> None:
    assert effective([{"by_scenario": {"Server": {"size": 2}}}, {"size": 5}], POINT) == {"size": 5}


def test_null_takes_back_at_any_depth_and_from_any_layer() -> None:
    layer = {
        "environment": {"A": "1", "B": "2"},
        "by_hardware": {"mi325x": {"by_scenario": {"Server": {"environment": {"A": None}}}}},
    }
    assert effective([layer], POINT) == {"environment": {"B": "2"}}
    assert effective([layer, {"environment": {"B": None}}], POINT) == {"environment": {}}
    assert effective([layer, {"environment": {"A": "3"}}], POINT)["environment"]["A"] == "3"


def test_every_selection_is_named_with_its_path() -> None:
    layer = {"by_hardware": {"mi325x": {"by_scenario": {"Servr": {}}}}}
    assert list(selections(layer, "engine")) == [
        ("engine.by_hardware.mi325x", "by_hardware", "mi325x"),
        ("engine.by_hardware.mi325x.by_scenario.Servr", "by_scenario", "Servr"),
    ]


@given(settings, settings)
def test_merging_keeps_the_later_and_loses_nothing(base: dict[str, Any], over: Any) -> None:
    result = merged(base, over)
    assert set(result) == set(base) | set(over)
    assert merged(result, over) == result
    assert merged(base, {}) == base
