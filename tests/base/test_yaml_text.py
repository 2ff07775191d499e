"""Whatever a YAML file holds, there is a value of JSON's kinds or one sentence with the place."""

import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.base.strict import Positive, Strict
from steps.base.yaml_text import mapping_of, typed, value_of

TAGS = ("", "!!bool ", "!!int ", "!!float ", "!!null ", "!!timestamp ", "!!binary ", "!!set ")
SCALARS = st.sampled_from(
    [
        "x",
        "1",
        "1.5",
        ".inf",
        "2026-02-30",
        "12:30:45",
        "0o17",
        "1_000",
        "yes",
        "~",
        "=",
        "{}",
        "[]",
    ]
)
VALUES = st.recursive(
    st.builds("{}{}".format, st.sampled_from(TAGS), SCALARS),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(found)}]")
        | st.lists(st.tuples(SCALARS, inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
)


@given(VALUES | st.text(max_size=40))
def test_there_is_a_value_or_a_sentence(text: str) -> None:
    try:
        json.dumps(value_of(text, "the file"))
    except UserError as error:
        assert str(error).startswith("the file can't be read: ") and "\n" not in str(error)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_what_json_has_is_read_as_it_is(value: object) -> None:
    assert value_of(yaml.safe_dump(value, allow_unicode=True), "") == value


def test_merge_keys_and_anchors_are_yaml_s_own() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: [*a, *b], y: 4}\n"
    assert value_of(text, "") == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", "key 'c' is there twice"),
        ("a: 1\nb: !!bool maybe\n", "'maybe' is no bool"),
        ("a: 1\nb: !!timestamp 2026-02-30\n", "a value of tag:yaml.org,2002:timestamp"),
        (
            "a: 1\nb: !!python/object/apply:os.system [true]\n",
            "a value of tag:yaml.org,2002:python/object/apply:os.system",
        ),
    ],
)
def test_the_place_is_said(text: str, words: str) -> None:
    with pytest.raises(UserError, match=f"^f.yaml can't be read: {words}.*line 2"):
        value_of(text, "f.yaml")


class _Data(Strict):
    count: Positive
    note: str = ""


def test_a_data_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("count: 3\nnote: 2026-02-30\n")
    assert typed(path, _Data) == _Data(count=3, note="2026-02-30")
    assert typed(path, _Data, count=4).count == 4
    path.write_text("count: .nan\n")
    with pytest.raises(UserError, match=r"data.yaml: count"):
        typed(path, _Data)


def test_what_is_no_file_of_keys_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    other = tmp_path / "other"
    other.write_bytes(b"\xff")
    for make in (lambda: None, path.mkdir, path.rmdir, lambda: os.rename(other, path)):
        make()
        with pytest.raises(UserError, match=r"data.yaml can't be read: .*; restore it"):
            mapping_of(path)
