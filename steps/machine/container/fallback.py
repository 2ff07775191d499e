"""A base that can't be pulled any more, built as its own project builds it."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import docker

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import canonical_json
from steps.config.container import Fallback, ImageConfig
from steps.machine.runtime.host import image_id


def base(
    client: docker.DockerClient, config: ImageConfig, fallback: Fallback, console: Console
) -> str:
    """The id of the base, built only if it isn't there.

    Its own recipes need BuildKit, which the container engine's command has and its API hasn't.
    Raises UserError if git or that command is missing, a word to be replaced isn't there, or a
    build fails or takes too long.
    """
    words = canonical_json(fallback.model_dump(mode="json"))
    tag = f"reprise/{config.name}-base:{hashlib.sha256(words.encode()).hexdigest()[:12]}"
    known = image_id(client, tag)
    if known is not None:
        return known
    engine = config.host.engine
    for program in ("git", engine):
        if shutil.which(program) is None:
            raise UserError(
                f"image {config.name}: its base {config.base} can't be pulled, and to build it "
                f"{program} is needed, which this machine lacks; install it, or load the base"
            )
    console.say(
        f"image {config.name}: {config.base} can't be pulled; building it from {fallback.source} "
        f"at {fallback.revision:.12}, which takes hours"
    )
    limit = time.monotonic() + fallback.build_limit_s
    with tempfile.TemporaryDirectory() as folder:
        _checkout(config, fallback, Path(folder), limit)
        below: dict[str, str] = {}
        for number, image in enumerate(fallback.images, 1):
            last = number == len(fallback.images)
            name = tag if last else f"{tag}-{number}"
            command = [engine, "build", "--file", f"{folder}/{image.dockerfile}", "--tag", name]
            for key, value in {**image.arguments, **below}.items():
                command += ["--build-arg", f"{key}={value}"]
            _run(config, [*command, folder], limit)
            below = {"BASE_IMAGE": name}
    made = image_id(client, tag)
    if made is None:
        raise UserError(f"image {config.name}: {engine} built {tag} and doesn't have it")
    return made


def _checkout(config: ImageConfig, fallback: Fallback, folder: Path, limit: float) -> None:
    git = ["git", "-C", str(folder)]
    _run(config, ["git", "init", "--quiet", str(folder)], limit)
    _run(
        config,
        [*git, "fetch", "--quiet", "--depth", "1", fallback.source, fallback.revision],
        limit,
    )
    _run(config, [*git, "checkout", "--quiet", "FETCH_HEAD"], limit)
    for name, words in fallback.edits.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"image {config.name}: {fallback.source} has no {name} to edit")
        path.write_text(edited(config, name, path.read_text(encoding="utf-8"), words), "utf-8")


def edited(config: ImageConfig, name: str, text: str, words: Mapping[str, str]) -> str:
    """Raises UserError for a word that isn't there: the edit would do nothing."""
    for old, new in words.items():
        text, count = re.subn(rf"(?<!\w){re.escape(old)}(?!\w)", new.replace("\\", r"\\"), text)
        if not count:
            raise UserError(f"image {config.name}: {name} has no {old!r} to replace")
    return text


def _run(config: ImageConfig, command: list[str], limit: float) -> None:
    """Its output goes into the step's log."""
    environment = {
        **os.environ,
        "DOCKER_BUILDKIT": "1",
        "DOCKER_HOST": config.host.socket,
        "CONTAINER_HOST": config.host.socket,
        "GIT_TERMINAL_PROMPT": "0",
    }
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=max(limit - time.monotonic(), 1),
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"image {config.name}: its base wasn't built within its limit; raise "
            "fallback.build_limit_s of the image, or load the base"
        ) from error
    if done.returncode:
        raise UserError(
            f"image {config.name}: `{' '.join(command[:3])}` of its base ended with status "
            f"{done.returncode}; see the log, or load the base {config.base}"
        )
