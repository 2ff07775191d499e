"""Every setting of AMD's published YAML files is passed, replaced or recorded, and none is missing.

docs/reference/published-settings.md is the table, read as a user reads it.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from bench import settings as published
from tests.conftest import ROOT, planned, planned_alone

TABLE = ROOT / "docs/reference/published-settings.md"
SETTINGS = ROOT / "tests/golden/amd-v5.1-settings.csv"

CELLS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("llama2-70b", "offline_mi300x"): ("amd-mi300x", "llama2-70b-99.9", "none", "Offline"),
    ("llama2-70b", "server_mi300x"): ("amd-mi300x", "llama2-70b-99.9", "none", "Server"),
    ("llama2-70b", "interactive_mi300x"): ("amd-mi300x", "llama2-70b-99.9", "none", "Interactive"),
    ("llama2-70b", "offline_mi325x"): ("amd-mi325x", "llama2-70b-99.9", "none", "Offline"),
    ("llama2-70b", "server_mi325x"): ("amd-mi325x", "llama2-70b-99.9", "none", "Server"),
    ("llama2-70b", "interactive_mi325x"): (
        *("amd-mi325x-2", "llama2-70b-99.9", "none", "Interactive"),
    ),
    ("llama2-70b", "offline_mi355x"): ("amd-mi355x", "llama2-70b-99.9", "none", "Offline"),
    ("llama2-70b", "server_mi355x"): ("amd-mi355x", "llama2-70b-99.9", "none", "Server"),
    ("mixtral-8x7b", "offline_mi300x"): ("amd-mi300x", "mixtral-8x7b", "none", "Offline"),
    ("mixtral-8x7b", "server_mi300x"): ("amd-mi300x", "mixtral-8x7b", "none", "Server"),
    ("mixtral-8x7b", "offline_mi325x"): ("amd-mi325x", "mixtral-8x7b", "none", "Offline"),
    ("mixtral-8x7b", "server_mi325x"): ("amd-mi325x", "mixtral-8x7b", "none", "Server"),
    ("llama3.1-405b", "pruned"): ("amd-mi355x", "llama3.1-405b", "depth-pruned-21", "Offline"),
    ("llama3.1-405b", "finetuned"): (
        *("amd-mi355x", "llama3.1-405b", "depth-pruned-33-finetuned", "Offline"),
    ),
}
"""System, benchmark, compression and scenario of the cell that a file became."""


class Row(NamedTuple):
    setting: str
    becomes: str
    where: str
    because: str


def rows() -> list[Row]:
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            found.append(Row(cells[0].strip("`"), cells[1], cells[2], cells[3]))
    return found


def settings() -> list[dict[str, str]]:
    with SETTINGS.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def row_of(setting: str) -> Row:
    return next(row for row in rows() if fnmatchcase(setting, row.setting))


def unlisted(names: Iterable[str]) -> list[str]:
    """Settings that the table says nothing of."""
    known = rows()
    return [name for name in names if not any(fnmatchcase(name, row.setting) for row in known)]


@cache
def configs() -> dict[tuple[str, ...], dict[str, Any]]:
    unpublished = (
        "system: amd-mi355x, benchmark: llama2-70b-99.9, precision: mxfp4, compression: none, "
        "scenario: Server"
    )
    found = {}
    with TemporaryDirectory() as home:
        alone = planned_alone(Path(home) / "alone", unpublished, "length=rule")
    for plan in (planned("experiment=amd-v5.1"), alone):
        for job in plan.jobs:
            if job.step == "performance_run":
                system, benchmark, compression, _, scenario = job.key.split("/")
                config = json.loads(job.config)
                found[system, benchmark, compression, scenario] = config
    return found


def test_every_setting_has_a_row_and_every_row_a_setting() -> None:
    counts = Counter(setting["benchmark"] for setting in settings())
    assert counts == {"llama2-70b": 404, "mixtral-8x7b": 168, "llama3.1-405b": 130}
    assert unlisted(setting["setting"] for setting in settings()) == []
    used = {row_of(setting["setting"]).setting for setting in settings()}
    assert used == {row.setting for row in rows()}
    assert {row.becomes for row in rows()} == {"passed", "replaced", "recorded"}
    assert all(row.because for row in rows() if row.becomes == "recorded" or row.where == "always")


FILE = """
benchmark_name: tiny
vllm_env_config: {VLLM_TINY: 1}
vllm_engine_config: {block_size: 32}
vllm_sampling_config: {temperature: 0.0, min_p: 0.1}
harness_config:
  sorting: {buckets: [60, 40]}
  preload: True
