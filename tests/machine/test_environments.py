"""Environments: exactly their lock, whatever the shell says; made again when gone or half made."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from steps.base import venv
from steps.base.errors import UserError
from steps.base.record import stamped
from steps.config.scheduler import Local
from steps.machine.environment import restore
from steps.plan.plan import Job, Plan, environment_directory
from tests import running, wheels
from tests.conftest import ROOT, copy_project

LIMIT_S = 120
pytestmark = pytest.mark.command


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project whose driver environment has one package, which its folder of wheels has."""
    home = wheels.checkout(tmp_path / "home")
    tiny = wheels.wheel(home / "wheels")
    (home / "envs/driver.lock").write_text(wheels.locked(tiny), encoding="utf-8")
    wheels.share_installer(home)
    return home


def reproduce(
    home: Path, environment: Mapping[str, str] | None = None, *through: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*through, str(home / "reproduce")],
        env={**os.environ, "PYTHON": sys.executable, **(environment or {})},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a command that failed."""
    assert done.returncode == 1, done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if not line.startswith("making ")]
    assert sentence.startswith("error: ")
    return sentence


def driver(home: Path) -> Path:
    (python,) = (home / ".envs").glob("driver-*/bin/python")
    return python


def test_packages_of_the_shells_path_do_not_count(home: Path, tmp_path: Path) -> None:
    """As HPC modules set it: the package at the locked version, and one that breaks Python's."""
    elsewhere = tmp_path / "elsewhere"
    tool = next((home / ".envs").glob("install-*/bin/uv"))
    command = [tool, "pip", "install", "--quiet", "--target", elsewhere, "--python", sys.executable]
    subprocess.run([*command, "--no-index", home / "wheels/tiny-1.0-py3-none-any.whl"], check=True)
    (elsewhere / "json.py").write_text("raise RuntimeError('foreign')\n", encoding="utf-8")
    done = reproduce(home, {"PYTHONPATH": str(elsewhere)})
    assert done.stdout == "VALID\n", done.stderr
    assert reproduce(home).stdout == "VALID\n"
    assert venv.listed(driver(home)) == [("tiny", "1.0")]


