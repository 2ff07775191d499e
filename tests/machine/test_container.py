"""Images and the containers of steps: what is planned, what they are made of, what is refused."""

import io
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import MagicMock, create_autospec

import docker
import pytest
import requests
from docker.errors import APIError, NotFound
from pydantic import ValidationError

from steps.base import processes
from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.base.step import ENDS
from steps.config import build_context
from steps.config.container import ImageConfig
from steps.config.runtime import ContainerSettings, EngineAddress, Runtime
from steps.machine.container import build, carried
from steps.machine.runtime import __main__ as runtime
from steps.machine.runtime import host
from steps.machine.runtime.mounts import of_step
from steps.plan.registry import STEPS
from tests.conftest import ROOT, edit, planned
from tests.prepare.test_artifacts import command

IMAGE: dict[str, Any] = {
    "name": "tiny",
    "stack": "python",
    "base": "debian:12",
    "python": "3.11",
    "arguments": {"PACKAGES": "libnuma1"},
    "lock": "cpu",
    "first": ["Big_Package"],
    "probes": ["json"],
    "build_limit_s": 60,
    "host": {"engine": "docker", "socket": "unix:///nowhere.sock"},
}
LIMIT_S = 30
RECIPE = ROOT / "containers/python/Dockerfile"
AMD = ("experiment=amd-v5.1",)
LOCK = "big.package==1.0\nother==2.0\nthird==3.0\n"


def settings(name: str = "docker", **changes: object) -> ContainerSettings:
    plan = planned(f"runtime={name}", "scenario=Offline")
    job = next(job for job in plan.jobs if job.step == "performance_run")
    return ContainerSettings.model_validate_json(
        json.dumps({**json.loads(job.container), **changes})
    )


# ---- plan ---------------------------------------------------------------------------------------


def test_natively_nothing_is_contained() -> None:
    plan = planned("precision=fp8", "scenario=Offline")
    assert not any(job.container or job.step == "container" for job in plan.jobs)


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_engines_and_their_weights_come_from_containers(engine: str) -> None:
    plan = planned(f"runtime={engine}", "precision=fp8", "scenario=Offline")
    images = {job.key: job for job in plan.jobs if job.step == "container"}
    assert images.keys() == {"cpu", "compress"}
    for job in plan.jobs:
        contained = job.step.endswith("_run") or job.step == "quantize"
        assert bool(job.container) == contained, job.key
        if contained:
            name = "compress" if job.step == "quantize" else "cpu"
            assert job.inputs["environment"] == images[name].output
            given = ContainerSettings.model_validate_json(job.container)
            assert given.engine == engine
            assert given.network == "none"
    recipe = "containers/python/Dockerfile"
    assert images["cpu"].inputs == {"lock": "envs/cpu.lock", "recipe": recipe}
    assert STEPS["container"].limitation(json.loads(images["cpu"].config)) is None


def test_accelerators_bring_their_devices() -> None:
    plan = planned(
        *("experiment=amd-v5.1", "system=amd-mi325x", "benchmark=llama2-70b-99.9"),
        "scenario=Server",
    )
    job = next(job for job in plan.jobs if job.step == "performance_run")
    given = ContainerSettings.model_validate_json(job.container)
    assert given.devices == ("/dev/kfd", "/dev/dri")
    assert given.groups == ("video",)


def test_generated_code_is_judged_in_an_image_with_its_compilers() -> None:
    chosen = ["experiment=amd-v5.1", "benchmark=mixtral-8x7b", "system=amd-mi325x"]
    for runtime_name, image_key in (("native", None), ("podman", "accuracy")):
        plan = planned(*chosen, "scenario=Offline", f"runtime={runtime_name}")
        (job,) = [job for job in plan.jobs if job.step == "accuracy_check"]
        made = {other.output: other for other in plan.jobs}[job.inputs["environment"]]
        if image_key is None:
            assert made.step == "environment" and not job.container
            assert "apt-get install bubblewrap" in job.programs["bwrap"]
            continue
        assert (made.step, made.key) == ("container", image_key)
        given = ContainerSettings.model_validate_json(job.container)
        assert given.nested and not given.devices and given.network == "none"
        packages = json.loads(made.config)["arguments"]["PACKAGES"].split()
        assert {"bubblewrap", "g++", "node-typescript", "php-cli", "ruby"} <= set(packages)
        # The image brings the sandbox, whatever is installed here.
        assert job.limitation is None and not job.programs
        (run,) = [job for job in plan.jobs if job.step == "performance_run"]
        assert not ContainerSettings.model_validate_json(run.container).nested


