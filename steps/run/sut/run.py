"""The common part of the three LoadGen runs: `execute` does one."""

import csv
import importlib.metadata
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from steps import ROOT
from steps.base import earlier, variables
from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace, canonical_json, write_atomically
from steps.config.engine import DiffusersEngine
from steps.config.environments import ImageResult
from steps.config.generation import Generation, ImageGeneration
from steps.config.resolved import RESOLVED_FILE
from steps.config.results import result_of
from steps.config.run_results import (
    EngineIdentity,
    EngineReport,
    NodesAccelerators,
    RunAccelerators,
    RunResult,
)
from steps.config.runs import RunConfig
from steps.config.weights import WeightsResult
from steps.machine.probes.values import Accelerator
from steps.mlperf.detail import read_detail
from steps.mlperf.loadgen import (
    AUDIT_CONFIG,
    DETAIL,
    SAMPLES_FILE,
    TRACE,
    USER_CONF,
    loadgen_scenario,
)
from steps.prepare import samples
from steps.prepare.samples import LATENTS
from steps.run.engines import accelerators, caches, pinning
from steps.run.engines.engine import require_taken
from steps.run.journal import client
from steps.run.placing.launch import socket_of
from steps.run.sut import user_conf
from steps.run.sut.book import Book
from steps.run.sut.harness import EngineLoop, wait_until_ready, watch

Mode = Literal["PerformanceOnly", "AccuracyOnly"]

SAMPLE_COLUMNS = (
    "sample_index",
    "input_tokens",
    "output_tokens",
    "issued_s",
    "first_token_s",
    "completed_s",
)

AUDIT_WARNING = "Found Audit Config file"
"""LoadGen 5.1.2's log line when it applies an audit.config."""

ISSUED_ONCE = "performance_issue_unique"
"""A test with this one issues each loaded sample once; with fewer of them than are to be loaded
LoadGen's Offline makes no query and ends in a segmentation fault (6.0.15, GenerateQueries)."""


ACCURACY_COUNT = "accuracy_sample_count_override"
"""LoadGen 6's setting: how many samples an accuracy run takes, where its mlperf.conf says it. A
smaller dataset than the round's has fewer, and LoadGen would ask for samples that aren't there."""

Row = tuple[int, int, int, float | str, float | str, float | str]
"""A sample in samples.csv: SAMPLE_COLUMNS, "" where it hasn't happened."""


class TrialEnded(Exception):
    """Raised by `Trial.look` to end a run. LoadGen can't be stopped: the process must end too."""


@dataclass(frozen=True)
class Trial:
    """A run that may be ended early.

    `look` is called several times a second with the samples so far. `seed` replaces the round's
    seeds: such a run isn't a result. None keeps them.
    """

    look: Callable[[Iterator[Row]], None]
    seed: int | None


