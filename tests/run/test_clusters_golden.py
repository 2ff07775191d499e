"""Every process of every node of the published clusters, as it is started, against a golden file.

`python -m tests.run.test_clusters_golden` writes the files again.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from steps.config.runs import PerformanceRunConfig
from steps.config.runtime import ContainerSettings
from steps.machine.runtime import __main__ as runtime
from steps.machine.runtime.image import Image
from steps.plan.plan import Job
from steps.run.engines.pinning import listed, place_of
from steps.run.placing import agent, lines
from steps.run.placing.launch import engines_of
from steps.run.placing.seen import Question
from tests.conftest import ROOT, planned
from tests.run.test_places import ALL, tree

SYSTEMS = {
    "amd-mangoboost-mi355x-8-nodes": ("amd-mangoboost-v5.1", 8),
    "mangoboost-mi300x-mi325x": ("mangoboost-v5.1", 6),
}
"""By system: its experiment, and how many nodes it has."""

IMAGE = Image(identity="sha256:0123", python="/opt/reprise/bin/python", made="made")


def run_of(system: str) -> Job:
    experiment, nodes = SYSTEMS[system]
    hosts = ",".join(f"n{number}" for number in range(nodes))
    chosen = (f"experiment={experiment}", f"system={system}", "scenario=Offline", "engine=vllm")
    plan = planned(*chosen, f"cluster.hosts=[{hosts}]", "runtime=docker")
    return next(job for job in plan.jobs if job.step == "performance_run")


def processes(job: Job, root: Path) -> dict[str, Any]:
    """What is started on each node, and for each engine there; alike nodes and engines say so."""
    config = PerformanceRunConfig.model_validate_json(job.config).engine
    placement = config.placement
    question = Question(image=IMAGE, container=job.container)
    nodes = []
    for number, host in enumerate(placement.hosts):
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
                "agent": _plain(lines.over_ssh(host, str(ROOT))),
                "launcher": _plain(agent._launcher(question)[:3]),
                "arguments": own.arguments.model_dump(mode="json", exclude_none=True),
                "environment": own.environment,
                "engines": engines,
            }
        )
    return {"container": container(job), "nodes": nodes}


def container(job: Job) -> dict[str, Any]:
    """What the container engine is asked for, of LoadGen's container and of every node's."""
    client = MagicMock()
    client.api.create_host_config.side_effect = lambda **given: given
    settings = ContainerSettings.model_validate_json(job.container)
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


def golden(system: str) -> Path:
    return ROOT / "tests/golden" / f"processes-{system}.json"


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_process_of_every_node_is_as_it_was(system: str, tmp_path: Path) -> None:
    found = processes(run_of(system), tree(tmp_path, [0] * 4 + [1] * 4))
    assert json.loads(json.dumps(found)) == json.loads(golden(system).read_text(encoding="utf-8"))
    assert len(found["nodes"]) == SYSTEMS[system][1]
    assert {len(node["engines"]) for node in found["nodes"]} == {8}
    for node in found["nodes"]:
        devices = [one["variables"]["HIP_VISIBLE_DEVICES"] for one in node["engines"]]
        assert devices == [str(number) for number in range(8)]
    assert found["container"]["host"]["devices"] == ["/dev/kfd:/dev/kfd", "/dev/dri:/dev/dri"]


def main() -> None:
    for system in SYSTEMS:
        with tempfile.TemporaryDirectory() as folder:
            found = processes(run_of(system), tree(Path(folder), [0] * 4 + [1] * 4))
        golden(system).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
