"""System descriptions: of one machine, of clusters, and what can't be one system."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from steps.base.errors import UserError
from steps.commands import describe
from steps.commands.cli import call
from steps.commands.describe import read
from steps.config.artifacts import DescribeConfig
from steps.config.description import DescribedField
from steps.machine.probes.machine import Prober, probe
from steps.machine.probes.values import Node
from steps.run.describe import described
from tests.conftest import planned
from tests.recorded_machine import IMAGE, MI300X, MI355X, machine, printing

PLANNED = next(job for job in planned().jobs if job.step == "describe")
REQUIRED = DescribeConfig.model_validate_json(PLANNED.config).required
CONFIGURED = {"submitter": "Acme", "division": "closed", "cooling": "Air-cooled"}


def config(**fields: str) -> DescribeConfig:
    return DescribeConfig(name="acme", fields={**CONFIGURED, **fields}, required=REQUIRED)


def values(found: Mapping[str, DescribedField], origin: str) -> dict[str, str]:
    return {name: field.value for name, field in found.items() if field.origin == origin}


def test_one_machine_gives_the_fields_as_amd_published_them(tmp_path: Path) -> None:
    """Against the published 8xMI325X_2xEPYC_9575F_1.json, where a probe can know the field."""
    node = machine(tmp_path)
    assert node.problems == ()
    found = described(config(), {"this machine": node})
    assert list(found) == list(REQUIRED)
    assert values(found, "configured") == CONFIGURED
    probed = values(found, "probed")
    published = {
        "accelerator_host_interconnect": "PCIe Gen5 x16",
        "accelerator_interconnect": "XGMI",
        "accelerator_memory_capacity": "256 GB",
        "accelerator_memory_configuration": "HBM3E",
        "accelerators_per_node": "8",
        "host_processor_core_count": "64",
        "host_processor_model_name": "AMD EPYC 9575F",
        "host_processors_per_node": "2",
        "number_of_nodes": "1",
        "operating_system": "Ubuntu 22.04.5 LTS",
    }
    assert published.items() <= probed.items()
    assert probed["accelerator_model_name"] == "AMD Instinct MI325X 256GB HBM3E"
    assert probed["system_name"] == "Quanta Cloud Technology QuantaGrid D74A-7U"
    assert probed["host_memory_capacity"] == "2.25 TiB"
    assert probed["host_memory_configuration"] == "24x 96 GiB DDR5 Samsung M321RYGA0PB0-CWMXJ"
    assert probed["host_storage_capacity"] == "1x 480 GB, 2x 7.7 TB"
    assert probed["host_storage_type"] == "NVMe SSD, SATA SSD"
    assert probed["host_networking"] == "9x 400G Ethernet, 1x 400G InfiniBand"
    assert probed["host_processor_frequency"] == "5.01 GHz max"
    assert probed["hw_notes"] == "2 NUMA nodes, compute partition SPX, memory partition NPS1"
    assert probed["other_software_stack"].endswith("amdgpu 6.10.5, ROCm 6.4.1-83, Docker 27.5.1")
    assert set(values(found, "missing")) == {
        *("status", "framework", "system_type", "system_type_detail", "sw_notes"),
        *("host_processor_interconnect", "host_networking_topology"),
        *("accelerator_interconnect_topology", "accelerator_on-chip_memories"),
    }


def test_a_configured_value_wins_and_the_probe_is_not_forgotten(tmp_path: Path) -> None:
    found = described(config(accelerators_per_node="4"), {"this machine": machine(tmp_path)})
    field = found["accelerators_per_node"]
    assert (field.value, field.origin, field.probed) == ("4", "configured", "8")


def test_a_mixed_cluster_names_each_kind_and_counts_it(tmp_path: Path) -> None:
    nodes = {f"a{i}": machine(tmp_path / f"a{i}", MI300X) for i in range(4)}
    nodes |= {f"b{i}": machine(tmp_path / f"b{i}") for i in range(2)}
    probed = values(described(config(), nodes), "probed")
    assert probed["number_of_nodes"] == "6"
    assert probed["accelerators_per_node"] == "8"
    assert probed["accelerator_model_name"] == (
        "AMD Instinct MI300X 192GB HBM3 (x32), AMD Instinct MI325X 256GB HBM3E (x16)"
    )
    assert probed["accelerator_memory_capacity"] == (
        "192 GB (4x MI300X node), 256 GB (2x MI325X node)"
    )
    assert probed["host_processor_model_name"] == (
        "AMD EPYC 9534 (4x MI300X node), AMD EPYC 9575F (2x MI325X node)"
    )
    assert probed["accelerator_interconnect"] == "XGMI"


def test_nodes_of_one_kind_that_differ_are_both_listed(tmp_path: Path) -> None:
    other = machine(tmp_path / "b", {"dmidecode": "dmidecode-half-filled.txt"})
    nodes = {"a": machine(tmp_path / "a"), "b": other}
    probed = values(described(config(), nodes), "probed")
    assert probed["host_memory_capacity"] == "2.25 TiB (1x MI325X node), 768 GiB (1x MI325X node)"


def test_nodes_with_another_driver_rocm_or_image_are_no_system(tmp_path: Path) -> None:
    one = machine(tmp_path / "a", image=IMAGE)
    assert one.image == f"{IMAGE} sha256:0f1e2d3c"
    with pytest.raises(UserError, match=r"the accelerators' driver: 6\.10\.5 \(a\), 6\.14\.14 \(b"):
        described(config(), {"a": one, "b": machine(tmp_path / "b", MI355X)})
    newer = machine(tmp_path / "c", files={"opt/rocm/.info/version": "7.0.0\n"}, image=IMAGE)
    with pytest.raises(UserError, match=r"the ROCm release: 6\.4\.1-83 \(a\), 7\.0\.0 \(c\)"):
        described(config(), {"a": one, "c": newer})
    bare = one.model_copy(update={"image": None})
    with pytest.raises(UserError, match=r"the container image: .*0f1e2d3c \(a\), none \(d\); inst"):
        described(config(), {"a": one, "d": bare})


def test_counts_that_differ_need_a_configured_number(tmp_path: Path) -> None:
    nodes = {"a": machine(tmp_path / "a"), "b": machine(tmp_path / "b")}
    nodes["b"] = nodes["b"].model_copy(update={"accelerator_count": 4})
    with pytest.raises(
        UserError, match=r"about accelerators_per_node: 8 \(a\), 4 \(b\).*configure"
    ):
        described(config(), nodes)
    found = described(config(accelerators_per_node="6"), nodes)
    assert found["accelerators_per_node"].value == "6"


def test_a_configured_number_of_nodes_must_be_theirs(tmp_path: Path) -> None:
    nodes = {"a": machine(tmp_path / "a"), "b": machine(tmp_path / "b")}
    with pytest.raises(UserError, match=r"configured as 4, and 2 .*of system acme"):
        described(config(number_of_nodes="4"), nodes)
    assert described(config(number_of_nodes="2"), nodes)["number_of_nodes"].value == "2"


# ---- what can't be probed -----------------------------------------------------------------------


def test_a_missing_tool_names_the_field_and_the_fix(tmp_path: Path) -> None:
    node = machine(tmp_path, without=["dmidecode", "ethtool"])
    assert node.problems == (
        "dmidecode is not installed: host_memory_configuration can't be probed; "
        "install dmidecode, or set it in the system's fields",
        "ethtool is not installed: host_networking's speed can't be probed; "
        "install ethtool, or set it in the system's fields",
    )


@pytest.mark.parametrize(
    ("tools", "without", "sentence"),
    [
        ({"lscpu": "os-release-ubuntu.txt"}, [], "lscpu answers in a format that isn't known here"),
        ({"dmidecode": "dmidecode-not-root.txt"}, [], "host_memory_configuration can't be probed"),
        ({"amd-smi static": "!gave no answer in 30 s"}, [], "amd-smi gave no answer in 30 s: acc"),
        ({"amd-smi static": "lsblk.json"}, [], "accelerator_model_name can't be probed"),
        (
            {"rocm-smi --showproductname": "rocm-smi-64xmi325x-cpx.json"},
            [],
            "accelerators_per_node is uncertain; give both tools the same ROCm release",
        ),
        ({}, ["amd-smi static", "rocm-smi --showproductname"], "install amd-smi-lib, or set it"),
        ({}, ["docker info"], "docker is not installed: the container engine"),
    ],
)
def test_a_tool_in_another_format_or_without_an_answer_is_one_sentence(
    tmp_path: Path, tools: dict[str, str], without: list[str], sentence: str
) -> None:
    node = machine(tmp_path, tools, without=without)
    assert any(sentence in problem for problem in node.problems), node.problems
    found = described(config(), {"this machine": node})
    assert found["accelerators_per_node"].value == "8"


def test_a_machine_without_accelerators_asks_no_vendor_for_them(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(command: list[str]) -> str:
        asked.append(command[0])
        return printing({})(command)

    node = probe(prober=Prober(run=run, root=tmp_path))  # type: ignore[arg-type]
    assert not {"amd-smi", "rocm-smi", "nvidia-smi"} & set(asked)
    assert described(config(), {"x": node})["accelerators_per_node"].value == "0"


def test_an_unknown_accelerator_is_said_and_left_to_the_configuration(tmp_path: Path) -> None:
    tools = {"rocm-smi --showproductname": "rocm-smi-unknown.json"}
    node = machine(tmp_path, tools, without=["amd-smi static"])
    assert node.problems[-1] == (
        "no tool names the accelerators' model (architecture gfx1200): "
        "accelerator_model_name can't be probed; set it in the system's fields"
    )
    assert described(config(), {"x": node})["accelerator_model_name"].origin == "missing"


def test_podman_will_do_where_docker_does_not_answer(tmp_path: Path) -> None:
    node = machine(
        tmp_path, {"docker info": "docker-info-no-engine.json", "podman info": "podman-info.json"}
    )
    assert node.containers is not None and node.containers.engine == "Podman"
    assert node.problems == ()


# ---- configuration and commands -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"cooling": ""}, "cooling is empty"),
        ({"status": "soon"}, "status is 'soon', the checker knows available, preview, rdi"),
        ({"system_type": "Datacenter"}, "system_type is 'Datacenter'"),
        ({"number_of_nodes": "four"}, "number_of_nodes is 'four'"),
    ],
)
def test_a_description_that_the_checker_refuses_is_refused_first(
    fields: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        config(**fields)
    config(status="RDI", hw_notes="", number_of_nodes="4")


def test_records_merge_into_a_description_with_its_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(describe, "_write_all", _written_below(tmp_path))
    monkeypatch.setattr(describe, "probe", lambda image: machine(tmp_path / "m", image=image))
    for name in ("a.json", "b.json"):
        assert call(["describe", "--node", name, "--image", IMAGE]) == 0
    assert read([Path("a.json")])["a.json"] == machine(tmp_path / "n", image=IMAGE)
    assert call(["describe", "cluster=2-nodes", "--merge", "a.json", "b.json"]) == 0
    assert "30 of 35 fields known" in capsys.readouterr().out
    folder = tmp_path / "results/systems/rehearsal-cpu"
    system = json.loads((folder / "system.json").read_text(encoding="utf-8"))
    origins = json.loads((folder / "fields.json").read_text(encoding="utf-8"))
    lines = yaml.safe_load((folder / "fields.yaml").read_text(encoding="utf-8"))
    assert list(system) == list(origins) == list(REQUIRED)
    assert system["accelerator_model_name"] == "AMD Instinct MI325X 256GB HBM3E"
    assert origins["number_of_nodes"] == {"value": "2", "origin": "configured"}
    assert lines["fields"]["host_memory_capacity"] == "2.25 TiB"
    assert "division" not in lines["fields"]


def _written_below(root: Path) -> object:
    real = describe._write_all
    return lambda name, fields, _: real(name, fields, root)


def test_what_is_no_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a\.json can't be read \(it is missing\); make"):
        read([path])
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match=r"record \(input should be an object, got \[\]\); make"):
        read([path])
    path.write_text('{"cpu": 3}', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json isn't a node's record .* --node FILE"):
        read([path])
    path.write_text(machine(tmp_path / "m").model_dump_json(), encoding="utf-8")
    with pytest.raises(UserError, match="given twice"):
        read([path, path])
    assert isinstance(read([path])[str(path)], Node)
