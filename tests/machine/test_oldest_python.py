"""Steps in images run in the Python of the image's base, and AMD's of ROCm 7.0 have this one."""

import json
import shutil
import subprocess
from pathlib import Path

import pandas
import pytest

from steps.base.locks import entries
from steps.base.record import MANIFEST, publish
from steps.base.venv import is_whole
from steps.config.layers import merged
from steps.plan.registry import STEPS
from steps.plan.specs.container import OLDEST_PYTHON
from steps.prepare.rehearsal import dataset
from tests.conftest import ROOT, planned
from tests.running import Running, artifacts_of

pytestmark = pytest.mark.engine

VERSION = f"3.{OLDEST_PYTHON}"
SAMPLES = 64
CONTAINED = sorted(
    name for name, spec in STEPS.items() if spec.environment in ("engine", "prepare", "scoring")
)


def found() -> str | None:
    """That Python's path: a shim by its name may lead nowhere."""
    known = Path.home().glob(f".pyenv/versions/{VERSION}.*/bin/python{VERSION}")
    for path in (shutil.which(f"python{VERSION}"), *map(str, known)):
        if (
            path
            and subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0
        ):
            return path
    return None


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of an environment of the null engine's lock, but for Ray, which is most of it; kept."""
    base = found()
    if base is None:
        pytest.skip(f"no Python {VERSION} is on this machine")
    wanted = [entry for entry in entries(ROOT / "envs/cluster.lock") if entry.name != "ray"]
    text = "".join(entry.text for entry in wanted)
    home = ROOT / f".envs/oldest-{OLDEST_PYTHON}"
    lock, made = home / "lock", home / "bin/python"
    if not is_whole(home) or lock.read_text(encoding="utf-8") != text:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([base, "-m", "venv", home], check=True, timeout=120)
        lock.write_text(text, encoding="utf-8")
        pip = [made, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--no-input", "-r", lock], check=True, timeout=600)
        (home / "complete").touch()
    return str(made)


@pytest.mark.parametrize("step", CONTAINED)
def test_steps_of_images_start(python: str, step: str) -> None:
    done = subprocess.run(
        [python, "-m", STEPS[step].module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout


def run(python: str, inputs: dict[str, Path], home: Path) -> Running:
    plan = planned("experiment=null-engine", "scenario=Server")
    raw = next(json.loads(job.config) for job in plan.jobs if job.step == "performance_run")
    loadgen = {
        "performance_sample_count_override": SAMPLES,
        "target_qps": 250,
        "min_query_count": 512,
        "min_duration_ms": 1,
    }
    config = merged(raw, {"loadgen": loadgen, "engine": {"placement": {"engines_per_node": 2}}})
    return Running("performance_run", config, inputs, home, 2, python)


def test_a_run_in_it_reads_what_newer_ones_wrote(python: str, tmp_path: Path) -> None:
    inputs = artifacts_of(tmp_path / "artifacts", SAMPLES)
    home = tmp_path / "prompts"
    with publish(home, step="dataset", config={}, inputs={}, code="") as workspace:
        for name, table in (
            ("evaluation", dataset.evaluation),
            ("calibration", dataset.calibration),
        ):
            table(SAMPLES).to_pickle(workspace.directory / f"{name}.pkl")
    running = run(python, {**inputs, "dataset": home / MANIFEST}, tmp_path)
    status, text = running.ended()
    assert status == 0, text
    assert sum(engine["samples"] for engine in running.manifest().result["engines"]) == 512


def test_a_table_that_only_a_newer_pandas_reads_gets_one_sentence(
    python: str, tmp_path: Path
) -> None:
    home, newer = tmp_path / "prompts", pandas.DataFrame({"tok_input": [[1, 4]] * SAMPLES})
    with publish(home, step="dataset", config={}, inputs={}, code="") as workspace:
        for name in ("evaluation", "calibration"):
            newer.to_pickle(workspace.directory / f"{name}.pkl")
    inputs = artifacts_of(tmp_path / "artifacts", SAMPLES)
    running = run(python, {**inputs, "dataset": home / MANIFEST}, tmp_path)
    status, text = running.ended()
    assert status == 1
    assert "evaluation.pkl isn't a table of prompts with a column tok_input" in text
    assert "Traceback" not in text
