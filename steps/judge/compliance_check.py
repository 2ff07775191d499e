"""The verdict on a compliance run, and the files of it that a submission carries."""

import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import MANIFEST, Manifest, Record, Workspace
from steps.base.step import main
from steps.config.checks import ComplianceCheckConfig, ScoredAlike
from steps.config.verdicts import Complaint, ComplianceVerdict, as_result
from steps.judge.compliance import tokens, verify
from steps.judge.disturbances import differences_of, window_of
from steps.judge.scoring.whole import samples_of
from steps.mlperf.compliance import Test
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import ANSWERS, DETAIL
from steps.mlperf.loadgen_log import read_answers


def step(
    config: ComplianceCheckConfig,
    inputs: Mapping[str, Path],
    workspace: Workspace,
    console: Console,
) -> None:
    """Publishes a ComplianceVerdict, and fills the test's directory of the submission.

    Inputs besides the test's own `run`: `performance` for a test whose speed is judged,
    `accuracy` for TEST01, with the `dataset` where its answers may differ if they score alike, and
    for TEST07 the `dataset` and the `model`, whose tokenizer it has.
    """
    run = _whole(inputs["run"])
    judge = JUDGES.get(config.test, _timed)
    window = window_of(run, config.window, console.say)
    verdict = judge(config, run, inputs, workspace.directory).model_copy(
        update={"window": window, "differences": differences_of(run)}
    )
    if not verdict.holds:
        console.say(verdict.why)
    workspace.result = as_result(verdict)


def _timed(
    config: ComplianceCheckConfig, run: Manifest, inputs: Mapping[str, Path], folder: Path
) -> ComplianceVerdict:
    rule = config.rule
    performance = _whole(inputs["performance"])
    texts, complaints = verify.speed(config.test, rule, performance.directory, run.directory)
    if config.test == "TEST01":
        accuracy = _whole(inputs["accuracy"]).directory
        more, differ = verify.answers(rule, accuracy, run.directory, config.answer_type)
        if config.scores is not None and any(one.code == verify.DIFFER for one in differ):
            dataset = Manifest.read(inputs["dataset"])
            more, differ = _scored(config, config.scores, rule, accuracy, run.directory, dataset)
        texts, complaints = {**texts, **more}, (*complaints, *differ)
    verify.package(folder, run.directory, texts)
    complaints = (*complaints, *early(config.test, performance, run))
    return ComplianceVerdict(
        holds=not complaints,
        complaints=complaints,
        test=config.test,
    )


def _scored(
    config: ComplianceCheckConfig,
    scores: ScoredAlike,
    rule: Test,
    accuracy: Path,
    run: Path,
    dataset: Manifest,
) -> verify.Found:
    """TEST01's other way, where answers differ: both logs are scored on the test's samples."""
    from steps.judge.scoring.given import files
    from steps.judge.scoring.images import score

    only, known = samples_of(run / ANSWERS), files(scores.weights, dataset)
    with tempfile.TemporaryDirectory() as scratch:
        texts = []
        for name, log in (("baseline", accuracy / ANSWERS), ("test", run / ANSWERS)):
            path = Path(scratch) / name
            path.write_text(score(log, known, only=only).text(), encoding="utf-8")
            texts.append(path)
        scored = verify.Scored(scores.official, scores.metrics, tuple(texts))
        return verify.answers(rule, accuracy, run, config.answer_type, scored)


def early(test: str, performance: Manifest, run: Manifest) -> Iterator[Complaint]:
    """A test that is compared with a performance run has to be measured after it: else it is one
    of an earlier try. Clocks of two machines differ: then the middles of the two runs are compared,
    which only a difference of half of both runs' time could mislead."""
    tested, performed = _record(run), _record(performance)
    began, ended = map(datetime.fromisoformat, (tested.started, performed.finished))
    if tested.host == performed.host:
        is_early = began < ended
    else:
        is_early = _middle(tested) < _middle(performed)
    if is_early:
        yield Complaint(
            code="early",
            words=f"{test} was measured at {began:%H:%M:%S}, before its performance run ended at "
            f"{ended:%H:%M:%S}",
            value=began.isoformat(),
            limit=ended.isoformat(),
            fix="measure the test again",
        )