def execute(
    mode: Mode,
    config: RunConfig,
    inputs: Mapping[str, Path],
    workspace: Workspace,
    console: Console,
    audit: Mapping[str, int] | None = None,
    trial: Trial | None = None,
) -> RunResult:
    """Run LoadGen once in this process and leave its logs, user.conf and samples.csv.

    `audit`: settings of a compliance test, written to audit.config and applied by LoadGen last.
    Raises UserError for anything that voids the run, and what `trial.look` raises; samples.csv then
    shows how far the run came.
    """
    _check_loadgen(config)
    require_taken(config.engine, inputs.get("environment"))
    there = accelerators.require(config.engine.placement)
    weights = Manifest.read(inputs["model"])
    weights.require_whole()
    prompts = samples.load(inputs["dataset"], stops=config.generation.stop_sequences)
    whole = mode == "PerformanceOnly" and (not audit or bool(audit.get(ISSUED_ONCE)))
    _check_prompts(config, prompts, console.say, whole=whole)
    folder = workspace.directory
    audit_file = folder / AUDIT_CONFIG
    if audit is not None:
        audit_file.write_text(user_conf.render_audit_config(audit), encoding="utf-8")
    text = user_conf.render_user_conf(config.loadgen, config.scenario)
    (folder / USER_CONF).write_text(text, encoding="utf-8")
    kind = {"AccuracyOnly": "accuracy", "PerformanceOnly": "performance"}[mode]
    label = f"{config.scenario} {kind if audit is None else 'compliance'}"
    expected = _expected(mode, config, len(prompts.evaluation), audit)
    loop = EngineLoop(
        config=config,
        weights=weights.directory,
        prompts=prompts.evaluation,
        warmup=warmup(prompts, config.engine.warmup_samples),
        progress=lambda issued: console.progress(label, max(issued, expected)),
        say=console.say,
        stops=prompts.stops,
        caches=caches.of_run(inputs["environment"]) if "environment" in inputs else "",
        manifest=_in_checkout(inputs["model"]),
        outside=socket_of(workspace.destination) if workspace.destination else None,
        noise=_noise(config, inputs["dataset"]),
    )
    cpus = sorted(os.sched_getaffinity(0))
    loop.start()
    try:
        wait_until_ready(loop, config.engine.start_limit_s)
        _check_devices(there, loop.backend.report().engines)
        device = loop.backend.identity()["device"]
        nodes_before = loop.backend.nodes()
        with (
            loop.beside_engine(),
            client.kept(
                folder, config.journal, config.engine, device, cpus, console.say
            ) as journal,
        ):
            duration_s, cpu_s = _test(mode, config, loop, folder, audit_file, trial, journal)
        nodes_after = loop.backend.nodes()
    except TrialEnded:
        _write_samples(folder / SAMPLES_FILE, loop)
        raise
    finally:
        loop.stop()
    after, changed = accelerators.listed(config.engine.placement)
    _check_log(folder / DETAIL, audited=audit is not None)
    _check_samples(mode, loop)
    _write_samples(folder / SAMPLES_FILE, loop)
    kept = journal.finish(loop.backend.slow())
    resolved = loop.backend.resolved()
    if changed:
        said = f"after the run, {changed}"
        resolved = resolved.model_copy(update={"differences": (*resolved.differences, said)})
    write_atomically(folder / RESOLVED_FILE, resolved.model_dump_json(indent=1) + "\n")
    for difference in resolved.differences:
        console.say(f"not as asked: {difference}")
    simulated = result_of(weights, WeightsResult).simulated
    engine = {
        **loop.backend.identity(),
        "threads": loop.backend.threads(),
        "emulated": config.engine.emulation or simulated,
        **_image(inputs),
    }
    journaled: dict[str, Any] = {} if kept is None else {"journal": kept}
    found = RunResult(
        mode=mode,
        scenario=config.scenario,
        engine=EngineIdentity.model_validate(engine),
        cpus={name: pinning.listed(cpus) for name, cpus in loop.cpus._asdict().items()},
        **loop.backend.report().given(),
        **_accelerators(there, after),
        **_of_nodes(nodes_before, nodes_after),
        loadgen_version=config.rules.loadgen_version,
        dropped_variables=variables.dropped(),
        resolved=resolved,
        tries=1 + _earlier(config, workspace),
        samples=len(loop.book),
        output_tokens=_tokens(config, loop.book),
        duration_s=round(duration_s, 3),
        loadgen_process_cpu_s=round(cpu_s, 3),
        engine_start_s=round(loop.start_s, 3),
        **journaled,
    )
    workspace.result = found.dumped()
    return found


def _in_checkout(path: Path) -> str:
    """The path by which every node has it; "" for one elsewhere."""
    absolute = path.absolute()
    return str(absolute.relative_to(ROOT)) if absolute.is_relative_to(ROOT) else ""


def _noise(config: RunConfig, dataset: Path) -> Path | None:
    """The dataset's file of latents, for a benchmark of pictures."""
    pictures = isinstance(config.generation, ImageGeneration)
    return Manifest.read(dataset).file(LATENTS) if pictures else None


def _tokens(config: RunConfig, book: Book) -> int:
    """The tokens of all answers; a picture has none."""
    return book.output_tokens if isinstance(config.generation, Generation) else 0


def _accelerators(before: Sequence[Accelerator], after: Sequence[Accelerator]) -> dict[str, Any]:
    """What the run was on, and what it was set to before and after; nothing for a CPU's."""
    if not before:
        return {}
    settings = accelerators.settings(before), accelerators.settings(after)
    return {"accelerators": _typed(accelerators.summary(before), *settings)}


def _of_nodes(before: Sequence[Any], after: Sequence[Any]) -> dict[str, Any]:
    """The same of each node of a cluster, in the nodes' order."""
    if not before:
        return {}
    later = after or [{}] * len(before)
    nodes = tuple(
        _typed(one, one["settings"], then.get("settings", {})) if one else None
        for one, then in zip(before, later, strict=True)
    )
    return {"accelerators": NodesAccelerators(nodes=nodes)}


