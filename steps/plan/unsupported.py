"""What Reprise can plan but not execute, and what this machine lacks: said before anything runs.

Reads a frozen plan as plain JSON: a repeated run pays for this check, so it imports no schema.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steps.config.groups import Requirement
    from steps.plan.plan import Job

ENGINES = ("vllm", "null")
"""Kinds of engines that steps/run/sut can start."""

SIMULATED = ("fp8", "int2")
"""Formats of steps/prepare/rehearsal/compress.py."""

QUARK = "0.13"
"""The AMD Quark of envs/compress.lock; AMD's own recipes were written for 0.9, in containers."""

SCORERS = (
    *("rehearsal", "llama2-70b", "llama3.1-405b", "llama3.1-8b", "mixtral-8x7b"),
    "stable-diffusion-xl",
)
"""Benchmarks whose answers steps/judge/accuracy_check scores."""

SANDBOXED = ("mixtral-8x7b",)
"""Of these it runs generated code."""

BY_SENTENCES = ("llama3.1-8b",)
"""Of these it counts ROUGE-Lsum, which the round bounds."""

OLDEST_PYTHON = 10
"""Minor version of Python 3 that steps are written for: that of AMD's images on ROCm 7.0."""

DEVICES: Mapping[str, tuple[str, str]] = {
    "gfx": ("/dev/kfd", "AMD's driver (amdgpu)"),
    "sm_": ("/dev/nvidiactl", "NVIDIA's driver"),
}
"""By the start of an architecture: the device that its driver makes, and the driver's name."""


def refusal(plan: Path, root: Path) -> str | None:
    """One sentence that says why a plan can't be run here; None if it can.

    Jobs whose results are there need nothing: an experiment that was run elsewhere can be packaged
    here.
    """
    frozen = json.loads(plan.read_text(encoding="utf-8"))
    due = [job for job in frozen["jobs"] if not (root / job["output"]).exists()]
    running = {job["key"].split("/")[0] for job in due if job["step"].endswith("_run")}
    here = frozen["scheduler"]["name"] == "local"
    machines = [
        reason
        for needed in frozen["requirements"]
        if needed["system"] in running and (reason := missing(needed, here=here))
    ]
    steps = [f"step {step}: {reason}" for step, reason in limitations(due)]
    if not machines and not steps:
        return None
    reasons = [*_first(machines, 1, "systems"), *_first(steps, 3, "steps")]
    return (
        f"{frozen['experiment']} can't be run here, and nothing was started: {'; '.join(reasons)}; "
        "./reproduce plan shows what it consists of"
    )


def asked(
    requirements: "Iterable[Requirement]", due: "Iterable[Job]", busy: Callable[[], float]
) -> str | None:
    """One sentence for whoever starts runs that hold on an idle machine only; None if none do.

    `busy`: the share of this machine's processors that somebody has now.
    """
    idle = {needed.system for needed in requirements if needed.idle}
    running = {job.key.split("/")[0] for job in due if job.step == "performance_run"}
    if not idle & running:
        return None
    return (
        f"{', '.join(sorted(idle & running))} asks for an idle machine at this length: its rates "
        "leave other work no room, and a run beside it may miss its limits; other programs have "
        f"{busy():.0%} of the processors now"
    )


