"""What is typed acts, or one sentence says what wins over it and where."""

import json
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from steps.base.errors import UserError
from steps.config.compose import compose
from steps.config.composed import ComposedCell, Row
from steps.config.origins import TYPED
from steps.plan.frozen import frozen_plan
from steps.plan.lost import _content, hydra, reason, unread
from steps.plan.make import make
from steps.plan.plan import Job
from tests.conftest import ACME_SITE, ROOT, copy_project, edit, planned

CONF = ROOT / "conf"
SERVER = (
    *("experiment=amd-v5.1", "system=amd-mi300x", "benchmark=llama2-70b-99.9"),
    "scenario=Server",
)


def runs(*overrides: str) -> dict[str, dict[str, Any]]:
    """Configurations of the performance runs, by scenario."""
    jobs = [job for job in planned(*overrides).jobs if job.step == "performance_run"]
    return {config["scenario"]: config for config in map(_config, jobs)}


def _config(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.config)
    return found


def refused(*overrides: str, site: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        make(ROOT, list(overrides), site)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- the top layer ------------------------------------------------------------------------------


def test_the_top_layer_wins_over_every_file() -> None:
    found = runs(*SERVER, "set.engine.max_num_seqs=64", "set.target_qps=30")["Server"]
    assert found["engine"]["arguments"]["max_num_seqs"] == 64
    assert found["loadgen"]["target_qps"] == 30
    assert {
        **found,
        "engine": {
            **found["engine"],
            "arguments": {**found["engine"]["arguments"], "max_num_seqs": 650},
        },
        "loadgen": {**found["loadgen"], "target_qps": 83.5},
    } == runs(*SERVER)["Server"], "and changes nothing else"


def test_names_of_axes_narrow_it() -> None:
    cells = ("experiment=amd-v5.1", "system=amd-mi300x,amd-mi325x", "benchmark=llama2-70b-99.9")
    plan = planned(
        *cells,
        "scenario=Offline,Server",
        "set.target_qps=30",
        "set.Server.target_qps=20",
        "set.mi325x.Server.engine.max_num_seqs=77",
        "set.llama2-70b-99.9.fp8.engine.environment.VLLM_USE_V1=1",
    )
    found = {job.key: _config(job) for job in plan.jobs if job.step == "performance_run"}
    said = {
        key.replace("/llama2-70b-99.9/none/fp8", ""): (
            config["loadgen"]["target_qps"],
            config["engine"]["arguments"]["max_num_seqs"],
            config["engine"]["environment"]["VLLM_USE_V1"],
        )
        for key, config in found.items()
    }
    assert said == {
        "amd-mi300x/Offline": (30, 1792, "1"),
        "amd-mi300x/Server": (20, 650, "1"),
        "amd-mi325x/Offline": (30, 2700, "1"),
        "amd-mi325x/Server": (20, 77, "1"),
    }


def test_null_takes_a_setting_out_and_texts_are_texts() -> None:
    found = runs(
        *SERVER,
        "set.engine.environment={VLLM_USE_V1: null, VLLM_FP8_PADDING: 0}",
        "set.fields.host_processor_core_count=96",
        "set.min_duration_ms=null",
    )["Server"]
    assert "VLLM_USE_V1" not in found["engine"]["environment"]
    assert found["engine"]["environment"]["VLLM_FP8_PADDING"] == "0"
    assert found["loadgen"]["min_duration_ms"] is None


def test_a_list_of_an_axis_is_the_matrix() -> None:
    assert list(runs("scenario=[Offline,Server]")) == ["Offline", "Server"]
    assert list(runs("scenario=Server,Server")) == ["Server"]
    keys = {job.key for job in planned("precision=[bf16,fp8]", "scenario=Offline").jobs}
    assert {f"rehearsal-cpu/rehearsal/none/{name}/Offline" for name in ("bf16", "fp8")} <= keys


# ---- mistakes -----------------------------------------------------------------------------------

SEEN = [
    (
        [*SERVER, "++hardware.engine.arguments.max_num_seqs=64"],
        ["650", "set.engine.max_num_seqs=64"],
    ),
    (
        [*SERVER, "++engine.settings.arguments.max_num_seqs=64"],
        ["conf/engine/llama2-70b.yaml", "by_hardware.mi300x.by_scenario.Server", "stays 650"],
    ),
    (
        [*SERVER, "++benchmark.loadgen.target_qps=30"],
        ["conf/benchmark/llama2-70b-99.yaml", "83.5", "set.target_qps=30"],
    ),
    (["++system.loadgen.target_qps=30"], ["conf/system/rehearsal-cpu.yaml", "rates.short"]),
    ([*SERVER, "system.target_qps.Server=30"], ["there is no key", "++system.target_qps.Server"]),
    (["system=amd-mi325x"], ["no cell of system amd-mi325x", "add experiment=amd-v5.1"]),
    (["senario=Server"], ["did you mean scenario?"]),
]
"""Mistakes that users made, and what the sentence has to say."""

MISTAKES = [
    ([*SERVER, "++engine.settings.by_hardware.mi325x.arguments.max_num_seqs=6"], ["mi325x"]),
    ([*SERVER, "++system.engine.by_scenario.Offline.arguments.max_num_seqs=6"], ["Offline"]),
    (
        [
            *(*SERVER[:3], "scenario=Interactive"),
            "++engine.settings.environment.VLLM_LLAMA2_MLPERF_SCHED=2",
        ],
        ["takes it out (null)", "conf/engine/llama2-70b.yaml"],
    ),
    (["++system.target_qps.Server=3", "scenario=Offline"], ["it is for Server"]),
    (["++benchmark.quick_sample=3"], ["nothing that is planned reads", "quick_samples"]),
    (["runtime.shm_size_gb=3"], ["nothing that is planned reads runtime.shm_size_gb"]),
    (["set.runtime.shm_size_gb=3"], ["nothing that is planned reads runtime.shm_size_gb"]),
    (["+system.engine={}"], ["changes nothing"]),
    (["system.id=a", "system.id=b"], ["given twice"]),
    (
        ["system.rates.short.Offline=3", "system.rates.short={Offline: 4}"],
        ["no effect", "after it"],
    ),
    (["scenario=Offline", "scenario=Server"], ["given twice", "scenario=A,B"]),
    (["length=[short,rule]"], ["length takes one name"]),
    (["length=shrt"], ["no length 'shrt'", "did you mean short?"]),
    (["+scenario=Server"], ["write scenario=NAME"]),
    (["scenario={a: b}"], ["names no scenario"]),
    (["scenario=glob(X*)"], ["fits no scenario", "Offline"]),
    (["precision=fp88"], ["no precision 'fp88'", "did you mean fp8?"]),
    (["experiment=amd-v5.1", "system=dell-mi300x"], ["add experiment=dell-v5.1"]),
    (
        ["experiment=amd-v5.1", "system=amd-mi355x", "scenario=Offline,Interactive"],
        ["no cell with scenario=Interactive"],
    ),
    (["experiment=amd-v5.1", "+matrix.scenario=[Offline]"], ["no effect", "choose among them"]),
    (["matrix.scenario=[Offline]", "scenario=Server"], ["no effect", "scenario= is given too"]),
    (["+length.min_query_count=3"], ["there is a key"]),
    (
        ["hardware.engine.argument.seed=3"],
        ["hardware.engine has no argument; did you mean arguments?"],
    ),
    (["set.targt_qps=30"], ["did you mean target_qps?"]),
    (["set.Servr.target_qps=30"], ["did you mean Server?"]),
    (["set.engine.max_num_seq=30"], ["max_num_seqs"]),
    (["set.engine.placement.node=3"], ["has no engine.placement.node", "did you mean nodes?"]),
    (["set.generation.max_tokns=3"], ["did you mean max_tokens"]),
    (["set.target_qps=30,40"], ["takes one value", "set.Server.target_qps=VALUE"]),
    (["set.target_qps=[30,40]"], ["target_qps", "valid number"]),
    (["set.target_qps.Server=30"], ["target_qps is one value"]),
    (["set.engine=3"], ["write engine.KEY=VALUE"]),
    (["set.rules.ttft_ms=3"], ["shown, not set"]),
    (["set.target_qps"], ["not an override", "no value"]),
    (["~set.target_qps"], ["write set.target_qps=null"]),
    (["set.mi300x.target_qps=30"], ["applies to no cell", "mi300x"]),
    (["set.Server.target_qps=30", "set.bf16.target_qps=3"], ["set.Server.bf16.target_qps=VALUE"]),
    (["set.target_qps=30", "set.target_qps=3"], ["set the same twice"]),
    (["scenario=Server", "set.target_qps=30", "set.Server.target_qps=3"], ["no effect", "narrow"]),
    (["set.finetune.seed=3"], ["this cell has no finetune.seed"]),
    (["set.engine.max_num_seqs=many"], ["max_num_seqs", "'many'"]),
]
"""More mistakes of the same kinds."""


@pytest.mark.parametrize(("overrides", "words"), [*SEEN, *MISTAKES], ids=lambda said: str(said[-1]))
def test_a_mistake_gets_the_sentence_that_helps(overrides: list[str], words: list[str]) -> None:
    message = refused(*overrides)
    if overrides[-1] == "set.target_qps":
        words = words[1:]
    for word in words:
        assert word in message, message


ANSWERS = "quantizer_options.by_precision.fp8.calibrate_answers"
FP8 = ["system=rehearsal-cpu", "scenario=Offline", "precision=fp8", f"benchmark.{ANSWERS}=false"]


def test_what_takes_a_setting_out_is_named_in_every_group_of_layers(project: Path) -> None:
    file = "conf/compression/none.yaml"
    layer = "quantizer_options: {by_precision: {fp8: {calibrate_answers: null}}}"
    edit(project / file, "quantizer_options: {}", layer)
    with pytest.raises(UserError) as caught:
        make(project, FP8)
    assert f"has no effect: {file} (compression.{ANSWERS}) takes it out (null)" in str(caught.value)


def test_what_takes_a_setting_out_may_be_typed() -> None:
    out = f"++compression.{ANSWERS}=null"
    assert f"benchmark.{ANSWERS}=false has no effect: {out} takes it out" in refused(*FP8, out)


def test_a_refused_setting_leaves_no_other_behind() -> None:
    """Compositions are shared by all commands of a process."""
    same = ["experiment=null-engine", "scenario=Offline"]
    with pytest.raises(UserError, match=r"this cell has no finetune.seed"):
        compose(CONF, [*same, "set.id=another", "set.engine.seed=5", "set.finetune.seed=3"])
    (cell,) = compose(CONF, same).cells
    assert cell.values["system"]["id"] != "another"
    assert cell.values["effective"]["engine"]["arguments"]["seed"] != 5


def test_a_value_of_an_override_is_not_repeated_where_it_may_be_a_token() -> None:
    assert "secret-value" not in refused("benchmark.nowhere.password_file=secret-value")
    assert "secret-value" not in refused("+system.id=secret-value")


def test_a_part_of_what_was_set_may_be_set_again() -> None:
    both = ("system.target_qps={Offline: 200, Server: 100}", "system.target_qps.Server=20")
    found = runs("experiment=null-engine", "scenario=Offline,Server", *both)
    assert {name: one["loadgen"]["target_qps"] for name, one in found.items()} == {
        "Offline": 200,
        "Server": 20,
    }


def test_access_to_a_network_may_be_given_where_nothing_is_fetched() -> None:
    assert planned("fetch.offline=true", "scenario=Offline").jobs
    assert planned("set.fetch.offline=true", "scenario=Offline").jobs


# ---- a site's file ------------------------------------------------------------------------------

OURS = ("experiment=amd-v5.1", "benchmark=llama2-70b-99.9", "scenario=Server")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[amd-mi325x, _self_]", "[_self_, amd-mi325x]", ["_self_ before amd-mi325x"]),
        ("  submitter: Acme\n", "", ["no system.submitter", "submit as AMD"]),
        ("  id: 8xMI325X_Acme\n", "", ["no system.id", "8xMI325X_2xEPYC_9575F_1"]),
        ("name: acme-mi325x", "name: acme", ["says name: acme", "write name: acme-mi325x"]),
        ("llama2-70b: {", "llama2-70: {", ["no model", "did you mean llama2-70b"]),
        ("llama2-70b: {", "llama2-70b-99.9: {", ["is a benchmark, its model is llama2-70b"]),
        ("target_qps: 104", "target_pqs: 104", ["loadgen.target_pqs", "did you mean target_qps?"]),
        ("by_model:", "by_modle:", ["loadgen.by_modle"]),
        ("by_scenario", "by_precision", ["'Server' isn't one of", "never applies"]),
        ("system_name", "sytem_name", ["fields.sytem_name", "did you mean system_name"]),
        ("  fields:", "  idle: [ruls]\n  fields:", ["idle names ruls", "did you mean rule?"]),
        ("  fields:", "  rates: {shrt: {Server: 3}}\n  fields:", ["rates names shrt"]),
    ],
)
def test_a_name_in_a_site_that_is_none_is_told(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    site = tmp_path / "acme-mi325x.yaml"
    assert ACME_SITE.count(old) >= 1
    site.write_text(ACME_SITE.replace(old, new, 1), encoding="utf-8")
    message = refused(*OURS, site=site)
    for word in words:
        assert word in message, message


def test_a_site_is_where_it_is_said_to_be(tmp_path: Path) -> None:
    home = copy_project(tmp_path / "home")
    site = tmp_path / "acme-mi325x.yaml"
    site.write_text(ACME_SITE, encoding="utf-8")
    with_it, without = frozen_plan(home, list(OURS), site), frozen_plan(home, list(OURS))
    assert with_it != without
    site.unlink()
    with pytest.raises(UserError, match="is not a file"):
        frozen_plan(home, list(OURS), site)
    other = site.with_suffix(".yml")
    other.write_text(ACME_SITE, encoding="utf-8")
    assert "has to end in .yaml" in refused(*OURS, site=other)


def test_a_site_takes_the_place_of_its_base_only(tmp_path: Path) -> None:
    site = tmp_path / "acme-mi325x.yaml"
    site.write_text(ACME_SITE, encoding="utf-8")
    assert "takes the place of amd-mi325x" in refused(*OURS, "system=amd-mi300x", site=site)
    message = refused("scenario=Server", site=site)
    assert "add experiment=amd-v5.1" in message and "acme-mi325x.yaml builds on" in message


ON_ASUS = """\
# @package _global_
defaults: [asustek-mi325x, _self_]
system:
  name: acme-mi325x
  id: 8xMI325X_Acme
  submitter: Acme
"""
OFFLINE = ("experiment=asustek-v5.1", "benchmark=llama2-70b-99.9", "scenario=Offline")


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("  loadgen: {target_qps: 30}", "loadgen.target_qps"),
        ("  loadgen: {by_scenario: {Offline: {target_qps: 30}}}", "by_scenario.Offline.target_qps"),
        ("  loadgen: {by_model: {llama2-70b: {target_qps: 30}}}", "by_model.llama2-70b.target_qps"),
        (
            "  engine: {dispatch: {sorting: {strategy: buckets}}}",
            "system.engine.dispatch.sorting.strategy",
        ),
        (
            "  engine: {by_model: {llama2-70b: {dispatch: {sorting: {strategy: buckets}}}}}",
            "system.engine.by_model.llama2-70b.dispatch.sorting.strategy",
        ),
    ],
)
def test_a_sites_setting_that_its_base_says_more_narrowly_is_refused(
    tmp_path: Path, said: str, path: str
) -> None:
    """Who writes a file expects it to win over the one that it builds on."""
    site = tmp_path / "acme-mi325x.yaml"
    site.write_text(f"{ON_ASUS}{said}\n", encoding="utf-8")
    message = refused(*OFFLINE, site=site)
    assert message.startswith("--site acme-mi325x.yaml (system."), message
    assert f"{path}) has no effect at acme-mi325x/llama2-70b-99.9" in message
    assert "conf/system/asustek-mi325x.yaml (system." in message
    narrower = message.rpartition("; say ")[2].removesuffix(" there too")
    assert narrower != path and narrower.startswith("system.")


