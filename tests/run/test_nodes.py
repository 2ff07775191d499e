"""Engines on nodes that have accelerators, and on hosts started over SSH: a real Ray, a real sshd.

The accelerators are what amd-smi says, and on these nodes it says what is recorded. Their driver is
the one part that isn't there.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steps.config.layers import merged
from steps.plan.make import make
from steps.plan.plan import Job, Plan
from steps.run.placing.hosts import command
from tests.conftest import MIXED, ROOT
from tests.interpreter import interpreter
from tests.programs import logs_of
from tests.running import Running, alive, artifacts_of, below, command_of

SAMPLES = 64
PER_NODE = 2
LIMIT_S = 60
RECORDED = ROOT / "tests/recorded"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Job]:
    site = tmp_path_factory.mktemp("site") / "acme-mixed.yaml"
    site.write_text(MIXED, encoding="utf-8")
    nodes = "[{hardware: mi325x, nodes: 1}, {hardware: mi300x, nodes: 1}]"
    plan = make(ROOT, ["scenario=Offline", f"cluster.groups={nodes}"], site)
    return plan, next(job for job in plan.jobs if job.step == "performance_run")


@pytest.fixture(scope="module")
def python(made: tuple[Plan, Job], tmp_path_factory: pytest.TempPathFactory) -> str:
    return interpreter(*made, tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return artifacts_of(tmp_path_factory.mktemp("artifacts"), SAMPLES)


def config(job: Job, **placement: Any) -> dict[str, Any]:
    loadgen = {
        "performance_sample_count_override": SAMPLES,
        "min_query_count": 256,
        "min_duration_ms": 1,
    }
    changes = {"engines_per_node": PER_NODE, **placement}
    engine = {"placement": changes, "start_limit_s": LIMIT_S}
    return merged(json.loads(job.config), {"loadgen": loadgen, "engine": engine})


def tools(home: Path, model: str) -> str:
    """A PATH on which amd-smi lists eight of a model, and no other tool lists any."""
    home.mkdir()
    listed = RECORDED / f"amd-smi-static-8x{model}.json"
    for name, text in {"amd-smi": f"cat {shlex.quote(str(listed))}", "rocm-smi": "exit 1"}.items():
        (home / name).write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
        (home / name).chmod(0o755)
    return f"{home}{os.pathsep}{os.environ['PATH']}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head without accelerators, a node that shows MI300X and one that shows MI325X."""
    home, address = tmp_path_factory.mktemp("cluster"), f"127.0.0.1:{free_port()}"
    ray = [python, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    ray += ["--node-ip-address=127.0.0.1", "--object-store-memory=80000000"]
    heading = ["--head", f"--port={address.split(':')[1]}", "--include-dashboard=false"]
    started = []
    for name, options in {
        "none": [*heading, "--num-gpus=0"],
        "mi300x": [f"--address={address}", "--num-gpus=8"],
        "mi325x": [f"--address={address}", "--num-gpus=8"],
    }.items():
        path = os.environ["PATH"] if name == "none" else tools(home / name, name)
        with (home / f"{name}.log").open("w") as log:
            started.append(
                subprocess.Popen(
                    [*ray, *options],
                    env={**os.environ, "PATH": path},
                    stdout=log,
                    stderr=log,
                    cwd=ROOT,
                )
            )
        limit = time.monotonic() + LIMIT_S
        while "Ray runtime started" not in (home / f"{name}.log").read_text():
            assert started[-1].poll() is None, (home / f"{name}.log").read_text()
            assert time.monotonic() < limit
            time.sleep(0.1)
    yield address
    everything = [pid for process in started for pid in below(process.pid)]
    for process in reversed(started):
        process.terminate()
        process.wait(LIMIT_S)
    for pid in filter(alive, everything):
        os.kill(pid, signal.SIGKILL)


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


@pytest.mark.engine
def test_engines_get_their_own_accelerators_on_nodes_of_their_kind(
    made: tuple[Plan, Job], python: str, inputs: dict[str, Path], cluster: str, tmp_path: Path
) -> None:
    running = Running(
        "performance_run", config(made[1], cluster=cluster), inputs, tmp_path, 4, python
    )
    status, text = running.ended()
    assert status == 0, text
    engines = running.manifest().result["engines"]
    assert [engine["accelerators"] for engine in engines] == ["0", "1", "0", "1"]
    kinds = [engine["name"].rsplit(", ", 1)[1] for engine in engines]
    assert kinds == ["mi325x)", "mi325x)", "mi300x)", "mi300x)"]
    (sentence,) = running.manifest().result["exposed"]
    port = cluster.rpartition(":")[2]  # Ray has another address for 127.0.0.1
    assert re.match(rf"Ray's cluster at \S+:{port} asks for no token: anybody who", sentence)
    assert f"warning: {sentence}" in text


@pytest.mark.engine
@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([0, 0], ["1 of 2 nodes of the cluster have 8 × AMD Instinct MI325X", "Instinct MI300X"]),
        ([0, 1, 1], ["1 of 2 nodes of the cluster have 8 × AMD Instinct MI300X"]),
    ],
)
def test_nodes_that_lack_what_they_have_to_have_are_named(
    made: tuple[Plan, Job],
    python: str,
    inputs: dict[str, Path],
    cluster: str,
    tmp_path: Path,
    kinds: list[int],
    words: list[str],
) -> None:
    asked = config(made[1], cluster=cluster)
    asked["engine"]["start_limit_s"] = 40  # a missing node is waited for
    placement = asked["engine"]["placement"]
    known = placement["kinds"]
    placement["kinds"] = [
        {**known[kind], "nodes": kinds.count(kind)} for kind in dict.fromkeys(kinds)
    ]
    placement["nodes"] = len(kinds)
    running = Running("performance_run", asked, inputs, tmp_path, 0, python)
    status, text = running.ended()
    assert status == 1
    for word in words:
        assert word in text
    assert "Traceback" not in text
    assert not list(tmp_path.glob("**/mlperf_log_detail.txt"))


