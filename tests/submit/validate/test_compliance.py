"""Compliance tests: verified as the official scripts do, packaged as the validator wants it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.commands.cli import call
from steps.judge.compliance.answers import compare
from steps.judge.compliance.speed import Speeds
from steps.mlperf.rounds import load
from steps.submit.migrate.command import migrate
from steps.submit.validate.submission import validate
from tests.submit.validate import trees
from tests.submit.validate.damages import ANSWERS, DETAIL, PERFORMANCE, TEST01, TEST04, log
from tests.submit.validate.trees import CLOSED, SDXL, SYSTEM

FULL = trees.answers(200, timed=False, salt=7)
SAMPLED = trees.answers(120, timed=False, salt=7)


def arguments(root: Path, test: str, output: Path) -> list[str]:
    place = TEST01 if test == "TEST01" else TEST04
    accuracy = ["--accuracy", str(root / SDXL / "accuracy")] if test == "TEST01" else []
    return [
        test,
        *("--performance", str(root / SDXL / PERFORMANCE)),
        *("--run", str(root / place / PERFORMANCE)),
        *accuracy,
        *("--output", str(output)),
    ]


@pytest.fixture
def runs(fresh_tree: Callable[[], Path]) -> Path:
    """A tree whose runs have their full logs."""
    root = fresh_tree()
    trees.write(root / SDXL / "accuracy" / ANSWERS, FULL)
    trees.write(root / TEST01 / PERFORMANCE / ANSWERS, SAMPLED)
    return root


@pytest.mark.parametrize(("test", "place"), [("TEST01", TEST01), ("TEST04", TEST04)])
def test_what_is_packaged_holds_by_the_rules(
    test: str, place: str, runs: Path, fresh_tree: Callable[[], Path], tmp_path: Path
) -> None:
    assert call(["compliance", *arguments(runs, test, tmp_path / "out")]) == 0
    root = fresh_tree()
    shutil.rmtree(root / place)
    shutil.copytree(tmp_path / "out" / test, root / place)
    assert validate(root, "v5.1", processes=1).valid()


@pytest.mark.parametrize(
    ("test", "key", "value", "says"),
    [
        ("TEST01", "result_samples_per_second", 35.9, "89.8%"),
        ("TEST01", "result_samples_per_second", 44.1, "110.2%"),
        ("TEST04", "result_samples_per_second", 44.0, "less than 110%"),
        ("TEST04", "result_validity", "INVALID", "not VALID"),
        ("TEST04", "effective_performance_issue_same", False, "audit.config"),
        ("TEST01", "effective_scenario", "Server", "one scenario"),
    ],
)
def test_a_run_that_fails_leaves_nothing(
    test: str, key: str, value: Any, says: str, runs: Path, tmp_path: Path
) -> None:
    place = TEST01 if test == "TEST01" else TEST04
    log(f"{place}/{PERFORMANCE}/{DETAIL}", key, value)(runs)
    with pytest.raises(UserError, match=says):
        call(["compliance", *arguments(runs, test, tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_another_answer_is_named(runs: Path, tmp_path: Path) -> None:
    other = SAMPLED.replace('"qsl_idx" : 33, "data" : "07', '"qsl_idx" : 33, "data" : "08')
    trees.write(runs / TEST01 / PERFORMANCE / ANSWERS, other)
    with pytest.raises(UserError, match="sample 33 differs, 1 in all"):
        call(["compliance", *arguments(runs, "TEST01", tmp_path / "out")])


@pytest.mark.parametrize("text", [FULL[:5000], FULL.removesuffix("]\n"), "", "[\n{}\n]\n"])
def test_a_log_that_is_cut_off_is_refused(text: str, runs: Path, tmp_path: Path) -> None:
    trees.write(runs / SDXL / "accuracy" / ANSWERS, text)
    with pytest.raises(UserError, match="untruncated"):
        call(["compliance", *arguments(runs, "TEST01", tmp_path / "out")])


def test_only_the_first_element_counts(tmp_path: Path) -> None:
    """As in the official script: the rest of an answer may differ."""
    trees.write(tmp_path / "a", FULL)
    trees.write(tmp_path / "b", SAMPLED.replace("02000000", "03000000"))
    assert compare(tmp_path / "a", tmp_path / "b", "int32").passed()


def test_samples_that_the_accuracy_run_lacks_are_counted(tmp_path: Path) -> None:
    trees.write(tmp_path / "a", trees.answers(100, timed=False, salt=7))
    trees.write(tmp_path / "b", SAMPLED)
    found = compare(tmp_path / "a", tmp_path / "b", "byte")
    assert (found.matched, found.missing, found.passed()) == (100, 20, True)
    trees.write(tmp_path / "a", "[\n]\n")
    assert not compare(tmp_path / "a", tmp_path / "b", "byte").passed()


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6))
def test_the_bounds_are_the_official_ones(reference: float, measured: float) -> None:
    tests = load("v5.1").compliance
    assert Speeds(tests["TEST04"], reference, measured).passed() == (measured < reference * 1.1)
    inside = reference * 0.9 <= measured <= reference * 1.1
    assert Speeds(tests["TEST01"], reference, measured).passed() == inside


OTHER = SAMPLED.replace('"qsl_idx" : 33, "data" : "07', '"qsl_idx" : 33, "data" : "08')


def scored(root: Path, clip: float, fid: float = 23.5) -> list[str]:
    """Options that name the scores of both sets; those of the accuracy run are 31.75 and 23.5."""
    files = {"baseline": (31.75, 23.5), "test": (clip, fid)}
    for name, (one, other) in files.items():
        found = {"FID_SCORE": f"{other}", "CLIP_SCORE": f"{one}"}
        trees.write(root / name, f"Accuracy Results: {found}\n")
    return [
        *("--benchmark", "stable-diffusion-xl"),
        *("--scores", str(root / "baseline"), str(root / "test")),
    ]


def test_other_answers_that_score_alike_hold(
    runs: Path, fresh_tree: Callable[[], Path], tmp_path: Path
) -> None:
    trees.write(runs / TEST01 / PERFORMANCE / ANSWERS, OTHER)
    given = arguments(runs, "TEST01", tmp_path / "out") + scored(tmp_path, 31.5, 23.9)
    assert call(["compliance", *given]) == 0
    root = fresh_tree()
    shutil.rmtree(root / TEST01)
    shutil.copytree(tmp_path / "out/TEST01", root / TEST01)
    assert validate(root, "v5.1", processes=1).valid()


@pytest.mark.parametrize(
    ("clip", "fid", "says"),
    [
        (31.4, 23.5, "CLIP_SCORE is 31.75 before and 31.4 after, 1 % are allowed"),
        (31.7, 24.0, "FID_SCORE is 23.5 before and 24 after, 2 % are allowed"),
    ],
)
def test_other_answers_that_score_otherwise_fail(
    clip: float, fid: float, says: str, runs: Path, tmp_path: Path
) -> None:
    trees.write(runs / TEST01 / PERFORMANCE / ANSWERS, OTHER)
    with pytest.raises(UserError, match=says):
        call(
            [
                "compliance",
                *arguments(runs, "TEST01", tmp_path / "out"),
                *scored(tmp_path, clip, fid),
            ]
        )
    assert not (tmp_path / "out").exists()


def test_equal_answers_need_no_scores(runs: Path, tmp_path: Path) -> None:
    given = arguments(runs, "TEST01", tmp_path / "out") + scored(tmp_path, 31.75)
    with pytest.raises(UserError, match="leave --scores out"):
        call(["compliance", *given])
    trees.write(runs / TEST01 / PERFORMANCE / ANSWERS, OTHER)
    (tmp_path / "baseline").unlink()
    with pytest.raises(UserError, match="baseline: it is missing; score the log again"):
        call(["compliance", *given])


PLACE = f"{CLOSED}/results/{SYSTEM}/gpt-oss-120b/Offline"
BOUNDS = {"TEST07": {"minimum": 60.698}, "TEST09": {"minimum": 36.0, "maximum": 44.0}}


@pytest.fixture
def tests_of_v6(fresh_tree: Callable[[], Path], tmp_path: Path, monkeypatch: Any) -> Path:
    """A tree of v6 that calls its Llama gpt-oss-120b, whose tests ask for 100 answers of 40."""
    root = tmp_path / "v6"
    migrate(fresh_tree(), root, load("v6.0").layout)
    (root / PLACE).parent.parent.joinpath("llama2-70b-99").rename((root / PLACE).parent)
    rules = load("v6.0").compliance
    for test, bounds in BOUNDS.items():
        asked = {"gpt-oss-120b": {**bounds, "samples": 100}}
        monkeypatch.setitem(rules, test, rules[test].model_copy(update={"bounds": asked}))
    return root


def counted(root: Path, test: str, output: Path, log: str, score: float = 62.15) -> list[str]:
    run = root / PLACE / PERFORMANCE
    trees.write(run / ANSWERS, log)
    trees.write(output.parent / "printed", f"Results\n\n{{'exact_match': {score}}}\n")
    options = ["--scores", str(output.parent / "printed")] if test == "TEST07" else []
    place = ["--run", str(run), "--output", str(output)]
    return [test, "--round", "v6.0", "--benchmark", "gpt-oss-120b", *place, *options]


def found_of(root: Path, test: str) -> set[str]:
    """Codes of what is found below a test's directory."""
    findings = validate(root, "v6.0", processes=1).findings
    return {item.code for item in findings if item.path.startswith(f"{PLACE}/{test}")}