VARIABLE = "HIPBLASLT_TUNING_OVERRIDE_FILE"
ON_VULTR = ON_ASUS.replace("asustek-mi325x", "vultr-mi325x-epyc-9554")
LLAMA = ("experiment=vultr-v5.1", "benchmark=llama2-70b-99.9")


def test_a_sites_setting_that_its_base_takes_out_more_narrowly_is_refused(tmp_path: Path) -> None:
    """Vultr's base has null for this variable in Server, below the hardware and the scenario."""
    site = tmp_path / "acme-mi325x.yaml"
    said = f"  engine: {{environment: {{{VARIABLE}: /tuned.txt}}}}\n"
    site.write_text(f"{ON_VULTR}{said}", encoding="utf-8")
    message = refused(*LLAMA, "scenario=Server", site=site)
    assert message.startswith(f"--site acme-mi325x.yaml (system.engine.environment.{VARIABLE}) has")
    assert "conf/system/vultr-mi325x-epyc-9554.yaml (system.engine." in message
    narrower = message.rpartition("; say ")[2].removesuffix(" there too")
    assert "takes it out (null)" in message and narrower.endswith(f"Server.environment.{VARIABLE}")
    # Where nothing takes it out, it acts; and so it does if the file says it as narrowly.
    plan = make(ROOT, [*LLAMA, "scenario=Offline"], site)
    (run,) = [job for job in plan.jobs if job.step == "performance_run"]
    assert _config(run)["engine"]["environment"][VARIABLE] == "/tuned.txt"


