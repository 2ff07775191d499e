"""What engines' processes and LoadGen's process say to each other arrives as it was sent."""

import contextlib
import os
import threading
from array import array
from collections.abc import Sequence
from multiprocessing import Pipe
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.run.engines import wire
from steps.run.engines.engine import PART, Batch, Events, News

ANSWERS = st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20), max_size=30)


def batch_of(answers: list[list[int]]) -> Batch:
    return Batch.of([(number, array("i", tokens)) for number, tokens in enumerate(answers)])


@given(ANSWERS, st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**31 - 1)), max_size=5))
def test_news_arrive_whole(answers: list[list[int]], first: list[tuple[int, int]]) -> None:
    completed = [(number, array("i", tokens)) for number, tokens in enumerate(answers)]
    (sent,) = News.of(Events(first, completed))
    here, there = Pipe()
    with here, there:
        for message in (sent, wire.Alive(), sent):
            wire.send(here, message)
            assert wire.receive(there) == message


@given(ANSWERS, st.lists(st.integers(0, 2**62), max_size=5), st.integers(1, 50))
def test_messages_arrive_whole_however_few_bytes_at_a_time(
    answers: list[list[int]], numbers: list[int], at_most: int
) -> None:
    def little(descriptor: int, views: Sequence[memoryview]) -> int:
        target = next((view for view in views if view.nbytes), views[0])
        return os.readv(descriptor, [target.cast("B")[:at_most]])

    here, there = Pipe()
    with (
        here,
        there,
        mock.patch.object(wire, "os", SimpleNamespace(readv=little, writev=os.writev)),
    ):
        for sent in (
            wire.Submit(numbers, numbers),
            News(completed=batch_of(answers)),
            wire.Alive(),
        ):
            wire.send(here, sent)
            assert wire.receive(there) == sent


@pytest.mark.parametrize("count", [0, 1, PART, PART + 1, 3 * PART])
def test_news_come_in_parts_and_nothing_is_left_out(count: int) -> None:
    completed = [(number, array("i", [number] * 3)) for number in range(count)]
    parts = list(News.of(Events([(7, 1)], completed)))
    assert [number for part in parts for number in part.first.numbers] == [7]
    assert [number for part in parts for number in part.completed.numbers] == list(range(count))
    assert all(len(part.completed) <= PART for part in parts)


def test_news_larger_than_a_sockets_buffer_arrive_whole() -> None:
    sent = News(completed=batch_of([[n] * 1000 for n in range(3000)]))
    here, there = Pipe()
    with here, there:
        thread = threading.Thread(target=wire.send, args=(here, sent))
        thread.start()
        assert wire.receive(there) == sent
        thread.join()


def test_an_end_in_mid_message_is_an_end() -> None:
    here, there = Pipe()
    with there:
        with here:
            os.write(here.fileno(), wire.HEAD.pack(wire.PICKLED, 100, 0, 0, 0) + b"x")
        with pytest.raises(EOFError):
            wire.receive(there)


@given(ANSWERS, st.data())
def test_a_part_of_a_batch_keeps_each_answer_whole(
    answers: list[list[int]], data: st.DataObject
) -> None:
    size = len(answers)
    chosen = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    found = batch_of(answers).only(chosen)
    assert found.numbers == [number for number, mark in enumerate(chosen) if mark]
    tokens = iter(found.tokens)
    for number, count in zip(found.numbers, found.counts, strict=True):
        assert [next(tokens) for _ in range(count)] == answers[number]
    assert next(tokens, None) is None


@given(st.binary(min_size=wire.HEAD.size, max_size=400))
def test_what_is_no_message_is_garbled_or_ends(data: bytes) -> None:
    here, there = Pipe()
    with there:
        with here:
            os.write(here.fileno(), data)
        with contextlib.suppress(wire.Garbled, EOFError):
            assert isinstance(wire.receive(there), wire.Message)


def test_a_pickle_is_counted_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    message = wire.Failed("x" * 500, expected=False)
    monkeypatch.setattr(wire, "LARGEST", 2000)
    here, there = Pipe()
    with here, there:
        wire.send(here, message)
        assert wire.receive(there) == message
        wire.send(here, wire.Failed("x" * 2000, expected=False))
        with pytest.raises(wire.Garbled):
            wire.receive(there)


@pytest.mark.parametrize("kind", [wire.PICKLED, wire.SUBMIT, wire.NEWS, wire.HELLO, 99])
def test_a_length_beyond_reason_takes_no_memory(kind: int) -> None:
    here, there = Pipe()
    with here, there:
        os.write(here.fileno(), wire.HEAD.pack(kind, 1 << 62, 1 << 62, 1 << 62, 1 << 62))
        with pytest.raises(wire.Garbled):
            wire.receive(there)