def test_several_nodes_share_the_network_of_their_machines() -> None:
    raw = json.loads(settings().model_dump_json())
    given = Runtime.model_validate_json(json.dumps({**raw, "name": "docker", "native": False}))
    assert given.container(1).network == "none"
    assert given.container(2).network == "host"


def test_a_runtime_without_an_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"runtime docker needs a container for engine"):
        planned("hardware.containers=null", "runtime=docker")


def test_a_mount_needs_an_absolute_path() -> None:
    with pytest.raises(UserError, match=r"runtime\.mounts\.0: needs an absolute path"):
        planned("runtime=docker", "runtime.mounts=[data]")


@pytest.mark.parametrize(("experiment", "count"), [("amd-v5.1", 8), ("amd-v6.0", 5)])
def test_amds_images_have_recipes_that_take_what_they_are_given(
    experiment: str, count: int
) -> None:
    plan = planned(f"experiment={experiment}")
    images = {job.key: job for job in plan.jobs if job.step == "container"}
    assert len(images) == count
    for key, job in images.items():
        config = json.loads(job.config)
        if key == "stable-diffusion-xl-prepare-gfx942":
            assert "no recipe of image" in str(STEPS["container"].limitation(config))
            continue
        made = ImageConfig.model_validate_json(job.config)
        files = build_context.files(made, ROOT / job.inputs["lock"], ROOT / job.inputs["recipe"])
        assert files["Dockerfile"].rstrip().endswith(b"USER reprise\nWORKDIR /home/reprise")
        assert STEPS["container"].limitation(config) is None
        assert "brings Python 3.9" in str(
            STEPS["container"].limitation({**config, "python": "3.9"})
        )
    runs = [job for job in plan.jobs if job.step == "performance_run"]
    used = {job.inputs["environment"] for job in runs}
    assert used == {job.output for key, job in images.items() if "prepare" not in key}


PUBLISHED = {
    "llama2-70b-gfx942": "mi325x_llama2_70b_inference_5.1",
    "llama2-70b-gfx950": "mi355x_llama2_70b_inference_5.1",
    "llama3.1-405b-gfx950": "mi355x_llama3_1_405b_inference_5.1",
    "mixtral-8x7b-gfx942": "mi325x_mixtral_8x7b_inference_5.1",
    "llama2-70b-v6.0-gfx950": "mi355x_llama2_70b_inference_6.0",
    "gpt-oss-120b-gfx950": "mi355x_gptoss_120b_inference_6.0",
    "llama3.1-405b-v6.0-gfx950": "",
    "llama3.1-405b-v6.0-interactive-gfx950": "",
}
"""Names below rocm/amd-mlperf of AMD's posts on how to reproduce its submissions; for v6.0's 405B
there is none."""


@pytest.mark.parametrize("experiment", ["amd-v5.1", "amd-v6.0"])
def test_the_image_that_amd_published_comes_first(experiment: str) -> None:
    jobs = [job for job in planned(f"experiment={experiment}").jobs if job.step == "container"]
    made = {
        job.key: ImageConfig.model_validate_json(job.config)
        for job in jobs
        if job.inputs.get("recipe") == "containers/vllm-rocm/Dockerfile"
    }
    assert made and made.keys() <= PUBLISHED.keys()
    for key, image in made.items():
        name = f"rocm/amd-mlperf:{PUBLISHED[key]}" if PUBLISHED[key] else None
        assert (image.ready.base if image.ready else None) == name
        given = dict(image.ready.arguments) if image.ready else {}
        # Only files that its engines are told to read are added to it.
        assert given.keys() in (set(), {"PUBLISHED_SOURCE", "PUBLISHED", "TUNING"})
        assert ("TUNING" in given) == ("TUNING" in image.arguments)
        assert all(image.arguments[argument] == value for argument, value in given.items())