def test_a_benchmark_that_says_its_own_rate_is_no_base() -> None:
    """rehearsal-cpu has rates of the usual benchmark, and this one has others."""
    plan = make(ROOT, ["experiment=rehearsal-gpt-oss", "scenario=Offline"])
    (run,) = [job for job in plan.jobs if job.step == "performance_run"]
    assert _config(run)["loadgen"]["target_qps"] == 3000


def test_what_a_site_says_as_narrowly_as_its_base_holds(tmp_path: Path) -> None:
    site = tmp_path / "acme-mi325x.yaml"
    rates = "  loadgen:\n    target_qps: 30\n    by_model: {llama2-70b: {by_scenario: RATES}}\n"
    rates = rates.replace("RATES", "{Offline: {target_qps: 31}, Server: {target_qps: 29}}")
    site.write_text(f"{ON_ASUS}{rates}", encoding="utf-8")
    plan = make(ROOT, list(OFFLINE), site)
    (run,) = [job for job in plan.jobs if job.step == "performance_run"]
    assert _config(run)["loadgen"]["target_qps"] == 31
    typed = make(ROOT, [*OFFLINE, "set.target_qps=32"], site)
    (run,) = [job for job in typed.jobs if job.step == "performance_run"]
    assert _config(run)["loadgen"]["target_qps"] == 32


