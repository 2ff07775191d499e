"""From composed cells to a plan: every job's configuration is checked, its inputs are named."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from steps.base.confidential.tokens import refuse_configured
from steps.base.errors import UserError, explain
from steps.base.locks import LOADGEN, LOADGEN_PACKAGE, packages
from steps.base.record import canonical_json
from steps.config import groups, options
from steps.config.axes import AXES
from steps.config.checks import PerformanceCheckConfig
from steps.config.engine import RocmVllmEngine, VllmEngine
from steps.config.groups import Requirement
from steps.config.runtime import Runtime
from steps.config.scale import DRESS, Scale, scale_of
from steps.config.scheduler import Scheduler
from steps.config.submission import Cell
from steps.mlperf import rounds
from steps.plan import capacity
from steps.plan.cell import Steps, typed
from steps.plan.departures import departures
from steps.plan.plan import Job, Plan, environment_directory
from steps.plan.registry import (
    AFTER_PERFORMANCE,
    COMPARED,
    FOLDER,
    LOG,
    PER_CELL,
    SCORED_ALIKE,
    SCORING,
    STEPS,
)
from steps.plan.spec import StepSpec

PURPOSE = {"accuracy_run": "accuracy", "accuracy_check": "accuracy"}
"""Steps for which a benchmark may have prompts of their own; those of a test are named by it."""

MIRRORED = ("huggingface", "mlcommons")
"""Sources of weights that a mirror on this machine can stand in for."""

OF_REHEARSALS = {"replaced", "expected_s"}
"""Keys of a cell that only a dress rehearsal has."""

OPTIONAL = ("mirror",)
"""What only some cells make."""

TENSOR_PARALLEL = "tensor_parallel_size"
"""vLLM's name for the accelerators of one engine; other engines take one."""

Config = TypeVar("Config", bound=BaseModel)


@dataclass
class Scope:
    """What is being planned: a cell, or the whole experiment.

    `made`: its jobs, by what needs them. `containers`: settings of the containers that its steps
    may run in, by their environment, as JSON. `subtrees`: configuration of the steps as it was
    composed, `read`: typed.
    """

    where: str
    subtrees: Mapping[str, Any]
    read: Steps
    point: Mapping[str, str] = field(default_factory=dict)
    containers: Mapping[str, str] = field(default_factory=dict)
    made: dict[str, Job] = field(default_factory=dict)

    def at(self, *axes: str) -> "Scope":
        """The same where only these axes are known: what is made there, other cells share."""
        return replace(self, point={axis: self.point[axis] for axis in axes})


