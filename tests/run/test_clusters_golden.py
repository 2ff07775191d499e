"""Every process of every node of the published clusters, as it is started over SSH and in a job of
Slurm, against golden files.

`python -m tests.run.test_clusters_golden` writes the files again.
"""

import itertools
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from steps.config.engine import Placement
from steps.config.runs import PerformanceRunConfig
from steps.config.runtime import ContainerSettings
from steps.machine.runtime import __main__ as runtime
from steps.machine.runtime.image import Image
from steps.plan.plan import Plan
from steps.run.engines.pinning import listed, place_of
from steps.run.placing import agent, lines, outside
from steps.run.placing.launch import SLURM, engines_of
from steps.run.placing.seen import Question
from steps.schedule.launching import launcher
from steps.schedule.resources import Part, Resources
from tests.conftest import ROOT, planned
from tests.run.test_places import ALL, tree

SYSTEMS = {
    "amd-mangoboost-mi355x-8-nodes": ("amd-mangoboost-v5.1", 8),
    "mangoboost-mi300x-mi325x": ("mangoboost-v5.1", 6),
}
"""By system: its experiment, and how many nodes it has."""

IMAGE = Image(identity="sha256:0123", python="/opt/reprise/bin/python", made="made")


STARTERS = ("ssh", "slurm")
JOB = "17"


def plan_of(system: str, starter: str) -> Plan:
    experiment, nodes = SYSTEMS[system]
    hosts = ",".join(f"n{number}" for number in range(nodes))
    chosen = (f"experiment={experiment}", f"system={system}", "scenario=Offline", "engine=vllm")
    where = f"cluster.hosts=[{hosts}]" if starter == "ssh" else "scheduler=slurm"
    return planned(*chosen, where, "runtime=docker")


