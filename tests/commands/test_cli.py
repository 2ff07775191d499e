"""The command line: every command is read, explained and ended alike."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steps.base.arguments import UsageError
from steps.base.errors import UserError
from steps.commands import cli, completion
from steps.commands.cli import call, main, parsed
from steps.commands.table import COMMANDS
from steps.plan import frozen
from steps.plan.frozen import frozen_plan
from steps.schedule.supervisor import lock
from tests.conftest import ROOT
from tests.programs import needs

PLAN = "experiment=rehearsal"
WRONG: dict[str, str] = {
    **{name: "experiment=absent" for name in ("run", "again", "status", "plan", "verify")},
    "report": "experiment=absent",
    "manifests": PLAN,
    "ls": "",
    "describe": "--merge absent.json",
    "doctor": "experiment=absent",
    "capacity": "absent",
    "validate": "absent",
    "explain": "absent",
    "migrate": "absent --round v6.0 --output new",
    "score": "",
    "import-round": "absent --round v6.0",
    "compliance": "TEST04 --performance absent --run absent --output new",
    "compare": "absent 5.1-0002",
    "diff": "system=absent base=amd-mi300x",
    "tune": "experiment=absent",
    "seal": "experiment=absent --output new",
    "unseal": "absent new",
    "bundle": "experiment=absent --output new",
    "unbundle": "absent new",
    "completion": "",
}
"""Arguments that can be read and ask for what isn't there; "": there is nothing to get wrong, or,
of score, another Python says it (tests/judge/test_scoring.py)."""


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {name} +\w|^    {name} +\(", text, re.M) for name in COMMANDS)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == main([name, "-h"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"usage: ./reproduce {name}")
    assert said.out.count(f"example:\n  ./reproduce {name}") == 2
    assert max(map(len, said.out.splitlines())) <= 160  # one example is long


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_can_be_typed(name: str) -> None:
    words = COMMANDS[name].example.partition(" > ")[0].split()
    assert parsed([name, *words]).command == name


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_line_that_cannot_be_read_ends_with_2(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in ("--absent", "--absent=1", "-x"):
        assert main([name, wrong]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"error: {name} takes no '{wrong}'") or (
            name in ("score", "compliance") and "are required" in said.err
        )
        assert said.err.count("\n") == 1


def test_what_is_wrong_covers_every_command() -> None:
    assert WRONG.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", [name for name, words in WRONG.items() if words])
def test_what_a_user_has_to_fix_ends_with_1_and_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([name, *WRONG[name].split()]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interruption_ends_with_130(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    words = COMMANDS[name].example.partition(" > ")[0].split()
    module = __import__(COMMANDS[name].module, fromlist=["command"])
    monkeypatch.setattr(module, "command", interrupted)
    monkeypatch.setattr(sys, "argv", ["reproduce", name, *words])
    with pytest.raises(SystemExit) as ended:
        cli.command_line()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("runn", "run"), ("stats", "status"), ("verfy", "verify"), ("compair", "compare")],
)
def test_a_command_that_is_none_gets_the_nearest_name(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed, "scenario=Server"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: '{typed}' is not a command; did you mean {meant}")
    assert main(["zzz"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_an_option_that_is_none_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="takes no '--bugdet'; did you mean --budget"):
        parsed(["tune", "--bugdet", "45m"])
    with pytest.raises(UsageError, match="takes no '--jso'; did you mean --json"):
        parsed(["ls", "--jso"])


def test_without_a_command_a_plan_is_run() -> None:
    for words in ([], [PLAN], ["--site", "a.yaml"], ["~system.target_qps"], ["++a.b=1"]):
        assert parsed(words).command == "run"
    given = parsed([PLAN, "--site", "a.yaml", "scenario=Server", "--", "--until", "x", "--", "y"])
    assert given.overrides == [PLAN, "scenario=Server"]
    assert given.site == Path("a.yaml").absolute()
    assert given.passed_on == ["--until", "x", "--", "y"]
    assert parsed(["--", "-n"]).passed_on == ["-n"]
    with pytest.raises(UsageError, match="plan starts no Snakemake"):
        parsed(["plan", "--", "-n"])


@pytest.mark.parametrize("name", ["plan", "status", "describe", "doctor", "seal", "tune", "diff"])
def test_options_stand_anywhere(name: str) -> None:
    more = ["--output", "new"] if name == "seal" else []
    for words in (
        ["--site=a.yaml", "x=1", "y=2"],
        ["x=1", "--site", "a.yaml", "y=2"],
        ["x=1", "y=2", "--site", "a.yaml"],
    ):
        given = parsed([name, *words, *more])
        assert (given.overrides, given.site) == (["x=1", "y=2"], Path("a.yaml").absolute())


def test_a_site_is_one_file() -> None:
    with pytest.raises(UsageError, match="--site is given twice"):
        parsed(["plan", "--site", "a.yaml", "--site=b.yaml"])
    with pytest.raises(UsageError, match="takes a file"):
        parsed(["plan", "--site="])
    with pytest.raises(UsageError, match="expected one argument"):
        parsed(["plan", "--site"])


def test_a_word_that_is_no_override_is_named() -> None:
    with pytest.raises(UsageError, match="'Server' is not an override such as"):
        parsed(["plan", "Server"])
    given = parsed(["again", "Server", PLAN, "accuracy", "--site", "a.yaml", "bf16/Offline"])
    assert given.words == ["Server", PLAN, "accuracy", "bf16/Offline"]


def test_verify_is_of_a_plan_or_of_a_directory(tmp_path: Path) -> None:
    assert parsed(["verify", str(tmp_path)]).words == [tmp_path]
    for wrong in ([PLAN, str(tmp_path)], [str(tmp_path), "--site", "a"], ["--signer", "key"]):
        with pytest.raises(UsageError):
            call(["verify", *wrong])


def test_a_published_report_is_of_no_plan() -> None:
    for wrong in (["--published", PLAN], ["--round", "v5.1"], [PLAN, "--output", "x"]):
        with pytest.raises(UsageError):
            call(["report", *wrong])


def test_the_old_spelling_of_a_round_names_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    for old, new in (("v6", "v6.0"), ("v5.1", "v5.1"), ("v7", "v6.1")):
        assert main(["migrate", "tree", "--to", old, "--output", "new"]) == 2
        assert f"--to is called --round now: --round {new}" in capsys.readouterr().err
    assert main(["migrate", "tree", "--output", "new"]) == 2
    assert "--round" in capsys.readouterr().err


# ---- what machines read --------------------------------------------------------------------------


def both(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    """What a command prints for people, and for machines; with the same status."""
    capsys.readouterr()
    status = main(words)
    text = capsys.readouterr().out
    assert main([*words, "--json"]) == status
    return text, json.loads(capsys.readouterr().out)


def test_ls_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, found = both(["ls"], capsys)
    words = set(re.split(r"[\s,]+", text))
    assert {"experiments", "groups", *found["experiments"], *found["groups"]} <= words
    assert {value for values in found["groups"].values() for value in values} <= words
    assert "steps" not in found["groups"]


def test_capacity_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, found = both(["capacity", "llama2-70b", "405"], capsys)
    rows = {line.split("  ")[0]: line.split()[-6:] for line in text.splitlines()}
    for name in {one["model"] for one in found["holdings"]}:
        counts = [one["accelerators"] for one in found["holdings"] if one["model"] == name]
        assert [int(cell) for cell in rows[name]][-len(counts) :] == counts[-6:]


def test_compare_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, found = both(
        ["compare", "5.1-0002/llama2-70b-99.9/Server", "5.1-0095/llama2-70b-99.9/Server"], capsys
    )
    (pair,) = found["pairs"]
    assert f"{100 * (pair['ratio'] - 1):+.2f} %" in text


def test_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, found = both(["plan", "scenario=Offline"], capsys)
    assert f"experiment {found['experiment']}, plan {found['plan']}\n" in text
    for step in found["steps"]:
        assert re.search(rf"^{step['step']} +{step['jobs']} +{step['due']} ", text, re.M)
    assert sum(step["due"] for step in found["steps"]) == found["due"]
    for cell in found["cells"]:
        assert f"  {cell['key']} ({cell['division']})" in text
    for departure, count in found["departures"].items():
        assert f"  {departure} ({count} of {len(found['cells'])} cells)" in text


def test_status_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, found = both(["status", "scenario=Offline"], capsys)
    (cell,) = found["cells"]
    assert (cell["key"].split("/")[-1], found["experiment"]) == ("Offline", "rehearsal")
    assert {part["name"] for part in cell["parts"]} <= set(text.splitlines()[0].split())
    assert cell["overall"] in ("valid", "running") or cell["fix"] in text


def test_verify_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, found = both(["verify", "scenario=Offline"], capsys)
    assert f"{found['hold']} of {found['results']} results are valid" in text
    for one in found["complaints"]:
        assert f"{one['step']} {one['key']}: {one['says']}".replace(" :", ":") in text


def test_describe_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("steps.commands.describe.ROOT", ROOT)
    monkeypatch.setattr("steps.commands.describe._write_all", lambda *_: None)
    text, found = both(["describe"], capsys)
    (fields,) = found["systems"].values()
    known = [name for name, field in fields.items() if field["origin"] != "missing"]
    assert f"{len(known)} of {len(fields)} fields known" in text
    assert all(re.search(rf"^{name} ", text, re.M) for name in fields)


# ---- completion ----------------------------------------------------------------------------------


def bash(line: str, tmp_path: Path) -> list[str]:
    """What bash offers for the end of a line."""
    script = tmp_path / "reproduce.bash"
    script.write_text(completion.script("bash"), encoding="utf-8")
    program = f"""
        source {script}
        COMP_LINE={json.dumps(line)} COMP_POINT={len(line)}
        COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
        _reproduce ./reproduce
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("./reproduce ", {*COMMANDS, "--site", "experiment=", "precision="}, {"steps=", "--json"}),
        ("./reproduce st", {"status"}, {"run"}),
        ("./reproduce experiment=rehearsal", {"rehearsal", "rehearsal-full"}, {"amd-v5.1"}),
        ("./reproduce plan precision=bf16,f", {"bf16,fp8"}, {"fp8", "bf16"}),
        ("./reproduce plan experiment=rehearsal sys", {"system="}, {"scenario="}),
        ("./reproduce plan --", {"--site", "--json", "--help"}, {"--budget"}),
        ("./reproduce tune x=1 --", {"--budget", "--guess", "--site"}, {"--json"}),
        ("./reproduce compliance ", {"TEST01", "TEST04"}, {"experiment="}),
        ("./reproduce compliance TEST01 --", {"--run", "--dtype"}, {"--eos"}),
        ("./reproduce completion ", {"bash", "zsh"}, {"experiment="}),
        ("./reproduce experiment=rehearsal --s", {"--site"}, {"--json"}),
    ],
)
def test_bash_completes(
    line: str, offered: set[str], not_offered: set[str], tmp_path: Path
) -> None:
    found = set(bash(line, tmp_path))
    assert offered <= found
    assert not not_offered & found


