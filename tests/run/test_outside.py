"""A run in a container reaches what places its engines by a socket in the checkout's results."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from steps.base.record import publish
from steps.config.runtime import ContainerSettings
from steps.plan.plan import Job, Plan
from steps.run.placing import outside
from steps.run.placing.cluster import Outside, _outside
from steps.run.placing.launch import Order, Reply, socket_of
from steps.schedule import launching
from tests.conftest import ROOT, planned

LIMIT_S = 60
CLUSTER = ("experiment=mangoboost-v5.1", "system=mangoboost-mi300x-mi325x", "engine=vllm")
HOSTS = "cluster.hosts=[a,b,c,d,e,f]"


def run_of(plan: Plan, scenario: str = "Offline") -> Job:
    return next(
        job for job in plan.jobs if job.step == "performance_run" and job.key.endswith(scenario)
    )


def test_a_run_in_an_image_is_started_from_outside_of_it_where_it_starts_its_nodes() -> None:
    path = Path("results/plans/x.json")
    for overrides, wanted in {(HOSTS,): True, ("scheduler=slurm",): True, (): False}.items():
        plan = planned(*CLUSTER, *overrides)
        job = run_of(plan)
        words = launching.launcher(job, plan, path)
        assert ("steps.run.placing.outside" in words) == wanted
        if wanted:
            assert words[-4:] == [job.output, job.inputs["environment"], job.container, "--"]
    alone = planned("experiment=amd-v5.1", "system=amd-mi300x")
    assert not launching.outside(run_of(alone))


def test_clocks_of_one_machine_are_not_set_for_a_cluster() -> None:
    plan = planned("experiment=dell-mangoboost-v5.1", "engine=llama2-70b", "site.sudo=true")
    by_system = {job.key.split("/")[0]: job for job in plan.jobs if job.step == "performance_run"}

    def words(system: str) -> list[str]:
        return launching.launcher(by_system[system], plan, Path("results/plans/x.json"))

    assert "steps.run.clocks" in words("dell-mangoboost-mi300x")
    assert "steps.run.clocks" not in words("dell-mangoboost-mi300x-2-nodes")


def test_nodes_that_only_ray_can_be_asked_for_are_said_to_be_seen_late() -> None:
    said = {launching.seen_late(job) for job in planned(*CLUSTER).jobs} - {""}
    assert len(said) == 1
    assert "Ray cluster auto are looked at right before LoadGen starts" in said.pop()
    local = ("system=rehearsal-cpu-nodes", "scenario=Offline")
    for other in ((*CLUSTER, HOSTS), (*CLUSTER, "scheduler=slurm"), local, ("scenario=Offline",)):
        assert not any(launching.seen_late(job) for job in planned(*other).jobs)


def test_loadgens_own_container_has_no_accelerator() -> None:
    job = run_of(planned(*CLUSTER, HOSTS))
    command = ["python", "-m", "steps.machine.runtime", "manifest", job.container, "-m", "x"]
    found = outside.without_accelerators(command, job.container)
    assert found[:4] == command[:4] and found[5:] == command[5:]
    bare = ContainerSettings.model_validate_json(found[4])
    given = ContainerSettings.model_validate_json(job.container)
    assert given.devices and not bare.devices and not bare.groups
    assert bare.network == given.network == "host"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    with publish(tmp_path / "image", step="container", config={}, inputs={}, code="") as workspace:
        workspace.result = {"image": "sha256:0", "python": "/python"}
    return tmp_path / "image/manifest.json"


def started(image: Path, output: Path, log: Path) -> "tuple[subprocess.Popen[str], Path]":
    """A process around a command that waits for a line, and its socket."""
    job = run_of(planned(*CLUSTER, HOSTS))
    settings = job.container
    waiting = [sys.executable, "-c", "input()", "--config", job.config, "--log", str(log)]
    around = [sys.executable, "-m", "steps.run.placing.outside"]
    process = subprocess.Popen(
        [*around, str(output), str(image), settings, "--", *waiting],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    path = ROOT / socket_of(output.parent)
    limit = time.monotonic() + LIMIT_S
    while not path.exists():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    return process, path


def test_what_is_asked_over_the_socket_is_answered_and_ends_with_it(
    image: Path, tmp_path: Path
) -> None:
    """Here that the cluster's nodes can't be asked: this isn't a job of Slurm."""
    process, path = started(image, tmp_path / "run/manifest.json", tmp_path / "log.txt")
    client = Outside(path)
    order = Order(address="slurm", engines=(1,), key="00", limit_s=10.0)
    client.tell(order.model_dump_json())
    reply = Reply.model_validate_json(_line(client))
    assert reply.error is not None and "needs a job of Slurm" in reply.error
    client.close()
    process.communicate("\n", timeout=LIMIT_S)
    assert process.returncode == 0
    assert not path.exists()


def test_what_keeps_nodes_from_being_started_is_said_and_nobody_waits(
    image: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    process, path = started(image, tmp_path / "run/manifest.json", tmp_path / "file/log.txt")
    for _ in range(2):
        client = Outside(path)
        assert client._socket.recv(1) == b""
        client.close()
    _, said = process.communicate("\n", timeout=LIMIT_S)
    assert said.count("error: nodes can't be started: ") == 2
    assert process.returncode == 0


def test_the_log_of_nodes_keeps_no_token_and_no_host(image: Path, tmp_path: Path) -> None:
    """What engines print on the nodes, after their process has ended."""
    config = json.dumps({"engine": {"placement": {"hosts": ["canary-node17"]}}})
    log = tmp_path / "run.log"
    nodes = tmp_path / "run.nodes.log"
    nodes.write_text("canary-node17: hf_canaryCanaryCanaryCanary\n", encoding="utf-8")
    settings = run_of(planned(*CLUSTER, HOSTS)).container
    command = [sys.executable, "-c", "", "--config", config, "--log", str(log)]
    here = str(tmp_path / "run/manifest.json"), str(image), settings
    words = [sys.executable, "-m", "steps.run.placing.outside", *here, "--", *command]
    assert subprocess.run(words, cwd=ROOT, timeout=LIMIT_S).returncode == 0
    assert nodes.read_text(encoding="utf-8") == "REDACTED_HOST: REDACTED_TOKEN\n"


def test_what_places_engines_is_killed_if_it_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it doesn't while it sends weights to nodes."""
    monkeypatch.setattr(outside, "END_S", 0.2)
    sending = [sys.executable, "-c", "import time; time.sleep(600)"]
    placer = subprocess.Popen(sending, start_new_session=True)
    outside._end([placer])
    assert placer.returncode == -signal.SIGKILL


def _line(client: Outside) -> str:
    text = b""
    deadline = threading.Timer(LIMIT_S, client.close)
    deadline.start()
    while not text.endswith(b"\n"):
        part = client._socket.recv(4096)
        assert part
        text += part
    deadline.cancel()
    return json.dumps(json.loads(text))


def test_a_socket_that_a_killed_run_left_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    assert _outside(path) is None
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
        found = _outside(path)
        assert found is not None
    found._socket.close()
    assert path.exists() and _outside(path) is None


def test_a_sockets_name_is_short_wherever_the_checkout_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 120) / "run"
    assert len(str(socket_of(deep))) < 60
    monkeypatch.chdir(ROOT)
    assert socket_of(ROOT / "results/a") == socket_of(Path("results/a"))
    assert socket_of(ROOT / "results/a") != socket_of(ROOT / "results/b")
