"""AMD's language-model rows on the machines that they were made on, up to the start of an engine.

What the vendor's tools print is recorded, and the test writes the machine's device tree: command,
environment, devices, CPUs, memory, mounts and image of each of a node's engines are golden.
"""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest

from steps.base.errors import UserError
from steps.base.record import Workspace, publish
from steps.commands.cli import main
from steps.commands.preview import wheres
from steps.config import options
from steps.config.artifacts import DescribeConfig
from steps.config.engine import RocmVllmEngine
from steps.config.runs import PerformanceRunConfig
from steps.config.runtime import ContainerSettings
from steps.machine.look import Look
from steps.machine.probes.machine import Prober
from steps.machine.runtime import __main__ as runtime
from steps.machine.runtime.image import Image
from steps.plan.make import make
from steps.plan.plan import Job, Plan, freeze
from steps.plan.unsupported import refusal, standings
from steps.prepare.samples import PROMPTS, STOPS
from steps.run.describe import require_true
from steps.run.engines import accelerators, caches
from steps.run.engines.pinning import place_of
from steps.run.sut.harness import EngineLoop
from steps.run.sut.run import execute
from tests.amd_nodes import WRONG, Printed, install, split, whole
from tests.amd_nodes import printing as printing_of
from tests.conftest import ROOT, planned
from tests.recorded_machine import MI300X, machine, printing
from tests.run.test_places import ALL, tree

GOLDEN = ROOT / "tests/golden/amd-v5.1-nodes.json"
HARDWARE = {
    "amd-mi300x": "mi300x",
    "amd-mi325x": "mi325x",
    "amd-mi325x-2": "mi325x",
    "amd-mi355x": "mi355x",
}
MODELS = ("mi300x", "mi325x", "mi355x")
ROWS = 14


@cache
def jobs() -> dict[str, Job]:
    """By cell: the performance runs of AMD's language models."""
    plan = planned("experiment=amd-v5.1")
    found = {job.key: job for job in plan.jobs if job.step == "performance_run"}
    return {key: job for key, job in found.items() if key.split("/")[0] in HARDWARE}


def prober(name: str, folder: Path) -> Prober:
    tools = {
        "amd-smi static": f"amd-smi-static-8x{name}.json",
        "rocm-smi --showproductname": f"rocm-smi-8x{name}.json",
    }
    return Prober(run=printing(tools), root=folder)


def container(job: Job) -> dict[str, Any]:
    """What the container engine is asked for, without what this machine has of its own."""
    asked: dict[str, Any] = {}

    def create(name: str, command: list[str], **more: Any) -> dict[str, str]:
        asked.update({"image": name, "command": command, **more})
        return {"Id": "0"}

    api = SimpleNamespace(create_host_config=lambda **given: given, create_container=create)
    client: Any = SimpleNamespace(api=api, containers=SimpleNamespace(get=lambda number: None))
    made = Image(identity="sha256:0", python="/opt/steps/bin/python", made="")
    settings = ContainerSettings.model_validate_json(job.container)
    command = ["-m", "steps.run.performance_run", "--output", job.output]
    runtime._create(client, made, settings, command, job.output)
    host = asked.pop("host_config")
    kept = ("devices", "group_add", "cap_add", "security_opt", "network_mode", "tmpfs", "shm_size")
    mounts = {
        path.replace(str(ROOT), "CHECKOUT"): bind["mode"]
        for path, bind in host["binds"].items()
        if path.startswith(str(ROOT))
    }
    return {
        "entrypoint": asked["entrypoint"],
        "command": asked["command"][:2],
        "environment": asked["environment"],
        "mounts": mounts,
        "read_only": host["read_only"],
        **{name: host[name] for name in kept},
    }


def described(job: Job, plan: Plan, hardware: str, folder: Path) -> dict[str, Any]:
    """One row on its machine: every check passes, and then each engine has its place."""
    config = PerformanceRunConfig.model_validate_json(job.config)
    assert len(accelerators.require(config.engine.placement, prober(hardware, folder))) == 8
    root = tree(folder, [0] * 4 + [1] * 4)
    engines = []
    for number in range(config.engine.placement.engines_per_node):
        place = place_of(config.engine, number, root, ALL)
        engines.append(
            {
                **place.variables,
                "numa_node": place.memory,
                "cpus": f"{min(place.cpus)}-{max(place.cpus)}, {len(place.cpus)} of 256",
            }
        )
    made = next(one for one in plan.jobs if one.output == job.inputs["environment"])
    image = json.loads(made.config)
    return {
        "image": {name: image[name] for name in ("name", "base", "python")},
        "container": container(job),
        "environment": config.engine.environment,
        "caches": caches.of_run(Path(job.inputs["environment"])).rpartition("-")[0],
        "engines": engines,
    }


