"""Steps in containers of the engines that are here, built on a base that is here.

docs/how-to/containers.md says how to make the base without a registry; its name here is BASE.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.runtime import EngineAddress
from steps.machine.container import carried
from steps.machine.runtime.host import connected, image_id
from steps.plan.make import make
from tests import running
from tests.conftest import ROOT, copy_project, edit, reproduce
from tests.e2e.test_rehearsal import digests
from tests.wheels import locked, wheel

pytestmark = pytest.mark.e2e

BASE = "reprise-base:3.11"
CANARY = "hf_canaryCanaryCanaryCanaryCanary"
HOST = "canary-host-0417"
ELSEWHERE = ["unshare", "--uts", "sh", "-c", f'hostname {HOST} && exec "$@"', "sh"]
"""Runs a command on a machine of that name."""

LIMIT_S = 900
UNTIL = ["--", "--until", "performance_check"]


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> EngineAddress:
    name = str(request.param)
    (job,) = [j for j in make(ROOT, overrides(name)).jobs if j.step == "container"]
    address = EngineAddress.model_validate(json.loads(job.config)["host"])
    require_base(address)
    return address


def require_base(address: EngineAddress) -> None:
    """Skips where there is no engine, or not what images are built on here."""
    try:
        with connected(address) as client:
            if image_id(client, BASE) is None:
                pytest.skip(f"{address.engine} has no image {BASE}")
    except UserError as error:
        pytest.skip(str(error))


def overrides(name: str) -> list[str]:
    return [
        "experiment=null-engine",
        "scenario=Server",
        f"runtime={name}",
        f"hardware.containers.engine.base={BASE}",
    ]


@pytest.fixture(scope="module")
def clone(engine: EngineAddress, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = copy_project(tmp_path_factory.mktemp(engine.engine))
    (ROOT / ".envs").mkdir(exist_ok=True)
    (home / ".envs").symlink_to(ROOT / ".envs")
    os.environ["HF_TOKEN"] = CANARY
    try:
        status, text = reproduce(home, *overrides(engine.engine), *UNTIL, limit_s=LIMIT_S)
    finally:
        del os.environ["HF_TOKEN"]
    assert status == 0, text
    return home


def the(home: Path, pattern: str) -> Path:
    (found,) = (home / "results").glob(pattern)
    return found


def test_the_run_names_its_image(clone: Path, engine: EngineAddress) -> None:
    made = the(clone, "artifacts/container/*/manifest.json")
    run = the(clone, "null-engine/runs/*/*/*/*/*/performance_run/manifest.json")
    image = Manifest.read(made).result["image"]
    with connected(engine) as client:
        assert client.images.get(image).attrs["Config"]["User"] == "reprise"
        assert not client.containers.list(
            all=True, filters={"label": f"org.reprise.checkout={clone}"}
        )
    assert Manifest.read(run).inputs["environment"]
    record = json.loads(run.with_name("record.json").read_text(encoding="utf-8"))
    assert record["host"] == os.uname().nodename
    assert run.stat().st_uid == os.getuid()


def test_nothing_is_built_or_run_again(clone: Path, engine: EngineAddress) -> None:
    before = digests(clone / "results")
    status, text = reproduce(clone, *overrides(engine.engine), *UNTIL)
    assert status == 0 and text == "null-engine: nothing to do\n", text
    assert digests(clone / "results") == before


def test_a_secret_of_the_environment_is_in_no_layer(clone: Path, engine: EngineAddress) -> None:
    image = Manifest.read(the(clone, "artifacts/container/*/manifest.json")).result["image"]
    with connected(engine, LIMIT_S) as client:
        history = json.dumps(client.images.get(image).history())
        saved = b"".join(client.images.get(image).save())
    assert CANARY not in history
    assert CANARY.encode() not in saved


def test_what_a_killed_run_left_is_removed(clone: Path, engine: EngineAddress) -> None:
    run = the(clone, "null-engine/runs/*/*/*/*/*/performance_run/manifest.json")
    run.unlink()
    process = subprocess.Popen(
        [str(clone / "reproduce"), *overrides(engine.engine), *UNTIL],
        cwd=clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with connected(engine) as client:
        limit = time.monotonic() + LIMIT_S
        while not (left := working(client, clone)):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        status, text = reproduce(clone, *overrides(engine.engine), *UNTIL)
        assert status == 0, text
        assert run.is_file()
        assert not set(left) & set(working(client, clone))


@dataclass(frozen=True)
class Offline:
    """A checkout with wheels, what a container step is given there, and the image that it made."""

    home: Path
    config: dict[str, object]
    made: Manifest
    saved: Path

    def step(self, **changes: object) -> subprocess.CompletedProcess[str]:
        return of_one_package(self.home, {**self.config, **changes})


def of_one_package(home: Path, config: object) -> subprocess.CompletedProcess[str]:
    """The container step on a machine of that name, by a user with a token."""
    inputs = {"lock": home / "tiny.lock", "recipe": home / "containers/python/Dockerfile"}
    return subprocess.run(
        [*ELSEWHERE, *running.command("container", config, inputs, home)],
        cwd=home,
        env={**os.environ, "HF_TOKEN": CANARY, "PIP_EXTRA_INDEX_URL": f"https://{HOST}/"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.fixture(scope="module")
def offline(engine: EngineAddress, tmp_path_factory: pytest.TempPathFactory) -> Offline:
    """The image has a package that no index has, and its build says what network it saw."""
    home = copy_project(tmp_path_factory.mktemp(f"offline-{engine.engine}"))
    recipe = home / "containers/python/Dockerfile"
    edit(recipe, "RUN useradd", 'RUN [ "$(ls /sys/class/net)" = lo ]\nRUN useradd')
    (home / "tiny.lock").write_text(locked(wheel(home / "links")), encoding="utf-8")
    config: dict[str, object] = {
        **{"name": "test-offline", "stack": "python", "base": BASE, "python": "3.11"},
        **{"arguments": {}, "lock": "tiny", "first": [], "probes": ["tiny"]},
        **{"build_limit_s": LIMIT_S, "host": engine.model_dump()},
    }
    (home / "wheels").mkdir()
    done = of_one_package(home, config)
    assert done.returncode == 1
    assert "test-offline can't be built: ERROR: No matching distribution" in done.stderr
    wheel(home / "wheels")
    done = of_one_package(home, config)
    assert done.returncode == 0, done.stderr
    made = Manifest.read(home / "out/manifest.json")
    with connected(engine, LIMIT_S) as client:
        saved = carried.save(client, made, home)
        owned = {"label": f"org.reprise.checkout={home}"}
        assert not client.containers.list(all=True, filters=owned)
    return Offline(home, config, made, saved)


def test_an_image_that_was_built_without_a_network_names_no_site(
    offline: Offline, engine: EngineAddress
) -> None:
    with connected(engine) as client:
        history = json.dumps(client.images.get(offline.made.result["image"]).history())
    layers = offline.saved.read_bytes() + history.encode()
    assert b"tiny-1.0.dist-info" in layers
    for absent in ("tiny-1.0-py3-none-any.whl", CANARY, HOST, str(offline.home)):
        assert absent.encode() not in layers, absent


def test_an_image_is_carried_to_where_it_cant_be_built(
    offline: Offline, engine: EngineAddress
) -> None:
    """Neither its base nor its package is there, only what a bundle brings."""
    shutil.rmtree(offline.home / "wheels")
    (offline.home / "images").mkdir()
    (offline.home / "images/test-offline.tar").symlink_to(offline.saved)
    remove(engine, offline.made)
    done = offline.step(base="absent:1")
    assert done.returncode == 0, done.stderr
    assert "image test-offline: loading" in done.stderr
    assert Manifest.read(offline.home / "out/manifest.json").result == offline.made.result
    (offline.home / "tiny.lock").write_text("tiny==1.1\n", encoding="utf-8")
    done = offline.step(base="absent:1")
    assert "its base absent:1 is not on this machine" in done.stderr, "it is of another lock"
    remove(engine, offline.made)


def remove(engine: EngineAddress, made: Manifest) -> None:
    with connected(engine, LIMIT_S) as client:
        client.images.remove(made.result["image"], force=True)


JUDGED = """
from steps.judge.scoring import code
from steps.judge.scoring.sandbox import Sandbox