# ---- over SSH ----------------------------------------------------------------------------------


def test_nothing_that_is_named_reaches_a_shell_unquoted() -> None:
    asked = command("root@node", "/data/my; checkout", ".envs/x y/bin/python", "h:1", 0, ["AMD"])
    assert asked[asked.index("--") + 1] == "root@node"
    assert shlex.split(asked[-1]) == [
        *("cd", "/data/my; checkout", "&&", "exec", ".envs/x y/bin/python"),
        *("-m", "steps.run.placing.hosts", "h:1", "0", "AMD"),
    ]
    assert "BatchMode=yes" in asked


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment whose ssh knows node-a and node-b, and node-c, where nobody listens."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("there is no sshd (apt-get install openssh-server)")
    if os.geteuid() != 0:
        pytest.skip("only root gives each host a /tmp/ray of its own")
    Path("/run/sshd").mkdir(exist_ok=True)
    home = tmp_path_factory.mktemp("ssh")
    for key in ("host", "user"):
        making = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / key)]
        subprocess.run(making, check=True)
    shutil.copy(home / "user.pub", home / "authorized")
    lines, started = [], []
    for name in ("node-a", "node-b", "node-c"):
        port = free_port()
        lines += [f"Host {name}", f"  Port {port}"]
        if name == "node-c":
            continue
        path = tools(home / name, {"node-a": "mi325x", "node-b": "mi300x"}[name])
        options = {
            "ListenAddress": "127.0.0.1",
            "Port": port,
            "HostKey": home / "host",
            "AuthorizedKeysFile": home / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "SetEnv": f"PATH={path}",
        }
        (home / f"{name}.conf").write_text(
            "".join(f"{key} {value}\n" for key, value in options.items()), encoding="utf-8"
        )
        # Ray's nodes of one machine choose their sockets by what is there: at once, both the same.
        alone = "mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && exec"
        serve = f"{alone} {sshd} -D -e -f {shlex.quote(str(home / f'{name}.conf'))}"
        with (logs_of("sshd", home) / f"{name}.log").open("wb") as stream:
            asked = ["unshare", "--mount", "sh", "-c", serve]
            started.append(subprocess.Popen(asked, stderr=stream))
    lines += ["Host *", "  HostName 127.0.0.1", "  StrictHostKeyChecking no"]
    lines += [f"  IdentityFile {home / 'user'}", f"  UserKnownHostsFile {home / 'known'}"]
    (home / "config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (home / "bin").mkdir()
    client = home / "bin/ssh"
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home}/config "$@"\n')
    client.chmod(0o755)
    yield {"PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for process in started:
        process.terminate()
        process.wait(LIMIT_S)


def of_ray(label: str) -> list[int]:
    """Processes of Ray that a host was told to start."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [
        pid
        for pid in pids
        if "steps.run.placing.hosts" in command_of(pid) and label in command_of(pid)
    ]


@pytest.mark.engine
def test_hosts_are_started_over_ssh_and_ended(
    made: tuple[Plan, Job],
    python: str,
    inputs: dict[str, Path],
    ssh: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", ssh["PATH"])
    asked = config(made[1], cluster="ssh", hosts=["node-a", "node-b"])
    asked["loadgen"]["min_query_count"] = 100_000
    running = Running("performance_run", asked, inputs, tmp_path, 0, python)
    limit = time.monotonic() + LIMIT_S
    while not list(tmp_path.glob(".out.*/mlperf_log_detail.txt")):
        assert running.process.poll() is None, running.process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.1)
    (nodes,) = [p for p in below(running.process.pid) if "steps.run.placing.nodes" in command_of(p)]
    remote = [pid for pid in of_ray(python.removeprefix(f"{ROOT}/")) if pid not in below(nodes)]
    ours = [pid for first in remote for pid in (first, *below(first))]
    assert sum("/raylet" in command_of(pid).split()[0] for pid in ours) == 2
    assert (
        len([pid for pid in ours if "steps.run.engines.worker" in command_of(pid)]) == 2 * PER_NODE
    )
    said = (tmp_path / "log").read_text()
    assert "asks for no token" not in said
    running.process.kill()
    running.ended()
    limit = time.monotonic() + LIMIT_S
    while left := [command_of(pid) for pid in ours if alive(pid)]:
        assert time.monotonic() < limit, left
        time.sleep(0.1)


@pytest.mark.engine
def test_a_host_that_does_not_answer_is_named(
    made: tuple[Plan, Job],
    python: str,
    inputs: dict[str, Path],
    ssh: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", ssh["PATH"])
    asked = config(made[1], cluster="ssh", hosts=["node-a", "node-c"])
    running = Running("performance_run", asked, inputs, tmp_path, 0, python)
    status, text = running.ended()
    assert status == 1
    assert "host node-c can't be reached" in text
    assert "refused" in text
    assert "Traceback" not in text