WHOLE = trees.answers(100, timed=False, salt=7)


@pytest.mark.parametrize("test", ["TEST07", "TEST09"])
def test_a_test_of_v6_is_verified_and_packaged(
    test: str, tests_of_v6: Path, tmp_path: Path
) -> None:
    assert call(["compliance", *counted(tests_of_v6, test, tmp_path / "out", WHOLE)]) == 0
    assert found_of(tests_of_v6, test) == {"compliance-missing"}
    shutil.copytree(tmp_path / "out" / test, tests_of_v6 / PLACE / test)
    assert found_of(tests_of_v6, test) == set()
    shutil.rmtree(tests_of_v6 / PLACE / test / "accuracy")
    assert found_of(tests_of_v6, test) == {"compliance-log-missing"}


@pytest.mark.parametrize(
    ("test", "log", "score", "says"),
    [
        ("TEST07", WHOLE, 60.6, "exact_match is 60.6, at least 60.698 is required"),
        ("TEST07", trees.answers(99, timed=False, salt=7), 62.0, "99 samples were logged"),
        ("TEST09", trees.answers(99, timed=False, salt=7), 62.0, "99 samples were logged"),
        ("TEST09", WHOLE.replace("02000000", "0200000002000000" * 4), 62.0, "at most 44 is"),
        ("TEST09", WHOLE.replace("02000000", ""), 62.0, ""),
        ("TEST09", WHOLE[:-3], 62.0, "closing bracket"),
    ],
)
def test_a_test_of_v6_that_fails_leaves_nothing(
    test: str, log: str, score: float, says: str, tests_of_v6: Path, tmp_path: Path
) -> None:
    given = counted(tests_of_v6, test, tmp_path / "out", log, score)
    if not says:
        assert call(["compliance", *given]) == 0  # 39 tokens are enough
        return
    with pytest.raises(UserError, match=says):
        call(["compliance", *given])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("test", "name", "old", "new", "code"),
    [
        ("TEST07", "verify_accuracy.txt", "TEST PASS", "TEST FAIL", "compliance-failed"),
        (
            "TEST07",
            "verify_accuracy.txt",
            "'exact_match': 62.15",
            "'exact_match': 6.0",
            "compliance-failed",
        ),
        ("TEST09", "verify_output_len.txt", "TEST PASS", "", "compliance-failed"),
        (
            "TEST09",
            "verify_output_len.txt",
            "tokens: 40.00",
            "tokens: 41.00",
            "compliance-contradicts",
        ),
        ("TEST09", f"accuracy/{ANSWERS}", "02000000", "0200000002000000" * 4, "compliance-log"),
        ("TEST09", f"accuracy/{ANSWERS}", '"qsl_idx" : 33', '"qsl_idx" : 32', "compliance-log"),
        ("TEST07", f"accuracy/{ANSWERS}", '"qsl_idx" : 33', '"qsl" : 33', "compliance-log"),
    ],
)
def test_a_changed_test_of_v6_is_found(
    test: str, name: str, old: str, new: str, code: str, tests_of_v6: Path, tmp_path: Path
) -> None:
    assert call(["compliance", *counted(tests_of_v6, test, tmp_path / "out", WHOLE)]) == 0
    shutil.copytree(tmp_path / "out" / test, tests_of_v6 / PLACE / test)
    path = tests_of_v6 / PLACE / test / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert code in found_of(tests_of_v6, test)


