"""`python -m bench.patches`: do AMD's published patches still apply to their public commits?

For each image of AMD's v5.1 submission whose vLLM is in a public repository: the patches that the
plan names, in their order, read from the published submission, on the commit that the plan names.
Nothing is checked out: git applies them to an index. Repositories come from GitHub, or from local
ones that have these commits:

    python -m bench.patches --published DIR --vllm DIR

With `--tree DIR` the patched Python source of the first image, Llama 2 70B's on MI300X and MI325X,
is written there, for bench.generations.

Patches of aiter and of its submodule are left out: aiter's own commit is that of the base image.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from steps import ROOT
from steps.plan.frozen import frozen_plan
from steps.plan.plan import load

PUBLISHED = "https://github.com/mlcommons/inference_results_v5.1"
FOLDER = "closed/AMD/setup/vllm_patches"
LIMIT_S = 1800


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--published", default=PUBLISHED, help="repository or directory")
    parser.add_argument("--vllm", help="repository or directory; else each image's own")
    parser.add_argument("--tree", type=Path, help="where the first image's vllm/ is written")
    options = parser.parse_args()
    plan = load(frozen_plan(ROOT, ["experiment=amd-v5.1"]))
    images = [json.loads(job.config) for job in plan.jobs if job.step == "container"]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for image in images:
            given = image.get("arguments", {})
            if "VLLM_PATCHES" not in given:
                continue
            if "VLLM" not in given or not given["VLLM_SOURCE"].startswith("https://"):
                print(f"{image['name']}: its vLLM is only in the base image, nothing to try")
                continue
            failed |= not tried(image["name"], given, options, Path(folder))
    sys.exit(failed)


def tried(name: str, given: Mapping[str, str], options: argparse.Namespace, home: Path) -> bool:
    """Whether all patches of an image apply; says so, one line each."""
    published = having(options.published, given["PUBLISHED"], home / "published")
    source = having(options.vllm or given["VLLM_SOURCE"], given["VLLM"], home / "vllm")
    objects = home / "objects"  # of patched files: the repository may be read-only
    objects.mkdir(exist_ok=True)
    theirs = git(source, "rev-parse", "--absolute-git-dir").decode().strip()
    index = {
        **os.environ,
        "GIT_INDEX_FILE": str(home / "index"),
        "GIT_OBJECT_DIRECTORY": str(objects),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": f"{theirs}/objects",
    }
    git(source, "read-tree", given["VLLM"], environment=index)
    whole, tree = True, options.tree
    for patch in given["VLLM_PATCHES"].split():
        text = git(published, "show", f"{given['PUBLISHED']}:{FOLDER}/{patch}.patch")
        done = subprocess.run(
            ["git", "-C", str(source), "apply", "--cached", "-"],
            input=text,
            env=index,
            capture_output=True,
            timeout=LIMIT_S,
        )
        why = done.stderr.decode(errors="replace").strip().splitlines()
        whole &= not done.returncode
        words = "applies" if not done.returncode else f"DOESN'T APPLY: {why[0] if why else ''}"
        print(f"{name}: {patch} on {given['VLLM']:.12}: {words}")
    if whole and tree is not None and not (tree / "vllm").exists():
        written(source, index, tree)
        print(f"{name}: the patched source is in {tree}")
    return whole


def written(source: Path, index: Mapping[str, str], tree: Path) -> None:
    """The package's files of an index, below a directory."""
    named = git(source, "write-tree", environment=index).decode().strip()
    packed = git(source, "archive", named, "vllm", environment=index)
    tree.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-x", "-C", str(tree)], input=packed, check=True, timeout=LIMIT_S)


def having(repository: str, commit: str, home: Path) -> Path:
    """A repository on this machine that has the commit, without files if it had to be fetched."""
    if Path(repository).is_dir():
        return Path(repository)
    if not home.is_dir():
        subprocess.run(["git", "init", "--quiet", "--bare", str(home)], check=True)
        git(home, "remote", "add", "origin", repository)
    fetch = ("fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin")
    try:
        git(home, *fetch, commit)
    except subprocess.CalledProcessError:
        sys.exit(f"{repository} can't be reached, or has no commit {commit}; name a local one")
    git(home, "config", "remote.origin.promisor", "true")
    return home


def git(home: Path, *words: str, environment: Mapping[str, str] | None = None) -> bytes:
    command = ["git", "-C", str(home), *words]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, env=environment, timeout=LIMIT_S
    )
    return done.stdout


if __name__ == "__main__":
    main()