def test_benchmarks_of_one_architecture_differ_by_arguments() -> None:
    plan = planned(*AMD)
    given = {
        job.key: json.loads(job.config)["arguments"]
        for job in plan.jobs
        if job.inputs.get("recipe") == "containers/vllm-rocm/Dockerfile"
    }
    assert given.keys() == {
        *("llama2-70b-gfx942", "llama2-70b-gfx950"),
        *("mixtral-8x7b-gfx942", "llama3.1-405b-gfx950"),
    }
    assert given["llama2-70b-gfx950"]["VLLM_SOURCE"] == "/app/vllm"
    assert "AITER" not in given["llama2-70b-gfx950"]
    assert len(given["mixtral-8x7b-gfx942"]["AITER_PATCHES"].split()) == 6


@pytest.mark.parametrize("value", ["$(id)", "a;b", "a\nb", "'a'", "a&b"])
def test_no_argument_of_a_dockerfile_is_code(value: str) -> None:
    with pytest.raises(ValidationError):
        image(arguments={"PACKAGES": value})


# ---- images -------------------------------------------------------------------------------------


def image(**changes: object) -> ImageConfig:
    return ImageConfig.model_validate_json(json.dumps({**IMAGE, **changes}))


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.lock"
    path.write_text(LOCK, encoding="utf-8")
    return path


def test_a_changed_line_changes_one_layers_file(lock: Path) -> None:
    before = build_context.files(image(), lock, RECIPE)
    assert before["first.lock"] == b"big.package==1.0\n"
    edit(lock, "third==3.0", "third==3.1")
    after = build_context.files(image(), lock, RECIPE)
    assert {name for name in before if after[name] != before[name]} == {"lock"}
    digests = [
        build_context.digest(image(), before, "base"),
        build_context.digest(image(), after, "base"),
        build_context.digest(image(), before, "another base"),
        build_context.digest(image(arguments={"PACKAGES": "g++"}), before, "base"),
    ]
    assert len(set(digests)) == len(digests)
    assert build_context.digest(image(base="another:name"), before, "base") == digests[0]


def test_times_and_owners_are_no_part_of_an_image(tmp_path: Path, lock: Path) -> None:
    other = tmp_path / "Dockerfile"
    shutil.copyfile(RECIPE, other)
    one, two = (build_context.files(image(), lock, recipe) for recipe in (RECIPE, other))
    assert build_context.archive(one) == build_context.archive(two)
    assert build_context.digest(image(), one, "base") == build_context.digest(image(), two, "base")


def test_an_image_without_its_parts_is_refused(lock: Path) -> None:
    with pytest.raises(UserError, match="pins no absent"):
        build_context.files(image(first=["absent"]), lock, RECIPE)
    with pytest.raises(UserError, match="Dockerfile takes no NONSENSE"):
        build_context.files(image(arguments={"NONSENSE": "1"}), lock, RECIPE)
    with pytest.raises(UserError, match="no containers/missing/Dockerfile; there are python, sh"):
        planned("runtime=docker", "hardware.containers.engine.stack=missing")


def test_a_damaged_archive_of_an_image_is_named(tmp_path: Path, lock: Path) -> None:
    content = build_context.files(image(), lock, RECIPE)
    console, client = create_autospec(Console), create_autospec(docker.DockerClient)
    assert carried.load(client, image(), content, tmp_path, console) is None
    (tmp_path / "tiny.tar").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"tiny\.tar isn't an image archive .*; unbundle it again"):
        carried.load(client, image(), content, tmp_path, console)


def test_a_failed_build_says_what_is_wrong_and_not_what_came_after() -> None:
    said = ["Collecting a", "ERROR: no a", "hint: look", "Removing intermediate container 0"]
    assert build._cause(said) == ["ERROR: no a"]
    assert build._cause(["gcc: no input files", "---> 0"]) == ["gcc: no input files"]
    assert build._cause([]) == []


def test_without_an_engine_nothing_is_made(tmp_path: Path, lock: Path) -> None:
    done = command("container", IMAGE, tmp_path, ROOT, lock=lock, recipe=RECIPE)
    assert done.returncode == 1
    assert "docker has no socket /nowhere.sock; start it (systemctl start docker)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_engine_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "CALL_LIMIT_S", 0.2)
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        address = EngineAddress(engine="podman", socket=f"unix://{path}")
        with (
            pytest.raises(UserError, match=r"podman at .*silent.sock doesn't answer"),
            host.connected(address),
        ):
            pass


