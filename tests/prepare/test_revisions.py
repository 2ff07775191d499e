"""Revisions that nobody states, a site's hub cache, and weights that are published quantized."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.plan import revisions
from steps.plan.frozen import frozen_plan
from steps.plan.make import make
from steps.plan.plan import load
from steps.plan.registry import STEPS
from steps.prepare.fetch.revisions import resolve
from tests import checkpoints, running
from tests.conftest import ROOT
from tests.file_server import Files

COMMIT, LATER = "0123456789abcdef" * 2 + "01234567", "f" * 40
REPOSITORY = "amd/small"


def model_of(url: str, fetch: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    settings = {
        "offline": False,
        "connections": 2,
        "stall_limit_s": 5.0,
        "attempts": 2,
        "retry_wait_s": 0.01,
        "endpoint": url,
        "token": None,
        "include": ["*.safetensors", "*.json"],
        "exclude": [],
        **(fetch or {}),
    }
    fields = {"name": "small", "source": "huggingface", "repository": REPOSITORY}
    return {**fields, "revision": COMMIT, "fetch": settings, **changes}


def checkpoint(home: Path, **declared: Any) -> Path:
    written = checkpoints.write(home, checkpoints.llama(1), shards=2)
    path = written / "config.json"
    config = json.loads(path.read_text())
    if declared:
        config["quantization_config"] = declared
    path.write_text(json.dumps(config))
    return written


def fill(server: Files, home: Path, commit: str = COMMIT) -> None:
    """A hub with the files of a directory, and `main` at a commit."""
    entries = []
    for path in sorted(home.iterdir()):
        data = path.read_bytes()
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path.name, "size": len(data), "oid": blob}
        if path.suffix == ".safetensors":
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
        entries.append(entry)
        server.bodies[f"/{REPOSITORY}/resolve/{commit}/{path.name}"] = data
    server.bodies[f"/api/models/{REPOSITORY}/tree/{commit}"] = json.dumps(entries).encode()
    head(server, commit)


def head(server: Files, commit: str) -> None:
    said = json.dumps({"sha": commit, "id": REPOSITORY}).encode()
    server.bodies[f"/api/models/{REPOSITORY}/revision/main"] = said


def cached(cache: Path, home: Path, commit: str = COMMIT) -> Path:
    """The same files as Hugging Face's tools keep them; returns the snapshot."""
    base = cache / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot, blobs = base / "snapshots" / commit, base / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir(exist_ok=True)
    for path in sorted(home.iterdir()):
        data = path.read_bytes()
        name = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        if path.suffix == ".safetensors":
            name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / name, snapshot))
    (base / "refs").mkdir()
    (base / "refs/main").write_text(commit)
    return snapshot


def step(home: Path, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        running.command("model", settings, {}, home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refused(done: subprocess.CompletedProcess[str], home: Path, words: str) -> None:
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "out").exists()


# ---- revisions ---------------------------------------------------------------------------------


def planned_models(root: Path) -> list[dict[str, Any]]:
    jobs = make(root, CHOSEN).jobs
    return [json.loads(job.config) for job in jobs if job.step == "model"]


CHOSEN = [
    *("experiment=amd-v5.1", "system=amd-mi300x", "benchmark=llama2-70b-99.9"),
    "scenario=Offline",
]


def test_a_head_is_looked_up_once_and_kept_in_every_later_plan(
    project: Path, server: Files
) -> None:
    (model,) = planned_models(project)
    assert model["revision"] is None and STEPS["model"].brings(model) is None
    before = frozen_plan(project, CHOSEN)
    (open_ended,) = revisions.unresolved(before)
    open_ended["fetch"] |= {"endpoint": server.url, "token": None}
    server.bodies[f"/api/models/{open_ended['repository']}/revision/main"] = json.dumps(
        {"sha": COMMIT}
    ).encode()
    assert resolve([open_ended], project) == {revisions.name_of(open_ended): COMMIT}
    # As if the public hub had been asked.
    revisions.record(project, {revisions.name_of(model): COMMIT}, "2026-11-30T12:00:00+00:00")
    after = frozen_plan(project, CHOSEN)
    assert after != before and not revisions.unresolved(after)
    (model,) = planned_models(project)
    assert (model["revision"], model["branch"]) == (COMMIT, "main")
    job = next(job for job in load(after).jobs if job.step == "model")
    assert json.loads(job.config)["revision"] == COMMIT
    # A second look-up doesn't replace what was recorded.
    revisions.record(project, {revisions.name_of(model): LATER}, "2026-12-01T12:00:00+00:00")
    assert revisions.known(project)[revisions.name_of(model)] == COMMIT


@pytest.mark.parametrize("text", ["{", "[]", '{"x": "main"}', '{"x": {"commit": "main"}}'])
def test_damaged_records_of_revisions_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / revisions.FILE).write_text(text)
    with pytest.raises(UserError, match=r"revisions.json is damaged; restore it"):
        revisions.known(tmp_path)


@pytest.mark.parametrize("answer", [b'{"sha": "main"}', b'{"sha": 3}', b"[]", b"[" * 100_000])
def test_a_hub_that_names_no_commit_records_nothing(
    tmp_path: Path, server: Files, answer: bytes
) -> None:
    server.bodies[f"/api/models/{REPOSITORY}/revision/main"] = answer
    with pytest.raises(UserError, match=r"names no commit; is this a hub's endpoint"):
        resolve([model_of(server.url, revision=None)], tmp_path)
    assert not (tmp_path / revisions.FILE).exists()