def _typed(
    what: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> RunAccelerators:
    said = {name: value for name, value in what.items() if name != "settings"}
    text = canonical_json({**said, "before": before, "after": after})
    return RunAccelerators.model_validate_json(text)


def _image(inputs: Mapping[str, Path]) -> dict[str, str]:
    """The base of the image that the engine runs in, by digest, and the image's own id."""
    if "environment" not in inputs:
        return {}
    made = Manifest.read(inputs["environment"])
    if made.step != "container":
        return {}
    known = result_of(made, ImageResult)
    base = known.base or made.config.get("base") or "a base that its record doesn't name"
    return {"image": f"{base}, built as {known.image:.19}"}


def _check_devices(there: Sequence[Accelerator], engines: Sequence[EngineReport]) -> None:
    """Raises UserError if an engine got an accelerator that the vendor's tool doesn't list.

    Functions of an address aren't compared: tools and runtimes number partitions differently.
    """
    listed = {one.bus.rpartition(".")[0] for one in there if one.bus}
    for engine in engines:
        for address in engine.bus:
            if listed and address.rpartition(".")[0] not in listed:
                raise UserError(
                    f"{engine.name} got accelerator {address}, which isn't among those that the "
                    f"vendor's tool lists ({', '.join(sorted(listed))}); see the log"
                )


def _earlier(config: RunConfig, workspace: Workspace) -> int:
    """How often this was measured before with the same settings."""
    if workspace.destination is None:
        return 0
    kind = type(config)

    def same(raw: dict[str, Any]) -> bool:
        try:
            return kind.model_validate_json(canonical_json(raw)) == config
        except ValidationError:
            return False

    return earlier.count(workspace.destination, same)


def warmup(prompts: samples.Samples, count: int) -> list[list[int]]:
    """Calibration prompts of all lengths, the shortest and the longest too, so that nothing is
    compiled for a length while the run is measured. The last is as long as the longest evaluation
    prompt: of its length alone, calibration prompts make it up.
    """
    by_length = sorted(prompts.calibration, key=len)
    steps = max(count - 1, 1)
    last = len(by_length) - 1
    chosen = [by_length[round(number * last / steps)] for number in range(min(count, last + 1))]
    longest = max(map(len, prompts.evaluation))
    if chosen and len(chosen[-1]) < longest:
        chosen[-1] = [token for prompt in reversed(by_length) for token in prompt][:longest]
    return chosen


def _check_loadgen(config: RunConfig) -> None:
    try:
        installed = importlib.metadata.version("mlcommons-loadgen")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"LoadGen {config.rules.loadgen_version} is not installed in this environment; "
            "delete its directory below .envs and re-run"
        ) from error
    if installed != config.rules.loadgen_version:
        raise UserError(
            f"LoadGen {installed} is installed, round {config.rules.round} needs "
            f"{config.rules.loadgen_version}: its seeds are compiled in; fix envs/*.lock"
        )


def _check_prompts(
    config: RunConfig, prompts: samples.Samples, say: Callable[[str], None], *, whole: bool
) -> None:
    """Raises UserError if LoadGen or the engine would fail on the dataset in mid-run.

    `whole`: the dataset must have at least the samples that LoadGen loads at a time, as a
    performance run's; an accuracy run's, or a test's that may repeat samples, may be smaller.

    AMD's configurations let vLLM cut answers at max_model_len: those are kept, and it is said.
    """
    evaluation = prompts.evaluation
    wanted = config.loadgen.sample_count(config.rules)
    if whole and len(evaluation) < wanted:
        raise UserError(
            f"the dataset has {len(evaluation)} samples, LoadGen loads {wanted}; raise "
            "length.evaluation_count or lower length.performance_sample_count_override"
        )
    if isinstance(config.generation, ImageGeneration) or isinstance(config.engine, DiffusersEngine):
        return  # the engine knows how many ids its encoders take
    room = config.engine.arguments.max_model_len - config.generation.max_tokens
    least = config.engine.arguments.max_model_len - config.generation.min_tokens
    for name, tokens in (("evaluation", evaluation), ("calibration", prompts.calibration)):
        longest = max(range(len(tokens)), key=lambda index: len(tokens[index]))
        length = len(tokens[longest])
        if config.engine.kind == "vllm-rocm" and room < length <= least:
            cut = sum(len(prompt) > room for prompt in tokens)
            say(
                f"warning: answers to {cut} {name} samples are cut at max_model_len "
                f"{config.engine.arguments.max_model_len} as AMD's were: it leaves them fewer than "
                f"max_tokens {config.generation.max_tokens}"
            )
        elif length > room:
            raise UserError(
                f"{name} sample {longest} has {length} tokens, but max_model_len "
                f"leaves room for {room}; raise hardware.engine.arguments.max_model_len"
            )