SAMPLES = {
    "cpp": (
        "int add(int a, int b) { return a + b; }",
        "int main() { return add(2, 3) != 5; }",
    ),
    "javascript": (
        "function add(a, b) { return a + b; }",
        "if (add(2, 3) !== 5) { throw new Error('wrong'); }",
    ),
    "php": (
        "<?php function add($a, $b) { return $a + $b; }",
        "if (add(2, 3) != 5) { exit(1); }",
    ),
    "python": (
        "def add(a, b): return a + b",
        "def check(candidate): assert candidate(2, 3) == 5",
    ),
    "ruby": ("def add(a, b) a + b end", "exit 1 if add(2, 3) != 5"),
    "typescript": (
        "function add(a: number, b: number): number { return a + b; }",
        "declare var require: any; require('assert')(add(2, 3) === 5); process.exitCode = 0;",
    ),
}
walls = Sandbox.find()
code.require_tools(code.LANGUAGES)
assert SAMPLES.keys() == code.LANGUAGES.keys()
for language, (sound, tests) in SAMPLES.items():
    for answer, passes in ((sound, True), (sound.replace("+", "-"), False)):
        found = code.passes(f"{language}_add", "\\n" + tests, answer, walls)
        assert found is passes, (language, passes)
"""


def test_generated_code_of_every_language_is_judged_in_the_image(
    engine: EngineAddress, tmp_path: Path
) -> None:
    chosen = ["experiment=amd-v5.1", "benchmark=mixtral-8x7b", "system=amd-mi325x"]
    base = f"benchmark.containers.scoring.base={BASE}"
    plan = make(ROOT, [*chosen, "scenario=Offline", f"runtime={engine.engine}", base])
    (check,) = [job for job in plan.jobs if job.step == "accuracy_check"]
    (image,) = [job for job in plan.jobs if job.output == check.inputs["environment"]]
    inputs = {role: ROOT / path for role, path in image.inputs.items()}
    config, made = json.loads(image.config), tmp_path / "out/manifest.json"
    judge = [str(made), check.container, "-c", JUDGED, "--output", f"results/{tmp_path.name}"]
    for arguments in (
        running.command("container", config, inputs, tmp_path),
        [sys.executable, "-m", "steps.machine.runtime", *judge],
    ):
        done = subprocess.run(
            arguments, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, done.stderr


def working(client: docker.DockerClient, clone: Path) -> list[str]:
    chosen = {"label": f"org.reprise.checkout={clone}"}
    return [str(found.id) for found in client.containers.list(filters=chosen)]
