"""What the three LoadGen runs have in common: `execute` does one."""

import csv
import importlib.metadata
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from steps.console import Console
from steps.errors import UserError
from steps.loadgen_log import read_detail
from steps.record import Manifest, Workspace
from steps.schema import RunConfig
from steps.sut import samples, user_conf
from steps.sut.harness import EngineLoop, wait_until_ready, watch

Mode = Literal["PerformanceOnly", "AccuracyOnly"]

SAMPLE_COLUMNS = (
    "sample_index",
    "input_tokens",
    "output_tokens",
    "issued_s",
    "first_token_s",
    "completed_s",
)


def execute(
    mode: Mode,
    config: RunConfig,
    inputs: Mapping[str, Path],
    workspace: Workspace,
    console: Console,
    audit: Mapping[str, int] | None = None,
) -> None:
    """Run LoadGen once in this process and leave its logs, user.conf and samples.csv.

    `audit`: settings of a compliance test, written to audit.config and applied by LoadGen last.
    Raises UserError for anything that voids the run.
    """
    _check_loadgen(config)
    weights = Manifest.read(inputs["model"])
    for complaint in weights.damage():
        raise UserError(f"{complaint}; delete {weights.directory} and re-run")
    prompts = samples.load(inputs["dataset"])
    _check_prompts(config, prompts.evaluation)
    folder = workspace.directory
    audit_file = folder / "audit.config"
    if audit is not None:
        audit_file.write_text(user_conf.render_audit_config(audit), encoding="utf-8")
    text = user_conf.render_user_conf(config.loadgen, config.scenario)
    (folder / "user.conf").write_text(text, encoding="utf-8")
    label = f"{config.scenario} {'accuracy' if mode == 'AccuracyOnly' else 'performance'}"
    loop = EngineLoop(
        config=config,
        weights=weights.directory,
        prompts=prompts.evaluation,
        warmup=prompts.calibration[: config.engine.warmup_samples],
        progress=lambda issued: console.progress(
            (audit and f"{config.scenario} compliance") or label,
            max(issued, _expected(mode, config, len(prompts.evaluation), audit)),
        ),
    )
    loop.start()
    wait_until_ready(loop, config.engine.start_limit_s)
    duration_s = _test(mode, config, loop, folder, audit_file)
    _finish(config, folder, loop)
    engine = {**loop.identity, "emulated": bool(weights.result.get("simulated"))}
    workspace.result = {
        "mode": mode,
        "scenario": config.scenario,
        "engine": engine,
        "loadgen_version": config.rules.loadgen_version,
        "samples": loop.completed,
        "output_tokens": sum(sample.output_tokens for sample in loop.samples),
        "duration_s": round(duration_s, 3),
        "engine_start_s": round(loop.start_s, 3),
    }


def _check_loadgen(config: RunConfig) -> None:
    installed = importlib.metadata.version("mlcommons-loadgen")
    if installed != config.rules.loadgen_version:
        raise UserError(
            f"LoadGen {installed} is installed, round {config.rules.round} needs "
            f"{config.rules.loadgen_version}: its seeds are compiled in; mend envs/*.lock"
        )


def _check_prompts(config: RunConfig, prompts: list[list[int]]) -> None:
    loadgen = config.loadgen
    wanted = loadgen.performance_sample_count_override or config.rules.performance_sample_count
    if len(prompts) < wanted:
        raise UserError(
            f"the dataset has {len(prompts)} samples, LoadGen is to load {wanted}; raise "
            "length.evaluation_count or lower length.performance_sample_count_override"
        )
    room = config.engine.arguments.max_model_len - config.generation.max_tokens
    longest = max(range(len(prompts)), key=lambda index: len(prompts[index]))
    if len(prompts[longest]) > room:
        raise UserError(
            f"sample {longest} has {len(prompts[longest])} tokens, but max_model_len leaves room "
            f"for {room}; raise hardware.engine.arguments.max_model_len"
        )


def _expected(mode: Mode, config: RunConfig, dataset: int, audit: Mapping[str, int] | None) -> int:
    """Samples of the whole run, for the progress bar; Server's grow as LoadGen issues them."""
    if audit is not None:
        return audit["min_query_count"]
    if mode == "AccuracyOnly":
        return dataset
    loadgen = config.loadgen
    copy = loadgen.performance_sample_count_override or config.rules.performance_sample_count
    duration_s = (loadgen.min_duration_ms or config.rules.min_duration_ms) / 1000
    return copy * max(1, -(-int(duration_s * loadgen.target_qps) // copy))


def _test(mode: Mode, config: RunConfig, loop: EngineLoop, folder: Path, audit_file: Path) -> float:
    """LoadGen's test; returns its seconds. FromConfig is called once: twice voids the run."""
    import mlperf_loadgen as lg

    settings = lg.TestSettings()
    scenario = user_conf.loadgen_scenario(config.scenario)
    model = config.loadgen.model
    if settings.FromConfig(str(folder / "user.conf"), model, scenario) != 0:
        raise UserError(f"LoadGen can't read {folder / 'user.conf'}")
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = getattr(lg.TestMode, mode)
    log_settings = lg.LogSettings()
    log_settings.log_output.outdir = str(folder)
    log_settings.enable_trace = False
    count = config.loadgen.performance_sample_count_override
    total = len(loop.prompts)
    sut = lg.ConstructSUT(loop.issue, lambda: None)
    qsl = lg.ConstructQSL(
        total,
        count or config.rules.performance_sample_count,
        lambda indices: None,
        lambda indices: None,
    )
    test = threading.Thread(
        target=lg.StartTestWithLogSettings,
        args=(sut, qsl, settings, log_settings, str(audit_file)),
        name="loadgen",
        daemon=True,
    )
    begun = time.monotonic()
    loop.begin_test()
    test.start()
    watch(loop, test)
    duration_s = time.monotonic() - begun
    loop.stop()
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
    return duration_s


def _finish(config: RunConfig, folder: Path, loop: EngineLoop) -> None:
    """LoadGen's own errors void the run; its empty trace is no result."""
    (folder / "mlperf_log_trace.json").unlink(missing_ok=True)
    detail = read_detail(folder / "mlperf_log_detail.txt")
    if detail.errors:
        first = detail.errors[0]
        raise UserError(
            f"LoadGen reported {len(detail.errors)} errors, first: {first.key}: {first.value}"
        )
    rows = sorted(loop.samples, key=lambda sample: sample.issued_s)
    with (folder / "samples.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(SAMPLE_COLUMNS)
        for sample in rows:
            writer.writerow(
                (
                    sample.index,
                    len(loop.prompts[sample.index]),
                    sample.output_tokens,
                    _rounded(sample.issued_s),
                    _rounded(sample.first_token_s),
                    _rounded(sample.completed_s),
                )
            )


def _rounded(seconds: float | None) -> Any:
    return "" if seconds is None else round(seconds, 6)