def test_values_are_read_when_a_word_is_completed(tmp_path: Path) -> None:
    home = tmp_path / "its checkout"
    (home / "conf/system").mkdir(parents=True)
    (home / "conf/system/acme-mi325x.yaml").touch()
    (home / "reproduce").touch(mode=0o755)
    script = tmp_path / "script"
    script.write_text(completion.script("bash"), encoding="utf-8")
    program = f"""
        source {script}
        COMP_LINE='./reproduce system=' COMP_POINT=19
        _reproduce ./reproduce; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", program], cwd=home, capture_output=True, timeout=30)
    assert done.stdout.decode().split() == ["acme-mi325x"]


@needs("zsh", packages="zsh")
def test_zsh_reads_its_script(tmp_path: Path) -> None:
    script = tmp_path / "_reproduce"
    script.write_text(completion.script("zsh"), encoding="utf-8")
    program = f"""
        autoload -Uz compinit && compinit -u -d {tmp_path}/dump && source {script}
        compadd() {{ print -rl -- ${{(P)@[-1]}} }}
        compset() {{ : }}
        _files() {{ : }}
        words=(./reproduce plan '') CURRENT=3 PREFIX=''; _reproduce
        words=(./reproduce 'precision=b') CURRENT=2 PREFIX='precision=b'; _reproduce
    """
    done = subprocess.run(
        ["zsh", "-f", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.stderr == ""
    found = done.stdout.split()
    assert {"--json", "--site", "experiment", "bf16"} <= set(found) and "steps" not in found


# ---- what it costs -------------------------------------------------------------------------------


def test_a_repeated_run_imports_little() -> None:
    """Modules that cost tenths of a second wait until they are needed."""
    program = (
        "import sys; from steps.commands.cli import main, parsed; main(['--help']); "
        "parsed(['experiment=rehearsal']); "
        "print([m for m in ('pydantic', 'hydra', 'yaml', 'tabulate') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


# ---- where the user stands -----------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Stands elsewhere, as `reproduce` says it to the driver."""
    before = Path.cwd()
    monkeypatch.chdir(ROOT)

    def stand() -> Path:
        os.chdir(ROOT)
        monkeypatch.setenv("REPRISE_DIRECTORY", str(tmp_path))
        return tmp_path

    yield stand
    os.chdir(before)


