"""Nothing that names the site leaves it: what is found, taken out, refused."""

import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.confidential import known
from steps.base.confidential.finder import Finder
from steps.base.confidential.known import Known
from steps.base.errors import UserError
from steps.base.record import Manifest, publish, sha256_file
from steps.config.submission import SubmissionConfig
from steps.plan.make import make
from steps.plan.plan import Plan
from steps.plan.registry import STEPS
from steps.submit.submission.__main__ import step
from tests import synthetic
from tests.conftest import ROOT, planned

HOST = "canary-node17"
USER = "canary.user"
TOKEN = "zq81canarytoken77"
PLACE = "/scratch/canary-models"
CANARIES = (HOST, USER, TOKEN, PLACE)


def finder(**literals: set[str]) -> Finder:
    return Finder(Known(**literals))


FOUND = {
    "hf_abcdefghijkl": "token",
    "ghp_0123456789abcdefABCD": "token",
    "Authorization: Bearer abc.def-ghi": "token",
    "https://me:pass@hub.example.com/x": "token",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "token",
    "read from /home/alice/models/a.bin": "path",
    "file:///mnt/nfs/weights": "path",
    "path=/tmp/x": "path",
    "10.1.2.3": "address",
    "tcp://8.8.8.8/": "address",
    "52.1.2.3:6379": "address",
    "fe80::1ff:fe23:4567:890a": "address",
    "a4:bf:01:0e:12:aa": "address",
    "gpu3.lab.internal": "host",
    "http://gpu3.lab.internal/": "host",
    "me@gpu3.lan": "host",
    "Linux on node-3.": "host",
    "ssh vm:2200": "host",
    '"host": "vm"': "host",
    "user: bob": "user",
    "bob@": "user",
    "as jdoe42": "user",
}

NOT_FOUND = (
    "driver 25.3.0.1, version 0.9.0.2",
    "127.0.0.1:6379 and ::1 and 0.0.0.0",
    "mlperf::logging, std::vector",
    "at 12:34:56 on 2026-11-25T12:34:56",
    "a vm of bob",
    "NODE-3x, anode-3",
    "steps/run/sut/run.py and /opt/rocm/lib and /dev/kfd and /usr/bin/env",
    "https://huggingface.co/meta-llama/Llama-2-70b-chat-hf",
    '"file": "version.cc", "line_no": 53, "pid": 14208, "tid": 14208',
    '"/bindings/c_api.cc":"14d178b64c7fc45d090e038c08d9b78ca943c383"',
    "hardware.engine.placement.cluster=none fetch.token={environment:HF_TOKEN}",
    "eos_token_id 2, tokens_per_sample 28.7, max_tokens 1024",
)

NAMES = finder(hosts={"vm", "node-3"}, users={"bob", "jdoe42"})


@pytest.mark.parametrize("text", FOUND)
def test_what_names_a_site_is_found(text: str) -> None:
    assert list(NAMES.redacted(text)[1]) == [FOUND[text]]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_everybody_has_is_not(text: str) -> None:
    assert NAMES.redacted(text) == (text, Counter())


WORD = st.from_regex(re.compile(r"[a-z]{3}[0-9]{2}[a-z.-]{0,6}[a-z]", re.ASCII), fullmatch=True)


@given(WORD, st.text(alphabet=' ,;:=@/"\n()', max_size=4), st.text(max_size=40))
def test_a_known_name_never_remains_and_a_second_look_finds_nothing(
    name: str, between: str, rest: str
) -> None:
    text = f"{rest} {between}{name}{between} {rest}"
    for literals in ({"hosts": {name}}, {"users": {name}}, {"tokens": {name}}):
        search = finder(**literals)
        once, counts = search.redacted(text)
        assert name not in once.replace(rest, "") and counts
        assert search.redacted(once) == (once, Counter())


def site(home: Path) -> Path:
    """A system whose author put a host and a path where he might."""
    path = home / "acme-canary.yaml"
    path.write_text(
        f"""# @package _global_
# {TOKEN} of {USER}
defaults: [rehearsal-cpu, _self_]

system:
  name: acme-canary
  submitter: Acme
  engine: {{environment: {{HF_HOME: {PLACE}/hub, MASTER_ADDR: "{HOST}:29500"}}}}
""",
        encoding="utf-8",
    )
    (home / "hub-token").write_text(f"{TOKEN}\n", encoding="utf-8")
    return path