def consistency(root: Path, log: str, *, timed: bool = True, logged: int = 100) -> list[str]:
    """A run of TEST06 below `root`, and the command that verifies it."""
    scenario = "Server" if timed else "Offline"
    audit = {"effective_accuracy_log_sampling_target": logged}
    run = root / "test"
    trees.run(run, "llama2-70b-99", scenario, "PerformanceOnly", trees.Clock(), audit)
    trees.write(run / ANSWERS, log)
    given = ["--run", str(run), "--output", str(root / "out")]
    return ["TEST06", *given, "--benchmark", "llama2-70b-99"]


@pytest.mark.parametrize("timed", [True, False])
def test_test06_is_verified_and_packaged(
    timed: bool, fresh_tree: Callable[[], Path], tmp_path: Path, capsys: Any
) -> None:
    log = trees.answers(93, timed=timed, salt=60)
    assert call(["compliance", *consistency(tmp_path, log, timed=timed)]) == 0
    assert "93 of 93 answers end" in capsys.readouterr().out
    root, scenario = fresh_tree(), "Server" if timed else "Offline"
    place = root / CLOSED / f"compliance/{SYSTEM}/llama2-70b-99/{scenario}/TEST06"
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "out/TEST06", place)
    report = validate(root, "v5.1", processes=1)
    assert report.valid()
    assert not [item for item in report.findings if "TEST06" in item.path]


