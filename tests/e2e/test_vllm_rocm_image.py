"""The recipe of AMD's vLLM on a stand-in of its base: the same paths and repositories, all empty.

What stands for a package is one module; patches add a file. The base's git sends what the recipe
clones to repositories of the base itself.
"""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import docker
import pytest

from steps.base.record import Manifest
from steps.config.runtime import EngineAddress
from steps.machine.runtime.host import PYTHON, connected
from tests import running
from tests.conftest import ROOT, planned
from tests.e2e.test_container_engines import BASE, LIMIT_S, require_base

pytestmark = pytest.mark.e2e

STAND_IN = "reprise/test-stand-in"
ENGINE = EngineAddress(engine="docker", socket="unix:///var/run/docker.sock")

DOCKERFILE = f"""
FROM {BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends git python3-pip \\
    python3-setuptools python3-wheel && rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED
COPY make.sh /make.sh
RUN sh /make.sh
"""

MAKE = r"""
set -eu
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git config --system safe.directory '*'
git config --system uploadpack.allowAnySHA1InWant true
git config --system uploadpack.allowFilter true
package() {
    mkdir -p "$2"
    echo "X = 1" >"$2/$1.py"
    printf 'from setuptools import setup\nsetup(name="%s", version="%s", py_modules=["%s"])\n' \
        "$1" "$3" "$1" >"$2/setup.py"
}
repository() { mkdir -p "/srv/$1" && cd "/srv/$1" && git init --quiet; }
commit() { git add --all && git commit --quiet --message x && git rev-parse HEAD >"/srv/$1"; }
installed() { pip install --no-build-isolation "$1"; }

repository pytorch/ao; package torchao . 1; commit TORCHAO
repository ROCm/flash-attention; package flash_attn . 2; commit FLASH_ATTENTION
repository ROCm/vllm; package vllm . 0.9; echo 'print()' >setup_cython.py; commit VLLM
repository ROCm/aiter; package aiter . 1
mkdir -p 3rdparty/composable_kernel && touch 3rdparty/composable_kernel/.keep; commit AITER
mkdir /app && cp -a /srv/ROCm/vllm /srv/ROCm/aiter /app/
repository mlcommons/inference_results_v5.1
for patch in PATCHES; do
    mkdir -p "closed/AMD/setup/$(dirname "$patch")"
    printf -- '--- /dev/null\n+++ b/%s.patched\n@@ -0,0 +1 @@\n+x\n' "$(basename "$patch")" \
        >"closed/AMD/setup/$patch.patch"
done
for file in TUNING; do
    mkdir -p "closed/AMD/code/$(dirname "$file")" && echo x >"closed/AMD/code/$file"
done
commit PUBLISHED
git config --system url.file:///srv/.insteadOf https://github.com/

package vllm /tmp/vllm "0.9.1.dev1+g$(cut -c1-9 /srv/VLLM).rocm"; installed /tmp/vllm
package aiter /tmp/aiter 1; installed /tmp/aiter
package flash_attn /tmp/flash 1; installed /tmp/flash
"""

LOOK = """
import importlib.metadata, json, os, pathlib, aiter, flash_attn, mlperf_loadgen, vllm
modules = (aiter, flash_attn, mlperf_loadgen, vllm)
print(json.dumps({
    "patched": sorted(str(path) for root in ("/app", "/opt") for path in
                      pathlib.Path(root).rglob("*.patched")),
    "places": {module.__name__: os.path.dirname(module.__file__) for module in modules},
    "numpy": importlib.metadata.version("numpy"),
    "user": os.getuid(),
    "tuning": sorted(str(path) for path in pathlib.Path("/opt/published").rglob("*.txt")),
}))
"""


def images() -> dict[str, dict[str, object]]:
    """Of AMD's plan: what each image of this recipe is configured as."""
    jobs = planned("experiment=amd-v5.1", "scenario=Offline").jobs
    configs = [json.loads(job.config) for job in jobs if job.step == "container"]
    return {made["name"]: made for made in configs if made.get("stack") == "vllm-rocm"}