def test_a_system_of_ones_own_in_conf_has_its_bases_cells(tmp_path: Path) -> None:
    home = copy_project(tmp_path)
    path = home / "conf/system/acme-mi325x.yaml"
    path.write_text(ACME_SITE, encoding="utf-8")
    plan = make(home, [*OURS, "system=acme-mi325x"])
    (run,) = [job for job in plan.jobs if job.step == "performance_run"]
    assert run.key == "acme-mi325x/llama2-70b-99.9/none/fp8/Server"
    assert _config(run)["loadgen"]["target_qps"] == 104
    with pytest.raises(UserError, match=r"add experiment=amd-v5\.1"):
        make(home, ["system=acme-mi325x"])


# ---- every spelling -----------------------------------------------------------------------------

AMD = "experiment=amd-v5.1"
PLACES = {
    "amd-mi300x": (AMD, "benchmark=llama2-70b-99.9", "scenario=Server"),
    "amd-mi325x": (AMD, "benchmark=mixtral-8x7b", "scenario=Offline"),
    "amd-mi355x": (AMD, "benchmark=llama2-70b-99.9", "scenario=Offline"),
    "dell-mi300x": ("experiment=dell-v5.1", "benchmark=llama2-70b-99.9", "scenario=Server"),
    "rehearsal-cpu": ("experiment=rehearsal", "benchmark=rehearsal", "scenario=Interactive"),
}
"""Five systems, and a cell of each."""

