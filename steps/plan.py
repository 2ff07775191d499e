"""The plan: every job with its configuration and inputs, validated, frozen, content-addressed.

Nothing below the plan knows Hydra or `conf/`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from steps import schema
from steps.compose import compose
from steps.departures import departures
from steps.errors import UserError, explain
from steps.record import canonical_json, sha256_file, write_atomically
from steps.registry import AXES, FOLDER, LOG, PER_CELL, STEPS

PLANS = Path("results/plans")

Config = TypeVar("Config", bound=schema.Strict)


class Job(schema.Strict):
    """One job: `output` is the manifest that stands for it, `config` its canonical JSON.

    `inputs` maps roles to paths of manifests (or files). `environment` is the directory of the
    virtual environment it runs in. `log` outlives a failed job.
    """

    step: str
    key: str
    config: str
    inputs: dict[str, str]
    environment: str
    output: str
    log: str


class Plan(schema.Strict):
    """All jobs of an experiment, in data order."""

    experiment: str
    jobs: tuple[Job, ...]


def environment_directory(root: Path, name: str) -> str:
    """Where the environment of `envs/<name>.lock` lives: named by the lock's content."""
    lock = root / "envs" / f"{name}.lock"
    if not lock.is_file():
        known = ", ".join(sorted(path.stem for path in lock.parent.glob("*.lock")))
        raise UserError(f"environment {name!r} has no envs/{name}.lock; there are {known}")
    return f".envs/{name}-{sha256_file(lock)[:12]}"


def make(root: Path, overrides: list[str]) -> Plan:
    """Compose and check every cell. Raises UserError naming the cell and the key."""
    experiment, cells = compose(root / "conf", overrides)
    return Planner(root, experiment).plan(cells, overrides)