def test_relative_paths_are_from_where_the_user_stands(
    elsewhere: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    home = elsewhere()
    (home / "tree/closed/Acme/systems").mkdir(parents=True)
    assert main(["validate", "tree", "--json", "found.json", "--html", "page.html"]) == 1
    assert json.loads((home / "found.json").read_text())
    assert (home / "page.html").is_file() and not (ROOT / "found.json").exists()
    elsewhere()
    assert main(["describe", "--node", "node.json"]) == 0
    assert (home / "node.json").is_file() and not (ROOT / "node.json").exists()
    elsewhere()
    assert main(["migrate", "tree", "--round", "v6.0", "--output", "new"]) in (0, 1)
    assert not (ROOT / "new").exists()
    elsewhere()
    capsys.readouterr()
    assert main(["plan", "--site", "absent.yaml"]) == 1
    assert f"{home}/absent.yaml is not a file" in capsys.readouterr().err


def test_a_directory_that_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPRISE_DIRECTORY", str(tmp_path / "gone"))
    assert main(["ls"]) == 1
    assert "gone can't be entered (No such file or directory)" in capsys.readouterr().err


def test_the_command_says_where_the_user_stands(tmp_path: Path) -> None:
    """The script itself goes to its checkout."""
    text = (ROOT / "reproduce").read_text(encoding="utf-8")
    head, _, _ = text.partition("python=")
    probe = tmp_path / "reproduce"
    probe.write_text(f'{head}echo "$REPRISE_DIRECTORY $PWD"\n', encoding="utf-8")
    (tmp_path / "user").mkdir()
    done = subprocess.run(
        ["bash", str(probe)], cwd=tmp_path / "user", capture_output=True, text=True, timeout=10
    )
    assert done.stdout.split() == [str(tmp_path / "user"), str(tmp_path)]


# ---- a file system that won't --------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_that_locks_no_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"lies on /.* \(\w+\), which locks no files .*flock"):
        lock(tmp_path)


def test_a_link_to_nowhere_is_named_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(tmp_path / "unmounted/results")
    for make in (lambda: lock(tmp_path), lambda: frozen_plan(tmp_path, [])):
        with pytest.raises(UserError, match=r"is a link to .*unmounted/results, which isn't there"):
            make()
    assert not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "results/x: No space left on device; free some space, and run again"),
        (errno.EROFS, "a disk that can be written"),
        (errno.EACCES, "give yourself the right to it"),
        (errno.EIO, "results/x: Input/output error; look at the disk"),
        (errno.ESTALE, "results/x: Stale file handle; mount its file system again"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), "results/x")

    monkeypatch.setattr(frozen, "digest_files", refuse)
    assert main(["plan", "scenario=Offline"]) == 1
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1