@pytest.fixture
def canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A finished experiment, canaries in every place that a user has."""
    monkeypatch.setattr("platform.node", lambda: f"{HOST}.example.com")
    monkeypatch.setenv("USER", USER)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    overrides = [
        "scenario=Server",
        "~benchmark.model.embedded",
        "+benchmark.model.source=local",
        "+benchmark.model.repository=a/b",
        f"+benchmark.model.path={PLACE}/{HOST}/weights",
        "+benchmark.model.fetch=${fetch}",
        "fetch.token.environment=null",
        f"+fetch.token.file={tmp_path}/hub-token",
    ]
    plan = make(ROOT, overrides, site(tmp_path))
    synthetic.build(plan, tmp_path)
    return plan


def packaged(plan: Plan, home: Path) -> Manifest:
    job = next(job for job in plan.jobs if job.step == "submission")
    config = SubmissionConfig.model_validate_json(job.config)
    inputs = synthetic.inputs_of(plan, home, "submission")
    with publish(home / "package", step="s", config={}, inputs=inputs, code="") as workspace:
        step(config, inputs, workspace, None)  # type: ignore[arg-type]
    return Manifest.read(home / "package/manifest.json")


def holding(tree: Path) -> list[str]:
    """Files of a tree with a canary in them, or in their names."""
    return [
        str(path.relative_to(tree))
        for path in sorted(tree.rglob("*"))
        if any(canary in path.name for canary in CANARIES)
        or (path.is_file() and any(c.encode() in path.read_bytes() for c in CANARIES))
    ]


def test_canaries_are_in_no_file_of_a_submission(canaries: Plan, tmp_path: Path) -> None:
    manifest = packaged(canaries, tmp_path)
    assert holding(tmp_path / "package/submission") == []
    found = manifest.result["redactions"]
    assert {one["kind"] for one in found} == {"host", "path"}
    assert all(one["file"].endswith(".md") and one["count"] > 0 for one in found)
    made_again = packaged(canaries, tmp_path)
    assert made_again.result == manifest.result


def test_negative_control_without_redaction_they_are(
    canaries: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Finder, "redacted", lambda self, text: (text, Counter()))
    packaged(canaries, tmp_path)
    held = holding(tmp_path / "package/submission")
    assert any(name.endswith("README.md") for name in held)


def test_what_was_lent_before_a_name_was_known_is_made_anew(
    canaries: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as off:
        off.setattr(Finder, "redacted", lambda self, text: (text, Counter()))
        packaged(canaries, tmp_path)
    packaged(canaries, tmp_path)
    assert holding(tmp_path / "package/submission") == []


FIELDS = {
    "system_name": f"the one called {HOST}",
    "hw_notes": f"measured by {USER}",
    "sw_notes": f"installed in {PLACE}/bin",
    "host_networking": "eth0 is 10.3.2.1",
    "other_software_stack": f"pulled with {TOKEN}",
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_the_description_is_not_reworded_but_refused(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: HOST)
    monkeypatch.setenv("USER", USER)
    monkeypatch.setenv("HUB_TOKEN", TOKEN)
    plan = planned("scenario=Server")
    synthetic.build(plan, tmp_path)
    inputs = synthetic.inputs_of(plan, tmp_path, "submission")
    system = inputs["describe/rehearsal-cpu"].with_name("system.json")
    fields = {**json.loads(system.read_text(encoding="utf-8")), field: FIELDS[field]}
    system.write_text(json.dumps(fields, indent=2), encoding="utf-8")
    synthetic.made_otherwise(inputs["describe/rehearsal-cpu"], lambda _: None)
    with pytest.raises(UserError, match=rf"line .*: {field} holds a.*reword the field") as caught:
        packaged(plan, tmp_path)
    assert not any(canary in str(caught.value) for canary in CANARIES)
    assert not (tmp_path / "package").exists()


def test_a_log_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    plan = planned("scenario=Server")
    synthetic.build(plan, tmp_path)
    role = "rehearsal-cpu/rehearsal/none/bf16/Server/performance_run"
    manifest = synthetic.inputs_of(plan, tmp_path, "submission")[role]
    log = manifest.with_name("mlperf_log_summary.txt")
    text = log.read_text(encoding="utf-8") + "from /home/alice/run\n"
    log.write_text(text, encoding="utf-8")
    synthetic.made_otherwise(manifest, lambda _: None)
    check = synthetic.inputs_of(plan, tmp_path, "submission")[role.replace("_run", "_check")]
    judged = {"run": sha256_file(manifest)}
    synthetic.made_otherwise(check, lambda fields: fields["inputs"].update(judged))
    with pytest.raises(UserError, match=r"holds a path of this site.*logs must stay"):
        packaged(plan, tmp_path)
    assert log.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "override",
    [
        "+hardware.engine.environment.HF_TOKEN=anything-at-all",
        "+hardware.engine.environment.ARGUMENT=hf_abcdefgh1234",
        "system.fields.system_name='sk-abcdefghijklmnopqrstuvwxyz'",
        "fetch.endpoint=https://me:pass@hub.example.com",
    ],
)
def test_a_token_in_an_override_makes_no_plan(override: str) -> None:
    with pytest.raises(UserError, match=r"holds a token.*by reference") as caught:
        planned(override)
    assert override.partition("=")[2].strip("'") not in str(caught.value)


def test_a_token_in_a_site_file_makes_no_plan(tmp_path: Path) -> None:
    path = site(tmp_path)
    text = path.read_text(encoding="utf-8").replace(f"HF_HOME: {PLACE}/hub", f"HF_TOKEN: {TOKEN}")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"environment.HF_TOKEN holds a token") as caught:
        make(ROOT, [], path)
    assert TOKEN not in str(caught.value)


def test_logs_and_results_of_steps_hold_no_token(canaries: Plan, tmp_path: Path) -> None:
    """The model and the submission step as they are started, with the token in their reach."""
    jobs = {job.step: job for job in canaries.jobs if job.step in ("model", "submission")}
    for name, job in jobs.items():
        inputs = synthetic.inputs_of(canaries, tmp_path, name)
        done = subprocess.run(
            [
                *(sys.executable, "-m", STEPS[name].module, "--config", job.config),
                *("--input", *(f"{role}={path}" for role, path in inputs.items())),
                *("--output", str(tmp_path / f"ran/{name}/manifest.json")),
                *("--log", str(tmp_path / f"ran/{name}.log")),
            ],
            cwd=ROOT,
            env={**os.environ, "HF_TOKEN": TOKEN, "USER": USER},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr
        assert TOKEN not in done.stderr
    assert (tmp_path / "ran/submission/manifest.json").exists()
    logs = "".join(p.read_text(encoding="utf-8") for p in (tmp_path / "ran").rglob("*.log"))
    assert logs and TOKEN not in logs
    assert holding(tmp_path / "ran/submission/submission") == []


LEAKING = """
import os, platform, sys
from pathlib import Path
from steps.base.step import main
from steps.base.strict import Strict