class Planner:
    """Turns composed cells into jobs; a job that several cells share appears once."""

    def __init__(self, root: Path, experiment: str) -> None:
        self._root = root
        self._experiment = experiment
        self._jobs: dict[tuple[str, str], Job] = {}

    def plan(self, cells: Iterable[Mapping[str, Any]], overrides: list[str]) -> Plan:
        described = [self._cell(composed) for composed in cells]
        self._whole(described, overrides)
        return Plan(experiment=self._experiment, jobs=tuple(self._jobs.values()))

    # ---- one cell --------------------------------------------------------------------------

    def _cell(self, composed: Mapping[str, Any]) -> schema.Cell:
        point = {axis: str(composed[axis]["name"]) for axis in AXES}
        where = " ".join(f"{axis}={value}" for axis, value in point.items())
        subtrees: dict[str, Any] = composed["steps"]
        made: dict[str, Job] = {}
        for name, subtree in subtrees["environment"].items():
            key = str(subtree["name"])
            lock = {"lock": f"envs/{key}.lock"}
            made[f"environment/{name}"] = self._add("environment", key, subtree, lock, where, made)
        source = {"source": f"{subtrees['model']['embedded']}/manifest.json"}
        made["model"] = self._add(
            "model", point["benchmark"], subtrees["model"], source, where, made
        )
        made["weights"] = made["model"]
        if subtrees["quantize"]["format"] != "none":
            made["weights"] = self._add_step("quantize", subtrees, point, where, made)
        for step in ("dataset", "describe", *PER_CELL):
            made[step] = self._add_step(step, subtrees, point, where, made)
        cell = {**subtrees["cell"], "departures": self._departures(subtrees)}
        return _validated(schema.Cell, cell, f"{where}: steps.cell")

    def _departures(self, subtrees: Mapping[str, Any]) -> tuple[str, ...]:
        check = _validated(schema.PerformanceCheckConfig, subtrees["performance_check"], "")
        dataset = _validated(schema.DatasetConfig, subtrees["dataset"], "")
        return departures(check, dataset, emulated=bool(subtrees["cell"]["emulated"]))

    def _add_step(
        self,
        step: str,
        subtrees: Mapping[str, Any],
        point: Mapping[str, str],
        where: str,
        made: Mapping[str, Job],
    ) -> Job:
        spec = STEPS[step]
        key = "/".join(point[axis] for axis in spec.axes)
        inputs = {role: made[needed].output for role, needed in spec.needs.items()}
        return self._add(step, key, subtrees[step], inputs, where, made)

    def _add(
        self,
        step: str,
        key: str,
        subtree: Any,
        inputs: dict[str, str],
        where: str,
        made: Mapping[str, Job],
    ) -> Job:
        spec = STEPS[step]
        _validated(spec.config, subtree, f"{where}: steps.{step}")
        config = canonical_json(subtree)
        folder, log = self._paths(step, key, config, inputs)
        job = Job(
            step=step,
            key=key,
            config=config,
            inputs=inputs,
            environment=self._environment(spec.environment, made),
            output=f"{folder}/manifest.json",
            log=log,
        )
        known = self._jobs.setdefault((step, key), job)
        if known != job:
            raise UserError(
                f"{where}: steps.{step} reads an axis outside ({', '.join(spec.axes)}): two cells "
                f"give {key} different values; give the step that axis in steps/registry.py"
            )
        return known

    def _paths(
        self, step: str, key: str, config: str, inputs: Mapping[str, str]
    ) -> tuple[str, str]:
        stage = STEPS[step].stage
        digest = hashlib.sha256(canonical_json([config, dict(inputs)]).encode()).hexdigest()
        names = {
            "step": step,
            "experiment": self._experiment,
            "cell": key,
            "name": f"{key}-{digest[:12]}",
        }
        return FOLDER[stage].format(**names), LOG[stage].format(**names)

    def _environment(self, kind: str, made: Mapping[str, Job]) -> str:
        if kind == "driver":
            return environment_directory(self._root, "driver")
        return environment_directory(self._root, made[f"environment/{kind}"].key)

    # ---- the whole experiment ---------------------------------------------------------------

    def _whole(self, cells: list[schema.Cell], overrides: list[str]) -> None:
        first = self._jobs["performance_run", cells[0].key]
        rules = schema.PerformanceRunConfig.model_validate_json(first.config).rules
        fields = [job for (step, _), job in self._jobs.items() if step == "describe"]
        identities = {
            (described.fields["division"], described.fields["submitter"])
            for described in (schema.DescribeConfig.model_validate_json(j.config) for j in fields)
        }
        if len(identities) != 1:
            raise UserError(
                f"the systems name different divisions or submitters ({sorted(identities)}); "
                "run one experiment for each"
            )
        division, submitter = identities.pop()
        described_cells = [cell.model_dump(mode="json") for cell in cells]
        made = {"environment/analysis": self._jobs["environment", "analysis"]}
        inputs = {"environment": made["environment/analysis"].output}
        for cell in cells:
            for step in PER_CELL:
                inputs[f"{cell.key}/{step}"] = self._jobs[step, cell.key].output
            inputs[f"describe/{cell.system}"] = self._jobs["describe", cell.system].output
        submission = {
            "experiment": self._experiment,
            "round": rules.round,
            "division": division,
            "submitter": submitter,
            "overrides": overrides,
            "cells": described_cells,
        }
        package = self._add("submission", "", submission, inputs, "the submission", made)
        report = {
            "experiment": self._experiment,
            "round": rules.round,
            "cells": described_cells,
        }
        for job in tuple(self._jobs.values()):
            if STEPS[job.step].stage == "artifacts":
                inputs[f"{job.step}/{job.key}"] = job.output
        inputs = {**inputs, "package": package.output}
        self._add("report", "", report, inputs, "the report", made)


def _validated(config_class: type[Config], subtree: Any, where: str) -> Config:
    try:
        return config_class.model_validate_json(canonical_json(subtree))
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}; mend it in conf/ or the override") from error


def freeze(plan: Plan, root: Path) -> Path:
    """Write `results/plans/<first 12 hex digits of its sha256>.json`; same plan, same file."""
    text = canonical_json(plan.model_dump(mode="json"))
    path = root / PLANS / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    if not path.exists():
        write_atomically(path, text)
    return path


def load(path: Path) -> Plan:
    """Read a frozen plan; raises UserError if its content isn't what its name says."""
    if not path.is_file():
        raise UserError(f"there is no plan {path}; ./reproduce makes one")
    if sha256_file(path)[:12] != path.stem:
        raise UserError(f"{path} was changed after it was frozen; delete it and run ./reproduce")
    return Plan.model_validate_json(path.read_text(encoding="utf-8"))
