"""Have an engine build an image, once per set of inputs."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError
from pydantic import BaseModel, TypeAdapter

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.installer import WHEELS
from steps.config import build_context
from steps.config.container import ImageConfig
from steps.machine import engine_options
from steps.machine.container import carried, fallback, wheelhouse
from steps.machine.container.wheelhouse import Reached
from steps.machine.printed import last
from steps.machine.runtime.host import PYTHON, image_id

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_WRONG = re.compile(r"^(ERROR|error|E|fatal): |^the base ")
_STEP = re.compile(r"^step (\d+)/(\d+)", re.IGNORECASE)


def image(
    client: docker.DockerClient,
    config: ImageConfig,
    lock: Path,
    recipe: Path,
    home: Path,
    console: Console,
) -> dict[str, Any]:
    """The finished image's attributes, as the engine inspects it; built only if it isn't there.

    Loaded if the checkout `home` has an archive of it, built offline if it has wheels.
    An engine names an image after its last layer, so a killed build leaves nothing with the name.
    Raises UserError for a base that can't be pulled and a build that fails.
    """
    for tried in _ways(config):
        content = build_context.files(tried, lock, recipe)
        brought = carried.load(client, tried, content, home / carried.FOLDER, console)
        if brought is not None:
            return brought
    config, base = _chosen(client, config, console)
    content = build_context.files(config, lock, recipe)
    digest = build_context.digest(config, content, base)
    tag = f"reprise/{config.name}:{digest[:12]}"
    known = image_id(client, tag)
    if known is None or client.images.get(known).labels.get(carried.LABEL) != digest:
        named = {carried.BASE: base, carried.NAMED: published(client, config.base, base)}
        labels = {carried.LABEL: digest, **named}
        with wheelhouse.reached(client, config.host.engine, home / WHEELS, base) as reached:
            _build(client, config, content, tag, labels, reached, console)
    return dict(client.images.get(tag).attrs)


def _ways(config: ImageConfig) -> list[ImageConfig]:
    """The image as it may be made: on a ready-made one first, if somebody published it."""
    if config.ready is None:
        return [config]
    return [config.model_copy(update=config.ready.model_dump()), config]


def _chosen(
    client: docker.DockerClient, config: ImageConfig, console: Console
) -> tuple[ImageConfig, str]:
    """How the image is made here, and the id of its base. Raises UserError if there is no way."""
    *ready, recipe = _ways(config)
    for tried in ready:
        try:
            return tried, _base(client, tried, console)
        except UserError as error:
            console.say(f"{error}; going on with the recipe")
    try:
        return recipe, _base(client, recipe, console)
    except UserError:
        if config.fallback is None:
            raise
        return recipe, fallback.base(client, recipe, config.fallback, console)


def published(client: docker.DockerClient, name: str, identity: str) -> str:
    """The name of a base with the digest that its registry has it by; without one, the name and
    its id: a tag alone may name other software on another day."""
    bare = name.partition("@")[0]
    repository = bare.rpartition(":")[0] if ":" in bare.rpartition("/")[2] else bare
    digests = client.images.get(identity).attrs.get("RepoDigests") or []
    found = [one for one in digests if f"/{one.partition('@')[0]}".endswith(f"/{repository}")]
    found = found or digests
    return f"{bare}@{found[0].partition('@')[2]}" if found else f"{bare}, id {identity}"


def _base(client: docker.DockerClient, config: ImageConfig, console: Console) -> str:
    known = image_id(client, config.base)
    if known is not None:
        return known
    console.say(f"image {config.name}: pulling {config.base}")
    try:
        return str(client.images.pull(config.base).id)
    except APIError as error:
        reason = " ".join(str(error.explanation or error).split())
        raise UserError(
            f"image {config.name}: its base {config.base} is not on this machine and can't be "
            f"pulled ({reason:.200}); load it into {config.host.engine}, or name another base in "
            "hardware.containers"
        ) from error


def _build(
    client: docker.DockerClient,
    config: ImageConfig,
    content: Mapping[str, bytes],
    tag: str,
    labels: Mapping[str, str],
    reached: Reached,
    console: Console,
) -> None:
    limit = time.monotonic() + config.build_limit_s
    client.api.params = dict(reached.parameters)
    try:
        events = client.api.build(
            fileobj=build_context.archive(content),
            custom_context=True,
            tag=tag,
            rm=True,
            forcerm=True,
            decode=True,
            buildargs={**build_context.arguments(config), **reached.arguments},
            network_mode=reached.network,
            labels=dict(labels),
        )
    finally:
        client.api.params = {}
    progress = None
    said: list[str] = []
    for event in events:
        if time.monotonic() > limit:
            raise UserError(
                f"image {config.name} wasn't built within {config.build_limit_s} s; see "
                f"{console.log}, or raise build_limit_s of the image"
            )
        if "error" in event:
            reason = " ".join([*_cause(said), str(event["error"])])
            raise UserError(f"image {config.name} can't be built: {reason:.400}; see {console.log}")
        for line in str(event.get("stream", "")).splitlines():
            print(line, flush=True)
            if found := _STEP.match(line):
                progress = progress or console.progress(
                    f"image {config.name}", int(found[2]), "layers"
                )
                progress.add()
            elif text := _COLOURS.sub("", line).strip():
                said.append(text)
    if progress:
        progress.close()


def _cause(said: list[str]) -> list[str]:
    """The last line that reports an error, else the last one that the build itself printed."""
    own = [line for line in said if not line.startswith(("--->", "Removing intermediate"))]
    return ([line for line in own if _WRONG.search(line)] or own)[-1:]


class _Package(BaseModel):
    """What is read of pip's list."""

    name: str
    version: str


LISTED = TypeAdapter(list[_Package])


def packages(client: docker.DockerClient, image: str) -> dict[str, str]:
    """Versions of the packages. Raises UserError for an image whose pip lists none."""
    printed = _python(client, image, "-m", "pip", "list", "--format=json")
    listed = last(printed, LISTED, f"pip of {image}", "what is installed")
    return {one.name: one.version for one in listed}


def engine(client: docker.DockerClient, image: str) -> "str | None":
    """What the image's vLLM takes, as a file's text; None: it has none."""
    return engine_options.text(_python(client, image, "-c", engine_options.script()), image)


def probe(client: docker.DockerClient, image: str, config: ImageConfig) -> None:
    """Raises UserError naming a module that doesn't import in the image."""
    for module in config.probes:
        try:
            _python(client, image, "-c", f"import {module}")
        except docker.errors.ContainerError as error:
            text = bytes(error.stderr or b"").decode(errors="replace").strip()
            last = (text.splitlines() or ["no message"])[-1]
            raise UserError(
                f"image {config.name}: `import {module}` fails with {last!r}; add what is missing "
                f"to its base or to envs/{config.lock}.lock"
            ) from error


def _python(client: docker.DockerClient, image: str, *arguments: str) -> str:
    output = client.containers.run(
        image, [*arguments], entrypoint=[PYTHON], remove=True, network_mode="none", stderr=False
    )
    return bytes(output).decode(errors="replace")
