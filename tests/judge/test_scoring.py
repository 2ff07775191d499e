"""Scores of full accuracy logs; expected values are those of the reference scripts (v5.1.1)."""

from pathlib import Path

import nltk
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from steps.base.errors import UserError
from steps.judge.scoring.metrics import gsm8k_match, niah_exact_match, qa_exact_match
from steps.judge.scoring.score import score
from tests.conftest import ROOT

TOKENIZER = ROOT / "steps/prepare/rehearsal/model/tokenizer.json"
UUID = "a1b2c3d4-1111-2222-3333-444455556666"


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        (UUID, f"It is {UUID}.", 100.0),
        (UUID, "It is not known.", 0.0),
        (UUID, UUID.upper(), 100.0),
        # Every character of the truth is somewhere in the answer: the reference's reading.
        (UUID, UUID.replace("6666", "6667"), 100.0),
        (UUID, "00000000-0000-0000-0000-000000000000", 11.11),
        (UUID, f"{UUID} {UUID}", 50.0),
        ("", UUID, 0.0),
    ],
)
def test_niah(truth: str, answer: str, expected: float) -> None:
    assert niah_exact_match(truth, answer) == expected


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        ("Paris|Lutetia", "Let me think. Answer: paris", 100.0),
        ("Paris|Lutetia", "Answer: Rome. Answer: the old Lutetia", 100.0),
        ("Paris|Lutetia", "Answer: Rome", 0.0),
        ("New York", "Answer: newyork", 100.0),
        ("New York", "Answer: ", 100.0),
    ],
)
def test_qa(truth: str, answer: str, expected: float) -> None:
    assert qa_exact_match(truth, answer) == expected


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        ("1234", "So 7 and 8. The answer is 1,234 dollars, not 5.", 100.0),
        ("5", "First 4, then 5", 100.0),
        ("5", "The answer is 5\nQ: what is 6?", 100.0),
        ("5", "The answer is unknown, 4", 0.0),
        ("5", "no number", 0.0),
        ("-0.5", "The answer is -.5", 100.0),
    ],
)
def test_gsm8k(truth: str, answer: str, expected: float) -> None:
    assert gsm8k_match(truth, answer) == expected


@given(st.text(), st.text())
def test_scores_lie_between_0_and_100(truth: str, answer: str) -> None:
    for judge in (niah_exact_match, qa_exact_match, gsm8k_match):
        assert 0.0 <= judge(truth, answer) <= 100.0


def lossless(path: Path) -> Path:
    """A tokenizer of bytes: what is encoded comes back as it was."""
    vocabulary = {byte: number for number, byte in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
    return path


def write_log(path: Path, texts: list[str], model: Path = TOKENIZER) -> list[str]:
    """Tokens of each text as LoadGen logs them; the texts as they are decoded."""
    tokenizer = Tokenizer.from_file(str(model))
    lines, decoded = [], []
    for index, text in enumerate(texts):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        decoded.append(tokenizer.decode(ids, skip_special_tokens=True))
        data = b"".join(token.to_bytes(4, "little") for token in ids).hex().upper()
        lines.append(f'{{ "seq_id" : {index}, "qsl_idx" : {index}, "data" : "{data}" }}')
    path.write_text("[\n" + ",\n".join(reversed(lines)) + "\n]\n", encoding="utf-8")
    return decoded


TEXTS = [f"the port of berth {n} holds {n % 7} ships and {n % 3} cranes" for n in range(150)]
TRUTHS = [f"berth {n} of the port holds {n % 5} ships" for n in range(150)]


def test_a_mean_is_over_the_samples_that_it_speaks_of(tmp_path: Path) -> None:
    decoded = write_log(tmp_path / "log", TEXTS)
    kinds = ["rouge" if n % 3 else "qa_em" for n in range(150)]
    table = pandas.DataFrame({"gt_output": TRUTHS, "metric": kinds})
    result = score("llama3.1-405b", tmp_path / "log", table, TOKENIZER).result()
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    rouges = [
        100 * scorer.score(TRUTHS[n], decoded[n].strip())["rougeL"].fmeasure
        for n in range(150)
        if kinds[n] == "rouge"
    ]
    assert result["rougeL"] == pytest.approx(sum(rouges) / len(rouges), abs=1e-9)
    exact = [qa_exact_match(TRUTHS[n], decoded[n]) for n in range(0, 150, 3)]
    assert result["exact_match"] == pytest.approx(sum(exact) / len(exact), abs=1e-9)
    assert result["gen_num"] == 150
    assert result["tokens_per_sample"] == round(result["gen_tok_len"] / 150, 1)


@pytest.mark.parametrize("fault", ["missing", "twice", "beyond", "column", "kind", "cut"])
def test_what_proves_nothing_is_refused(fault: str, tmp_path: Path) -> None:
    write_log(tmp_path / "log", TEXTS[:5])
    text = (tmp_path / "log").read_text(encoding="utf-8")
    table = pandas.DataFrame({"output": TRUTHS[:5]})
    if fault == "missing":
        table = pandas.DataFrame({"output": TRUTHS[:6]})
    elif fault == "twice":
        text = text.replace('"qsl_idx" : 3', '"qsl_idx" : 2')
    elif fault == "beyond":
        text = text.replace('"qsl_idx" : 3', '"qsl_idx" : 9')
    elif fault == "column":
        table = pandas.DataFrame({"gt": TRUTHS[:5]})
    elif fault == "cut":
        text = text[:-4]
    benchmark = "llama2-70b"
    if fault == "kind":
        benchmark = "mixtral-8x7b"
        table = pandas.DataFrame({"gt_output": TRUTHS[:5], "dataset": ["poem"] * 5})
    (tmp_path / "log").write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        score(benchmark, tmp_path / "log", table, TOKENIZER)


def trained(home: Path) -> Path:
    """A directory of NLTK's data with a small model of sentences."""
    folder = home / "tokenizers/punkt_tab/english"
    folder.mkdir(parents=True)
    (folder / "abbrev_types.txt").write_text("approx\nmr")
    for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (folder / name).write_text("")
    return home


def test_llama3_1_8b_is_scored_by_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["Mr. Smith sold 12 ships.  He bought a port.", "The cranes hold approx. 3 ships. Done."]
    truths = ["Mr. Smith bought a port. He sold ships.", "Done. The cranes hold 3 ships."]
    tokenizer = lossless(tmp_path / "tokenizer.json")
    decoded = write_log(tmp_path / "log", said, tokenizer)
    table = pandas.DataFrame({"output": truths})
    with pytest.raises(UserError, match="--nltk-data"):
        score("llama3.1-8b", tmp_path / "log", table, tokenizer)
    with pytest.raises(UserError, match="punkt_tab"):
        score("llama3.1-8b", tmp_path / "log", table, tokenizer, tmp_path)
    data = trained(tmp_path / "nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    totals = score("llama3.1-8b", tmp_path / "log", table, tokenizer, data)
    # What the reference script does, with the same library and model.
    nltk.data.path[:] = [str(data)]
    texts = [
        ["\n".join(nltk.sent_tokenize(text.strip())) for text in group]
        for group in (truths, decoded)
    ]
    assert all(text.count("\n") == 1 for group in texts for text in group)
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(names, use_stemmer=True)
    scores = [scorer.score(*pair) for pair in zip(*texts, strict=True)]
    expected = {
        name: f"{round(100 * sum(found[name].fmeasure for found in scores) / 2, 4)}"
        for name in names
    }
    counts = {"gen_len": sum(map(len, texts[1])), "gen_num": 2}
    assert totals.result() == {**expected, **counts}
    assert "'rougeLsum': '" in totals.text()
