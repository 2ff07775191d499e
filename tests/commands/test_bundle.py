"""A bundle sets up a machine that has no network; one that isn't whole sets up nothing."""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.base.record import publish
from steps.commands.bundle import command, signature, unbundle
from steps.commands.bundle.wheels import gather
from steps.commands.cli import call
from steps.plan.make import make
from steps.plan.plan import Job, Plan
from tests import wheels
from tests.conftest import ROOT, planned
from tests.programs import needs

LIMIT_S = 180
KEPT = ROOT / ".envs/wheels"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a project whose only command prints a verdict that needs a package."""
    home = wheels.checkout(tmp_path_factory.mktemp("project") / "home")
    tiny = wheels.wheel(home / "links")
    (home / "envs/driver.lock").write_text(wheels.locked(tiny), encoding="utf-8")
    files = command.checkout(home)
    files[f"wheels/{tiny.name}"] = tiny
    command.write(home / "out.bundle", files, "./reproduce")
    return home / "out.bundle"


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_what_comes_out_is_what_went_in(bundle: Path, tmp_path: Path) -> None:
    assert call(["unbundle", str(bundle), str(tmp_path / "there")]) == 0
    home = bundle.parent
    made = contents(tmp_path / "there")
    assert made.keys() == {
        *(*command.checkout(home), "unbundle.py", "wheels/tiny-1.0-py3-none-any.whl"),
    }
    assert "steps/commands/cli.py" in made
    assert made["steps/commands/cli.py"] == (home / "steps/commands/cli.py").read_bytes()
    assert os.access(tmp_path / "there/reproduce", os.X_OK)
    assert not list(tmp_path.glob("*.partial"))


def test_an_ended_one_goes_on(bundle: Path, tmp_path: Path) -> None:
    partial = tmp_path / "there.partial"
    (partial / "steps/commands").mkdir(parents=True)
    whole = bundle.parent / "steps/commands/cli.py"
    shutil.copy(whole, partial / "steps/commands/cli.py")
    inode = (partial / "steps/commands/cli.py").stat().st_ino
    (partial / "reproduce").write_text("half", encoding="utf-8")
    assert call(["unbundle", str(bundle), str(tmp_path / "there")]) == 0
    assert (tmp_path / "there/steps/commands/cli.py").stat().st_ino == inode
    assert (tmp_path / "there/reproduce").read_bytes() == (ROOT / "reproduce").read_bytes()


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.booleans())
def test_an_altered_or_truncated_bundle_writes_nothing_wrong(
    bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
    where: float,
    bit: int,
    cut: bool,
) -> None:
    """A tar has bytes that mean nothing: with one of those flipped, all is as it was."""
    home = tmp_path_factory.mktemp("altered")
    data = bytearray(bundle.read_bytes())
    at = int(where * len(data))
    if cut:
        del data[at:]
    else:
        data[at] ^= 1 << bit
    (home / "b").write_bytes(data)
    if call(["unbundle", str(home / "b"), str(home / "there")]) == 0:
        call(["unbundle", str(bundle), str(home / "whole")])
        assert contents(home / "there") == contents(home / "whole")
    else:
        assert [path.name for path in home.iterdir()] == ["b"]


def test_a_flipped_byte_of_a_file_is_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bundle.read_bytes()
    assert data.count(b"tiny.VERDICT") == 1
    (tmp_path / "b").write_bytes(data.replace(b"tiny.VERDICT", b"tiny.VERDIKT"))
    assert call(["unbundle", str(tmp_path / "b"), str(tmp_path / "there")]) == 1
    assert "'steps/commands/cli.py' differs from its list" in capsys.readouterr().err
    assert not (tmp_path / "there").exists()


def listed(**changes: object) -> bytes:
    """A bundle's list, in part altered."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    here = {"format": 1, "python": version, "machine": platform.machine()}
    files = {"a": {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}}
    return json.dumps({**here, "command": "./reproduce", "files": files} | changes).encode()


