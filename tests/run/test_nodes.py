"""Engines on nodes that have accelerators, and on hosts started over SSH: a real Ray, a real sshd.

The accelerators are what amd-smi says, and on these nodes it says what is recorded. Their driver is
the one part that isn't there.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steps.config.layers import merged
from steps.plan.make import make
from steps.plan.plan import Job, Plan
from steps.run.placing.lines import over_ssh
from tests import hosts
from tests.conftest import MIXED, ROOT
from tests.hosts import Host, free_port, tools
from tests.interpreter import interpreter
from tests.running import Running, alive, artifacts_of, below, command_of

SAMPLES = 64
PER_NODE = 2
LIMIT_S = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Job]:
    site = tmp_path_factory.mktemp("site") / "acme-mixed.yaml"
    site.write_text(MIXED, encoding="utf-8")
    nodes = "[{hardware: mi325x, nodes: 1}, {hardware: mi300x, nodes: 1}]"
    plan = make(ROOT, ["experiment=rehearsal", "scenario=Offline", f"cluster.groups={nodes}"], site)
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
        path = os.environ["PATH"] if name == "none" else tools(home / name, Host(name))
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
    asked = over_ssh("root@node", "/data/my; checkout", "--load")
    assert asked[asked.index("--") + 1] == "root@node"
    words = shlex.split(asked[-1])
    assert words[:4] == ["cd", "/data/my; checkout", "&&", "exec"]
    assert words[5:] == ["-m", "steps.run.placing.agent", "--load"]
    assert "BatchMode=yes" in asked


KNOWN = {
    "node-a": Host("mi325x"),
    "node-b": Host("mi300x"),
    "node-b.site": Host("mi300x"),
    "node-d": Host("mi300x", count=7),
    "node-e": Host("mi325x", driver="6.12.12"),
    "node-f": Host("mi325x"),
    "node-g": Host("mi300x", ahead_s=240),
    "node-h": Host("mi300x", disk_gb=2),
    "node-i": Host("mi300x"),
    "node-s": Host("mi300x", slow_s=40),
    "node-t": Host("mi300x", taken=2),
}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment whose ssh knows KNOWN, and node-c, where nobody listens."""
    if reason := hosts.unusable():
        pytest.skip(reason)
    with hosts.serving(tmp_path_factory.mktemp("ssh"), KNOWN, ["node-c"]) as environment:
        yield environment