def own(key: str, folder: Path) -> dict[str, Any]:
    plan = planned("experiment=amd-v5.1")
    return described(jobs()[key], plan, HARDWARE[key.split("/")[0]], folder)


def test_there_are_fourteen_rows_of_language_models() -> None:
    assert len(jobs()) == ROWS


@pytest.mark.parametrize("number", range(ROWS))
def test_a_row_passes_every_check_up_to_the_start_of_its_engines(
    number: int, tmp_path: Path
) -> None:
    key = sorted(jobs())[number]
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert own(key, tmp_path) == golden[key]


@pytest.mark.parametrize(
    ("cell", "devices"),
    [
        ("amd-mi355x-v6.0/llama2-70b-99.9/none/mxfp4/Server", list("01234567")),
        (
            "amd-mi355x-open-v6.0/llama3.1-405b-v6.0/depth-pruned-25/mxfp4/Offline",
            ["0,1", "2,3", "4,5", "6,7"],
        ),
        (
            "amd-mi355x-open-v6.0/llama3.1-405b-v6.0/depth-pruned-21/mxfp4/Interactive",
            ["0,1,2,3,4,5,6,7"],
        ),
    ],
)
def test_a_cell_of_v6_has_an_engine_on_each_of_its_groups_of_accelerators(
    cell: str, devices: list[str], tmp_path: Path
) -> None:
    plan = planned("experiment=amd-v6.0")
    (job,) = (job for job in plan.jobs if (job.step, job.key) == ("performance_run", cell))
    found = described(job, plan, "mi355x", tmp_path)
    assert [engine["HIP_VISIBLE_DEVICES"] for engine in found["engines"]] == devices
    assert len({engine["numa_node"] for engine in found["engines"]}) == min(len(devices), 2)


class Started(Exception):
    """Raised where the processes of engines would be started."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts of the real ones' form: weights of no size, and as many prompts as the largest
    dataset has, of two tokens each."""
    home = tmp_path_factory.mktemp("artifacts")
    with publish(home / "model", step="model", config={}, inputs={}, code="") as workspace:
        (workspace.directory / "config.json").write_text("{}", encoding="utf-8")
        workspace.result = {"name": "none", "simulated": False}
    with publish(home / "dataset", step="dataset", config={}, inputs={}, code="") as workspace:
        for name, rows in (("evaluation", 24576), ("calibration", 16)):
            frame = pandas.DataFrame({PROMPTS: [[1, 2]] * rows, STOPS: [[2]] * rows})
            frame.to_pickle(workspace.directory / f"{name}.pkl")
    return {role: home / role / "manifest.json" for role in ("model", "dataset")}


class Rehearsed:
    """Performance runs of a cell, on machines whose tools print what is recorded, up to the start
    of the engine processes. `begun`: the engines that would have been started."""

    def __init__(self, job: Job, inputs: dict[str, Path], home: Path, patch: Any) -> None:
        self.config = PerformanceRunConfig.model_validate_json(job.config)
        self.begun: list[EngineLoop] = []
        self._home, self._patch = home, patch
        assert isinstance(self.config.engine, RocmVllmEngine)
        environment = home / "image/manifest.json"
        environment.parent.mkdir(parents=True)
        listed = ROOT / f"conf/options/{self.config.engine.build}.json"
        shutil.copy(listed, environment.with_name(options.FILE))
        self._inputs = {**inputs, "environment": environment}

        def start(loop: EngineLoop) -> None:
            self.begun.append(loop)
            raise Started

        patch.setattr(EngineLoop, "start", start)
        patch.setattr(accelerators, "FREED_S", 0.0)

    def on(self, model: str) -> None:
        folder = self._home / model
        self._patch.setenv("PATH", install(folder / "tools", whole(model)))
        (folder / "out").mkdir()
        console: Any = SimpleNamespace(say=lambda text: None, progress=lambda label, of: None)
        out = Workspace(folder / "out")
        execute("PerformanceOnly", self.config, self._inputs, out, console)

    def require_start_on(self, own: str) -> None:
        """There, and on no other machine."""
        with pytest.raises(Started):
            self.on(own)
        assert len(self.begun) == 1 and len(self.begun[0].prompts) == 24576
        conf = (self._home / own / "out/user.conf").read_text(encoding="utf-8")
        assert f"target_qps = {self.config.loadgen.target_qps:g}" in conf
        for other in set(MODELS) - {own}:
            said = f"there are 8 × .*{other.upper()}; nothing was meas"
            with pytest.raises(UserError, match=said):
                self.on(other)
        assert len(self.begun) == 1