def archive(path: Path, *lists: bytes, names: Sequence[str] = ("a",)) -> Path:
    entries = [(f"bundle.{hashlib.sha256(text).hexdigest()}.json", text) for text in lists]
    with tarfile.open(path, "w:", format=tarfile.GNU_FORMAT) as made:
        for name, data in [*entries, *((name, b"x") for name in names)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return path


X = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
NAMES = (".", "./a", "a/", "a//b", "a/../b", "../a", "/a", "", "a" * 256, "a\0b", "a\udcff")


@pytest.mark.parametrize(
    "text",
    [
        *(b"[1, 2]", b"null", b'"x"', b"7", b"{}", b"[" * 100_000 + b"]" * 100_000),
        *(listed(**{key: None}) for key in ("python", "machine", "command", "files")),
        listed(files=["a"]),
        *(listed(files={"a": said}) for said in ("y", None, [], {}, X | {"bytes": "1"})),
        *(listed(files={"a": X | {"bytes": wrong}}) for wrong in (-1, True, 1.0)),
        *(listed(files={name: X}) for name in NAMES),
        listed(files={"a": X, "a/b": X}),
    ],
)
def test_a_list_that_nothing_can_be_unpacked_by_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    made = archive(tmp_path / "b", text)
    assert call(["unbundle", str(made), str(tmp_path / "there")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {made}")
    assert list(tmp_path.iterdir()) == [made]


def test_a_second_list_does_not_replace_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = archive(tmp_path / "b", listed(), listed(command="another", files={}))
    assert call(["unbundle", str(made), str(tmp_path / "there")]) == 1
    assert "its list of files" in capsys.readouterr().err
    alone = archive(tmp_path / "c", listed())
    assert call(["unbundle", str(alone), str(tmp_path / "there")]) == 0


def test_another_machine_is_told(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert call(["unbundle", str(bundle), str(tmp_path / "there")]) == 1
    said = capsys.readouterr().err
    assert "this is Python" in said and "riscv64" in said
    assert list(tmp_path.iterdir()) == []


def _isolated() -> list[str] | None:
    """What runs a command without any route; None where that isn't allowed."""
    for flags in (["-n"], ["-r", "-n"]):
        tried = ["unshare", *flags]
        try:
            if subprocess.run([*tried, "true"], capture_output=True, timeout=30).returncode == 0:
                return tried
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None


@pytest.mark.command
def test_without_a_network_the_verdict_is_the_same(bundle: Path, tmp_path: Path) -> None:
    isolated = _isolated()
    if isolated is None:
        pytest.skip("no network namespaces here (unshare -n is missing or not allowed)")
    home = bundle.parent
    files = command.checkout(home)
    for file in (wheels.wheel(home / "links"), *gather([ROOT / "envs/install.lock"], KEPT)):
        files[f"wheels/{file.name}"] = file
    command.write(tmp_path / "b", files, "./reproduce")

    def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHON": sys.executable, "PIP_RETRIES": "0"}
        return subprocess.run(
            [*isolated, *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    subprocess.run(["tar", "-xf", "b", "unbundle.py"], cwd=tmp_path, check=True)
    done = run(sys.executable, "-I", "unbundle.py", "b", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("./reproduce", cwd=tmp_path / "there")
    assert done.stdout == "VALID\n", done.stderr

    shutil.rmtree(tmp_path / "there/wheels")
    (mark,) = (tmp_path / "there/.envs").glob("driver-*/complete")
    mark.unlink()
    done = run("./reproduce", cwd=tmp_path / "there")
    assert done.returncode == 1, "without the bundle's wheels a network would be needed"
    assert done.stderr.count("\nerror: ") == 1


def test_wheels_of_a_lock_are_fetched_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    links = tmp_path / "links"
    lock = tmp_path / "x.lock"
    text = wheels.locked(wheels.wheel(links)).replace("tiny", "Tiny")
    lock.write_text(f"--no-index\n--find-links {links}\n{text}", encoding="utf-8")
    (found,) = gather([lock], tmp_path / "wheels")
    assert found.name == "tiny-1.0-py3-none-any.whl"
    assert "1 of 1 packages to fetch" in capsys.readouterr().out
    shutil.rmtree(links)
    assert gather([lock, lock], tmp_path / "wheels") == [found]
    assert capsys.readouterr().out == ""


def test_a_wheel_that_the_lock_doesnt_know_is_not_taken(tmp_path: Path) -> None:
    """Neither one that is there already nor one that an index offers."""
    lock = tmp_path / "x.lock"
    text = wheels.locked(wheels.wheel(tmp_path / "right"))
    links = tmp_path / "links"
    for folder in (links, tmp_path / "wheels"):
        wheels.wheel(folder, verdict="FORGED")
    lock.write_text(f"--no-index\n--find-links {links}\n{text}", encoding="utf-8")
    with pytest.raises(UserError, match=r"x.lock can't be fetched: THESE PACKAGES DO NOT MATCH"):
        gather([lock], tmp_path / "wheels")


def test_a_package_that_cant_be_had_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    lock.write_text(f"--no-index\nno-such-thing==1.0 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"x.lock can't be fetched: .*no-such-thing==1.0"):
        gather([lock], tmp_path / "wheels")


def local_model(home: Path) -> tuple[Plan, Job]:
    """A plan whose weights come from a directory, and the job that brings them."""
    plan = make(
        ROOT,
        [
            *("scenario=Server", "~benchmark.model.embedded", "+benchmark.model.source=local"),
            *("+benchmark.model.repository=a/b", f"+benchmark.model.path={home}/weights"),
            "+benchmark.model.fetch=${fetch}",
        ],
    )
    return plan, next(job for job in plan.jobs if job.step == "model")


def test_weights_that_come_from_elsewhere_go_along_checked(tmp_path: Path) -> None:
    plan, job = local_model(tmp_path)
    with pytest.raises(UserError, match="--until model"):
        command.artifacts(plan, tmp_path)
    home = (tmp_path / job.output).parent
    with publish(home, step="model", config={}, inputs={}, code="") as workspace:
        (workspace.directory / "model.safetensors").write_bytes(b"weights")
    found = command.artifacts(plan, tmp_path)
    assert {Path(name).name for name in found} == {
        *("model.safetensors", "manifest.json", "record.json")
    }
    assert all(name.startswith("results/artifacts/model/") for name in found)
    (home / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(UserError, match="does not match its sha256"):
        command.artifacts(plan, tmp_path)


def test_a_bundle_has_the_checkout_and_nothing_else_that_lies_there(tmp_path: Path) -> None:
    for name in (
        "conf/a.yaml",
        "steps/x.py",
        "steps/__pycache__/x.pyc",
        "secret",
        ".envs/y",
        "README.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert set(command.checkout(tmp_path)) == {"conf/a.yaml", "steps/x.py", "README.md"}


def test_a_scheduler_brings_its_packages() -> None:
    def names(*overrides: str) -> list[str]:
        return [path.stem for path in command.locks(planned(*overrides))]

    assert names() == ["analysis", "cpu", "driver", "install"]
    assert names("scheduler=slurm") == ["analysis", "cpu", "driver", "install", "slurm"]


def test_images_have_to_be_built_first(tmp_path: Path) -> None:
    plan = planned("runtime=docker", "scenario=Offline")
    with pytest.raises(UserError, match=r"image cpu is not built yet.*--until container"):
        command.images(plan, tmp_path)
    assert command.images(planned("scenario=Offline"), tmp_path) == {}


def test_the_list_names_the_command_for_the_other_machine(bundle: Path) -> None:
    found = unbundle.checked(bundle)
    assert found["command"] == "./reproduce"
    assert json.dumps(found)  # plain data, read without the project


@pytest.mark.parametrize(
    ("place", "words"), [("", "is a directory; name a file in it"), ("file/x", "can't be written")]
)
def test_where_no_bundle_can_be_written_nothing_is_fetched(
    tmp_path: Path, place: str, words: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=words):
        call(["bundle", "--output", str(tmp_path / place)])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ---- signed -------------------------------------------------------------------------------------

needs_ssh = needs("ssh-keygen", packages="openssh-client")


def key(home: Path, name: str, passphrase: str = "") -> Path:
    home.mkdir(parents=True, exist_ok=True)
    path = home / name
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "acme", "-f", str(path)]
    subprocess.run(made, check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture
def signed(bundle: Path, tmp_path: Path) -> Path:
    """A bundle with its signature, whose keys lie in `keys`."""
    home = tmp_path / "medium"
    home.mkdir()
    shutil.copy(bundle, home / "a b.bundle")
    signature.sign(key(tmp_path / "keys", "own"), home / "a b.bundle")
    return home / "a b.bundle"


def altered(path: Path) -> None:
    """As one who knows the form does it: the list fits, and the program in it says all is well."""
    said = unbundle.checked(path)
    evil = b"print('everything is checked')\n"
    digest = hashlib.sha256(evil).hexdigest()
    said["files"]["unbundle.py"] = {"sha256": digest, "bytes": len(evil)}
    text = json.dumps(said).encode()
    with tarfile.open(path) as old, tarfile.open(path.with_name("new"), "w") as new:
        head = tarfile.TarInfo(f"bundle.{hashlib.sha256(text).hexdigest()}.json")
        head.size = len(text)
        new.addfile(head, io.BytesIO(text))
        for entry in old:
            if entry.name.startswith("bundle."):
                continue
            content = evil if entry.name == "unbundle.py" else old.extractfile(entry).read()  # type: ignore[union-attr]
            entry.size = len(content)
            new.addfile(entry, io.BytesIO(content))
    path.with_name("new").rename(path)


def in_a_shell(lines: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-ec", "\n".join(lines)], cwd=cwd, capture_output=True, text=True, timeout=60
    )


@needs_ssh
def test_a_command_that_is_not_in_the_bundle_checks_it(signed: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "keys/own.pub", signed.parent / "KEY.pub")
    lines = signature.how_to_check(signed.name, "", signed=True)
    assert not [line for line in lines if "unbundle" in line or "python" in line]
    done = in_a_shell(lines, signed.parent)
    assert done.returncode == 0, done.stderr
    altered(signed)
    assert unbundle.checked(signed), "by its own list it is whole"
    assert in_a_shell(lines, signed.parent).returncode != 0


def test_an_unsigned_one_is_checked_by_its_digest(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(bundle, tmp_path / "it's.bundle"))
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    lines = signature.how_to_check(copy.name, digest, signed=False)
    assert in_a_shell(lines, tmp_path).returncode == 0
    altered(copy)
    assert in_a_shell(lines, tmp_path).returncode != 0


@needs_ssh
def test_a_checkout_takes_only_what_its_signer_signed(
    signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = str(tmp_path / "keys/own.pub"), str(key(tmp_path / "keys", "other")) + ".pub"
    there = tmp_path / "there"

    def refused(words: str, by: str = own) -> None:
        assert call(["unbundle", str(signed), str(there), "--signer", by]) == 1
        assert words in capsys.readouterr().err
        assert not list(tmp_path.glob("there*"))

    refused("is not what the key in", other)
    refused("isn't a public key of OpenSSH", str(tmp_path / "keys/own"))
    refused("is missing", str(tmp_path / "keys/none.pub"))
    assert call(["unbundle", str(signed), str(there), "--signer", own]) == 0
    assert "signed by the key in" in capsys.readouterr().out
    shutil.rmtree(there)
    altered(signed)
    refused("is not what the key in")
    signed.with_name(signed.name + ".sig").unlink()
    refused("is missing")


@needs_ssh
def test_a_signature_for_something_else_does_not_count(
    signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed.with_name(signed.name + ".sig").unlink()
    own = tmp_path / "keys/own"
    other = ["ssh-keygen", "-Y", "sign", "-f", str(own), "-n", "file", str(signed)]
    subprocess.run(other, check=True, capture_output=True)
    given = [str(signed), str(tmp_path / "there"), "--signer", f"{own}.pub"]
    assert call(["unbundle", *given]) == 1
    assert "is not what the key in" in capsys.readouterr().err


@needs_ssh
def test_a_key_that_cant_sign_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("no key\n", encoding="utf-8")
    (tmp_path / "none").chmod(0o600)
    locked = key(tmp_path, "locked", "a passphrase")
    for path in (tmp_path / "none", locked, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"can't sign|is missing"):
            signature.require_key(path)


@needs_ssh
def test_a_new_bundle_has_no_signature_of_the_old(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x", encoding="utf-8")
    command.write(signed, {"x": tmp_path / "x"}, "./reproduce")
    assert not signed.with_name(signed.name + ".sig").exists()
