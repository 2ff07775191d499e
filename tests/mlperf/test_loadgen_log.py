"""Reading LoadGen's logs, whole and damaged."""

import json
from array import array
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen_log import MARKER, read_answers

MARK = MARKER.decode() + " "


def record(key: str, value: object, *, is_error: bool = False) -> str:
    metadata = {"is_error": is_error, "is_warning": False, "file": "x.cc", "line_no": 1}
    fields = {"key": key, "value": value, "time_ms": 1.5, "metadata": metadata}
    return MARK + json.dumps(fields) + "\n"


def answers_text(answers: list[tuple[int, list[int]]]) -> str:
    lines = [
        json.dumps(
            {
                "seq_id": n,
                "qsl_idx": index,
                "data": array("i", tokens).tobytes().hex().upper(),
                "token_count": len(tokens),
            }
        )
        for n, (index, tokens) in enumerate(answers)
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


IDS = st.lists(st.integers(0, 2**31 - 1), max_size=20)


@given(
    answers=st.lists(st.tuples(st.integers(0, 10**6), IDS), min_size=1, max_size=10),
    width=st.sampled_from("iq"),
    counted=st.booleans(),
)
@example(answers=[(0, []), (1, [7, 8])], width="q", counted=False)
@example(answers=[(0, [7]), (1, [7, 8])], width="i", counted=True)
def test_a_token_is_as_wide_as_the_log_says(
    tmp_path_factory: pytest.TempPathFactory,
    answers: list[tuple[int, list[int]]],
    width: str,
    counted: bool,
) -> None:
    """int64 is told by token_count, and without one by its zeros: int32 all of whose second
    tokens are 0 is no answer of a model's."""
    if width == "i" and not counted:
        assume(any(len(ids) % 2 or any(ids[1::2]) for _, ids in answers))
    path = tmp_path_factory.mktemp("log") / "mlperf_log_accuracy.json"
    entries = [
        {"qsl_idx": index, "data": array(width, ids).tobytes().hex()}
        | ({"token_count": len(ids)} if counted else {})
        for index, ids in answers
    ]
    path.write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n")
    assert [(a.sample_index, a.tokens) for a in read_answers(path)] == answers
    assert all(a.token_count == (len(a.tokens) if counted else None) for a in read_answers(path))


def test_a_log_of_two_widths_or_of_no_tokens_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mlperf_log_accuracy.json"

    def wrote(*answers: tuple[str, list[int]]) -> Path:
        entries = [
            {"qsl_idx": n, "data": array(t, ids).tobytes().hex(), "token_count": len(ids)}
            for n, (t, ids) in enumerate(answers)
        ]
        path.write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n")
        return path

    with pytest.raises(UserError, match=r":3: damaged entry \(token_count says 2, as int32.* 4\)"):
        list(read_answers(wrote(("i", [1, 2]), ("q", [1, 2]))))
    with pytest.raises(UserError, match=r":2: damaged entry \(4294967297 is no token\)"):
        list(read_answers(wrote(("q", [2**32 + 1]))))
    with pytest.raises(UserError, match=r":2: damaged entry \(-1 is no token\)"):
        list(read_answers(wrote(("i", [-1, 1]))))


@pytest.mark.parametrize("index", ["1", '"1"', "1.0", "true", "null", "[]", "Infinity", "NaN"])
def test_a_sample_is_a_whole_number(tmp_path: Path, index: str) -> None:
    path = tmp_path / "mlperf_log_accuracy.json"
    path.write_text(f'[\n{{"qsl_idx": {index}, "data": "01000000"}}\n]\n')
    if index == "1":
        assert [answer.sample_index for answer in read_answers(path)] == [1]
    else:
        with pytest.raises(UserError, match=r":2: damaged entry \(qsl_idx is .*whole number"):
            list(read_answers(path))


def test_the_first_occurrence_of_a_key_wins_and_errors_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "detail.txt"
    text = "noise\n" + record("a", 1) + record("a", 2) + record("bad", "why", is_error=True)
    path.write_text(text, encoding="utf-8")
    detail = read_detail(path)
    assert detail.get("a") == 1
    assert [(entry.line, entry.value) for entry in detail.errors] == [(4, "why")]
    with pytest.raises(UserError, match="has no b"):
        detail.get("b")


@pytest.mark.parametrize("line", [MARK + "{", MARK + "[]", MARK + '{"key": 1}', MARK])
def test_a_damaged_record_is_named_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "detail.txt"
    path.write_text(record("a", 1) + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"detail\.txt:2: no record of LoadGen's"):
        read_detail(path)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.lists(st.integers(0, 2**31 - 1), max_size=20)),
        max_size=20,
    )
)
def test_answers_come_back_as_they_were_logged(answers: list[tuple[int, list[int]]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "accuracy.json"
        path.write_text(answers_text(answers), encoding="utf-8")
        found = list(read_answers(path))
    assert [(answer.sample_index, answer.tokens) for answer in found] == answers


@given(st.data())
def test_any_truncation_of_an_accuracy_log_is_noticed(data: st.DataObject) -> None:
    import tempfile

    text = answers_text([(0, [1, 2, 3]), (1, [4, 5])])
    end = data.draw(st.integers(0, len(text) - 3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "accuracy.json"
        path.write_text(text[:end], encoding="utf-8")
        with pytest.raises(UserError):
            list(read_answers(path))


@example(b"0")
@given(st.binary(max_size=200))
def test_any_bytes_give_a_sentence_or_answers(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for read in (lambda path: list(read_answers(path)), read_detail):
            path = Path(folder) / "log"
            path.write_bytes(data)
            try:
                read(path)
            except UserError as error:
                assert "\n" not in str(error)