@pytest.mark.parametrize("number", range(ROWS))
def test_the_run_of_a_row_comes_to_the_start_of_its_engines_on_its_machine_alone(
    number: int, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run itself, with its own checks: LoadGen's version, the engine's list of what it takes,
    accelerators, weights, prompts, user.conf."""
    key = sorted(jobs())[number]
    rehearsed = Rehearsed(jobs()[key], inputs, tmp_path, monkeypatch)
    rehearsed.require_start_on(HARDWARE[key.split("/")[0]])
    assert bool(rehearsed.begun[0].stops) == ("mixtral" in key)


@pytest.mark.parametrize("hardware", sorted(set(HARDWARE.values())))
def test_on_each_machine_its_own_cells_run_and_no_others(hardware: str, tmp_path: Path) -> None:
    plan = json.loads(planned("experiment=amd-v5.1").model_dump_json())
    look = Look(prober(hardware, tmp_path))
    found = {one.key: one for one in standings(plan, tmp_path, look.missing)}
    for key, one in found.items():
        own = HARDWARE.get(key.split("/")[0])
        assert (one.machine == "") == (own == hardware), (key, one.machine)
        if own != hardware:
            assert "needs 8 × AMD Instinct" in one.machine and "\n" not in one.machine


SHARK = "amd-mi325x-epyc-9655/stable-diffusion-xl/"


@pytest.mark.parametrize("token", ["", "hf_" + 34 * "x"])
def test_a_plan_says_of_every_cell_which_of_three_states_it_is_in(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without accelerators, with and without a token of the hub."""
    monkeypatch.setenv("HOME", str(tmp_path))
    plan = planned("experiment=amd-v5.1")
    nothing = Look(Prober(run=printing({}), root=tmp_path))
    standing = standings(json.loads(plan.model_dump_json()), tmp_path, nothing.missing)
    found = wheres(plan, standing, {"HF_TOKEN": token, "HOME": str(tmp_path)})
    assert found.keys() >= jobs().keys() and len(found) == ROWS + 2
    for key, (where, says) in found.items():
        hardware = HARDWARE.get(key.split("/")[0], "").upper()
        if key.startswith(SHARK):
            assert where == "never" and says.startswith("can't be executed: ")
            assert "this version can't start engine shark" in says
            continue
        gated = "mixtral" not in key
        if where == "elsewhere":
            assert says == f"runs on a node with 8 × AMD Instinct {hardware}"
            assert token or not gated
        else:  # Mixtral's scorer wants programs that this machine may lack
            assert where == "brings" and says.startswith("needs something that you bring: ")
            assert says.endswith(f"; then it runs on a node with 8 × AMD Instinct {hardware}")
            assert ("set HF_TOKEN, or fetch.token to" if gated else "(apt-get install ") in says
            assert not (gated and token)


SYSTEMS = {**HARDWARE, "amd-mi325x-epyc-9655": "mi325x"}
"""The submission's systems: the last one runs Stable Diffusion XL, in CPX."""

SAID = {
    "7 of 8": "there are 7 × AMD Instinct",
    "CPX": "there are some in CPX, not SPX",
    "two kinds": "there are 4 × AMD Instinct",
}


def refused(system: str, found: Printed, folder: Path) -> str | None:
    """What is said before anything starts where a system's cells alone are asked for."""
    path = freeze(planned("experiment=amd-v5.1", f"system={system}"), folder)
    return refusal(path, folder, Look(Prober(run=printing_of(found), root=folder)).missing)


@pytest.mark.parametrize("there", MODELS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_one_kind_is_refused_under_each_other_system(
    system: str, there: str, tmp_path: Path
) -> None:
    cpx = system not in HARDWARE
    said = refused(system, split(there) if cpx else whole(there), tmp_path)
    if there == SYSTEMS[system] and not cpx:
        assert said is None
    elif there != SYSTEMS[system]:
        assert said is not None and "\n" not in said
        assert f"{system} needs 8 × AMD Instinct {SYSTEMS[system].upper()}, but on this" in said
        assert f"× AMD Instinct {there.upper()}" in said
        assert "can't be run here, and nothing was started" in said
    else:  # what its engine lacks is said, and nothing of the machine
        assert "on this machine" not in str(said)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_node_that_isnt_whole_is_refused_under_each_system(
    system: str, wrong: str, tmp_path: Path
) -> None:
    said = refused(system, WRONG[wrong](SYSTEMS[system]), tmp_path)
    words = SAID[wrong]
    if system not in HARDWARE:  # in CPX as it has to be, so what is found is in SPX
        if wrong == "CPX":
            assert "on this machine" not in str(said)
            return
        words = "there are some in SPX, not CPX" if wrong == "7 of 8" else words
    assert said is not None and "\n" not in said
    assert words in said and "nothing was started" in said


@pytest.mark.parametrize("wrong", ["one of another", *WRONG])
def test_nothing_is_downloaded_or_written_for_it(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user types it: tools that print it, one sentence, status 1, and no file more."""
    found = WRONG[wrong]("mi325x") if wrong in WRONG else whole("mi300x")
    monkeypatch.setenv("PATH", install(tmp_path / "tools", found))
    before = files()
    assert main(["run", "experiment=amd-v5.1", "system=amd-mi325x"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert "amd-mi325x needs 8 × AMD Instinct MI325X, but on this machine there are" in said.err
    assert files() == before


def files() -> set[Path]:
    """All but frozen plans."""
    found = {path for path in (ROOT / "results").rglob("*") if "plans" not in path.parts}
    return found | set((ROOT / ".envs").iterdir())


SITE = """
# @package _global_
defaults: [{base}, _self_]
system: {{name: acme, submitter: Acme, id: acme-8}}
"""
"""Two values of a machine of one's own, besides its name."""


@pytest.mark.parametrize(
    ("experiment", "base", "more", "hardware"),
    [
        ("dell-v5.1", "dell-mi300x", (), "mi300x"),
        ("vultr-v5.1", "vultr-mi325x-epyc-9554", (), "mi325x"),
        # Its own engine is closed software: AMD's takes its place.
        ("supermicro-v5.1", "supermicro-mi325x", ("engine=llama2-70b",), "mi325x"),
    ],
)
def test_a_row_of_a_partner_comes_to_the_start_of_its_engines_with_two_edited_values(
    experiment: str,
    base: str,
    more: tuple[str, ...],
    hardware: str,
    inputs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = tmp_path / "acme.yaml"
    site.write_text(SITE.format(base=base), encoding="utf-8")
    cell = ("benchmark=llama2-70b-99.9", "scenario=Offline")
    plan = make(ROOT, [f"experiment={experiment}", *more, *cell], site)
    (job,) = (job for job in plan.jobs if job.step == "performance_run")
    assert job.limitation is None and job.key.startswith("acme/")
    found = described(job, plan, hardware, tmp_path)
    assert [engine["HIP_VISIBLE_DEVICES"] for engine in found["engines"]] == list("01234567")
    Rehearsed(job, inputs, tmp_path / "run", monkeypatch).require_start_on(hardware)


def test_the_tutorials_machine_passes_with_the_file_that_it_shows(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs/tutorial/partner-rerun.md").read_text(encoding="utf-8")
    example = next(
        part for part in re.findall(r"```yaml\n(.*?)```", text, re.S) if "acme-mi" in part
    )
    site = tmp_path / "acme-mi325x.yaml"
    site.write_text(example, encoding="utf-8")
    plan = make(ROOT, ["experiment=amd-v5.1"], site)
    runs = [job for job in plan.jobs if job.step == "performance_run"]
    assert len(runs) == 4
    for number, job in enumerate(runs):
        assert job.limitation is None
        home = tmp_path / str(number)
        home.mkdir()
        assert len(described(job, plan, "mi325x", home)["engines"]) == 8
        Rehearsed(job, inputs, home / "run", monkeypatch).require_start_on("mi325x")
    described_as = next(job for job in plan.jobs if job.step == "describe")
    config = DescribeConfig.model_validate_json(described_as.config)
    require_true(config, machine(tmp_path / "machine"))
    with pytest.raises(UserError, match=r"describes another machine: accelerator_model_name"):
        require_true(config, machine(tmp_path / "other", MI300X))


def write_golden(folder: Path) -> None:
    """By hand, after a change that is meant: python -m tests.config.test_amd_nodes FOLDER."""
    text = json.dumps({k: own(k, folder) for k in sorted(jobs())}, indent=1, sort_keys=True)
    GOLDEN.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    import sys

    write_golden(Path(sys.argv[1]))