def agents(placement: Placement, parts: Sequence[Part]) -> dict[str, list[str]]:
    """What starts an agent on each node. Slurm gives each part of a job its nodes, and calls them
    and the parts as its tools say it."""
    if not parts:
        given = lines.commands(placement.cluster, placement.hosts, str(ROOT))
        return {name: start() for name, start in given}
    listed, number = [], 0
    for part, asked in enumerate(parts):
        end = f"+{part}" if len(parts) > 1 else ""
        listed.append(f"{JOB}{end}|n[{number}-{number + asked.nodes - 1}]")
        number += asked.nodes

    def said(*command: str) -> str:
        if command[0] == "squeue":
            return "".join(f"{line}\n" for line in listed)
        first, last = re.findall(r"\d+", command[-1])
        return "".join(f"n{number}\n" for number in range(int(first), int(last) + 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(lines.JOB, JOB)
        patch.setattr(lines, "_said", said)
        return {name: start() for name, start in lines.commands(placement.cluster, (), str(ROOT))}


def processes(plan: Plan, root: Path) -> dict[str, Any]:
    """What is started for LoadGen, on each node, and for each engine there."""
    job = next(job for job in plan.jobs if job.step == "performance_run")
    resources = Resources(plan)
    config = PerformanceRunConfig.model_validate_json(job.config).engine
    placement = config.placement
    question = Question(image=IMAGE, container=job.container)
    nodes = []
    for number, (host, agent_there) in enumerate(agents(placement, resources.parts(job)).items()):
        kind = placement.kind(number)
        assert kind is not None
        own = config.model_copy(
            update={
                "arguments": config.arguments_on.get(kind.hardware, config.arguments),
                "environment": config.environment_on.get(kind.hardware, config.environment),
            }
        )
        engines = []
        for place in range(engines_of(placement)[number]):
            taken = place_of(own, place, root, ALL)
            engines.append(
                {
                    "variables": taken.variables,
                    "cores": listed(sorted({cpu % 128 for cpu in taken.cpus})),
                    "numa_node": taken.memory,
                }
            )
        nodes.append(
            {
                "host": host,
                "hardware": kind.hardware,
                "agent": _plain(agent_there),
                "launcher": _plain(agent._launcher(question)[:3]),
                "arguments": own.arguments.model_dump(mode="json", exclude_none=True),
                "environment": own.environment,
                "engines": engines,
            }
        )
    outer = launcher(job, plan, Path("results/plans/frozen.json"))
    (bare,) = outside.without_accelerators([job.container], job.container)
    there = container(job.container)
    differing = {
        name: value
        for name, value in container(bare)["host"].items()
        if value != there["host"][name]
    }
    return {
        "asked": _untimed(resources.of(job)) if placement.cluster == SLURM else {},
        "loadgen": {"launcher": _kept(_plain(outer)), "container": differing},
        "container": there,
        "nodes": nodes,
    }


def _untimed(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Without the limit, which comes from estimates."""
    given = {**asked}
    minutes = given.pop("runtime")
    given["slurm_extra"] = given["slurm_extra"].replace(f" -t{minutes} ", " -tLIMIT ")
    return given


def _kept(words: Sequence[str]) -> list[str]:
    """Without names of results, which are digests, and without containers' settings."""
    return [
        re.sub(r"-[0-9a-f]{12}(?=/)", "-DIGEST", word) for word in words if not word.startswith("{")
    ]


def container(text: str) -> dict[str, Any]:
    """What the container engine is asked for, by the JSON of ContainerSettings."""
    client = MagicMock()
    client.api.create_host_config.side_effect = lambda **given: given
    settings = ContainerSettings.model_validate_json(text)
    runtime._create(client, IMAGE, settings, ["-m", "x"], "out")
    (image, _), given = client.api.create_container.call_args
    host = {**given["host_config"]}
    host["binds"] = sorted(f"{_plain([path])[0]}:{m['mode']}" for path, m in host["binds"].items())
    return {"image": image, "entrypoint": given["entrypoint"], "host": host}


def _plain(words: list[str]) -> list[str]:
    """Without this checkout's path and interpreter."""
    names = {str(ROOT / "results"): "CHECKOUT/results", str(ROOT): "CHECKOUT"}
    found = []
    for word in words:
        for path in (sys.executable, lines.interpreter()):
            word = word.replace(path, "PYTHON")
        for path, name in names.items():
            word = word.replace(path, name)
        found.append(word)
    return found


def golden(system: str, starter: str) -> Path:
    return ROOT / "tests/golden" / f"processes-{system}-{starter}.json"


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_process_of_every_node_is_as_it_was(
    system: str, starter: str, tmp_path: Path
) -> None:
    found = processes(plan_of(system, starter), tree(tmp_path, [0] * 4 + [1] * 4))
    text = golden(system, starter).read_text(encoding="utf-8")
    assert json.loads(json.dumps(found)) == json.loads(text)
    assert len(found["nodes"]) == SYSTEMS[system][1]
    assert {len(node["engines"]) for node in found["nodes"]} == {8}
    for node in found["nodes"]:
        devices = [one["variables"]["HIP_VISIBLE_DEVICES"] for one in node["engines"]]
        assert devices == [str(number) for number in range(8)]
        assert node["agent"][0] == ("ssh" if starter == "ssh" else "srun")
    assert found["container"]["host"]["devices"] == ["/dev/kfd:/dev/kfd", "/dev/dri:/dev/dri"]
    assert found["loadgen"]["container"]["devices"] == [], "it computes nothing"


def test_a_job_of_two_kinds_has_each_kind_in_its_own_part(tmp_path: Path) -> None:
    found = processes(plan_of("mangoboost-mi300x-mi325x", "slurm"), tree(tmp_path, [0] * 8))
    groups = [
        (node["hardware"], [word for word in node["agent"] if word.startswith("--het-group")])
        for node in found["nodes"]
    ]
    assert groups == [
        *[("mi300x", ["--het-group=0"])] * 4,
        *[("mi325x", ["--het-group=1"])] * 2,
    ]


def main() -> None:
    for system, starter in itertools.product(SYSTEMS, STARTERS):
        with tempfile.TemporaryDirectory() as folder:
            plan = plan_of(system, starter)
            found = processes(plan, tree(Path(folder), [0] * 4 + [1] * 4))
        path = golden(system, starter)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
