"""The verdict on a compliance run, and the files of it that a submission carries."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace
from steps.base.step import main
from steps.config.checks import ComplianceCheckConfig
from steps.judge.compliance import tokens, verify
from steps.mlperf.loadgen import ANSWERS, DETAIL
from steps.mlperf.loadgen_log import read_answers, read_detail
from steps.mlperf.rounds import Test


def step(
    config: ComplianceCheckConfig,
    inputs: Mapping[str, Path],
    workspace: Workspace,
    console: Console,
) -> None:
    """Fills the test's directory of the submission; raises UserError if the test doesn't hold.

    Inputs besides the test's own `run`: `performance` for a test whose speed is judged, and
    `accuracy` for TEST01.
    """
    run = _whole(inputs["run"])
    if config.test == "TEST06":
        _tokens(config, run, workspace)
        return
    rule = Test(**config.rule.model_dump())
    performance = _whole(inputs["performance"]).directory
    texts = {verify.SPEED: verify.speed(config.test, rule, performance, run.directory)}
    if config.test == "TEST01":
        accuracy = _whole(inputs["accuracy"]).directory
        texts |= verify.answers(rule, accuracy, run.directory, config.answer_type)
    verify.package(workspace.directory, run.directory, texts)
    workspace.result = {"test": config.test, "passed": True}


def _whole(path: Path) -> Manifest:
    """A run whose every file is what it wrote; UserError otherwise."""
    run = Manifest.read(path)
    run.require_whole()
    return run


def _tokens(config: ComplianceCheckConfig, run: Manifest, workspace: Workspace) -> None:
    detail = read_detail(run.file(DETAIL))
    if detail.get("effective_accuracy_log_sampling_target") == 0:
        raise UserError("the compliance run was not under TEST06's audit.config; re-run it")
    if config.eos_token_id is None:
        raise UserError(
            "TEST06 needs the model's end-of-sequence token; set benchmark.generation.eos_token_id"
        )
    log = run.file(ANSWERS)
    timed = config.scenario != "Offline"
    found = tokens.examine(read_answers(log), {config.eos_token_id}, timed=timed)
    where = f"{config.test} of {config.scenario} fails"
    tokens.require(found, where, config.rule.min_samples)
    tokens.require_ends(found, where, config.eos_token_id)
    verify.package_answers(workspace.directory, run.directory, tokens.text(timed=timed))
    workspace.result = {
        "test": config.test,
        "passed": True,
        "checked_samples": found.samples,
        "eos_terminated": found.terminated,
        "first_token": "True" if timed else "Skipped",
    }


if __name__ == "__main__":
    main("compliance_check", ComplianceCheckConfig, step)