SETTINGS: dict[str, list[Any]] = {
    "target_qps": [17.5, 19],
    "min_duration_ms": [61000, 62000],
    "min_query_count": [700, 701],
    "engine.max_num_seqs": [61, 62],
    "engine.max_num_batched_tokens": [5001, 5002],
    "engine.max_model_len": [1999, 2001],
    "engine.kv_cache_dtype": ["auto", "int8"],
    "engine.tensor_parallel_size": [2, 4],
    "engine.dtype": ["bfloat16", "float16"],
    "engine.enforce_eager": [True, False],
    "engine.block_size": [8, 64],
    "engine.gpu_memory_utilization": [0.91, 0.89],
    "engine.environment.VLLM_USE_V1": ["0", "1"],
    "engine.environment.VLLM_LOGGING_LEVEL": ["INFO", "DEBUG"],
    "generation.max_tokens": [100, 101],
    "fields.system_name": ["Acme one", "Acme two"],
    "fields.host_memory_capacity": ["1TB", "2TB"],
    "submitter": ["Acme", "Emca"],
    "id": ["acme-1", "acme-2"],
    "journal.tools.failures": [8, 9],
}
"""Twenty settings, with two values for each."""


@cache
def base(system: str) -> ComposedCell:
    (cell,) = compose(CONF, [*PLACES[system], f"system={system}"]).cells
    return cell