@pytest.mark.parametrize(
    "environment",
    [
        {"PIP_TARGET": "{}/t", "UV_TARGET": "{}/t"},
        {"PIP_USER": "1", "PIP_PREFIX": "{}/t", "UV_SYSTEM_PYTHON": "1"},
        {"PIP_CONSTRAINT": "{}/none", "UV_CONSTRAINT": "{}/none", "UV_OVERRIDE": "{}/none"},
        {"PIP_NO_BINARY": ":all:", "UV_NO_BINARY": "1", "UV_CONFIG_FILE": "{}/none"},
        {"PYTHONHOME": "{}/none", "PYTHONWARNINGS": "error", "PYTHONSAFEPATH": "1"},
        {"VIRTUAL_ENV": "{}/none", "CONDA_PREFIX": "{}/none", "PYTHONOPTIMIZE": "2"},
    ],
)
def test_what_the_shell_says_to_installers_does_not_reach_them(
    home: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    given = {name: value.format(tmp_path) for name, value in environment.items()}
    done = reproduce(home, given)
    assert done.stdout == "VALID\n", done.stderr
    assert venv.listed(driver(home)) == [("tiny", "1.0")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_a_forged_file_is_not_installed(home: Path) -> None:
    wheels.wheel(home / "wheels", verdict="FORGED")
    sentence = said(reproduce(home))
    assert "driver.lock can't be installed" in sentence
    assert "Hash mismatch for `tiny==1.0`" in sentence or "tiny" in sentence
    assert not list((home / ".envs").glob("driver-*/complete"))
    wheels.wheel(home / "wheels")
    assert reproduce(home).stdout == "VALID\n"


def test_a_lock_without_digests_is_not_installed(home: Path) -> None:
    (home / "envs/driver.lock").write_text("tiny==1.0\n", encoding="utf-8")
    assert "must have a hash" in said(reproduce(home))


def test_a_python_without_pip_is_named(home: Path) -> None:
    """Debian's, if python3-venv isn't installed."""
    next((home / ".envs").glob("install-*")).unlink()
    bare = home / "bare"
    bare.write_text(
        f"#!{sys.executable} -I\nimport subprocess, sys\n"
        "class Bare(subprocess.Popen):\n"
        "    def __init__(self, command, **other):\n"
        "        without = [word.replace('ensurepip', 'surely_absent') for word in command]\n"
        "        super().__init__(without, **other)\n"
        "subprocess.Popen = Bare\n"
        "text, sys.argv[:4] = sys.argv[3], ['-c']\n"
        "exec(text)\n",
        encoding="utf-8",
    )
    bare.chmod(0o755)
    sentence = said(reproduce(home, {"PYTHON": str(bare)}))
    assert "can't get pip: " in sentence and "on Debian install python3-venv" in sentence
    shutil.rmtree(next((home / ".envs").glob("install-*")))
    wheels.share_installer(home)
    assert reproduce(home).stdout == "VALID\n"


def test_where_uv_cant_be_had_it_is_named(home: Path) -> None:
    next((home / ".envs").glob("install-*")).unlink()
    sentence = said(reproduce(home))
    assert "install.lock can't be installed: No matching distribution found for " in sentence
    shutil.rmtree(next((home / ".envs").glob("install-*")))
    wheels.share_installer(home)
    assert reproduce(home).stdout == "VALID\n"


def in_small_room(home: Path, size: str) -> list[str] | None:
    """What runs a command where `.envs` has no more room; None where that isn't allowed."""
    script = (
        "cp -P .envs/install-* kept 2>/dev/null; name=$(basename .envs/install-*)\n"
        f"mount -t tmpfs -o size={size} tmpfs .envs || exit 9\n"
        '[ -z "$SHARED" ] || mv kept ".envs/$name"\nexec "$@"'
    )
    for flags in (["-m"], ["-r", "-m"]):
        through = ["unshare", *flags, "sh", "-c", script, "sh"]
        try:
            tried = subprocess.run([*through, "true"], cwd=home, capture_output=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if tried.returncode == 0:
            return through
    return None


@pytest.mark.parametrize(
    ("size", "shared"), [("16k", ""), ("1m", ""), ("12m", ""), ("16k", "1"), ("80k", "1")]
)
def test_a_full_disk_is_one_sentence(home: Path, size: str, shared: str) -> None:
    """At the first file, in the installer's own environment, in what it downloads."""
    through = in_small_room(home, size)
    if through is None:
        pytest.skip("no mounts in a namespace here (unshare -m is missing or not allowed)")
    sentence = said(reproduce(home, {"SHARED": shared}, *through))
    assert "No space left" in sentence
    assert reproduce(home).stdout == "VALID\n"


class Slow(http.server.SimpleHTTPRequestHandler):
    """An index, which may keep the installer waiting for a file."""

    waits = threading.Event()
    asked = threading.Event()

    def do_GET(self) -> None:
        if self.path.endswith(".whl"):
            self.asked.set()
            self.waits.wait(LIMIT_S)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(home: Path) -> Iterator[str]:
    """The address of an index with the project's wheel."""
    package = home.parent / "index/tiny"
    package.mkdir(parents=True)
    for file in (home / "wheels").iterdir():
        file.rename(package / file.name)
    (home / "wheels").rmdir()
    names = [file.name for file in package.iterdir()]
    links = "".join(f'<a href="{name}">{name}</a>' for name in names)
    (package / "index.html").write_text(links, encoding="utf-8")
    Slow.waits.clear()
    Slow.asked.clear()
    handler = partial(Slow, directory=str(package.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        Slow.waits.set()
        server.shutdown()


@pytest.mark.parametrize("whole_group", [True, False])
def test_a_kill_while_packages_are_fetched_leaves_nothing_that_looks_whole(
    home: Path, index: str, whole_group: bool
) -> None:
    """Of all processes, or only of the one that the next command doesn't wait for."""
    environment = {"PIP_INDEX_URL": index}
    process = subprocess.Popen(
        [str(home / "reproduce")],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert Slow.asked.wait(LIMIT_S)
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        (child,) = children(process.pid)
        os.kill(child, signal.SIGKILL)
    process.wait(LIMIT_S)
    assert not list((home / ".envs").glob("driver-*/complete"))
    Slow.waits.set()
    done = reproduce(home, environment)
    assert done.stdout == "VALID\n", done.stderr
    assert sorted(path.name for path in (home / ".envs").glob("*.downloads")) == []


def children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8")
    return [int(word) for word in text.split()]


def test_where_no_index_answers_the_next_command_goes_on(home: Path, index: str) -> None:
    sentence = said(reproduce(home, {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0"}))
    assert "driver.lock can't be installed" in sentence and "http://127.0.0.1:9/tiny/" in sentence
    Slow.waits.set()
    assert reproduce(home, {"PIP_INDEX_URL": index}).stdout == "VALID\n"


def test_several_commands_at_once_make_it_once(home: Path, index: str) -> None:
    started = [
        subprocess.Popen(
            [str(home / "reproduce")],
            env={**os.environ, "PYTHON": sys.executable, "PIP_INDEX_URL": index},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert Slow.asked.wait(LIMIT_S)
    time.sleep(1)
    Slow.waits.set()
    ended = [process.communicate(timeout=LIMIT_S) for process in started]
    assert [out for out, _ in ended] == ["VALID\n"] * 3
    assert sum("waiting for another process" in errors for _, errors in ended) == 2


def remove_python(home: Path) -> None:
    (home / "bin/python").unlink()


def remove_package(home: Path) -> None:
    for path in home.glob("lib/*/site-packages/tiny-*"):
        shutil.rmtree(path)


def add_package(home: Path) -> None:
    (place,) = home.glob("lib/*/site-packages")
    (place / "other-2.0.dist-info").mkdir()
    (place / "other-2.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: other\nVersion: 2.0\n", encoding="utf-8"
    )


def change_version(home: Path) -> None:
    (metadata,) = home.glob("lib/*/site-packages/tiny-*/METADATA")
    text = metadata.read_text(encoding="utf-8").replace("Version: 1.0", "Version: 1.1")
    metadata.unlink()
    metadata.write_text(text, encoding="utf-8")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Plan, Job]:
    """A checkout whose environment of one package is made, the plan, and a job that runs in it."""
    project = copy_project(tmp_path / "project")
    tiny = wheels.wheel(project / "wheels")
    (project / "envs/tiny.lock").write_text(wheels.locked(tiny), encoding="utf-8")
    wheels.share_installer(project)
    directory = environment_directory(project, "tiny")
    making = Job(
        step="environment",
        key="tiny",
        config=json.dumps({"name": "tiny", "probes": ["tiny"]}),
        inputs={"lock": "envs/tiny.lock"},
        environment=".envs/driver",
        output="out/manifest.json",
        log="log",
    )
    job = making.model_copy(
        update={"step": "accuracy_check", "environment": directory, "output": "x/manifest.json"}
    )
    config, lock = json.loads(making.config), project / "envs/tiny.lock"
    done = subprocess.run(
        running.command("environment", config, {"lock": lock}, project),
        cwd=project,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    plan = Plan(experiment="e", jobs=(making, job), requirements=(), scheduler=Local(name="local"))
    return project, plan, job


@pytest.mark.parametrize(
    "damage", [shutil.rmtree, remove_python, remove_package, add_package, change_version]
)
def test_what_is_gone_or_changed_is_made_again_and_results_stay(
    made: tuple[Path, Plan, Job],
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    project, plan, job = made
    home = project / job.environment
    manifest = project / "out/manifest.json"
    before, changed = manifest.read_bytes(), manifest.stat().st_mtime_ns
    damage(home)
    restore(plan, {"out/manifest.json", job.output}, project)
    restore(plan, set(), project)
    assert capsys.readouterr().out == "", "its own step makes it, or nobody needs it"
    restore(plan, {job.output}, project)
    assert capsys.readouterr().out == "environment tiny is gone or damaged: made again\n"
    assert venv.is_whole(home)
    assert venv.listed(home / "bin/python") == [("tiny", "1.0")]
    assert (manifest.read_bytes(), manifest.stat().st_mtime_ns) == (before, changed)
    restore(plan, {job.output}, project)
    assert capsys.readouterr().out == ""


def test_an_environment_of_another_python_is_not_passed_off_as_the_same(
    made: tuple[Path, Plan, Job],
) -> None:
    project, plan, job = made
    manifest = project / "out/manifest.json"
    fields = json.loads(manifest.read_text(encoding="utf-8"))
    fields["result"]["python"] = "3.11.99"
    del fields["digest"]
    manifest.write_text(stamped(fields), encoding="utf-8")
    shutil.rmtree(project / job.environment)
    with pytest.raises(UserError, match=r"had Python 3.11.99 .* or delete .*/out"):
        restore(plan, {job.output}, project)
    assert not venv.is_whole(project / job.environment)


def test_a_later_locks_package_is_installed_in_an_earlier_ones_place(tmp_path: Path) -> None:
    """As a round's LoadGen, in the environment of an engine."""
    folder = tmp_path / "wheels"
    older, newer = wheels.wheel(folder), wheels.wheel(folder, "2.0")
    own, other = tmp_path / "cpu.lock", tmp_path / "loadgen-2.0.lock"
    own.write_text(wheels.locked(older, wheels.wheel(folder, name="other")), encoding="utf-8")
    other.write_text(wheels.locked(newer), encoding="utf-8")
    made = tmp_path / ".envs/cpu-loadgen-2.0-0"
    made.parent.mkdir()
    (made.parent / wheels.tool().name).symlink_to(wheels.tool())
    (tmp_path / "envs").mkdir()
    shutil.copy(ROOT / f"envs/{venv.TOOL}.lock", tmp_path / "envs")
    lines: list[str] = []
    venv.make(made, [own, other], tmp_path, tmp_path / "log", lines.append)
    assert sorted(venv.listed(made / "bin/python")) == [("other", "1.0"), ("tiny", "2.0")]
    assert not venv.differences(made / "bin/python", [own, other])
    assert venv.differences(made / "bin/python", [own]) == ["tiny is 2.0, not 1.0"]
