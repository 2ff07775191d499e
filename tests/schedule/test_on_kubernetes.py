"""`./reproduce` through a stand-in for Kubernetes, which runs what is in pods on this machine."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from steps.base.record import Manifest, publish
from steps.machine.container.carried import LABEL
from steps.machine.runtime.host import PYTHON
from steps.plan.make import make
from tests.conftest import ROOT, copy_project, reproduce
from tests.interpreter import interpreter
from tests.schedule.api import Api, kubeconfig, serving
from tests.schedule.test_kubernetes import container

LIMIT_S = 300
CANARY = "canary-token-0123456789"
RUN = "results/null-engine/runs/null-engine/rehearsal/none/bf16/Offline/performance_run"
CHOSEN = ("experiment=null-engine", "scenario=Offline")
SITE = """\
# @package _global_
defaults: [override /scheduler: kubernetes, override /runtime: docker, _self_]
scheduler: {user: {uid: 1000, gid: 1000}, kubeconfig: KUBECONFIG}
"""

pytestmark = [pytest.mark.engine, pytest.mark.long]


class Kubelet:
    """One node, n1, that has the image: its Python is another of this machine."""

    def __init__(self, api: Api, python: str) -> None:
        self.api, self._python = api, python
        self.pods: list[dict[str, Any]] = []
        self.threads: list[threading.Thread] = []
        api.placed = self._take

    def _take(self, pod: dict[str, Any]) -> None:
        self.pods.append(pod)
        thread = threading.Thread(target=self._run, args=(pod,))
        self.threads.append(thread)
        thread.start()

    def _run(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        (step,) = pod["spec"]["containers"]
        assert step["command"] == [PYTHON]
        with self.api.lock:
            self.api.bind(name, "n1")
            self.api.report(name, {"phase": "Running"})
        process = subprocess.Popen(
            [self._python, *(argument.replace("$$", "$") for argument in step["args"])],
            cwd=step["workingDir"],
            env={variable["name"]: variable["value"] for variable in step["env"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        limit = time.monotonic() + LIMIT_S
        while True:
            try:
                text, _ = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if ("pods", name) not in self.api.objects:
                    process.terminate()
                if time.monotonic() > limit:
                    process.kill()
        status = process.returncode
        with self.api.lock:
            if ("pods", name) not in self.api.objects:
                return
            self.api.logs[name] = text
            ended = {
                "terminated": {"exitCode": status, "reason": "Error" if status else "Completed"}
            }
            phase = "Failed" if status else "Succeeded"
            self.api.report(name, {"phase": phase, "containerStatuses": [container(ended)]})


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    scratch = tmp_path_factory.mktemp("made")
    natively = make(ROOT, [*CHOSEN, "runtime=native", "scheduler=local"])
    pythons = {
        job.step: interpreter(natively, job, scratch)
        for job in natively.jobs
        if job.step in ("performance_run", "performance_check")
    }
    with serving() as api:
        started = Kubelet(api, pythons["performance_run"])
        yield started
        for thread in started.threads:
            thread.join()


@pytest.fixture(scope="module")
def clone(kubelet: Kubelet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = copy_project(tmp_path_factory.mktemp("clone"))
    (home / ".envs").symlink_to(ROOT / ".envs")
    config = kubeconfig(home / "kubeconfig", kubelet.api.address)
    (home / "conf/site").mkdir(exist_ok=True)
    site = SITE.replace("KUBECONFIG", str(config))
    (home / "conf/site/local.yaml").write_text(site, encoding="utf-8")
    for job in make(home, list(CHOSEN)).jobs:
        if job.step == "container":  # as an engine has built it
            inputs = {role: home / path for role, path in job.inputs.items()}
            config = yaml.safe_load(job.config)
            destination = (home / job.output).parent
            with publish(
                destination, step="container", config=config, inputs=inputs, code=""
            ) as workspace:
                labels = {LABEL: "0123456789abcdef"}
                workspace.result = {"image": "sha256:0", "labels": labels, "python": PYTHON}
    return home


def test_a_run_in_a_pod_and_its_verdict_here(clone: Path, kubelet: Kubelet) -> None:
    until = ("--", "--until", "performance_check")
    status, text = reproduce(clone, *CHOSEN, *until, environment={"HF_TOKEN": CANARY})
    assert status == 0, text
    assert "performance_run null-engine/rehearsal/none/bf16/Offline: runs on n1" in text
    assert "performance_check: results/" in text
    assert Manifest.read(clone / RUN / "manifest.json").result["engines"]
    (pod,) = kubelet.pods
    assert pod["spec"]["containers"][0]["image"] == "reprise/cluster:0123456789ab"
    assert CANARY not in yaml.safe_dump(pod)
    assert kubelet.api.objects == {}, "nothing is left in the cluster"
    status, text = reproduce(clone, *CHOSEN, "scheduler=local", *until)
    assert status == 0 and ": 0 of " in text, "what one scheduler made holds for the other"


def test_ctrl_c_leaves_nothing_in_the_cluster(clone: Path, kubelet: Kubelet) -> None:
    longer = "length.min_duration_ms=60000"
    process = subprocess.Popen(
        [str(clone / "reproduce"), *CHOSEN, longer, "--", "--until", "performance_check"],
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    log = "results/null-engine/runs/**/.performance_run.*.tmp/mlperf_log_detail.txt"
    limit = time.monotonic() + LIMIT_S
    while not list(clone.glob(log)):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode != 0
    assert re.search(r"ended by a signal; Kubernetes job reprise-\S+ was deleted; \./rep", text), (
        text
    )
    assert kubelet.api.objects == {}


def test_a_dry_run_and_the_manifests_need_no_cluster(clone: Path, kubelet: Kubelet) -> None:
    kubelet.api.token = "another"
    before = len(kubelet.api.seen)
    status, text = reproduce(clone, *CHOSEN, "--", "--dry-run", "--quiet", "host")
    assert status == 0 and "accuracy_run" in text, text
    status, text = reproduce(clone, "manifests", *CHOSEN)
    assert status == 0, text
    kinds = [made["kind"] for made in yaml.safe_load_all(text)]
    assert kinds.count("Job") == kinds.count("NetworkPolicy") == 4
    assert len(kubelet.api.seen) == before
    status, text = reproduce(clone, *CHOSEN)
    assert status == 1 and text.count("\n") == 1
    assert "doesn't know you (Unauthorized); log in again" in text