def spellings(key: str, system: str) -> list[str]:
    """Keys of overrides that say a setting, those of the top layer and those of every layer."""
    cell = base(system)
    scenario, hardware = cell.values["scenario"]["name"], cell.values["hardware"]["name"]
    tops = ["", f"{scenario}.", f"{hardware}.{scenario}.", f"{system}."]
    found = [f"set.{top}{key}" for top in tops]
    section, _, below = key.partition(".")
    layers = {
        "engine": ("hardware.engine", "engine.settings", "system.engine"),
        "fields": ("hardware.fields", "system.fields"),
    }.get(section, ())
    if section in ("target_qps", "min_duration_ms", "min_query_count"):
        below, layers = section, ("benchmark.loadgen", "system.loadgen")
        found.append(
            f"system.target_qps.{scenario}" if below == "target_qps" else f"length.{below}"
        )
    if section == "engine" and not below.startswith("environment."):
        below = f"arguments.{below}"
    selected = ("", f"by_scenario.{scenario}.", f"by_hardware.{hardware}.", f"by_system.{system}.")
    found += [f"++{layer}.{by}{below}" for layer in layers for by in selected]
    plain = {"generation": "benchmark.generation", "journal": "journal"}.get(section)
    if plain:
        found.append(f"{plain}.{below}")
    return found + ([f"system.{key}"] if key in ("submitter", "id") else [])


def value_of(cell: ComposedCell, key: str) -> Row | None:
    return next((row for row in cell.rows if row.key == key), None)