platform.node = lambda: "canary-here.example.com"

class Config(Strict):
    address: str

def step(config, inputs, workspace, console):
    print("environment:", os.environ["HF_TOKEN"], Path(os.environ["HF_TOKEN_PATH"]).read_text())
    print("on canary-here, to", config.address, flush=True)
    sys.stdout.buffer.write(b"not UTF-8: \\xff\\n")
    raise RuntimeError(f"refused {os.environ['HF_TOKEN']}")

main("leaking", Config, step)
"""


def test_a_log_keeps_no_token_and_no_host_that_a_library_wrote(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-the-file-99\n", encoding="utf-8")
    config = json.dumps({"address": f"tcp://{HOST}:29500"})
    subprocess.run(
        [
            *(sys.executable, "-c", LEAKING, "--config", config),
            *("--output", str(tmp_path / "out/manifest.json"), "--log", str(tmp_path / "log")),
        ],
        cwd=ROOT,
        env={**os.environ, "HF_TOKEN": TOKEN, "HF_TOKEN_PATH": str(tmp_path / "token")},
        capture_output=True,
        timeout=120,
    )
    log = (tmp_path / "log").read_bytes()
    assert b"environment: REDACTED_TOKEN REDACTED_TOKEN" in log
    assert b"on REDACTED_HOST, to tcp://REDACTED_HOST:29500\nnot UTF-8: \xff\n" in log
    for canary in (TOKEN, "from-the-file-99", HOST, "canary-here"):
        assert canary.encode() not in log


@pytest.mark.parametrize(
    ("variable", "below"),
    [("HF_HOME", "token"), ("XDG_CACHE_HOME", "huggingface/token"), ("HF_TOKEN_PATH", "")],
)
def test_a_token_where_an_engines_environment_leads_is_known(
    tmp_path: Path, variable: str, below: str
) -> None:
    """A measured step doesn't have the user's variables; its engine has these."""
    path = tmp_path / "place" / below
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("from-the-place-99\n", encoding="utf-8")
    found = Known()
    found.add_config({"engine": {"environment": {variable: str(tmp_path / "place")}}})
    assert "from-the-place-99" in found.tokens


def test_a_token_of_the_users_home_is_known_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / ".cache/huggingface/token"
    usual.parent.mkdir(parents=True)
    usual.write_text("from-the-home-99\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert "from-the-home-99" in known.own_tokens()


def test_hosts_that_a_run_starts_over_ssh_are_known(tmp_path: Path) -> None:
    """They stand alone in a list, which no URL and no port tells for names."""
    config = {"engine": {"placement": {"hosts": ["canary-node17", "canaryuser@10.1.2.3"]}}}
    with publish(tmp_path / "run", step="s", config=config, inputs={}, code="") as workspace:
        workspace.result = {}
    overrides = ["+cluster.hosts=[canary18,'other@canary19']", "cluster.checkout=null"]
    found = Known()
    known.add_evidence(found, [tmp_path / "run/manifest.json"], overrides)
    assert found.hosts - {platform.node(), platform.node().partition(".")[0]} == {
        *("canary-node17", "canary18", "canary19")
    }
    assert found.users == {"canaryuser", "other"}
    assert found.addresses == {"10.1.2.3"}


def test_own_addresses_come_from_the_kernels_tables(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.9.8.7\n        /32 host LOCAL\n"
        "     |-- 10.9.8.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n"
        "        /32 host LOCAL\n",
        encoding="utf-8",
    )
    (tmp_path / "if_inet6").write_text(
        "fe80000000000000021000fffe000001 02 40 20 80     eth0\n", encoding="utf-8"
    )
    assert set(known._own_addresses(tmp_path)) == {"10.9.8.7", "fe80::210:ff:fe00:1"}
