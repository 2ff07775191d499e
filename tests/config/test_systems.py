"""Systems that this machine isn't: overlays, their mistakes, `diff`, and what `run` refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from steps.base.errors import UserError
from steps.base.locks import Entry, entries
from steps.commands import describe
from steps.commands.cli import main
from steps.commands.diff import _short, difference
from steps.config.compression import PruneConfig, QuarkOptions
from steps.config.layers import merged
from steps.config.points import base_of
from steps.config.submission import SubmissionConfig
from steps.machine.look import Look
from steps.machine.probes.machine import Prober
from steps.plan.make import make
from steps.plan.plan import Job, Plan, freeze
from steps.plan.registry import STEPS
from steps.plan.unsupported import asked, refusal
from tests.conftest import ACME_SITE, MIXED, ROOT, edit, planned
from tests.recorded_machine import printing

SERVER = ["experiment=amd-v5.1", "benchmark=llama2-70b-99.9", "scenario=Server"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "acme-mi325x.yaml"
    path.write_text(ACME_SITE, encoding="utf-8")
    return path


def one(plan: Plan, step: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(job(plan, step).config)
    return config


def job(plan: Plan, step: str) -> Job:
    return next(job for job in plan.jobs if job.step == step)


def test_runs_that_need_an_idle_machine_say_so_before_they_start() -> None:
    full, short = planned("experiment=rehearsal-full"), planned()
    sentence = asked(full.requirements, full.jobs, lambda: 0.371)
    assert sentence is not None
    assert sentence.startswith("rehearsal-cpu asks for an idle machine")
    assert "37% of the processors" in sentence
    assert asked(short.requirements, short.jobs, lambda: 1.0) is None
    verdicts = [job for job in full.jobs if job.step.endswith("_check")]
    assert asked(full.requirements, verdicts, lambda: 1.0) is None


def test_rates_follow_the_length_and_can_be_overridden() -> None:
    def rates(*overrides: str) -> list[float]:
        plan = planned(*overrides)
        jobs = [job for job in plan.jobs if job.step == "performance_run"]
        return [json.loads(job.config)["loadgen"]["target_qps"] for job in jobs]

    short, full = rates(), rates("experiment=rehearsal-full")
    assert all(short[n] < full[n] for n in (1, 2)), "Server and Interactive hold beside other work"
    assert rates("system.target_qps.Server=39") == [short[0], 39, short[2]]


def test_a_site_is_its_base_with_its_own_values(site: Path) -> None:
    ours, base = make(ROOT, SERVER, site), planned(*SERVER, "system=amd-mi325x")
    run, other = one(ours, "performance_run"), one(base, "performance_run")
    assert run["loadgen"].pop("target_qps") == 104
    assert other["loadgen"].pop("target_qps") == 109
    assert run == other
    assert one(ours, "describe")["fields"]["submitter"] == "Acme"
    assert one(ours, "submission")["overrides"] == [*SERVER, "--site", "acme-mi325x.yaml"]


def test_doctor_and_describe_take_a_site_too(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    described = []
    monkeypatch.setattr(describe, "_write_all", lambda name, fields, root: described.append(name))
    arguments = ["--site", str(site), *SERVER]
    assert main(["describe", *arguments]) == 0
    assert described == ["acme-mi325x"]
    main(["doctor", *arguments])
    assert "for acme-mi325x, on this machine" in capsys.readouterr().out


def test_facts_of_amds_machine_do_not_become_a_partners(site: Path) -> None:
    """Memory, processor and software of the base are left for describe to probe."""
    fields = one(make(ROOT, SERVER, site), "describe")["fields"]
    assert fields["accelerator_memory_capacity"] == "256 GB"
    for name in ("host_memory_capacity", "host_processor_model_name", "framework", "hw_notes"):
        assert name not in fields


def test_a_plan_names_no_path_of_the_site(site: Path) -> None:
    assert str(site.parent) not in make(ROOT, SERVER, site).model_dump_json()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("submitter: Acme", "submiter: Acme", ["system acme-mi325x", "submiter", "no such key"]),
        ("Server: {target_qps: 104}", "Servr: {target_qps: 104}", ["Servr", "never applies"]),
        ("{target_qps: 104}", "{target_qps: many}", ["target_qps", "'many'"]),
        ("amd-mi325x, _self_", "amd-mi999x, _self_", ["amd-mi999x"]),
        ("defaults: [amd-mi325x, _self_]", "", ["names no base", "defaults"]),
        ("system_name: Acme 8", "number_of_nodes: '2'", ["number_of_nodes", "follows from"]),
        ("system:", "hardware: {environment: cuda}\nsystem:", ["cuda", "envs/cuda.lock"]),
        ("system:", "cluster: {groups: []}\nsystem:", ["cluster 1-node has none of it"]),
        ("fields:", "fields: {", ["acme-mi325x.yaml", "can't be"]),
    ],
)
def test_a_mistake_in_a_site_is_named(site: Path, old: str, new: str, words: list[str]) -> None:
    edit(site, old, new)
    with pytest.raises(UserError) as caught:
        make(ROOT, SERVER, site)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


FIRST = "# @package _global_\n"


@pytest.mark.parametrize(
    "beginning",
    ["\ufeff" + FIRST, "# Acme's machine\n\n" + FIRST, "\n# @package  _global_  \n"],
)
def test_a_site_may_begin_with_comments_and_an_editors_mark(site: Path, beginning: str) -> None:
    edit(site, FIRST, beginning)
    run = one(make(ROOT, SERVER, site), "performance_run")
    assert run["loadgen"]["target_qps"] == 104


@pytest.mark.parametrize(
    "beginning", ["", "# acme\n", "\n" * 5000, "#\n" * 5000, "a: 1\n" + FIRST, "# @package acme\n"]
)
def test_a_site_without_its_first_line_is_told_so(site: Path, beginning: str) -> None:
    edit(site, FIRST, beginning)
    for compose_it in (lambda: make(ROOT, SERVER, site), lambda: base_of(site)):
        with pytest.raises(UserError, match=r"lacks its first line; put `# @package _global_`"):
            compose_it()


def test_a_site_that_is_no_text_is_refused(site: Path) -> None:
    site.write_bytes(ACME_SITE.encode("utf-16"))
    with pytest.raises(UserError, match="it has to be YAML in UTF-8"):
        make(ROOT, SERVER, site)


def test_a_value_with_a_comma_is_told_how_to_be_written() -> None:
    with pytest.raises(UserError, match=r"quoted twice, as \"\+?system.fields.hw_notes='a, b'\""):
        make(ROOT, ["+system.fields.hw_notes=Dell, Inc", "scenario=Offline"])
    plan = make(ROOT, ["+system.fields.hw_notes='Dell, Inc'", "scenario=Offline"])
    assert one(plan, "describe")["fields"]["hw_notes"] == "Dell, Inc"


def test_a_site_that_is_not_there_or_hides_a_system_is_refused(site: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml is not a file"):
        make(ROOT, SERVER, Path("nowhere.yaml"))
    with pytest.raises(UserError, match="give it its own name"):
        make(ROOT, SERVER, site.rename(site.with_name("amd-mi325x.yaml")))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["system=amd-mi999x"], ["amd-mi999x", "amd-mi325x"]),
        (
            ["system=amd-mi300x", "precision=mxfp4"],
            ["no cell with", "values of precision", "are fp8"],
        ),
        (
            ["system=amd-mi300x", "row=8xMI300X/mixtral-8x7b/Offline"],
            ["8xMI300X/mixtral", "8xMI300X_2xEPYC_9575F/"],
        ),
        (["system=amd-mi300x", "hardware=mi301x"], ["mi301x", "mi300x"]),
        (["system=amd-mi300x", "cluster=4x-mi300x-2x-mi325x", "hardware=mi355x"], ["has none"]),
    ],
)
def test_an_impossible_choice_is_named(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        planned("experiment=amd-v5.1", *overrides)
    for word in words:
        assert word in str(caught.value)


def test_nodes_of_the_rehearsal_have_its_engine_and_ray_beside_it() -> None:
    alone = one(planned("scenario=Server"), "performance_run")["engine"]
    chosen = ("system=rehearsal-cpu-nodes", "cluster=4-nodes", "scenario=Server")
    plan = planned(*chosen, "system.engine.placement.cluster=auto")
    engine = one(plan, "performance_run")["engine"]
    changes = {"cluster": "auto", "nodes": 4, "in_process": False}
    assert engine == merged(alone, {"placement": changes})
    assert one(plan, "describe")["fields"]["number_of_nodes"] == "4"
    (requirement,) = plan.requirements
    assert Look().missing(requirement.model_dump(mode="json"), RUN) == ""


def test_vllm_beside_ray_is_the_rehearsals_vllm_and_the_null_engines_ray() -> None:
    """Otherwise a difference between one node and several could be the software's."""

    def pinned(name: str) -> set[Entry]:
        return set(entries(ROOT / f"envs/{name}.lock"))

    more = pinned("cpu-cluster") - pinned("cpu")
    assert pinned("cpu") <= pinned("cpu-cluster")
    assert more <= pinned("cluster")
    assert {entry.name for entry in more} == {"ray", "msgpack"}