class Planner:
    """Turns composed cells into jobs; a job that several cells share appears once."""

    def __init__(
        self, root: Path, experiment: str, expected: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """`expected`: machine-seconds of the runs of cells on what they are rehearsed for."""
        self._root = root
        self._expected = expected
        self._experiment = experiment
        self._jobs: dict[tuple[str, str], Job] = {}
        self._requirements: dict[str, Requirement] = {}
        self._schedulers: list[Scheduler] = []
        self._sudo = False
        self._directories: dict[str, str] = {}
        self._packages: dict[str, Mapping[str, str]] = {}
        self._capacity = capacity.load(root / "conf/capacity.yaml")

    def plan(self, cells: Iterable[Mapping[str, Any]], overrides: list[str]) -> Plan:
        described = [self._cell(composed) for composed in cells]
        self._whole(described, overrides)
        return Plan(
            experiment=self._experiment,
            jobs=tuple(self._jobs.values()),
            requirements=tuple(self._requirements.values()),
            scheduler=self._schedulers[0],
            sudo=self._sudo,
        )

    # ---- one cell --------------------------------------------------------------------------

    def _cell(self, composed: Mapping[str, Any]) -> Cell:
        point = {axis: str(composed[axis]["name"]) for axis in AXES}
        where = " ".join(f"{axis}={value}" for axis, value in point.items())
        refuse_configured(composed, where)
        read = typed(composed, where)
        needed = groups.check(composed, self._root / "conf")
        self._requirements[needed.system] = needed
        self._sudo = groups.site(composed).sudo
        self._schedule(read.scheduler, where)
        scale = scale_of(composed)
        subtrees: dict[str, Any] = _marked(composed["steps"], scale)
        runtime = read.effective.runtime
        containers = {
            kind: canonical_json(given.model_dump(mode="json"))
            for kind, given in {
                "engine": runtime.container(needed.nodes),
                "prepare": runtime.container(1),
                "scoring": runtime.judging(),
            }.items()
        }
        cell = Scope(where, subtrees, read.steps, point, containers)
        self._environments(cell, composed, runtime)
        if mirror := subtrees["mirror"]:
            cell.made["mirror"] = self._add_step(cell, "mirror", mirror)
        self._source(cell)
        if files := subtrees["dataset_files"]:
            cell.made["dataset_files"] = self._add_step(cell, "dataset_files", files)
        cell.made["dataset"] = self._add_step(cell, "dataset", subtrees["dataset"])
        for purpose, own in (subtrees["other_datasets"] or {}).items():
            made = self._add_step(cell, "dataset", own, f"/{purpose}")
            cell.made[f"dataset/{purpose}"] = made
        self._weights(cell)
        for step, spec in STEPS.items():
            if spec.every_cell:
                cell.made[step] = self._add_step(cell, step, subtrees[step])
        self._compliance(cell)
        if not scale.rehearsed:
            self._require_fit(composed, read.steps, where)
        departures = self._departures(subtrees, scale)
        replaced = [one.model_dump(mode="json") for one in scale.replaced.values()]
        described = {**subtrees["cell"], "departures": departures, "replaced": replaced}
        described["expected_s"] = self._expected.get("/".join(point.values()))
        return _validated(Cell, described, f"{where}: steps.cell")

    def _schedule(self, chosen: Scheduler, where: str) -> None:
        self._schedulers.append(chosen)
        if chosen != self._schedulers[0]:
            raise UserError(
                f"{where}: its system chooses another scheduler than the cells before it; choose "
                "one for all, in conf/site/local.yaml or as scheduler=NAME"
            )

    def _require_fit(self, composed: Mapping[str, Any], read: Steps, where: str) -> None:
        """Each kind of node holds a copy of the weights per engine, as far as sizes are known.

        An engine without arguments is one whose settings nobody published.
        """
        subtrees, known = composed["steps"], self._capacity
        model, weights = str(subtrees["model"]["name"]), str(composed["precision"]["name"])
        arguments = subtrees["performance_run"]["engine"].get("arguments")
        if model not in known.models or weights not in known.formats or arguments is None:
            return
        kept = 1.0 if read.prune is None else 1 - read.prune.dropped
        per_engine = int(arguments.get(TENSOR_PARALLEL, 1))
        for memory_gb in self._memories(composed):
            try:
                known.require(model, weights, memory_gb, per_engine, kept)
            except UserError as error:
                raise UserError(f"{where}: {error}") from error

    def _memories(self, composed: Mapping[str, Any]) -> set[float]:
        """Memory of the accelerators that a cell runs on, in GB; of a CPU none."""
        own, machines = composed["hardware"], self._capacity.hardware
        others = {group["hardware"] for group in composed["cluster"]["groups"]} - {own["name"]}
        memories = {machines[name].accelerator.memory_gb for name in others & machines.keys()}
        return memories | (
            {float(own["accelerator"]["memory_gb"])} if own["accelerator"] else set()
        )

    def _environments(self, cell: Scope, composed: Mapping[str, Any], runtime: Runtime) -> None:
        """Native environments, or containers: as the runtime wants it, and as the hardware can."""
        for role, subtree in cell.subtrees["environment"].items():
            if role == "prepare" and not cell.read.changes:
                continue
            if role == "generator" and cell.subtrees["training_sets"] is None:
                continue
            image = cell.subtrees["container"].get(role)
            # What judges runs needs no accelerator, and so no container, but perhaps other tools.
            judges = role in ("analysis", "generator") or (role == "scoring" and image is None)
            native = runtime.native or judges
            if subtree["name"] is not None and native:
                lock = {"lock": f"envs/{subtree['name']}.lock"}
                lock |= self._loadgen(cell, role, lock)
                key = "-".join(Path(path).stem for path in lock.values())
                made = self._add(cell, "environment", key, {**subtree, "name": key}, lock)
                cell.made[f"environment/{role}"] = made
                continue
            if image is None:
                raise UserError(
                    f"{cell.where}: runtime {runtime.name} needs a container for {role}, and "
                    f"neither hardware {composed['hardware']['name']} nor engine "
                    f"{composed['engine']['name']} names one; add it to conf/hardware/ or "
                    "conf/engine/, or choose runtime=native if the hardware has an environment"
                )
            key = str(image["name"])
            if "stack" in image:
                image = {**image, "host": runtime.address()}
            made_of = self._made_of(image)
            made_of |= self._loadgen(cell, role, made_of)
            made = self._add(cell, "container", key, image, made_of)
            cell.made[f"environment/{role}"] = made

    def _loadgen(self, cell: Scope, role: str, made_of: Mapping[str, str]) -> dict[str, str]:
        """The lock with the round's LoadGen, where what runs are made in has another one."""
        wanted = _loadgen_of(cell)
        path = f"envs/{LOADGEN}-{wanted}.lock"
        if role != "engine" or self._pinned(made_of, LOADGEN_PACKAGE) in (None, wanted):
            return {}
        return {LOADGEN: path} if (self._root / path).is_file() else {}

    def _pinned(self, made_of: Mapping[str, str], package: str) -> str | None:
        """A package's version in the locks of an environment or image; None without one."""
        path = made_of.get(LOADGEN) or made_of.get("lock")
        if path is None:
            return None
        if path not in self._packages:
            lock = self._root / path
            self._packages[path] = packages(lock) if lock.is_file() else {}
        return self._packages[path].get(package)

    def _other_loadgen(self, cell: Scope, step: str) -> str | None:
        """LoadGen's seeds and limits are compiled in: each round has its own version."""
        made = cell.made.get("environment/engine")
        if STEPS[step].stage != "runs" or made is None:
            return None
        wanted, pinned = _loadgen_of(cell), self._pinned(made.inputs, LOADGEN_PACKAGE)
        if pinned in (None, wanted):
            return None
        return (
            f"{made.inputs['lock']} has LoadGen {pinned}, and the round needs {wanted}: add "
            f"envs/{LOADGEN}-{wanted}.lock (docs/how-to/add-a-round.md)"
        )

    def _made_of(self, image: Mapping[str, Any]) -> dict[str, str]:
        """Nothing, for an image that is only planned."""
        if "stack" not in image:
            return {}
        recipe = f"containers/{image['stack']}/Dockerfile"
        if not (self._root / recipe).is_file():
            known = self._root.glob("containers/*/Dockerfile")
            raise UserError(
                f"image {image['name']} has no {recipe}; there are "
                f"{', '.join(sorted(path.parent.name for path in known))}"
            )
        return {"lock": f"envs/{image['lock']}.lock", "recipe": recipe}

    def _source(self, cell: Scope) -> None:
        model = cell.subtrees["model"]
        source = {"source": f"{model['embedded']}/manifest.json"} if "embedded" in model else {}
        if "mirror" in cell.made and model.get("source") in MIRRORED:
            source["mirror"] = cell.made["mirror"].output
        # Weights that are fetched quantized are of one precision, source weights of all.
        axes = ("benchmark", "precision") if cell.read.prequantized else ("benchmark",)
        key = "/".join(cell.point[axis] for axis in axes)
        cell.made["model"] = self._add(cell, "model", key, model, source)

    def _weights(self, cell: Scope) -> None:
        """From the source to what the runs load; `made["weights"]` is the last job so far.

        What comes before quantizing is the same for every precision, and so is done once.
        """
        subtrees, made = cell.subtrees, cell.made
        made["weights"] = made["model"]
        check = _quick_run(subtrees, "source_engine")
        if check and cell.read.changes:
            source = cell.at("system", "benchmark")
            made["reference"] = self._add_step(source, "quick_run", check)
        if subtrees["training_sets"] is not None:
            known = cell.at("benchmark", "compression")
            made["training_sets"] = self._add_step(
                known, "training_sets", subtrees["training_sets"]
            )
        quantized = False
        for step in cell.read.changes:
            quantized = quantized or step == "quantize"
            known = _known(cell, step, quantized)
            made["weights"] = self._add_step(known, step, subtrees[step])
            check = _quick_run(subtrees, "engine" if quantized else "source_engine")
            if check:
                self._quick(known, step, check)

    def _quick(self, cell: Scope, after: str, run: Mapping[str, Any]) -> None:
        """A look at what a step made, and its verdict, which the runs of this cell wait for."""
        ran = self._add_step(cell, "quick_run", run, f"/{after}")
        spec = STEPS["quick_check"]
        inputs = {role: cell.made[needed].output for role, needed in spec.needs.items()}
        inputs |= {"run": ran.output, "reference": cell.made["reference"].output}
        subtree = {"after": after, "minimum": cell.subtrees["quick_check"][after]}
        cell.made[f"gate/{after}"] = self._add(cell, "quick_check", ran.key, subtree, inputs)

    def _compliance(self, cell: Scope) -> None:
        """A run and its verdict per test. One alone is named by its cell, several by their test."""
        run = dict(cell.subtrees["compliance_run"])
        tests, audits, timed = (run.pop(key) for key in ("tests", "audits", "timed_loadgen"))
        check = dict(cell.subtrees["compliance_check"])
        scores = check.pop("scores")
        for test in tests:
            if test not in audits:
                raise UserError(
                    f"{cell.where}: round {run['rules']['round']} demands {test}, but its file has "
                    f"no compliance.{test}; add the settings of its audit.config"
                )
            below = f"/{test}" if len(tests) > 1 else ""
            rule = audits[test]
            audited = {**run, "test": test, "audit": rule["audit"]}
            if rule["speed"]:
                audited["loadgen"] = timed
            if own := (cell.subtrees["other_datasets"] or {}).get(test):
                audited["loadgen"] = _whole(audited["loadgen"], own["evaluation_count"])
            judged = {**check, "test": test, "rule": rule}
            if rule["bounds"]:
                judged["official"] = cell.subtrees["cell"]["packages"][-1]["official"]
                judged["scorer"] = cell.subtrees["accuracy_check"]["scorer"]
            scored = test == SCORED_ALIKE and scores is not None
            if scored:
                judged["scores"] = scores
            for step, subtree in (("compliance_run", audited), ("compliance_check", judged)):
                compared = COMPARED.get(test, {}) if step == "compliance_check" else {}
                if step == "compliance_check" and scored:
                    compared = {**compared, **SCORING}
                waits = test in AFTER_PERFORMANCE and step == "compliance_run"
                gates = (cell.made["performance_check"].output,) if waits else ()
                cell.made[step] = self._add_step(cell, step, subtree, below, compared, gates)

    def _departures(self, subtrees: Mapping[str, Any], scale: Scale) -> tuple[str, ...]:
        check = _validated(PerformanceCheckConfig, subtrees["performance_check"], "")
        emulated = bool(subtrees["cell"]["emulated"])
        count = subtrees["dataset"]["evaluation_count"]
        return departures(check, count, emulated=emulated, rehearsed=scale.rehearsed)

    def _add_step(
        self,
        cell: Scope,
        step: str,
        subtree: Any,
        below: str = "",
        compared: Mapping[str, str] = MappingProxyType({}),
        gates: tuple[str, ...] = (),
    ) -> Job:
        spec = STEPS[step]
        key = "/".join(cell.point[axis] for axis in spec.axes if axis in cell.point) + below
        made = _for_purpose(cell.made, subtree.get("test") or PURPOSE.get(step, ""))
        inputs = {
            role: made[needed].output
            for role, needed in {**spec.needs, **compared}.items()
            if _reads(step, role, subtree) and (needed in made or needed not in OPTIONAL)
        }
        return self._add(cell, step, key, subtree, inputs, gates)

    def _add(
        self,
        cell: Scope,
        step: str,
        key: str,
        subtree: Any,
        inputs: dict[str, str],
        gates: tuple[str, ...] = (),
    ) -> Job:
        spec = STEPS[step]
        self._require_taken(cell, _valid(spec, subtree, f"{cell.where}: steps.{step}"))
        limitation = (
            spec.limitation(subtree)
            or self._other_quark(cell, step, subtree)
            or self._other_loadgen(cell, step)
        )
        config = canonical_json(subtree)
        folder, log = self._paths(step, key, config, inputs)
        kind = _runs_in(spec, cell.made, inputs)
        contained = _contained(kind, cell.made)
        job = Job(
            step=step,
            key=key,
            config=config,
            inputs=inputs,
            environment=self._environment(kind, cell.made),
            container=cell.containers[kind] if contained else "",
            gates=(*_gates(spec, cell.made), *gates),
            output=f"{folder}/manifest.json",
            log=log,
            limitation=limitation,
            brings=spec.brings(subtree),
            programs={} if contained else dict(spec.programs(subtree)),
        )
        known = self._jobs.setdefault((step, key), job)
        if known != job:
            raise UserError(
                f"{cell.where}: steps.{step} reads an axis outside ({', '.join(spec.axes)}): two "
                f"cells give {key} different values; give it that axis in "
                f"steps/plan/specs/{step}.py"
            )
        return known

    def _other_quark(self, cell: Scope, step: str, subtree: Any) -> str | None:
        """Options are for one version of Quark; the environment that quantizes has one too."""
        made = cell.made.get("environment/prepare")
        if step != "quantize" or subtree["tool"] != "quark" or made is None:
            return None
        wanted, pinned = subtree["options"].get("version"), self._pinned(made.inputs, "amd-quark")
        if pinned in (None, wanted):
            return None
        return f"{made.inputs['lock']} has AMD Quark {pinned}, and the options are for {wanted}"

    def _require_taken(self, cell: Scope, config: BaseModel) -> None:
        """What the engine of a step is given, it has to take: by the list of the environment or
        image if that is made, else by the shipped one."""
        engine = getattr(config, "engine", None)
        if not isinstance(engine, VllmEngine | RocmVllmEngine):
            return
        made = cell.made["environment/engine"].output
        listed = (self._root / made).with_name(options.FILE)
        try:
            shipped = options.of_build(self._root / "conf", engine.build)
            options.require(options.read(listed) if listed.is_file() else shipped, engine)
        except UserError as error:
            raise UserError(f"{cell.where}: engine.{error}") from error

    def _paths(
        self, step: str, key: str, config: str, inputs: Mapping[str, str]
    ) -> tuple[str, str]:
        stage = STEPS[step].stage
        # Another minimum judges again what is there; what comes after doesn't move for it.
        decisive = "" if step == "quick_check" else _decisive(config)
        digest = hashlib.sha256(canonical_json([decisive, dict(inputs)]).encode()).hexdigest()
        names = {
            "step": step,
            "experiment": self._experiment,
            "cell": key,
            "name": f"{key}-{digest[:12]}",
        }
        return FOLDER[stage].format(**names), LOG[stage].format(**names)

    def _environment(self, kind: str, made: Mapping[str, Job]) -> str:
        """The driver starts what runs in a container; the container itself is an input."""
        needed = made.get(f"environment/{kind}")
        name = "driver" if needed is None or needed.step == "container" else needed.key
        if name not in self._directories:
            self._directories[name] = environment_directory(self._root, name)
        return self._directories[name]

    def _locks(self) -> dict[str, str]:
        """The locks of every environment and image of the plan, and of what plans and schedules."""
        each = (job.inputs for job in self._jobs.values())
        locks = {inputs[role] for inputs in each for role in ("lock", LOADGEN) if role in inputs}
        return {f"lock/{Path(path).stem}": path for path in sorted(locks | {"envs/driver.lock"})}

    # ---- the whole experiment ---------------------------------------------------------------

    def _whole(self, cells: list[Cell], overrides: list[str]) -> None:
        first = self._jobs["performance_run", cells[0].key]
        round_name = str(json.loads(first.config)["rules"]["round"])
        rounds.load(round_name)  # Hydra takes any key, and a misspelt one has no effect
        submitters = {
            str(json.loads(job.config)["fields"]["submitter"])
            for (step, _), job in self._jobs.items()
            if step == "describe"
        }
        if len(submitters) != 1:
            raise UserError(
                f"the systems name different submitters ({', '.join(sorted(submitters))}); "
                "run one experiment for each"
            )
        described_cells = [_said(cell) for cell in cells]
        analysis = self._jobs["environment", "analysis"]
        whole = Scope(
            "the experiment", {}, Steps.model_construct(), made={"environment/analysis": analysis}
        )
        inputs = {"environment": analysis.output}
        for cell in cells:
            for step, key in self._jobs:
                if step in PER_CELL and f"{key}/".startswith(f"{cell.key}/"):
                    inputs[f"{key}/{step}"] = self._jobs[step, key].output
            inputs[f"describe/{cell.system}"] = self._jobs["describe", cell.system].output
            # Where weights come from is the site's affair: the tree must not say it.
            for key in (cell.benchmark, f"{cell.benchmark}/{cell.precision}"):
                if ("model", key) in self._jobs:
                    inputs[f"model/{key}"] = self._jobs["model", key].output
        submission = {
            "experiment": self._experiment,
            "round": round_name,
            "submitter": submitters.pop(),
            "overrides": overrides,
            "cells": described_cells,
        }
        package = self._add(whole, "submission", "", submission, inputs)
        for job in tuple(self._jobs.values()):
            if STEPS[job.step].stage == "artifacts":
                inputs[f"{job.step}/{job.key}"] = job.output
        inputs = {**inputs, "package": package.output}
        statement = {key: submission[key] for key in ("experiment", "round", "submitter")}
        stated = {**_stated(inputs), **self._locks()}
        self._add(whole, "provenance", "", {**statement, "overrides": overrides}, stated)


def _said(cell: Cell) -> dict[str, Any]:
    """As it was said before there were rehearsals, if it is none."""
    return cell.model_dump(mode="json", exclude=None if cell.replaced else OF_REHEARSALS)


def _marked(subtrees: dict[str, Any], scale: Scale) -> dict[str, Any]:
    """Runs, verdicts and the description of a dress rehearsal say so themselves."""
    if not scale.rehearsed:
        return subtrees
    marked = {step: {**subtrees[step], "rehearsal": DRESS} for step in (*PER_CELL, "describe")}
    return {**subtrees, **marked}


def _decisive(config: str) -> str:
    """Without the cache that files may be taken from, which their digests make irrelevant."""
    subtree = json.loads(config)
    fetch = subtree.get("fetch") if isinstance(subtree, dict) else None
    if not isinstance(fetch, dict) or "hub_cache" not in fetch:
        return config
    kept = {key: value for key, value in fetch.items() if key != "hub_cache"}
    return canonical_json({**subtree, "fetch": kept})


def _stated(inputs: Mapping[str, str]) -> dict[str, str]:
    """What a statement is of: quick looks at weights are no part of a submission."""
    return {role: path for role, path in inputs.items() if not role.startswith("quick_")}


def _gates(spec: StepSpec, made: Mapping[str, Job]) -> tuple[str, ...]:
    """Runs wait for every quick check of their weights."""
    if spec.stage != "runs":
        return ()
    return tuple(job.output for role, job in made.items() if role.startswith("gate/"))


def _for_purpose(made: Mapping[str, Job], purpose: str) -> Mapping[str, Job]:
    """The same with the prompts that a benchmark has for accuracy, or for a compliance test."""
    own = made.get(f"dataset/{purpose}")
    return made if own is None else {**made, "dataset": own}


def _loadgen_of(cell: Scope) -> str:
    """The round's version of LoadGen."""
    return str(cell.subtrees["performance_run"]["rules"]["loadgen_version"])


def _known(cell: Scope, step: str, quantized: bool) -> Scope:
    """The axes that a change of weights depends on, and with them the look at it."""
    if step == "upcycle":
        return cell.at("system", "benchmark")
    return cell if quantized else cell.at(*(axis for axis in AXES if axis != "precision"))


def _quick_run(subtrees: Mapping[str, Any], engine: str) -> dict[str, Any] | None:
    """None: the benchmark has no quick check. Weights that aren't quantized yet have their own
    engine settings."""
    subtree = subtrees["quick_run"]
    if subtree["samples"] is None:
        return None
    return {key: subtree[key] for key in ("samples", "generation")} | {"engine": subtree[engine]}


def _reads(step: str, role: str, subtree: Any) -> bool:
    """Pruning a given block and quantizing without calibration don't depend on any prompt, and
    prompts that are published tokenized don't depend on any model."""
    if step == "dataset" and role in ("model", "files"):
        ready = "evaluation" in subtree
        return ready and subtree["path"] is None if role == "files" else not ready
    if role == "sets":
        return bool(subtree["data"]["kind"] == "ruler")
    if step == "training_sets" and role == "model":
        return subtree["directory"] is None
    if role != "dataset":
        return True
    if step == "prune":
        return bool(subtree["block"]["by"] != "layers")
    if step == "quantize":
        return subtree["tool"] not in ("simulated", "streaming")
    return True


def _runs_in(spec: StepSpec, made: Mapping[str, Job], inputs: Mapping[str, str]) -> str:
    """Where a step runs; a check that may have to score answers, where they are scored."""
    scoring = made.get("environment/scoring")
    needs_it = scoring is not None and inputs.get("environment") == scoring.output
    return "scoring" if needs_it and spec.environment == "analysis" else spec.environment


def _contained(kind: str, made: Mapping[str, Job]) -> bool:
    needed = made.get(f"environment/{kind}")
    return needed is not None and needed.step == "container"


def _valid(spec: StepSpec, subtree: Any, where: str) -> BaseModel:
    """As a job that can be executed, or as one that can only be planned.

    Of something that is neither, the complaints count that are of its kind, or the fewer.
    """
    text, found = canonical_json(subtree), []
    for kind in filter(None, (spec.config, spec.planned)):
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            found.append(error)
    nearest = min(found, key=lambda one: (_is_of_another_kind(one), one.error_count()))
    raise UserError(f"{where}: {explain(nearest)}; fix it in conf/ or the override") from nearest


def _is_of_another_kind(error: ValidationError) -> bool:
    return any(one["type"].startswith("union_tag") for one in error.errors())


def _validated(config_class: type[Config], subtree: Any, where: str) -> Config:
    try:
        return config_class.model_validate_json(canonical_json(subtree))
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}; fix it in conf/ or the override") from error


def _whole(loadgen: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """LoadGen loads a test's own dataset at once, whatever mlperf.conf says of the benchmark's.

    With performance_issue_unique its Offline query has as many samples as LoadGen believes loaded,
    and it ends in a segmentation fault if they aren't there (6.0.15, GenerateQueries).
    """
    return {**loadgen, "performance_sample_count_override": samples}