def test_a_system_that_strips_the_end_holds(tmp_path: Path, capsys: Any) -> None:
    """The official script asks for none or one; that none is there is said."""
    log = trees.answers(90, timed=True, salt=60).replace("02000000", "09000000")
    assert call(["compliance", *consistency(tmp_path, log)]) == 0
    assert "0 of 90 answers end in an end-of-sequence token; if" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("02000000", "0200000002000000", "has another length"),
        ('"token_count" : 40', '"token_count" : 39', "has another length"),
        ("2F00000002000000", "0200000002000000", "more than one end-of-sequence token"),
        ('"token_data" : "3C', '"token_data" : "3D', "first token"),
        ("\n]\n", "\n", "closing bracket"),
    ],
)
def test_what_fails_test06_leaves_nothing(old: str, new: str, says: str, tmp_path: Path) -> None:
    log = trees.answers(90, timed=True, salt=60)
    assert old in log
    with pytest.raises(UserError, match=says):
        call(["compliance", *consistency(tmp_path, log.replace(old, new))])
    assert not (tmp_path / "out").exists()


def test_test06_needs_answers_and_its_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 samples were logged"):
        call(["compliance", *consistency(tmp_path, "[\n]\n")])
    log = trees.answers(90, timed=True, salt=60)
    with pytest.raises(UserError, match="place the test's audit"):
        call(["compliance", *consistency(tmp_path, log, logged=0)])


def widened(data: str) -> str:
    """int32 tokens as int64."""
    return re.sub("(.{8})", r"\g<1>00000000", data)


def test_test06_takes_other_tokens(tmp_path: Path) -> None:
    wide = trees.answers(90, timed=False, salt=60)
    wide = re.sub(r'(?<="data" : ")[0-9A-F]+', lambda found: widened(found[0]), wide)
    assert call(["compliance", *consistency(tmp_path, wide, timed=False)]) == 0


def test_test06_names_whose_end_it_does_not_know(tmp_path: Path) -> None:
    given = consistency(tmp_path, trees.answers(90, timed=True, salt=60))[:-1]
    with pytest.raises(UserError, match="--eos"):
        call(["compliance", *given, "deepseek-r1"])
    with pytest.raises(UserError, match="no TEST06 of 'stable-diffusion-xl', only of llama3"):
        call(["compliance", *given, "stable-diffusion-xl"])
    assert call(["compliance", *given, "deepseek-r1", "--eos", "1", "2"]) == 0
