"""`python -m bench.patches`: do AMD's published patches still apply to their public commits?

For each image of AMD's v5.1 and v6.0 submissions whose vLLM is in a public repository: the patches
that the plan names, in their order, read from the published submission, on the commit that the plan
names. Nothing is checked out: git applies them to an index. Repositories come from GitHub, or are
local ones that have these commits:

    python -m bench.patches --local DIR DIR

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
from collections.abc import Mapping, Sequence
from pathlib import Path

from steps import ROOT
from steps.plan.frozen import frozen_plan
from steps.plan.plan import load

EXPERIMENTS = ("amd-v5.1", "amd-v6.0")
FOLDER = "closed/AMD/setup/vllm_patches"
"""Where v5.1's are; images of v6.0 name their own folder."""

FULL = 40
"""Digits of a commit's whole name."""

LIMIT_S = 1800


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--local", type=Path, nargs="*", default=[], help="repositories here")
    parser.add_argument("--tree", type=Path, help="where the first image's vllm/ is written")
    options = parser.parse_args()
    plans = [load(frozen_plan(ROOT, [f"experiment={name}"])) for name in EXPERIMENTS]
    jobs = [job for plan in plans for job in plan.jobs if job.step == "container"]
    images = [json.loads(job.config) for job in jobs]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for image in images:
            given = image.get("arguments", {})
            if "VLLM_PATCHES" not in given:
                continue
            if "VLLM" not in given or not given["VLLM_SOURCE"].startswith("https://"):
                print(f"{image['name']}: its vLLM is only in the base image, nothing to try")
                continue
            try:
                whole = tried(image["name"], given, options, Path(folder) / image["name"])
            except LookupError as error:
                print(f"{image['name']}: NOT TRIED: {error}")
                whole = False
            failed |= not whole
    sys.exit(failed)


def tried(name: str, given: Mapping[str, str], options: argparse.Namespace, home: Path) -> bool:
    """Whether all patches of an image apply; says so, one line each."""
    submission, folder = given["PUBLISHED"], given.get("PATCHES", FOLDER)
    published = having(given["PUBLISHED_SOURCE"], submission, options.local, home / "published")
    source = having(given["VLLM_SOURCE"], given["VLLM"], options.local, home / "vllm")
    objects = home / "objects"  # of patched files: the repository may be read-only
    objects.mkdir(parents=True)
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
        text = git(published, "show", f"{submission}:{folder}/{patch}.patch")
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


def having(repository: str, commit: str, local: Sequence[Path], home: Path) -> Path:
    """A repository on this machine that has the commit, without files if it had to be fetched."""
    for one in local:
        known = ["git", "-C", str(one), "cat-file", "-e", f"{commit}^{{commit}}"]
        if subprocess.run(known, stderr=subprocess.DEVNULL, timeout=LIMIT_S).returncode == 0:
            return one
    subprocess.run(["git", "init", "--quiet", "--bare", str(home)], check=True)
    git(home, "remote", "add", "origin", repository)
    # A commit that is named in short can't be asked for alone.
    depth = ("--depth", "1") if len(commit) == FULL else ()
    wanted = (commit,) if depth else ()
    try:
        git(home, "fetch", "--quiet", *depth, "--filter=blob:none", "origin", *wanted)
        git(home, "cat-file", "-e", f"{commit}^{{commit}}")
    except subprocess.CalledProcessError:
        raise LookupError(
            f"{repository} can't be reached, or has no commit {commit}; name a local one"
        ) from None
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