def _middle(record: Record) -> datetime:
    began, ended = map(datetime.fromisoformat, (record.started, record.finished))
    return began + (ended - began) / 2


def _record(manifest: Manifest) -> Record:
    return Record.read(manifest.directory / MANIFEST)


def _whole(path: Path) -> Manifest:
    """A run whose every file is what it wrote; UserError otherwise."""
    run = Manifest.read(path)
    run.require_whole()
    return run


def _tokens(
    config: ComplianceCheckConfig, run: Manifest, inputs: Mapping[str, Path], folder: Path
) -> ComplianceVerdict:
    detail, timed = read_detail(run.file(DETAIL)), config.scenario != "Offline"
    if config.eos_token_id is None:
        raise UserError(
            "TEST06 needs the model's end-of-sequence token; set benchmark.generation.eos_token_id"
        )
    log = run.file(ANSWERS)
    ends = config.eos_token_id
    ends = ends if isinstance(ends, tuple) else (ends,)
    found = tokens.examine(read_answers(log), ends, timed=timed)
    where = f"{config.test} of {config.scenario} fails"
    complaints = (
        *tokens.complaints(found, where, config.rule.min_samples),
        *tokens.unended(found, where, ends, config.max_tokens),
    )
    if detail.get("effective_accuracy_log_sampling_target") == 0:
        words = f"{where}: the run was not under its audit.config"
        complaints = (Complaint(code="audit", words=words), *complaints)
    if not complaints:
        verify.package_answers(folder, run.directory, tokens.text(timed=timed))
    return ComplianceVerdict(
        holds=not complaints,
        complaints=complaints,
        test=config.test,
        checked_samples=found.samples,
        eos_terminated=found.terminated,
        first_token="True" if timed else "Skipped",
    )


def _bounded(
    config: ComplianceCheckConfig, run: Manifest, inputs: Mapping[str, Path], folder: Path
) -> ComplianceVerdict:
    """TEST07 and TEST09: what the test counts is within the round's bounds."""
    rule, official = config.rule, config.official
    if official is None or official not in rule.bounds:
        raise UserError(
            f"{config.test} has no bounds for {official}; add them to compliance.{config.test} of "
            "the round's file"
        )
    if config.test == "TEST09":
        texts, complaints = verify.output_lengths(rule, run.directory, official)
    else:
        texts, complaints = _in_full(config, rule, run, inputs)
    verify.package(folder, run.directory, texts, whole=True)
    return ComplianceVerdict(holds=not complaints, complaints=complaints, test=config.test)


def _in_full(
    config: ComplianceCheckConfig, rule: Test, run: Manifest, inputs: Mapping[str, Path]
) -> verify.Found:
    import pandas

    from steps.judge.scoring.score import score

    assert config.official is not None
    if config.scorer is None:
        raise UserError(f"{config.test} is judged by a score; set benchmark.scorer")
    table = pandas.read_pickle(Manifest.read(inputs["dataset"]).file("evaluation.pkl"))
    tokenizer = Manifest.read(inputs["model"]).file("tokenizer.json")
    with tempfile.TemporaryDirectory() as scratch:
        printed = Path(scratch) / "scores.txt"
        found = score(config.scorer, run.file(ANSWERS), table, tokenizer)
        printed.write_text(found.text(), encoding="utf-8")
        return verify.full_accuracy(rule, run.directory, config.official, printed)


JUDGES = {"TEST06": _tokens, "TEST07": _bounded, "TEST09": _bounded}
"""Any other test is one of speed."""


if __name__ == "__main__":
    main("compliance_check", ComplianceCheckConfig, step)