def _expected(mode: Mode, config: RunConfig, dataset: int, audit: Mapping[str, int] | None) -> int:
    """Samples of the whole run, for the progress bar: whole copies of LoadGen's sample set."""
    if audit is not None and "min_query_count" in audit:
        return audit["min_query_count"]
    if mode == "AccuracyOnly":
        return dataset
    loadgen = config.loadgen
    copy = loadgen.sample_count(config.rules)
    duration_s = loadgen.least_ms(config.rules) / 1000
    queries = max(int(duration_s * loadgen.target_qps), loadgen.min_query_count or 1)
    return copy * -(-queries // copy)


def _test(
    mode: Mode,
    config: RunConfig,
    loop: EngineLoop,
    folder: Path,
    audit_file: Path,
    trial: Trial | None,
    journal: client.Keeper,
) -> tuple[float, float]:
    """Run LoadGen's test; returns its seconds and the processor seconds of all threads during it.

    FromConfig is called once: a second call voids the run.
    """
    import mlperf_loadgen as lg

    settings = lg.TestSettings()
    scenario = loadgen_scenario(config.scenario)
    model = config.loadgen.model
    if settings.FromConfig(str(folder / USER_CONF), model, scenario) != 0:
        raise UserError(f"LoadGen can't read {folder / USER_CONF}")
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = getattr(lg.TestMode, mode)
    if trial is not None and trial.seed is not None:
        for name in ("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed"):
            setattr(settings, name, trial.seed)
    if mode == "AccuracyOnly" and getattr(settings, ACCURACY_COUNT, False):
        setattr(settings, ACCURACY_COUNT, len(loop.prompts))
    log_settings = lg.LogSettings()
    log_settings.log_output.outdir = str(folder)
    log_settings.enable_trace = False
    sut = lg.ConstructFastSUT(loop.issue, lambda: None)
    qsl = lg.ConstructQSL(
        len(loop.prompts),
        min(len(loop.prompts), config.loadgen.sample_count(config.rules)),
        lambda indices: None,
        lambda indices: None,
    )

    def conduct() -> None:
        try:
            lg.StartTestWithLogSettings(sut, qsl, settings, log_settings, str(audit_file))
        except BaseException as error:
            loop.fail(UserError(f"LoadGen ended with {type(error).__name__}: {error}"))

    test = threading.Thread(target=conduct, name="loadgen", daemon=True)
    journal.begin(loop.begin_test())
    begun, spent_s = time.monotonic(), time.process_time()
    test.start()
    watch(loop, test, None if trial is None else lambda: trial.look(rows(loop)))
    duration_s, cpu_s = time.monotonic() - begun, time.process_time() - spent_s
    lg.DestroyQSL(qsl)
    lg.DestroyFastSUT(sut)
    # Empty, since tracing is off; no part of a result.
    (folder / TRACE).unlink(missing_ok=True)
    return duration_s, cpu_s


def _check_log(path: Path, *, audited: bool) -> None:
    """Raises UserError if LoadGen reports errors or applied another audit.config than ours."""
    detail = read_detail(path)
    if detail.errors:
        first = detail.errors[0]
        raise UserError(
            f"LoadGen reported {len(detail.errors)} errors, first: {first.key}: {first.value}"
        )
    found = any(AUDIT_WARNING in str(warning.value) for warning in detail.warnings)
    if found != audited:
        raise UserError(
            "LoadGen read an audit.config that is not this run's"
            if found
            else "LoadGen did not read this run's audit.config"
        )


def _check_samples(mode: Mode, loop: EngineLoop) -> None:
    """Raises UserError unless every issued sample is answered, in accuracy mode every one once."""
    unanswered = loop.book.unanswered()
    if unanswered:
        raise UserError(
            f"LoadGen ended the test with {len(unanswered)} of {len(loop.book)} samples "
            f"unanswered, the first is sample {unanswered[0].sample_index}; re-run"
        )
    issued = sorted(loop.book.indices)
    if mode == "AccuracyOnly" and issued != list(range(len(loop.prompts))):
        raise UserError(
            f"LoadGen asked for {len(set(issued))} of {len(loop.prompts)} samples, {len(issued)} "
            "times in all: an accuracy run needs each once; re-run"
        )


def _write_samples(path: Path, loop: EngineLoop) -> None:
    """One row per sample, in the order in which LoadGen issued them."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(SAMPLE_COLUMNS)
        writer.writerows(rows(loop))


def rows(loop: EngineLoop) -> Iterator[Row]:
    """Rows of samples.csv, as far as the run has come."""
    for sample in loop.book.samples():
        yield (
            sample.sample_index,
            len(loop.prompts[sample.sample_index]),
            sample.output_tokens,
            _rounded(sample.issued_s),
            _rounded(sample.first_token_s),
            _rounded(sample.completed_s),
        )


def _rounded(seconds: float | None) -> float | str:
    return "" if seconds is None else round(seconds, 6)