ray_config: {nodes: 2}
"""
"""In the form of AMD's files, with three settings that none of them has."""


def test_a_setting_that_the_table_lacks_is_found() -> None:
    read = published.settings(FILE)
    assert read == {
        "benchmark_name": "tiny",
        "env.VLLM_TINY": "1",
        "engine.block_size": "32",
        "sampling.temperature": "0.0",
        "sampling.min_p": "0.1",
        "harness.sorting.buckets": "60 40",
        "harness.preload": "True",
        "ray_config.nodes": "2",
    }
    assert unlisted(read) == ["sampling.min_p", "harness.preload", "ray_config.nodes"]


def test_what_the_golden_table_lacks_has_too_much_or_has_otherwise_is_named() -> None:
    read = {("tiny", "offline", name): value for name, value in published.settings(FILE).items()}
    lines = ["benchmark,file,setting,value", *(",".join((*key, read[key])) for key in read)]
    table = dict(published.tabled("\n".join(lines)))
    assert list(published.differences(read, table)) == []
    table["tiny", "offline", "engine.block_size"] = "16"
    table["tiny", "x", "y"] = "1"
    del table["tiny", "offline", "harness.preload"]
    assert list(published.differences(read, table)) == [
        "tiny offline engine.block_size: published '32', in the table '16'",
        "tiny offline harness.preload: published 'True', in the table None",
        "tiny x y: published None, in the table '1'",
    ]


POWER: Mapping[tuple[str, str], tuple[int, int]] = {
    ("llama2-70b", "offline_mi300x"): (1400, 1),
    ("llama2-70b", "server_mi300x"): (1300, 1),
    ("llama2-70b", "interactive_mi300x"): (2000, 0),
    ("llama2-70b", "offline_mi325x"): (1700, 0),
    ("llama2-70b", "server_mi325x"): (1600, 0),
    ("llama2-70b", "interactive_mi325x"): (1700, 0),
    ("mixtral-8x7b", "offline_mi300x"): (1500, 0),
    ("mixtral-8x7b", "server_mi300x"): (1500, 0),
    ("mixtral-8x7b", "offline_mi325x"): (1500, 0),
    ("mixtral-8x7b", "server_mi325x"): (1500, 0),
}
"""The clock in MHz and the pstate that AMD's scripts/power_settings.sh sets before a scenario; on
MI355X it sets none."""


@pytest.mark.parametrize("file", CELLS)
def test_clocks_are_those_of_amds_script(file: tuple[str, str]) -> None:
    power = configs()[CELLS[file]]["engine"]["power"]
    mhz, pstate = POWER.get(file, (0, 0))
    assert power == {"perf_determinism_mhz": mhz, "soc_pstate": pstate}


def test_the_harness_variables_of_amd_are_never_said_to_act() -> None:
    names = {s["setting"] for s in settings() if s["setting"].startswith("env.HARNESS_")}
    assert len(names) == 2
    assert {row_of(name).becomes for name in names} == {"recorded"}


def same(published: str, ours: Any) -> bool:
    """YAML's words and numbers, and variables of an environment, which are texts."""
    if isinstance(ours, str):
        return published.lower() == ours.lower()
    if isinstance(ours, bool):
        return published == str(ours)
    return ours is not None and float(published) == float(ours)


@pytest.mark.parametrize(("benchmark", "file"), CELLS)
def test_what_is_passed_is_in_the_runs_configuration(benchmark: str, file: str) -> None:
    config, wrong = configs()[CELLS[benchmark, file]], []
    for one in settings():
        row = row_of(one["setting"])
        if (one["benchmark"], one["file"]) != (benchmark, file) or row.becomes != "passed":
            continue
        path = re.fullmatch(r"`([\w.]+)`", row.where)
        if path is None:
            assert row.where == "always", row
            continue
        node: Any = config
        for key in path[1].split("."):
            node = node[key]
        ours = node.get(one["setting"].partition(".")[2])
        if not same(one["value"], ours):
            wrong.append((one["setting"], one["value"], ours))
    assert wrong == []


def test_what_is_recorded_in_the_configuration_is_there_as_published() -> None:
    for one in settings():
        row = row_of(one["setting"])
        if row.becomes == "recorded" and row.where == "`engine.dispatch`":
            config = configs()[CELLS[one["benchmark"], one["file"]]]
            node: Any = config["engine"]["dispatch"]
            for key in one["setting"].removeprefix("harness.").split("."):
                node = node[key]
            ours = " ".join(map(str, node)) if isinstance(node, list) else node
            assert same(one["value"], ours), (one, ours)