@pytest.fixture(scope="module")
def revisions() -> dict[str, str]:
    """Of the stand-in's repositories, by the recipe's names of them."""
    given = [config["arguments"] for config in images().values()]
    kinds = {"VLLM_PATCHES": "vllm", "AITER_PATCHES": "aiter", "CK_PATCHES": "aiter"}
    patches = {
        f"{kinds[kind]}_patches/{patch}"
        for arguments in given
        if isinstance(arguments, dict)
        for kind in kinds
        for patch in arguments.get(kind, "").split()
    }
    tuning = " ".join(
        str(arguments["TUNING"])
        for arguments in given
        if isinstance(arguments, dict) and "TUNING" in arguments
    )
    require_base(ENGINE)
    with connected(ENGINE, LIMIT_S) as client:
        client.images.build(
            fileobj=_context(
                MAKE.replace("PATCHES", " ".join(sorted(patches)), 1).replace("TUNING", tuning, 1)
            ),
            custom_context=True,
            tag=STAND_IN,
            rm=True,
        )
        names = ["TORCHAO", "FLASH_ATTENTION", "VLLM", "AITER", "PUBLISHED"]
        read = [f"/srv/{name}" for name in names]
        said = client.containers.run(STAND_IN, ["cat", *read], remove=True)
    return dict(zip(names, said.decode().split(), strict=True))


def _context(script: str) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, text in (("Dockerfile", DOCKERFILE), ("make.sh", script)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    stream.seek(0)
    return stream


@pytest.mark.parametrize("name", ["llama2-70b-gfx942", "llama2-70b-gfx950", "mixtral-8x7b-gfx942"])
def test_the_recipe_builds_what_the_plan_says(
    name: str, revisions: dict[str, str], tmp_path: Path
) -> None:
    config = images()[name]
    planned_arguments = config["arguments"]
    assert isinstance(planned_arguments, dict)
    arguments = {
        key: revisions[key][: len(value)] if key in revisions else value
        for key, value in planned_arguments.items()
    }
    config |= {"name": f"test-{name}", "base": STAND_IN, "python": "3.11", "probes": ["vllm"]}
    config |= {"arguments": arguments, "host": ENGINE.model_dump(), "ready": None}
    inputs = {
        "lock": ROOT / "envs/vllm-rocm.lock",
        "recipe": ROOT / "containers/vllm-rocm/Dockerfile",
    }
    done = subprocess.run(
        running.command("container", config, inputs, tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    image = Manifest.read(tmp_path / "out/manifest.json").result["image"]
    with connected(ENGINE, LIMIT_S) as client:
        found = json.loads(_look(client, image))
        client.images.remove(image, force=True)
    aiter = "/opt/aiter" if "AITER" in arguments else "/app/aiter"
    places = {
        "VLLM_PATCHES": "/opt/vllm",
        "AITER_PATCHES": aiter,
        "CK_PATCHES": f"{aiter}/3rdparty/composable_kernel",
    }
    assert found["patched"] == sorted(
        f"{place}/{patch}.patched"
        for kind, place in places.items()
        for patch in arguments.get(kind, "").split()
    )
    assert found["places"]["vllm"] == "/opt/vllm"
    assert (found["places"]["aiter"] == "/opt/aiter") == ("AITER" in arguments)
    assert (found["places"]["flash_attn"] == "/opt/flash") == ("FLASH_ATTENTION" in arguments)
    assert (found["numpy"], found["user"]) == ("1.26.4", 1000)
    assert found["tuning"] == sorted(
        f"/opt/published/closed/AMD/code/{file}" for file in arguments.get("TUNING", "").split()
    )


def _look(client: docker.DockerClient, image: str) -> str:
    output = client.containers.run(
        image, ["-c", LOOK], entrypoint=[PYTHON], remove=True, network_mode="none"
    )
    return bytes(output).decode()
