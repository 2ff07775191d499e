"""A copy of the project that a test may edit or run in; how a run of the tests ends."""

import gc
import hashlib
import os
import pickle
import random
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from steps.plan.make import make
from steps.plan.plan import Plan
from tests import ending, snakemake_warnings

ROOT = Path(__file__).resolve().parent.parent
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

PARTS = ("conf", "containers", "envs", "reproduce", "steps", "workflow", "Snakefile")


ACME_SITE = """\
# @package _global_
defaults: [amd-mi325x, _self_]

system:
  name: acme-mi325x
  id: 8xMI325X_Acme
  submitter: Acme
  loadgen:
    by_model:
      llama2-70b: {by_scenario: {Server: {target_qps: 104}}}
  fields:
    system_name: Acme 8
"""
"""A partner's system file, on AMD's MI325X."""

MIXED = """\
# @package _global_
defaults:
  - amd-mi300x
  - override /cluster: 2x-mi325x-1x-mi300x
  - override /engine: of-hardware
  - _self_
hardware: {environment: cluster, probes: [ray]}
system:
  name: acme-mixed
  id: 2xMI325X_1xMI300X_Acme
  submitter: Acme
  target_qps: {Offline: 250, Server: 250}
  engine:
    kind: "null"
    arguments: {max_model_len: 2048, max_num_seqs: 8, ttft_ms: 5, prompt_token_ms: 0, tpot_ms: 1,
      speeds: [1], jitter: 0, jitter_period_s: 1, output_tokens_mean: 28, output_tokens_sigma: 0,
      seed: 0}
    by_hardware: {mi325x: {arguments: {max_num_seqs: 16}}}
    placement: {cluster: auto, nodes: 1, engines_per_node: 8, in_process: false, pinned: false,
      device_variable: HIP_VISIBLE_DEVICES, prompt_token_weight: 0.02, on_failure: fail,
      silence_limit_s: 30, degraded_below: 0.5}
    offline_order: as_issued
    environment: {}
    warmup_samples: 8
    start_limit_s: 60
    stall_limit_s: 30
"""
"""A site file: null engines on nodes that have to have accelerators."""


LONGEST = (
    "tests/plan/test_reruns.py",
    "tests/config/test_systems.py",
    "tests/commands/tune/test_command.py",
    "tests/plan/test_accepted.py",
    "tests/config/test_published_systems.py",
    "tests/run/test_sut.py",
    "tests/run/test_journal.py",
    "tests/schedule/test_supervisor.py",
    "tests/judge/test_sandbox.py",
)
"""Half a minute of one process each, and more: of computing or of waiting."""

RARELY = (20_000, 10, 10)
"""How often the garbage collector looks: compositions make many objects that last, and Python's own
700 cost a tenth of a plan's time."""

_shared: list[Path] = []
"""A folder of this run of the tests, if its processes share one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    ending.pytest_addoption(parser)
    words = "run files in a random order, and tests of each; both workers get the same seed"
    parser.addoption("--shuffle", type=int, metavar="SEED", help=words)


def pytest_configure(config: pytest.Config) -> None:
    gc.set_threshold(*RARELY)
    ending.pytest_configure(config)
    own = config.getoption("basetemp", None)
    if hasattr(config, "workerinput") and own:  # beside those of the other workers
        _shared.append(Path(own).parent / "plans")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest comes first: the last file keeps one core only."""
    if (seed := config.getoption("shuffle")) is not None:
        shuffled = random.Random(seed)
        places = {item.path: shuffled.random() for item in items}
        items.sort(key=lambda item: (places[item.path], shuffled.random()))
        return
    slow = {item.path for item in items if item.get_closest_marker("engine")}
    slow |= {ROOT / name for name in LONGEST}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is imported and collected lasts: the garbage collector needn't look at it again."""
    gc.collect()
    gc.freeze()


def copy_project(destination: Path) -> Path:
    """What `./reproduce` needs, without results and without this machine's own site file."""
    destination.mkdir(exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "site")
            shutil.copytree(source, destination / part, ignore=ignore)
        else:
            shutil.copy(source, destination / part)
    return destination


def reproduce(
    home: Path,
    *arguments: str,
    limit_s: float = 1500,
    environment: Mapping[str, str] | None = None,
    through: Sequence[str] = (),
) -> tuple[int, str]:
    """`./reproduce` of a checkout as a user runs it: its exit status and all that it says.

    `environment` is added to this one; `through`: a command that runs the one behind it.
    """
    done = subprocess.run(
        [*through, str(home / "reproduce"), *arguments],
        cwd=home,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
    )
    assert "Traceback" not in done.stdout, done.stdout
    assert not (warned := snakemake_warnings.found(done.stdout)), (warned, done.stdout)
    return done.returncode, done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A throw-away checkout for planning, dry runs and short steps."""
    return copy_project(tmp_path)


def edit(path: Path, old: str, new: str) -> None:
    """Replace exactly one occurrence: an edit that misses would make its test meaningless."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path} has {text.count(old)} times {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def planned_alone(home: Path, cell: str, *overrides: str) -> Plan:
    """The plan of a cell that no experiment has: its axes as YAML writes them."""
    project = copy_project(home)
    text = f"# @package _global_\nexperiment_name: alone\ncells:\n  - {{{cell}}}\n"
    (project / "conf/experiment/alone.yaml").write_text(text, encoding="utf-8")
    return make(project, ["experiment=alone", *overrides])


@cache
def planned(*overrides: str) -> Plan:
    """The plan of these overrides, made once for all tests of a run: each takes a second."""
    if not _shared:
        return make(ROOT, list(overrides))
    path = _shared[0] / hashlib.sha256(repr(overrides).encode()).hexdigest()
    if path.exists():
        with path.open("rb") as stream:
            known: Plan = pickle.load(stream)
        return known
    plan = make(ROOT, list(overrides))
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    with unfinished.open("wb") as stream:
        pickle.dump(plan, stream)
    unfinished.replace(path)
    return plan
