"""`score` on a stranger's files: nothing in them runs, and what can't work is said at once."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from steps.base.errors import UserError
from steps.judge.scoring import __main__ as command
from steps.judge.scoring import score as scoring
from tests.judge.test_scoring import TEXTS, TOKENIZER, write_log

SIZE = len(TEXTS)


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., int]:
    """Calls the command on a log of its own, and a table."""
    write_log(tmp_path / "log", TEXTS, TOKENIZER)

    def call(
        dataset: Path, *more: str, output: Path | None = None, tokenizer: Any = TOKENIZER
    ) -> int:
        return command.main(
            [
                *("llama2-70b", "--log", str(tmp_path / "log"), "--dataset", str(dataset)),
                *("--tokenizer", str(tokenizer)),
                *("--output", str(output or tmp_path / "accuracy.txt"), *more),
            ]
        )

    return call


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pandas.DataFrame({"output": TEXTS}).to_pickle(tmp_path / "table.pkl")
    return tmp_path / "table.pkl"


@pytest.mark.parametrize(
    "name", ["evil.pkl", "evil.pkl.gz", "evil", "evil.pickle", "evil.json.pkl"]
)
def test_a_foreign_pickle_runs_nothing(
    given: Callable[..., int], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    with pytest.raises(UserError, match=r"a pickle, .*--dataset-sha256"):
        given(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "accuracy.txt").exists()


def test_a_pickle_is_read_by_the_digest_of_conf_or_the_one_that_is_given(
    given: Callable[..., int], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = table.read_bytes()
    with pytest.raises(UserError, match=hashlib.sha256(data).hexdigest()):
        given(table)
    assert given(table, "--dataset-sha256", hashlib.sha256(data).hexdigest()) == 0
    other = "0" * 64
    with pytest.raises(UserError, match="a pickle"):
        given(table, "--dataset-sha256", other)
    with pytest.raises(UserError, match="isn't a sha256"):
        given(table, "--dataset-sha256", "abc")
    monkeypatch.setattr(command, "published", lambda: {hashlib.md5(data).hexdigest()})
    assert given(table) == 0
    table.write_bytes(data + b"x")
    with pytest.raises(UserError, match="a pickle"):
        given(table)


def test_the_published_digests_are_those_of_conf() -> None:
    assert "5fe8be0a7ce5c3c9a028674fd24b00d5" in command.published()  # Llama 2's
    assert "ded6c711288c9bbca02929855557b8c1" in command.published()  # Mixtral's
    assert None not in command.published()


def test_json_needs_no_digest(given: Callable[..., int], tmp_path: Path) -> None:
    pandas.DataFrame({"output": TEXTS}).to_json(tmp_path / "table.json")
    assert given(tmp_path / "table.json") == 0


def test_an_output_that_cant_be_written_is_told_before_anything_is_scored(
    given: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas.DataFrame({"output": TEXTS}).to_json(tmp_path / "table.json")
    monkeypatch.setattr(scoring, "score", lambda *_, **__: pytest.fail("it was scored"))
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for output in (tmp_path, tmp_path / "file/below.txt", Path("/proc/none/accuracy.txt")):
        with pytest.raises(UserError, match=r"can't be written"):
            given(tmp_path / "table.json", output=output)


def test_scores_are_shown_even_if_they_cant_be_written_any_more(
    given: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    pandas.DataFrame({"output": TEXTS}).to_json(tmp_path / "table.json")
    monkeypatch.setattr(command, "write_atomically", full)
    with pytest.raises(UserError, match="No space left on device"):
        given(tmp_path / "table.json")
    assert "rouge1" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "", "[]", "[" * 100_000, '{"model": {"type": "none"}}'])
def test_a_tokenizer_that_is_none_is_no_want_of_memory(
    given: Callable[..., int], tmp_path: Path, content: str
) -> None:
    pandas.DataFrame({"output": TEXTS}).to_json(tmp_path / "table.json")
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer.json isn't a tokenizer"):
        given(tmp_path / "table.json", tokenizer=tmp_path / "tokenizer.json")


def test_processes_that_cant_start_say_why(
    given: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: here a module that they need can't be imported."""
    pandas.DataFrame({"output": TEXTS}).to_json(tmp_path / "table.json")
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow/tokenizers.py").write_text("raise ImportError('libstdc++ is too old')\n")
    monkeypatch.setattr("sys.path", [str(tmp_path / "shadow"), *__import__("sys").path])
    with pytest.raises(UserError, match=r"can't start: .*libstdc\+\+ is too old") as caught:
        given(tmp_path / "table.json")
    assert "memory" not in str(caught.value)
