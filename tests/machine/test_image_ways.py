"""How an image comes to its base: ready-made, pulled, or built; and the name it is recorded by."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound

from steps.base.errors import UserError
from steps.config import build_context
from steps.config.container import BaseImage, Fallback, ImageConfig, ReadyMade
from steps.config.runtime import EngineAddress
from steps.machine.container import build, carried, fallback

READY, BASE = "rocm/amd-mlperf:ready", "rocm/vllm-dev:nightly"
DIGEST = "sha256:" + "d" * 64


class Registry:
    """As much of a client as a base needs. `here`: names on the machine; `there`: names that
    can be pulled."""

    def __init__(self, here: tuple[str, ...] = (), there: tuple[str, ...] = ()) -> None:
        self.here, self.there, self.pulled = set(here), there, []  # type: ignore[var-annotated]
        self.images = SimpleNamespace(get=self._get, pull=self._pull)

    def _get(self, name: str) -> Any:
        if name not in self.here:
            raise ImageNotFound(name)
        digests = [f"docker.io/{name.partition(':')[0]}@{DIGEST}"] if "reprise" not in name else []
        return SimpleNamespace(id=name, attrs={"RepoDigests": digests}, labels={})

    def _pull(self, name: str) -> Any:
        if name not in self.there:
            raise APIError("manifest unknown")
        self.here.add(name)
        self.pulled.append(name)
        return self._get(name)


class Quiet:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, words: str) -> None:
        self.said.append(words)


def image(**more: Any) -> ImageConfig:
    return ImageConfig(
        name="x",
        stack="vllm-rocm",
        base=BASE,
        python="3.12",
        arguments={"VLLM_PATCHES": "a b"},
        lock="vllm-rocm",
        first=(),
        probes=(),
        build_limit_s=60,
        host=EngineAddress(engine="docker", socket="unix:///nowhere.sock"),
        **more,
    )


RECIPE = Fallback(
    source="https://example.org/vllm",
    revision="a" * 40,
    images=(
        BaseImage(dockerfile="docker/base", arguments={"BASE_IMAGE": "ubuntu:22.04"}),
        BaseImage(dockerfile="docker/vllm", arguments={"ARCH": "gfx942"}),
    ),
)


def chosen(client: Registry, config: ImageConfig, console: Any = None) -> tuple[ImageConfig, str]:
    return build._chosen(client, config, console or Quiet())  # type: ignore[arg-type]


def test_a_ready_made_image_comes_first_and_is_taken_as_it_is() -> None:
    config = image(ready=ReadyMade(base=READY, arguments={}), fallback=RECIPE)
    made, base = chosen(Registry(there=(READY, BASE)), config)
    assert (made.base, made.arguments, base) == (READY, {}, READY)


def test_without_it_the_recipe_goes_on_and_says_why() -> None:
    console = Quiet()
    config = image(ready=ReadyMade(base=READY, arguments={}))
    made, base = chosen(Registry(there=(BASE,)), config, console)
    assert (made.arguments, base) == ({"VLLM_PATCHES": "a b"}, BASE)
    *_, why, pulling = console.said
    assert READY in why
    assert why.endswith("going on with the recipe")
    assert pulling == f"image x: pulling {BASE}"


def test_without_any_way_the_base_is_named() -> None:
    with pytest.raises(UserError, match=rf"base {BASE} is not on this machine"):
        chosen(Registry(), image(ready=ReadyMade(base=READY, arguments={})))


def test_a_base_that_is_gone_is_built_one_image_on_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, commands = Registry(), []  # type: ignore[var-annotated]

    def run(command: list[str], **options: Any) -> Any:
        commands.append(command)
        if "--tag" in command:
            client.here.add(command[command.index("--tag") + 1])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(fallback.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(fallback.subprocess, "run", run)
    config = image(fallback=RECIPE)
    _, base = chosen(client, config)
    first, second = (command for command in commands if command[1] == "build")
    assert "BASE_IMAGE=ubuntu:22.04" in first
    below = first[first.index("--tag") + 1]
    assert second[second.index("--tag") + 1] == base
    assert {f"BASE_IMAGE={below}", "ARCH=gfx942"} <= set(second)
    count = len(commands)
    assert chosen(client, config)[1] == base, "it is there now"
    assert len(commands) == count


@pytest.mark.parametrize(
    ("lacking", "status", "words"),
    [("git", 0, "git is needed"), ("docker", 0, "docker is needed"), ("", 1, "status 1")],
)
def test_a_base_that_cannot_be_built_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, lacking: str, status: int, words: str
) -> None:
    monkeypatch.setattr(fallback.shutil, "which", lambda name: None if name == lacking else name)
    done = SimpleNamespace(returncode=status)
    monkeypatch.setattr(fallback.subprocess, "run", lambda command, **options: done)
    with pytest.raises(UserError, match=words):
        chosen(Registry(), image(fallback=RECIPE))


def test_edits_are_of_whole_words_and_each_is_found() -> None:
    text = "pip install setuptools setuptools_scm 'ray >= 2.10.0'"
    words = {"setuptools": "'setuptools<80'", "ray >= 2.10.0": "ray>=2.10.0,<2.45.0"}
    assert fallback.edited(image(), "f", text, words) == (
        "pip install 'setuptools<80' setuptools_scm 'ray>=2.10.0,<2.45.0'"
    )
    with pytest.raises(UserError, match="f has no 'pybind11' to replace"):
        fallback.edited(image(), "f", text, {"pybind11": "x"})


def test_a_checkout_is_the_revision_with_its_edits(tmp_path: Path) -> None:
    source = tmp_path / "source"
    git = ["git", "-C", str(source), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "--quiet", str(source)], check=True)
    (source / "requirements.txt").write_text("ray >= 2.10.0\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    made = RECIPE.model_copy(
        update={
            "source": f"file://{source}",
            "revision": head.stdout.strip(),
            "edits": {"requirements.txt": {"ray >= 2.10.0": "ray==2.44"}},
        }
    )
    folder = tmp_path / "checkout"
    folder.mkdir()
    fallback._checkout(image(), made, folder, limit=10**12)
    assert (folder / "requirements.txt").read_text() == "ray==2.44\n"


@pytest.mark.parametrize(
    ("name", "here", "wanted"),
    [
        (BASE, BASE, f"{BASE}@{DIGEST}"),
        ("reprise/local:1", "reprise/local:1", "reprise/local:1, id reprise/local:1"),
    ],
)
def test_a_base_is_recorded_by_the_digest_that_its_pull_found(
    name: str, here: str, wanted: str
) -> None:
    """Two pulls of one tag on two days may find two digests: other software under one name."""
    assert build.published(Registry(here=(here,)), name, here) == wanted  # type: ignore[arg-type]


def test_another_base_is_another_image() -> None:
    digests = {
        build_context.digest(image(), {"lock": b""}, base) for base in ("sha256:a", "sha256:b")
    }
    assert len(digests) == 2
    assert carried.NAMED.startswith("org.reprise.")