class _DiesWhileBuilding(BaseHTTPRequestHandler):
    """An engine that answers everything, and is killed in the middle of a build's output."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, fields: Mapping[str, str], body: bytes, status: int = 200) -> None:
        self.send_response(status)
        for key, value in fields.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        body = b'{"ApiVersion": "1.41", "Id": "sha256:base"}'
        self.answer({"Content-Length": str(len(body))}, body)

    def do_POST(self) -> None:
        self.answer({"Transfer-Encoding": "chunked"}, b'16\r\n{"stream": "Step 1/9"}\r\n')
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


def test_an_engine_that_is_killed_while_it_builds_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dies.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), _DiesWhileBuilding) as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        address = EngineAddress(engine="podman", socket=f"unix://{path}")
        with (
            pytest.raises(UserError, match=r"podman at .*dies.sock doesn't answer \(.*run again"),
            host.connected(address) as client,
        ):
            list(client.api.build(fileobj=io.BytesIO(), custom_context=True, decode=True))
        engine.shutdown()


class _WithoutInit(_DiesWhileBuilding):
    """What podman 4.3 answers to a container with an init that it can't find (recorded)."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        path = self.path.partition("?")[0].rpartition("/")[2]
        self.asked.append(path)
        text, status = '{"stream": "Successfully built 0123456789ab"}', 200
        if path == "create":
            status = 500
            text = (
                '{"cause": "no such file or directory", "response": 500, "message": "container '
                "create: container-init binary not found on the host: stat "
                '/usr/libexec/podman/catatonit: no such file or directory"}'
            )
        self.answer({"Content-Length": str(len(text))}, text.encode(), status)

    def do_DELETE(self) -> None:
        self.asked.append("removed")
        self.answer({"Content-Length": "2"}, b"[]")


def test_podman_without_an_init_is_named_before_anything_is_built(tmp_path: Path) -> None:
    path = tmp_path / "without.sock"
    _WithoutInit.asked.clear()
    with socketserver.ThreadingUnixStreamServer(str(path), _WithoutInit) as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        address = EngineAddress(engine="podman", socket=f"unix://{path}")
        with (
            pytest.raises(
                UserError, match=r"^podman has no init .*: install catatonit, or"
            ) as said,
            host.connected(address) as client,
        ):
            host.require_init(client, address)
        assert "\n" not in str(said.value)
        assert _WithoutInit.asked == ["build", "create", "removed"]
        docker = EngineAddress(engine="docker", socket=f"unix://{path}")
        with host.connected(docker) as client:
            host.require_init(client, docker)  # it brings one along
        assert _WithoutInit.asked == ["build", "create", "removed"]
        engine.shutdown()


# ---- containers ---------------------------------------------------------------------------------


def test_the_checkout_is_read_and_results_are_written(tmp_path: Path) -> None:
    disk, weights = tmp_path / "disk", tmp_path / "weights"
    for path in (disk, weights):
        path.mkdir()
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "results").symlink_to(disk)
    found = {path: mount["mode"] for path, mount in of_step(root, [str(weights)]).items()}
    assert found == {
        str(root): "ro",
        str(root / "results"): "rw",
        str(disk): "rw",
        str(weights): "ro",
    }
    with pytest.raises(UserError, match=r"isn't a directory; fix runtime\.mounts"):
        of_step(root, [str(tmp_path / "absent")])


def test_the_launcher_says_that_no_engine_is_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = Manifest(tmp_path, "container", {}, {}, {}, {"image": "sha256:0", "python": "p"})
    path = tmp_path / "manifest.json"
    fields = {
        key: value for key, value in vars(manifest).items() if key not in ("directory", "vouched")
    }
    path.write_text(json.dumps(fields), encoding="utf-8")
    given = settings(socket="unix:///nowhere.sock").model_dump_json()
    status = runtime.main([str(path), given, "-m", "steps.x", "--output", "results/x"])
    assert status == 1
    assert capfd.readouterr().err.startswith("error: docker has no socket /nowhere.sock")


# ---- deaths -------------------------------------------------------------------------------------