def test_a_precision_that_the_hardware_lacks_is_refused() -> None:
    chosen = ["experiment=rehearsal", "system=amd-mi300x", "benchmark=llama2-70b-99"]
    with pytest.raises(
        UserError, match="mi300x computes in bf16, fp16, fp8, int8-fp8, not in mxfp4"
    ):
        planned(*chosen, "length=rule", "precision=mxfp4")


def test_one_row_is_addressed_by_its_published_name() -> None:
    row = "row=8xMI325X_2xEPYC_9575F_1/llama2-70b-99/Server"
    plan = planned("experiment=amd-v5.1", "system=amd-mi325x", "scenario=Server", row)
    cells = SubmissionConfig.model_validate_json(job(plan, "submission").config).cells
    assert [cell.key for cell in cells] == ["amd-mi325x/llama2-70b-99.9/none/fp8/Server"]


def test_pruning_comes_after_or_before_quantizing_as_amd_did() -> None:
    plan = planned("experiment=amd-v5.1", "benchmark=llama3.1-405b")
    by_key = {(job.step, job.key.split("/")[1]): job for job in plan.jobs if "/" in job.key}
    late, early = "depth-pruned-21", "depth-pruned-33-finetuned"
    runs = {job.key.split("/")[2]: job for job in plan.jobs if job.step == "performance_run"}
    assert by_key["prune", late].inputs["model"] == by_key["quantize", late].output
    assert runs[late].inputs["model"] == by_key["prune", late].output
    assert by_key["finetune", early].inputs["model"] == by_key["prune", early].output
    assert by_key["quantize", early].inputs["model"] == by_key["finetune", early].output
    assert runs[early].inputs["model"] == by_key["quantize", early].output
    dropped = PruneConfig.model_validate_json(by_key["prune", late].config).dropped
    assert round(dropped, 3) == 0.206
    dropped = PruneConfig.model_validate_json(by_key["prune", early].config).dropped
    assert round(dropped, 3) == 0.333
    options = json.loads(by_key["quantize", early].config)["options"]
    assert (options["num_calib_data"], options["seq_len"]) == (128, 1024)
    assert "num_calib_data" not in json.loads(by_key["quantize", late].config)["options"]