def agents() -> list[int]:
    """What a run has started on hosts."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if "steps.run.placing.agent" in command_of(pid).split()]


def end_of(pids: list[int]) -> None:
    limit = time.monotonic() + LIMIT_S
    while left := [command_of(pid) for pid in pids if alive(pid)]:
        assert time.monotonic() < limit, left
        time.sleep(0.1)


Start = Callable[..., Running]


@pytest.fixture
def start(
    python: str,
    inputs: dict[str, Path],
    ssh: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Start:
    """Starts a run that reaches the hosts of KNOWN."""
    monkeypatch.setenv("PATH", ssh["PATH"])

    def begin(asked: dict[str, Any], home: Path = tmp_path) -> Running:
        return Running("performance_run", asked, inputs, home, 0, python)

    return begin


@pytest.mark.engine
def test_engines_on_hosts_are_started_over_ssh_and_ended(
    made: tuple[Plan, Job], start: Start
) -> None:
    asked = config(made[1], cluster="ssh", hosts=["node-a", "node-b"])
    asked["loadgen"]["min_query_count"] = 100_000
    running = start(asked)
    running.wait_until_running()
    ours = [pid for first in agents() for pid in (first, *below(first))]
    workers = [pid for pid in ours if "steps.run.engines.worker" in command_of(pid)]
    assert len(workers) == 2 * PER_NODE
    assert not list((ROOT / "results/nodes").glob("*.order")), "the key is read and gone"
    running.process.kill()
    running.ended()
    end_of(ours)


@pytest.mark.engine
def test_engines_of_hosts_have_the_accelerators_of_their_kind(
    made: tuple[Plan, Job], start: Start
) -> None:
    """Hosts in whatever order: the kinds decide who serves which."""
    asked = config(made[1], cluster="ssh", hosts=["node-b", "node-a"])
    running = start(asked)
    status, text = running.ended()
    assert status == 0, text
    engines = running.manifest().result["engines"]
    assert [engine["accelerators"] for engine in engines] == ["0", "1", "0", "1"]
    assert [engine["name"].partition("(")[2] for engine in engines] == [
        *("node-a, mi325x)", "node-a, mi325x)", "node-b, mi300x)", "node-b, mi300x)"),
    ]
    assert sum(engine["samples"] for engine in engines) == 256
    assert running.manifest().result["exposed"] == []
    nodes = running.manifest().result["accelerators"]["nodes"]
    assert [node["listed"] for node in nodes] == [
        "8 × AMD Instinct MI325X",
        "8 × AMD Instinct MI300X",
    ]
    for node in nodes:
        assert node["before"]["compute_partition"] == "SPX" and node["before"]["power_cap_w"] > 0
        assert node["after"] == node["before"]


REFUSED = {
    "nobody listens": (["node-a", "node-c"], ["host node-c can't be reached", "refused"]),
    "another kind": (
        ["node-a", "node-f"],
        ["0 of 1 nodes of the cluster have 8 × AMD Instinct MI300X", "node-f: there are 8 ×"],
    ),
    "another driver": (["node-a", "node-e"], ["node-e: driver 6.12.12 on AMD Instinct MI325X"]),
    "7 of 8": (["node-a", "node-d"], ["0 of 1 nodes", "node-d: there are 7 × AMD Instinct MI300X"]),
    "taken": (
        ["node-a", "node-t"],
        ["node-t: something else has memory of 2 of 8 accelerators in use: 0000:05:00.0 (90000"],
    ),
    "twice": (["node-b", "node-b.site"], ["node-b and node-b.site are one machine"]),
    "another clock": (["node-a", "node-g"], ["node-g: its clock is +2", " s off this machine's"]),
    "a full disk": (["node-a", "node-h"], ["node-h: 2.1 GB are free for results/, and engines"]),
}


@pytest.mark.engine
@pytest.mark.parametrize("case", REFUSED)
def test_hosts_that_keep_a_run_from_starting_are_named(
    case: str, made: tuple[Plan, Job], start: Start, tmp_path: Path
) -> None:
    """Before LoadGen starts, in one sentence, and nothing is left on any host."""
    named, wanted = REFUSED[case]
    asked = config(made[1], cluster="ssh", hosts=named)
    running = start(asked)
    status, text = running.ended()
    assert status == 1
    for words in wanted:
        assert words in text
    assert "Traceback" not in text
    assert not list(tmp_path.glob("**/mlperf_log_detail.txt"))
    end_of(agents())


@pytest.mark.engine
def test_two_runs_do_not_share_a_host(made: tuple[Plan, Job], start: Start, tmp_path: Path) -> None:
    asked = config(made[1], cluster="ssh", hosts=["node-a", "node-b"])
    asked["loadgen"]["min_query_count"] = 100_000
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first = start(asked, tmp_path / "first")
    first.wait_until_running()
    second = start(asked, tmp_path / "second")
    status, text = second.ended()
    assert status == 1
    assert "node-a: another run has it" in text and "node-b: another run has it" in text
    assert first.process.poll() is None
    first.process.kill()
    first.ended()


@pytest.mark.engine
def test_a_host_that_answers_too_slowly_is_named(made: tuple[Plan, Job], start: Start) -> None:
    asked = config(made[1], cluster="ssh", hosts=["node-a", "node-s"])
    asked["engine"]["start_limit_s"] = 30  # of which its agents may take three quarters
    running = start(asked)
    status, text = running.ended()
    assert status == 1
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert ": node-s gave no answer in time" in line and "node-a" not in line
    assert "Traceback" not in text
    end_of(agents())


# ---- nodes that aren't whole -------------------------------------------------------------------


def equal_nodes(made: Job, hosts: list[str], **placement: Any) -> dict[str, Any]:
    """Two nodes of one kind, MI300X."""
    asked = config(made, cluster="ssh", hosts=hosts, **placement)
    there = asked["engine"]["placement"]
    there["kinds"] = [{**there["kinds"][1], "nodes": len(hosts)}]
    there["nodes"] = len(hosts)
    return asked


def host_of(pid: int) -> str:
    """The name of the machine that a process sees."""
    command = ["nsenter", f"--uts=/proc/{pid}/ns/uts", "hostname"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    return done.stdout.strip()


@pytest.mark.engine
@pytest.mark.parametrize("on_failure", ["redispatch", "fail"])
def test_a_host_that_is_lost_in_mid_run_is_named(
    on_failure: str, made: tuple[Plan, Job], start: Start
) -> None:
    """Everything there ends at once, as when its power goes. Its samples go to the other host, or
    the run ends with one sentence."""
    asked = equal_nodes(made[1], ["node-b", "node-i"], on_failure=on_failure)
    asked["loadgen"]["min_query_count"] = 8192
    running = start(asked)
    running.wait_until_running()
    time.sleep(0.5)
    (agent,) = [pid for pid in agents() if host_of(pid) == "node-i"]
    for pid in (agent, *below(agent)):
        os.kill(pid, signal.SIGKILL)
    status, text = running.ended()
    assert "Traceback" not in text
    if on_failure == "fail":
        assert status == 1
        (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert "(node-i, mi300x)" in line and "the run is void" in line
    else:
        assert status == 0, text
        result = running.manifest().result
        assert len(result["failures"]) == PER_NODE
        assert all("(node-i, mi300x)" in failure for failure in result["failures"])
        assert sum(engine["samples"] for engine in result["engines"]) == 8192
    end_of(agents())


@pytest.mark.engine
def test_a_host_that_is_slower_than_its_equals_is_named_in_the_result(
    made: tuple[Plan, Job], start: Start
) -> None:
    asked = equal_nodes(made[1], ["node-b", "node-i"], degraded_below=0.8)
    asked["loadgen"]["min_query_count"] = 2048
    asked["engine"]["arguments"] |= {"speeds": [1, 1, 0.4, 0.4], "tpot_ms": 4}
    running = start(asked)
    status, text = running.ended()
    assert status == 0, text
    result = running.manifest().result
    assert len(result["degraded"]) == PER_NODE
    assert all("(node-i, mi300x)" in sentence for sentence in result["degraded"])
    samples = [engine["samples"] for engine in result["engines"]]
    assert sum(samples) == 2048 and max(samples[PER_NODE:]) < 0.6 * min(samples[:PER_NODE])