class _Ended:
    """A container whose command has ended."""

    def __init__(self, status: int, oom: bool = False) -> None:
        self.status = status
        self.attrs = {"State": {"OOMKilled": False}}
        self._oom = oom

    def attach(self, **_: object) -> list[bytes]:
        return []

    def start(self) -> None:
        pass

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.status}

    def reload(self) -> None:
        self.attrs = {"State": {"OOMKilled": self._oom}}


STEP = ["-m", "steps.run.performance_run", "--output", "results/x/run/manifest.json"]
STEP += ["--log", "results/x/run.log"]


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("status", "oom", "words"),
    [
        (137, True, "SIGKILL: docker says that the kernel ended it, out of memory; its limit"),
        (137, False, "SIGKILL: most likely the kernel, out of memory; its limit is 8"),
        (139, False, "SIGSEGV: native code crashed"),
        (134, False, "SIGABRT: native code crashed"),
    ],
)
def test_a_step_that_a_signal_ended_in_its_container_is_named(
    status: int, oom: bool, words: str
) -> None:
    ended: Any = _Ended(status, oom)
    with pytest.raises(UserError) as caught:
        runtime._attend(MagicMock(), ended, settings(memory_gb=8), STEP)
    text = str(caught.value)
    assert text.startswith("performance_run in its container: its process was ended by ")
    assert words in text and "log: results/x/run.log" in text
    assert "the next run starts again" in text


class _Stopped(_Ended):
    """One whose command is a process of this machine that stands still."""

    def __init__(self) -> None:
        super().__init__(137)
        sleeps = "import subprocess, sys; subprocess.run(['sleep', '60'])"
        self.init = subprocess.Popen([sys.executable, "-c", sleeps])
        limit = time.monotonic() + LIMIT_S
        while not processes.children(self.init.pid):
            assert time.monotonic() < limit
        self.step = processes.children(self.init.pid)[0]
        os.kill(self.step, signal.SIGSTOP)

    def attach(self, **_: object) -> Iterator[bytes]:  # type: ignore[override]
        self.init.wait(LIMIT_S)
        yield b""

    def reload(self) -> None:
        self.attrs = {"State": {"Pid": self.init.pid}}  # type: ignore[dict-item]

    def kill(self) -> None:
        processes.killed([self.step, self.init.pid], 1.0)


@pytest.mark.usefixtures("handlers")
def test_a_step_that_is_stopped_in_its_container_is_named_and_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "STOPPED_S", 0.5)
    monkeypatch.setattr(runtime, "WATCH_S", 0.1)
    stopped: Any = _Stopped()
    with pytest.raises(UserError, match=r"performance_run in its container has been stopped for"):
        runtime._attend(MagicMock(), stopped, settings(), STEP)


@pytest.mark.parametrize(
    "error", [NotFound("no such container"), APIError("is not running"), requests.ReadTimeout()]
)
def test_a_container_that_is_gone_is_no_longer_watched(error: Exception) -> None:
    container = MagicMock()
    container.reload.side_effect = error
    runtime._watch(container, threading.Event())
    container.kill.assert_not_called()


def test_what_a_killed_launcher_left_is_removed_though_its_number_is_used_again() -> None:
    ours = processes.identity(os.getpid())
    number, _, rest = ours.partition("-")
    labels = {"waited for": ours, "used again": f"{number}-1{rest}", "older": number, "none": ""}
    containers = {name: MagicMock(labels={host.LAUNCHER: label}) for name, label in labels.items()}
    client = MagicMock()
    client.containers.list.return_value = list(containers.values())
    runtime._sweep(client, "results/x/run/manifest.json")
    assert [name for name, one in containers.items() if not one.remove.called] == ["waited for"]
    assert host.owned(ROOT)[host.LAUNCHER] == ours


@pytest.mark.usefixtures("handlers")
def test_every_request_to_the_engine_has_a_limit() -> None:
    client, ended = MagicMock(), _Ended(0)
    client.api.timeout = 60
    runtime._attend(client, ended, settings(), STEP)  # type: ignore[arg-type]
    assert client.api.timeout == 60


@pytest.mark.parametrize("status", [0, 1, 2, 130, 143])
@pytest.mark.usefixtures("handlers")
def test_a_step_that_said_itself_why_it_ended_is_left_alone(status: int) -> None:
    ended: Any = _Ended(status)
    found = runtime._attend(MagicMock(), ended, settings(), STEP)
    assert found == status