def test_run_refuses_before_anything_starts(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refusal(freeze(planned("experiment=amd-v5.1"), project), project, Look().missing)
    assert sentence is not None
    for word in ("amd-mi300x needs 8 × AMD Instinct MI300X", "no accelerator of AMD", "step "):
        assert word in sentence
    before = {path for path in (ROOT / "results").rglob("*") if "plans" not in path.parts}
    assert main(["run", *SERVER, "system=amd-mi300x"]) == 1
    assert "can't be run here, and nothing was started" in capsys.readouterr().err
    after = {path for path in (ROOT / "results").rglob("*") if "plans" not in path.parts}
    assert before == after


def test_a_rehearsal_is_never_refused(project: Path) -> None:
    assert (
        refusal(freeze(planned("experiment=rehearsal"), project), project, Look().missing) is None
    )


def test_what_is_there_needs_no_step(project: Path) -> None:
    """Results that came from elsewhere are packaged on a machine without accelerators."""
    plan = make(project, [*SERVER, "system=amd-mi300x"])
    for made in plan.jobs:
        if made.step != "submission":
            (project / made.output).parent.mkdir(parents=True, exist_ok=True)
            (project / made.output).write_text("{}", encoding="utf-8")
    assert refusal(freeze(plan, project), project, Look().missing) is None


RUN = [{"step": "performance_run", "config": "{}"}]


def listed(model: str, folder: Path) -> Look:
    """A machine whose tools list eight of a model, without a device on its bus."""
    tools = {
        "amd-smi static": f"amd-smi-static-8x{model}.json",
        "rocm-smi --showproductname": f"rocm-smi-8x{model}.json",
    }
    return Look(Prober(run=printing(tools), root=folder))


def test_a_machine_with_the_systems_accelerators_lacks_nothing(tmp_path: Path) -> None:
    needed = {
        "system": "acme",
        "model": "AMD Instinct MI325X",
        "architecture": "gfx942",
        "memory_gb": 256.0,
        "count_per_node": 8,
        "nodes": 1,
    }
    assert listed("mi325x", tmp_path).missing(needed, RUN) == ""
    assert listed("mi300x", tmp_path).missing(needed, RUN) == (
        "system acme needs 8 × AMD Instinct MI325X, but on this machine there are 8 × AMD Instinct "
        "MI300X"
    )
    nothing = Look(Prober(run=printing({}), root=tmp_path))
    assert "there is no accelerator of AMD" in nothing.missing(needed, RUN)
    assert nothing.missing({**needed, "nodes": 4}, RUN) == ""  # looked at on each
    assert nothing.missing({**needed, "model": None}, RUN) == ""


AT_HOME = ["experiment=rehearsal", "scenario=Server"]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "acme-mixed.yaml"
    path.write_text(MIXED, encoding="utf-8")
    return path


def test_engines_of_a_mixed_cluster_know_their_kinds_of_nodes(mixed: Path) -> None:
    plan = make(ROOT, AT_HOME, mixed)
    engine = one(plan, "performance_run")["engine"]
    kinds = [(k["nodes"], k["accelerator"]["model"]) for k in engine["placement"]["kinds"]]
    assert kinds == [(2, "AMD Instinct MI325X"), (1, "AMD Instinct MI300X")]
    assert engine["placement"]["nodes"] == 3
    assert engine["arguments"]["max_num_seqs"] == 8
    assert engine["arguments_on"]["mi325x"]["max_num_seqs"] == 16
    (requirement,) = plan.requirements
    assert Look().missing(requirement.model_dump(mode="json"), RUN) == ""
    assert STEPS["performance_run"].limitation({"engine": engine}) is None
    engine["placement"]["cluster"] = "slurm"
    assert STEPS["performance_run"].limitation({"engine": engine}) is None
    engine["placement"]["cluster"] = "local"
    said = STEPS["performance_run"].limitation({"engine": engine})
    assert "has all nodes on this machine" in str(said)


def test_hosts_that_are_named_are_the_cluster(mixed: Path) -> None:
    plan = make(ROOT, [*AT_HOME, "cluster.hosts=[a,root@b,c]"], mixed)
    placement = one(plan, "performance_run")["engine"]["placement"]
    assert (placement["cluster"], placement["hosts"]) == ("ssh", ["a", "root@b", "c"])


@pytest.mark.parametrize(
    ("overrides", "old", "new", "words"),
    [
        (["cluster.hosts=[a,b]"], "seed", "seed", "cluster.hosts has 2 hosts, the system 3 nodes"),
        (["cluster.hosts=[a,b,'-oProxyCommand=x']"], "seed", "seed", "hosts.2"),
        ([], "{arguments: {max_num_seqs: 16}}", "{warmup_samples: 4}", "differ in more than"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(
    mixed: Path, overrides: list[str], old: str, new: str, words: str
) -> None:
    mixed.write_text(MIXED.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        make(ROOT, [*AT_HOME, *overrides], mixed)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_training_sets_are_made_unless_offline() -> None:
    assert STEPS["finetune"].limitation({"data": {"kind": "ruler"}}) is None
    made = {"directory": None, "offline": False, "haystack": {"path": None}, "nltk_data": None}
    assert STEPS["training_sets"].brings(made) is None
    offline = str(STEPS["training_sets"].brings({**made, "offline": True}))
    assert "compression.training_sets.directory" in offline
    assert STEPS["training_sets"].brings({**made, "offline": True, "directory": "/data"}) is None


def test_amds_quark_recipes_are_planned_and_those_of_our_lock_are_run() -> None:
    def of(version: str, algorithm: str | None) -> str:
        options = {"version": version, "quant_algo": algorithm}
        return str(
            STEPS["quantize"].limitation({"tool": "quark", "format": "fp8", "options": options})
        )

    assert of("0.8", None) == "this version runs AMD Quark 0.9 and 0.13, not 0.8"
    algorithms = (None, "gptq", "autosmoothquant")
    assert {of(version, name) for version in ("0.9", "0.13") for name in algorithms} == {"None"}


@pytest.mark.parametrize("name, value", [("batch_size", 4), ("model_attn_implementation", "sdpa")])
def test_an_option_that_a_quark_would_not_read_is_said(name: str, value: object) -> None:
    def of(version: str, options: dict[str, object]) -> str:
        whole = {"tool": "quark", "format": "fp8", "options": {"version": version, **options}}
        return str(STEPS["quantize"].limitation(whole))

    assert name in of("0.13", {name: value})
    assert of("0.13", {name: None}) == of("0.9", {name: value}) == "None"


def test_mxfp4_has_one_size_of_groups() -> None:
    given = {
        **{"version": "0.9", "quant_scheme": "w_mxfp4_a_mxfp4", "kv_cache_dtype": "fp8"},
        **{"exclude_layers": (), "seq_len": 8},
    }
    assert QuarkOptions.model_validate({**given, "group_size": 32}).group_size == 32
    with pytest.raises(ValidationError):
        QuarkOptions.model_validate({**given, "group_size": 64})


def test_diff_shows_what_differs_and_where(site: Path) -> None:
    text = difference(ROOT / "conf", "acme-mi325x", "amd-mi325x", [], site)
    rows = [line.split() for line in text.splitlines()]
    assert ["llama2-70b-99.9", "Server", "loadgen.target_qps", "109", "104"] in rows
    assert ["all", "submitter", "AMD", "Acme"] in rows
    assert "mixtral" not in text  # nothing of it differs
    assert "engine." not in text


def test_diff_shows_cells_that_only_the_other_system_submitted() -> None:
    """AMD's first MI325X machine has no Interactive result; Vultr's ran without AMD's scheduler."""
    chosen = ["benchmark=llama2-70b-99.9"]
    text = difference(ROOT / "conf", "vultr-mi325x-epyc-9554", "amd-mi325x", chosen)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    name = "engine.environment.VLLM_LLAMA2_MLPERF_SCHED"
    assert f"llama2-70b-99.9 Interactive {name} 1 –" in rows
    assert "llama2-70b-99.9 Interactive engine.power.perf_determinism_mhz 1700 1600" in rows
    only = difference(
        ROOT / "conf", "vultr-mi325x-epyc-9554", "amd-mi325x", [*chosen, "scenario=Server"]
    )
    assert "Interactive" not in only and "VLLM_MLPERF_SWIZZLE_FP8_LINEAR" in only


def test_diff_cuts_long_values_where_they_differ() -> None:
    buckets = [12.5 for _ in range(7)]
    shown = _short(str([*buckets, 12.5]), str([*buckets, 12.6]))
    assert shown[0] != shown[1] and "12.6" in shown[1]
    assert _short("a", "b") == ("a", "b")


def test_diff_of_a_system_with_itself_is_empty() -> None:
    text = difference(ROOT / "conf", "amd-mi325x", "amd-mi325x", ["scenario=Server"])
    assert text == "amd-mi325x sets nothing differently from amd-mi325x"


def test_diff_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "system=amd-mi300x"]) == 1
    assert "diff compares two systems" in capsys.readouterr().err
    assert main(["diff", "system=amd-mi300x", "base=nobody"]) == 1
    assert "no experiment has a cell of system nobody" in capsys.readouterr().err


def examples() -> list[str]:
    """The files that docs/tutorial/partner-rerun.md tells a partner to write."""
    text = (ROOT / "docs/tutorial/partner-rerun.md").read_text(encoding="utf-8")
    return [block.split("```")[0] for block in text.split("```yaml\n")[1:]]


@pytest.mark.parametrize("example", examples(), ids=["mi325x", "cpu"])
def test_the_tutorials_files_compose_and_are_short(example: str, tmp_path: Path) -> None:
    assert len(example.splitlines()) < 20
    name = next(line.split()[1] for line in example.splitlines() if line.startswith("  name:"))
    path = tmp_path / f"{name}.yaml"
    path.write_text(example, encoding="utf-8")
    overrides = ["experiment=amd-v5.1"] if "amd-" in example else []
    plan = make(ROOT, overrides, path)
    assert {needed.system for needed in plan.requirements} == {name}
    assert one(plan, "submission")["submitter"] == "Acme"


def test_llama_8b_is_planned_and_scored_by_sentences(tmp_path: Path) -> None:
    chosen = ["benchmark=llama3.1-8b", "length=rule", "scenario=Offline,Server,Interactive"]
    plan = planned(*chosen, "benchmark.nltk_data=somewhere")
    check = json.loads(job(plan, "accuracy_check").config)
    assert check["dataset_size"] == 13_368
    assert check["gates"]["99"]["minimum"]["ROUGELSUM"] == 35.43507
    assert STEPS["accuracy_check"].limitation(check) is None
    assert STEPS["accuracy_check"].brings(check) is None
    reason = STEPS["accuracy_check"].brings({**check, "nltk_data": None})
    assert reason is not None and "benchmark.nltk_data" in reason
    models = {
        json.loads(one.config)["loadgen"]["model"]
        for one in plan.jobs
        if one.step == "performance_run"
    }
    assert models == {"llama3_1-8b", "llama3_1-8b-interactive"}
    compliance = json.loads(job(plan, "compliance_run").config)
    assert compliance["test"] == "TEST06"


def test_pictures_are_scored_where_pytorch_is_with_weights_that_are_given() -> None:
    chosen = ["experiment=amd-v5.1", "benchmark=stable-diffusion-xl", "scenario=Offline"]
    check = job(planned(*chosen), "accuracy_check")
    assert "/images-" in check.environment
    config = json.loads(check.config)
    assert len(config["kept"]["images"]) == 10
    reason = STEPS["accuracy_check"].brings(config)
    assert reason is not None and "benchmark.scorer_weights.clip.path" in reason
    given = [f"benchmark.scorer_weights.{name}.path=here" for name in ("clip", "inception")]
    config = json.loads(job(planned(*chosen, *given), "accuracy_check").config)
    assert STEPS["accuracy_check"].limitation(config) is None