def test_a_head_that_has_moved_is_refused_until_the_user_chooses(
    server: Files, tmp_path: Path
) -> None:
    fill(server, checkpoint(tmp_path / "held"))
    head(server, LATER)
    words = f"main of {REPOSITORY} is {LATER} now, and results/revisions.json has {COMMIT}; delete"
    refused(step(tmp_path, model_of(server.url, branch="main")), tmp_path, words)
    done = step(tmp_path, model_of(server.url))  # pinned by the user
    assert done.returncode == 0, done.stderr
    assert Manifest.read(tmp_path / "out/manifest.json").result["revision"] == COMMIT


def test_a_revision_that_nobody_looked_up_is_refused(server: Files, tmp_path: Path) -> None:
    words = f"no revision of {REPOSITORY} is known"
    refused(step(tmp_path, model_of(server.url, revision=None)), tmp_path, words)


# ---- a site's cache ----------------------------------------------------------------------------


def test_a_sites_cache_is_taken_without_a_network(tmp_path: Path) -> None:
    cached(tmp_path / "cache", checkpoint(tmp_path / "held"))
    fetch = {"offline": True, "hub_cache": str(tmp_path / "cache")}
    settings = model_of("http://127.0.0.1:1", fetch, branch="main")
    assert STEPS["model"].brings(settings) is None
    done = step(tmp_path, settings)
    assert done.returncode == 0, done.stderr
    made = Manifest.read(tmp_path / "out/manifest.json")
    assert made.result["fetched_from"] == "a hub's cache"
    assert {path.name for path in (tmp_path / "held").iterdir()} == set(made.files)
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    open_ended = {**settings, "revision": None}
    assert list(resolve([open_ended], tmp_path).values()) == [COMMIT]


def test_a_damaged_cache_is_refused_and_a_part_of_one_is_fetched(
    server: Files, tmp_path: Path
) -> None:
    held = checkpoint(tmp_path / "held")
    fill(server, held)
    snapshot = cached(tmp_path / "cache", held)
    fetch = {"hub_cache": str(tmp_path / "cache")}
    shard = next(snapshot.glob("*.safetensors"))
    data = shard.read_bytes()
    shard.resolve().write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    words = "isn't what its blob is named by: the cache is damaged; delete"
    refused(step(tmp_path, model_of(server.url, fetch)), tmp_path, words)
    shard.unlink()
    offline = model_of(server.url, {**fetch, "offline": True})
    refused(step(tmp_path, offline), tmp_path, f"{shard.name} is missing")
    done = step(tmp_path, model_of(server.url, fetch))
    assert done.returncode == 0, done.stderr
    made = Manifest.read(tmp_path / "out/manifest.json")
    assert made.result["fetched_from"] == server.url and shard.name in made.files


def test_where_a_cache_is_moves_no_artifact(project: Path) -> None:
    def outputs(*overrides: str) -> dict[tuple[str, str], str]:
        jobs = make(project, [*CHOSEN, *overrides]).jobs
        return {(job.step, job.key): job.output for job in jobs}

    assert outputs() == outputs("fetch.hub_cache=/data/hub")
    assert outputs() != outputs("fetch.connections=3")


# ---- weights that are published quantized ------------------------------------------------------

FP8 = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
MXFP4 = {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4"}}}


def test_a_plan_of_prequantized_weights_makes_none(project: Path) -> None:
    jobs = make(project, [*CHOSEN, "precision.prequantized=true"]).jobs
    steps = {job.step for job in jobs}
    assert "quantize" not in steps
    (model,) = (json.loads(job.config) for job in jobs if job.step == "model")
    assert model["repository"] == "amd/Llama-2-70b-chat-hf_FP8_MLPerf_V2"
    assert model["format"] == "fp8" and len(model["first_shard_md5"]) == 32
    run = next(job for job in jobs if job.step == "performance_run")
    assert "/model/llama2-70b-99.9/fp8-" in run.inputs["model"]
    dataset = next(job for job in jobs if job.step == "dataset")
    assert "model" not in dataset.inputs


def test_weights_that_nobody_published_cant_be_asked_for(project: Path) -> None:
    chosen = ["experiment=amd-v5.1", "benchmark=llama3.1-405b", "precision.prequantized=true"]
    with pytest.raises(UserError, match=r"precision\.prequantized=true has no effect"):
        make(project, [*chosen, "compression=depth-pruned-21"])


@pytest.mark.parametrize(
    ("declared", "wanted", "words"),
    [
        (FP8, "fp8", None),
        (MXFP4, "mxfp4", None),
        (MXFP4, "fp8", "has weights in mxfp4, and the plan takes fp8"),
        ({}, "fp8", "has weights in source, and the plan takes fp8"),
        ({"quant_method": "awq"}, "fp8", "has weights in no format that is known, and the plan"),
    ],
)
def test_prequantized_weights_have_the_format_of_the_plan(
    server: Files, tmp_path: Path, declared: dict[str, Any], wanted: str, words: str | None
) -> None:
    fill(server, checkpoint(tmp_path / "held", **declared))
    done = step(tmp_path, model_of(server.url, format=wanted))
    if words is not None:
        refused(done, tmp_path, words)
        return
    assert done.returncode == 0, done.stderr
    result = Manifest.read(tmp_path / "out/manifest.json").result
    assert result["format"] == wanted and result["repository"] == REPOSITORY


def test_the_first_file_is_the_one_that_amd_ran(server: Files, tmp_path: Path) -> None:
    held = checkpoint(tmp_path / "held", **FP8)
    fill(server, held)
    first = min(held.glob("*.safetensors"))
    wrong = model_of(server.url, format="fp8", first_shard_md5="0" * 32)
    refused(step(tmp_path, wrong), tmp_path, f"isn't what AMD ran: the md5 of {first.name} is")
    md5 = hashlib.md5(first.read_bytes()).hexdigest()
    done = step(tmp_path, model_of(server.url, format="fp8", first_shard_md5=md5))
    assert done.returncode == 0, done.stderr
