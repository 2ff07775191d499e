"""The statement of a submission: complete, checked offline, signed, sealed, refused if not."""

import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.base.locks import entries, packages
from steps.base.record import Manifest, Origin, Record, sha256_file
from steps.base.version import Version
from steps.commands import seal
from steps.commands.cli import main
from steps.plan.plan import Plan, freeze
from steps.submit.provenance.__main__ import Source, _dependencies
from steps.submit.provenance.package import disagreements
from steps.submit.provenance.sbom import bill
from steps.submit.provenance.statement import Statement, read
from tests import synthetic
from tests.conftest import ROOT, planned

RUN = "rehearsal-cpu/rehearsal/none/bf16/Server/performance_run"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned("scenario=Server")


@pytest.fixture(scope="module")
def finished(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("finished")
    synthetic.build(plan, home)
    synthetic.package(plan, home)
    return home


@pytest.fixture(scope="module")
def statement(finished: Path) -> Statement:
    return read(finished / "results/rehearsal/provenance/provenance.json")


def of_kind(statement: Statement, kind: str) -> dict[str, str | None]:
    return {
        r.name: r.sha256 for r in statement.resources() if (r.annotations or {}).get("kind") == kind
    }


def test_every_file_of_the_tree_is_a_subject(finished: Path, statement: Statement) -> None:
    tree = finished / "results/rehearsal/package"
    files = {
        path.relative_to(tree).as_posix(): sha256_file(path)
        for path in (tree / "submission").rglob("*")
        if path.is_file()
    }
    assert len(files) > 15
    assert {subject.name: subject.sha256 for subject in statement.subject} == files


def test_it_holds_all_that_the_submission_is_made_from(
    plan: Plan, finished: Path, statement: Statement
) -> None:
    inputs = synthetic.inputs_of(plan, finished, "provenance")
    model = Manifest.read(inputs["model/rehearsal"])
    assert of_kind(statement, "weights").items() >= {
        (f"model/rehearsal/{name}", entry["sha256"]) for name, entry in model.files.items()
    }
    assert "dataset/rehearsal/manifest.json" in of_kind(statement, "manifest")
    environments = of_kind(statement, "environment")
    assert {"lock/driver.lock", "lock/cpu.lock", "lock/analysis.lock"} <= environments.keys()
    log = Manifest.read(inputs[RUN]).file("mlperf_log_detail.txt")
    assert of_kind(statement, "log")[f"{RUN}/mlperf_log_detail.txt"] == sha256_file(log)
    assert f"{RUN}/configuration" in of_kind(statement, "configuration")
    assert of_kind(statement, "code")[f"{RUN}/code"] == "c"
    assert list(of_kind(statement, "host")) == ["host/1"]
    assert len(of_kind(statement, "sbom")) == len([role for role in inputs if "lock/" in role])
    assert f'"{platform.node()}"' not in statement.to_json()


def test_each_code_says_the_commit_that_it_is_of(finished: Path, plan: Plan) -> None:
    job = next(job for job in plan.jobs if job.step == "performance_run")
    path = finished / job.output
    manifest, record = Manifest.read(path), Record.read(path)
    assert record.origin.version is None
    record = replace(record, origin=Origin(Version("1", "abc", True)))
    made = Source("r", manifest, record, "host/1")
    code = [one for one in _dependencies(made) if one.name == "r/code"]
    said = {"kind": "code", "version": "1", "commit": "abc", "changed": "true"}
    assert [one.annotations for one in code] == [said]


def test_quick_looks_are_no_part_of_it(plan: Plan) -> None:
    (job,) = [job for job in planned("precision=fp8").jobs if job.step == "provenance"]
    assert not [role for role in job.inputs if role.startswith("quick_")]
    assert "quantize/rehearsal/none/fp8" in job.inputs


def test_a_bill_of_materials_is_valid_and_lists_the_lock() -> None:
    lock = ROOT / "envs/driver.lock"
    text = bill(lock, datetime(2026, 1, 1, tzinfo=UTC))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {(c["name"], c["version"]) for c in json.loads(text)["components"]}
    assert listed == set(packages(lock).items())
    assert ("snakemake", "9.27.1") in listed
    digests = {
        c["name"]: {h["content"] for h in c["hashes"]} for c in json.loads(text)["components"]
    }
    assert digests == {entry.name: {*entry.digests} for entry in entries(lock) if entry.name}
    assert bill(lock, datetime(2026, 1, 1, tzinfo=UTC)) == text


@pytest.mark.parametrize("lock", sorted((ROOT / "envs").glob("*.lock")), ids=lambda lock: lock.name)
def test_no_bill_has_a_package_without_digest(lock: Path) -> None:
    components = json.loads(bill(lock, datetime(2026, 1, 1, tzinfo=UTC)))["components"]
    assert components
    assert all(component["hashes"] for component in components)


def test_a_lock_without_digests_has_no_bill(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("six==1.17.0\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"x.lock: six==1.17.0 has no sha256; run make locks"):
        bill(tmp_path / "x.lock", datetime(2026, 1, 1, tzinfo=UTC))


def test_a_lock_that_pins_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("# a remark\nsix==1.17.0\nattrs>=26\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"x.lock, line 3: 'attrs>=26' pins no version"):
        packages(tmp_path / "x.lock")


def test_a_result_that_was_made_again_disagrees_with_the_statement(
    plan: Plan, finished: Path, statement: Statement, tmp_path: Path
) -> None:
    """Its own manifest fits it, so nothing but the statement can tell."""
    inputs = synthetic.inputs_of(plan, finished, "provenance")
    own = Manifest.read(finished / "results/rehearsal/provenance/manifest.json")
    assert disagreements(statement, inputs, own) == []
    other = Path(shutil.copytree(inputs[RUN].parent, tmp_path / "other")) / "manifest.json"
    other.with_name("mlperf_log_detail.txt").write_text("another", encoding="utf-8")
    synthetic.made_otherwise(other, lambda _: None)
    found = disagreements(statement, {**inputs, RUN: other}, own)
    assert f"{RUN}/mlperf_log_detail.txt differs from the statement" in found


# ---- sealed -------------------------------------------------------------------------------------


class Keys:
    """Of a submitter, who signs, and of a recipient, who may open."""

    def __init__(self, home: Path) -> None:
        private = Ed25519PrivateKey.generate()
        openssh = serialization.PrivateFormat.OpenSSH
        plain = serialization.NoEncryption()
        self.sign, self.signer = home / "sign.key", home / "sign.pub"
        self.sign.write_bytes(private.private_bytes(serialization.Encoding.PEM, openssh, plain))
        self.signer.write_bytes(
            private.public_key().public_bytes(
                serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            )
        )
        age = pyrage.x25519.Identity.generate()
        self.identity, self.recipient = home / "age.key", home / "recipients"
        self.identity.write_text(f"# mine\n{age}\n", encoding="utf-8")
        both = f"{age.to_public()}\n{self.signer.read_text(encoding='utf-8')}\n"
        self.recipient.write_text(both, encoding="utf-8")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def sealed(plan: Plan, finished: Path, keys: Keys) -> Iterator[Path]:
    """The submission in one file, signed and encrypted."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(seal, "ROOT", finished)
        patched.setattr(seal, "frozen_plan", lambda *_: freeze(plan, finished))
        out = finished / "out.age"
        arguments = ["--sign", str(keys.sign), "--recipient", str(keys.recipient)]
        assert main(["seal", "scenario=Server", "--output", str(out), *arguments]) == 0
        yield out


def unseal(sealed: Path, directory: Path, keys: Keys) -> int:
    given = ["--identity", str(keys.identity), "--signer", str(keys.signer)]
    return main(["unseal", str(sealed), str(directory), *given])


def test_what_is_opened_is_what_was_sealed(
    sealed: Path, finished: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unseal(sealed, tmp_path / "opened", keys) == 0
    assert "files are valid; signed by" in capsys.readouterr().out
    tree = finished / "results/rehearsal/package"
    opened = tmp_path / "opened"
    names = [p.relative_to(tree) for p in (tree / "submission").rglob("*") if p.is_file()]
    assert all((opened / name).read_bytes() == (tree / name).read_bytes() for name in names)
    assert {path.name for path in opened.iterdir()} == {"submission", "provenance"}
    assert sealed.stat().st_mode & 0o077 == 0
    assert b"mlperf_log" not in sealed.read_bytes()


def test_an_ssh_key_opens_it_too(sealed: Path, keys: Keys, tmp_path: Path) -> None:
    given = ["--identity", str(keys.sign)]
    assert main(["unseal", str(sealed), str(tmp_path / "opened"), *given]) == 0


def test_any_flipped_byte_is_named(
    sealed: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = tmp_path / "opened"
    assert unseal(sealed, opened, keys) == 0
    signer = ["--signer", str(keys.signer)]
    for path in sorted(p for p in opened.rglob("*") if p.is_file()):
        data = bytearray(path.read_bytes())
        if not data:
            continue
        at = len(data) // 2
        data[at] ^= 1
        path.write_bytes(data)
        assert main(["verify", str(opened), *signer]) == 1
        said = capsys.readouterr()
        assert path.name in said.out + said.err
        data[at] ^= 1
        path.write_bytes(data)
    assert main(["verify", str(opened), *signer]) == 0
    (opened / "submission/added.md").write_text("x", encoding="utf-8")
    assert main(["verify", str(opened), *signer]) == 1
    assert "submission/added.md is not in the statement" in capsys.readouterr().out


@given(st.floats(0, 1, exclude_max=True), st.booleans())
def test_an_altered_or_truncated_file_opens_nothing(
    sealed: Path, keys: Keys, tmp_path_factory: pytest.TempPathFactory, where: float, cut: bool
) -> None:
    home = tmp_path_factory.mktemp("altered")
    data = bytearray(sealed.read_bytes())
    at = int(where * len(data))
    if cut:
        del data[at:]
    else:
        data[at] ^= 1
    (home / "sealed").write_bytes(data)
    assert unseal(home / "sealed", home / "opened", keys) == 1
    assert [path.name for path in home.iterdir()] == ["sealed"]


def test_who_may_not_open_it_is_told(
    sealed: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Keys(tmp_path)
    assert main(["unseal", str(sealed), str(tmp_path / "a")]) == 1
    assert "is encrypted; give your private key" in capsys.readouterr().err
    assert unseal(sealed, tmp_path / "a", other) == 1
    assert "can't be decrypted with the key" in capsys.readouterr().err
    given = ["--identity", str(keys.identity), "--signer", str(other.signer)]
    assert main(["unseal", str(sealed), str(tmp_path / "a"), *given]) == 1
    assert "not signed by the key" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_unsigned_and_not_encrypted_is_possible_and_said(
    sealed: Path, tmp_path: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plain.tar.gz"
    assert main(["seal", "--output", str(out)]) == 0
    assert "not encrypted" in capsys.readouterr().out
    first = out.read_bytes()
    assert main(["seal", "--output", str(out)]) == 0
    assert out.read_bytes() == first, "the same package is the same file"
    assert main(["unseal", str(out), str(tmp_path / "a"), "--signer", str(keys.signer)]) == 1
    assert "not signed" in capsys.readouterr().err
    assert main(["unseal", str(out), str(tmp_path / "a")]) == 0
    assert main(["unseal", str(out), str(tmp_path / "a")]) == 1
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--sign", "--recipient"])
def test_a_key_that_is_none_is_refused_and_nothing_written(
    sealed: Path, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("not a key\n", encoding="utf-8")
    for name in ("key", "missing"):
        out = tmp_path / "out"
        assert main(["seal", "--output", str(out), flag, str(tmp_path / name)]) == 1
        assert capsys.readouterr().err.startswith("error: ")
        assert not out.exists()


# ---- what nobody signed -------------------------------------------------------------------------

Change = Callable[[Path], object]


def replaced_by_a_link(package: Path) -> None:
    """To the same bytes, outside."""
    path = next(p for p in sorted((package / "submission").rglob("*")) if p.is_file())
    elsewhere = package.with_name("elsewhere")
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def folder_replaced_by_a_link(package: Path) -> None:
    shutil.move(package / "submission", package.with_name("elsewhere"))
    (package / "submission").symlink_to(package.with_name("elsewhere"))


def said_otherwise(package: Path, change: Callable[[Any], object]) -> None:
    path = package / "provenance/provenance.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    path.write_text(json.dumps(fields), encoding="utf-8")


def first_without_digest(package: Path) -> None:
    said_otherwise(package, lambda fields: fields["subject"][0].pop("digest"))
    (package / subject_names(package)[0]).write_text("anything", encoding="utf-8")


def subject_names(package: Path) -> list[str]:
    path = package / "provenance/provenance.json"
    return [s["name"] for s in json.loads(path.read_text(encoding="utf-8"))["subject"]]


def digest_of_another_kind(package: Path) -> None:
    said_otherwise(package, lambda f: f["subject"][0].update(digest={"md5": "0" * 32}))


def outside(package: Path, name: str) -> None:
    package.with_name("outside").write_text("x", encoding="utf-8")
    digest = {"sha256": sha256_file(package.with_name("outside"))}
    said_otherwise(package, lambda f: f["subject"].append({"name": name, "digest": digest}))


def twice(package: Path) -> None:
    said_otherwise(package, lambda fields: fields["subject"].append(fields["subject"][0]))


UNSIGNED: dict[str, Change] = {
    "a file": lambda p: (p / "submission/added.md").write_text("x"),
    "a hidden file": lambda p: (p / "submission/.git").write_text("x"),
    "a link to a file": lambda p: (p / "submission/l").symlink_to("/etc/passwd"),
    "a link to a directory": lambda p: (p / "submission/l").symlink_to("/etc"),
    "a link to nothing": lambda p: (p / "submission/l").symlink_to("/nowhere"),
    "a pipe": lambda p: os.mkfifo(p / "submission/pipe"),
    "an empty directory": lambda p: (p / "submission/e").mkdir(),
    "empty directories in each other": lambda p: (p / "submission/e/f").mkdir(parents=True),
    "a file in provenance": lambda p: (p / "provenance/run.sh").write_text("x"),
    "a file below a bill": lambda p: (p / "provenance/sbom/more.cdx.json").write_text("{}"),
    "a directory in provenance": lambda p: (p / "provenance/more").mkdir(),
    "a file beside": lambda p: (p / "run.sh").write_text("x"),
    "a directory beside": lambda p: (p / "more").mkdir(),
    "a name that is no text": lambda p: (p / "submission" / os.fsdecode(b"\xff\xfe")).touch(),
    "a name that forges a line": lambda p: (p / "submission/a\nb holds\x1b[2K").touch(),
    "a link in place of a file": replaced_by_a_link,
    "a link in place of the tree": folder_replaced_by_a_link,
    "a pipe in place of a bill": lambda p: instead(next((p / "provenance/sbom").iterdir())),
    "a subject without digest": first_without_digest,
    "a subject with another digest": digest_of_another_kind,
    "a subject twice": twice,
    "a subject outside": lambda p: outside(p, "submission/../../outside"),
    "an absolute subject": lambda p: outside(p, str(p.with_name("outside"))),
    "no subject": lambda p: said_otherwise(p, lambda fields: fields.update(subject=[])),
}


def instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", UNSIGNED)
def test_what_nobody_signed_is_named(
    sealed: Path, keys: Keys, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = tmp_path / "opened"
    assert unseal(sealed, opened, keys) == 0
    UNSIGNED[name](opened)
    capsys.readouterr()
    assert main(["verify", str(opened)]) == 1
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    assert lines and all(line.isprintable() for line in lines)
    assert "isn't valid" in lines[-1]


def packed(path: Path, package: Path, extra: Mapping[str, str] = MappingProxyType({})) -> Path:
    """A package as seal writes it, with entries that it didn't."""
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(p for p in package.rglob("*") if p.is_file()):
            archive.add(file, file.relative_to(package).as_posix())
        for name, text in extra.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    "extra",
    [
        "provenance/evil.sh",
        "provenance/sbom/evil.cdx.json",
        "submission/evil",
        "submission/./evil",
        "submission//evil",
        "submission/../evil",
        "/tmp/evil",
        "evil",
        "submission",
        "provenance/provenance.json/below",
        "TWICE",
        "BELOW",
    ],
)
def test_unseal_writes_nothing_that_nobody_signed(
    sealed: Path,
    keys: Keys,
    tmp_path: Path,
    extra: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = tmp_path / "good"
    assert unseal(sealed, good, keys) == 0
    first = subject_names(good)[0]
    name = {"TWICE": first, "BELOW": f"{first}/below"}.get(extra, extra)
    plain = packed(tmp_path / "plain.tgz", good, {name: "x"})
    assert main(["unseal", str(plain), str(tmp_path / "opened")]) == 1
    assert "error: " in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"good", "plain.tgz"}
    whole = packed(tmp_path / "whole.tgz", good)
    assert main(["unseal", str(whole), str(tmp_path / "opened"), "--signer", str(keys.signer)]) == 0


def test_a_subject_without_digest_opens_nothing(
    sealed: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good"
    assert unseal(sealed, good, keys) == 0
    first_without_digest(good)
    plain = packed(tmp_path / "plain.tgz", good)
    assert main(["unseal", str(plain), str(tmp_path / "opened")]) == 1
    assert "has no sha256 in the statement" in capsys.readouterr().err
    assert not (tmp_path / "opened").exists()