def generated(seed: int, count: int) -> list[tuple[str, list[tuple[str, str, Any]]]]:
    """So many (setting, key of the override, value), drawn from all spellings; in bundles for one
    system each, in which every setting is said once."""
    draw = random.Random(seed)
    bundles = []
    while count > 0:
        system = draw.choice(list(PLACES))
        rows = {key: value_of(base(system), key) for key in SETTINGS}
        known = [
            key for key, row in rows.items() if row or not key.startswith("engine.") or ".V" in key
        ]
        bundle = []
        for key in draw.sample(known, min(count, 10)):
            row = rows[key]
            other = [value for value in SETTINGS[key] if row is None or value != row.value]
            bundle.append((key, draw.choice(spellings(key, system)), draw.choice(other)))
        bundles.append((system, bundle))
        count -= len(bundle)
    return bundles


def test_twenty_settings_have_their_spellings() -> None:
    assert len(SETTINGS) == 20
    for system in PLACES:
        assert sum(len(spellings(key, system)) for key in SETTINGS) > 150


@pytest.mark.parametrize(
    "count", [50, pytest.param(200, marks=pytest.mark.long, id="whole")], ids=str
)
def test_no_override_is_lost(count: int) -> None:
    """Each changes the cell as said, or is among those that are refused, with what wins."""
    acting, lost = 0, 0
    for system, bundle in generated(seed=20, count=count):
        texts = {place: f"{place}={hydra(value)}" for _, place, value in bundle}
        try:
            found = compose(CONF, [*PLACES[system], f"system={system}", *texts.values()])
        except UserError as error:
            assert "there is no key" in str(error) and "set." in str(error)
            lost += len(bundle)
            continue
        without_effect = {one.text: one for one in unread(found)}
        (cell,) = found.cells
        for key, place, value in bundle:
            row, before = value_of(cell, key), value_of(base(system), key)
            if row is not None and row.value == value:
                acting += 1
                assert row.source.file == TYPED
                continue
            lost += 1
            said = reason(without_effect[texts[place]], found)
            assert not place.startswith("set."), texts[place]
            assert (row and row.value) == (before and before.value), texts[place]
            if row is not None:
                assert row.source.file in said and hydra(row.value) in said, said
            else:
                assert "takes it out" in said or "it is for" in said, said
    assert acting + lost == count and min(acting, lost) > count / 7, (acting, lost)


WINNERS = ("wins, ", "takes it out (null)", "it is for ", "there is no key", "after it")


@pytest.mark.long
def test_each_of_two_hundred_changes_the_plan_or_is_refused_with_the_winner() -> None:
    """Each alone, through what a user calls."""
    changed, refused_ones = 0, 0
    for system, bundle in generated(seed=21, count=200):
        chosen = [*PLACES[system], f"system={system}"]
        before = _content(make(ROOT, chosen))
        for key, place, value in bundle:
            text = f"{place}={hydra(value)}"
            try:
                plan = make(ROOT, [*chosen, text])
            except UserError as error:
                refused_ones += 1
                said = str(error)
                words = [key.rpartition(".")[2]] if place.startswith("set.") else WINNERS
                # A typed model or the engine's build says which part of it can't be: it arrived.
                named = any(part in said for part in place.split(".")[1:])
                arrived = named and (said.endswith("or the override") or repr(value) in said)
                assert arrived or any(word in said for word in words), (text, said)
                assert not place.startswith("set.") or "no effect" not in said, text
                continue
            changed += 1
            assert _content(plan) != before, text
    assert changed + refused_ones == 200
    assert min(changed, refused_ones) > 30, (changed, refused_ones)


# ---- the documentation --------------------------------------------------------------------------


def documented() -> list[str]:
    """Every setting of the top layer that a page names with a value."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    found = {text for one in texts for text in re.findall(r"\bset\.[\w.-]+=[\w.-]*\w", one)}
    return sorted(text for text in found if "VALUE" not in text)


def test_what_pages_set_can_be_set() -> None:
    words = documented()
    assert len(words) > 5
    for word in words:
        where = "system=amd-mi325x" if "Interactive" not in word else "system=amd-mi300x"
        chosen = ["experiment=amd-v5.1", where, "benchmark=llama2-70b-99.9", word]
        (setting,) = compose(CONF, chosen).typed.settings
        assert word == f"{setting.place}={setting.value}"
