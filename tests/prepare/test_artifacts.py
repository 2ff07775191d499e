"""Weights, environments and descriptions: what they make and what they refuse."""

import json
import resource
import shutil
import subprocess
from pathlib import Path

from steps.base.record import Manifest
from tests import running
from tests.conftest import ROOT
from tests.wheels import share_installer


def command(
    step: str,
    config: dict[str, object],
    home: Path,
    cwd: Path,
    *,
    largest_file: int = resource.RLIM_INFINITY,
    **inputs: Path,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        running.command(step, config, inputs, home),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, -1)),
    )


MODEL = {"name": "rehearsal", "embedded": "steps/prepare/rehearsal/model"}


def test_the_shipped_weights_are_the_ones_of_their_manifest(tmp_path: Path) -> None:
    source = ROOT / "steps/prepare/rehearsal/model/manifest.json"
    done = command("model", MODEL, tmp_path, ROOT, source=source)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out/manifest.json")
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(manifest.files)


def test_corrupt_weights_are_refused_by_name(project: Path, tmp_path: Path) -> None:
    weights = project / "steps/prepare/rehearsal/model/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    source = weights.with_name("manifest.json")
    done = command("model", MODEL, tmp_path, project, source=source)
    assert done.returncode == 1
    assert "model.safetensors is missing or differs from" in done.stderr
    assert "git checkout" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_lock_that_cannot_be_installed_leaves_nothing(project: Path, tmp_path: Path) -> None:
    lock = project / "envs/broken.lock"
    lock.write_text("this is no requirement==\n", encoding="utf-8")
    config = {"name": "broken", "probes": ["json"]}
    done = command("environment", config, tmp_path, project, lock=lock)
    assert done.returncode == 1
    assert "broken.lock, line 1: 'this is no requirement==' pins no version" in done.stderr
    assert not (tmp_path / "out").exists()
    assert not list((project / ".envs").glob("broken-*/complete"))


def test_an_environment_whose_packages_do_not_import_is_refused(
    project: Path, tmp_path: Path
) -> None:
    share_installer(project)
    lock = project / "envs/empty.lock"
    lock.write_text("# nothing\n", encoding="utf-8")
    config = {"name": "empty", "probes": ["json", "surely_absent"]}
    done = command("environment", config, tmp_path, project, lock=lock)
    assert done.returncode == 1
    assert "`import surely_absent` fails" in done.stderr
    done = command("environment", {**config, "probes": ["json"]}, tmp_path, project, lock=lock)
    assert done.returncode == 0, done.stderr


def test_an_environment_below_a_link_outlives_the_link(project: Path, tmp_path: Path) -> None:
    home = tmp_path / "environments"
    (tmp_path / "x").mkdir()
    share_installer(tmp_path / "x")
    shutil.move(tmp_path / "x/.envs", home)
    (project / ".envs").symlink_to(home)
    lock = project / "envs/empty.lock"
    lock.write_text("# nothing\n", encoding="utf-8")
    config = {"name": "empty", "probes": ["json"]}
    done = command("environment", config, tmp_path, project, lock=lock)
    assert done.returncode == 0, done.stderr
    (project / ".envs").unlink()
    (python,) = home.glob("empty-*/bin/python")
    assert subprocess.run([str(python), "--version"], timeout=60).returncode == 0


def test_a_description_has_every_field_of_the_round_and_no_host_name(tmp_path: Path) -> None:
    import platform

    config = {
        "name": "x",
        "fields": {"submitter": "Acme", "extra": "kept"},
        "required": ["submitter", "host_processor_model_name", "cooling"],
    }
    done = command("describe", config, tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out/manifest.json")
    system = json.loads(manifest.file("system.json").read_text(encoding="utf-8"))
    origins = {name: entry["origin"] for name, entry in manifest.result["fields"].items()}
    assert system["submitter"] == "Acme"
    assert system["cooling"] == "N/A"
    assert origins == {
        "submitter": "configured",
        "host_processor_model_name": "probed",
        "cooling": "missing",
        "extra": "configured",
    }
    assert platform.node() not in json.dumps(list(system.values()))


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size: the same error, at the same calls, as a full disk."""
    config: dict[str, object] = {"name": "rehearsal", "recipe": "rehearsal"}
    config |= {"evaluation_count": 1024, "calibration_count": 8}
    done = command("dataset", config, tmp_path, ROOT, largest_file=100_000)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: dataset: ")
    assert "File too large; fix it and re-run" in line
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