def limitations(jobs: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The steps of these jobs that can't be executed, each with its first reason."""
    seen = set()
    for job in jobs:
        contained = bool(job.get("container"))
        reason = limitation(job["step"], json.loads(job["config"]), contained=contained)
        if reason and job["step"] not in seen:
            seen.add(job["step"])
            yield job["step"], reason


def _first(reasons: list[str], shown: int, what: str) -> list[str]:
    more = len(reasons) - shown
    return [*reasons[:shown], *([f"and {more} more {what}"] if more > 0 else [])]


def missing(
    needed: Mapping[str, Any], devices: Path = Path("/"), *, here: bool = True
) -> str | None:
    """What this machine lacks for a steps.config.groups.Requirement; None if nothing.

    `here`: the system is this machine, and not nodes that a scheduler has. What several nodes have
    is looked at on each of them, before LoadGen starts (steps/run/placing/nodes.py).
    """
    if needed["model"] is None:
        return None
    wanted = f"{needed['count_per_node']} × {needed['model']}"
    if not here or needed["nodes"] > 1:
        return None
    device, driver = DEVICES[needed["architecture"][:3]]
    if not (devices / device.lstrip("/")).exists():
        return (
            f"system {needed['system']} needs {wanted}, but this machine has no {device} (the "
            f"accelerators or {driver} are missing)"
        )
    return None


def limitation(step: str, config: Mapping[str, Any], *, contained: bool = False) -> str | None:
    """Why Reprise can't execute this step with this configuration; None if it can.

    `contained`: it runs in a container, which brings the tools that it needs.
    """
    if step == "accuracy_check" and not contained and (reason := _sandbox(config)):
        return reason
    return _LIMITATIONS.get(step, _none)(config)


def _none(config: Mapping[str, Any]) -> str | None:
    return None


def _container(config: Mapping[str, Any]) -> str | None:
    if "stack" not in config:
        return f"this version has no recipe of image {config['name']} on {config['base']}"
    version = config["python"]
    if int(version.removesuffix("t").split(".")[1]) < OLDEST_PYTHON:
        return (
            f"image {config['name']} brings Python {version}, and steps run in 3.{OLDEST_PYTHON} "
            "or later"
        )
    return None


def _model(config: Mapping[str, Any]) -> str | None:
    source, repository = config.get("source"), config.get("repository")
    if "embedded" in config or source == "local":
        return None
    if config["fetch"]["offline"]:
        return f"fetch.offline is set, and {repository} comes from a network"
    if source == "huggingface" and config["revision"] is None:
        return f"no revision of {repository} is pinned; set benchmark.model.revision to a commit"
    if source == "mlcommons" and config["uri"] is None:
        return f"the .uri of {repository} isn't known; set benchmark.model.uri"
    return None


def _dataset(config: Mapping[str, Any]) -> str | None:
    recipe = config.get("recipe")
    return None if recipe == "rehearsal" else f"this version has no recipe for {recipe}"


def _quantize(config: Mapping[str, Any]) -> str | None:
    tool, wanted, options = config.get("tool"), config.get("format"), config["options"]
    if tool == "simulated":
        return None if wanted in SIMULATED else f"{wanted} can't be simulated"
    if tool == "quark":
        return _quark(options)
    return None if tool == "streaming" else f"this version can't run {tool}"


def _quark(options: Mapping[str, Any]) -> str | None:
    if options.get("version") != QUARK:
        return f"this version runs AMD Quark {QUARK}, not {options.get('version')}"
    return None


def _finetune(config: Mapping[str, Any]) -> str | None:
    if config["data"].get("files") == []:
        return (
            "the sets to train on are generated by RULER (github.com/NVIDIA/RULER); list their "
            "files in compression.finetune.data.files"
        )
    return None


def _run(config: Mapping[str, Any]) -> str | None:
    engine = config["engine"]
    kind, placement = engine.get("kind", ENGINES[0]), engine.get("placement", {})
    if kind not in ENGINES:
        return f"this version can't start engine {kind}"
    if placement.get("kinds") and placement["cluster"] in ("local", "slurm"):
        return (
            f"placement.cluster={placement['cluster']} starts engines on several nodes only where "
            "they need no accelerators; name the nodes in cluster.hosts, or a cluster of Ray as "
            "auto or HOST:PORT"
        )
    return None


def _sandbox(config: Mapping[str, Any]) -> str | None:
    scorer = config["scorer"]
    if scorer in SANDBOXED and shutil.which("bwrap") is None:
        return (
            f"{scorer} is scored by running generated code, which needs bubblewrap "
            "(apt-get install bubblewrap)"
        )
    return None


def _accuracy(config: Mapping[str, Any]) -> str | None:
    scorer = config["scorer"]
    if scorer in BY_SENTENCES and config["nltk_data"] is None:
        return (
            f"{scorer} is scored by sentences, which NLTK's tokenizers/punkt_tab finds: set "
            "benchmark.nltk_data to the directory that holds it"
        )
    for name, weights in (config["weights"] or {}).items():
        if weights["path"] is None:
            return (
                f"{scorer} is scored with {name}, whose weights have to be on this machine: set "
                f"benchmark.scorer_weights.{name}.path"
            )
    return None if scorer in SCORERS else f"this version can't score {scorer}"


_LIMITATIONS = {
    "container": _container,
    "model": _model,
    "dataset": _dataset,
    "quantize": _quantize,
    "finetune": _finetune,
    "performance_run": _run,
    "accuracy_run": _run,
    "compliance_run": _run,
    "accuracy_check": _accuracy,
}
