"""Site files and overrides that were made to stop, fill or fool the planner."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.base.errors import UserError
from steps.config.groups import hardware_file
from steps.config.points import bases_of
from steps.config.site import PACKAGE, site_text
from steps.plan.make import make
from tests.conftest import ROOT

FIRST = f"{PACKAGE}\n".encode()
HEAD = (
    "# @package _global_\ndefaults: [null-engine, _self_]\n"
    "system:\n  name: acme\n  submitter: Acme\n"
)
OVERRIDES = ["experiment=null-engine", "scenario=Offline"]
AT_ONCE_S = 20.0


KINDS = (
    *("!!bool maybe", "!!int many", "!!float much", "!!timestamp soon", "!!timestamp 2026-02-30"),
    *("!!set {a}", "!!binary '*'", "!!omap [a: b]", "? [a] : b", "<<: 3"),
)
"""Values that YAML has and JSON hasn't, and such that aren't what they say."""


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    return "# @package _global_\n" + "\n".join(lines) + "\n" + HEAD


REFUSED: dict[str, tuple[str, str]] = {
    "bytes": (HEAD + "  fields: {hw_notes: !!binary aGVsbG8=}\n", "binary"),
    "billion laughs": (bomb(10), "more than 100,000 entries"),
    "a few laughs": (bomb(6), "more than 100,000 entries"),
    "recursive alias": (HEAD + "  fields: &f {a: *f}\n", r"an alias \*f within what it stands for"),
    "recursive list": (HEAD + "  loadgen: &f [*f]\n", r"an alias \*f within"),
    "deep map": (HEAD + "  loadgen: " + "{a: " * 3000 + "1" + "}" * 3000 + "\n", "50 deep"),
    "deep list": (HEAD + "  loadgen: {a: " + "[" * 5000 + "]" * 5000 + "}\n", "50 deep"),
    "itself": (HEAD.replace("null-engine", "acme"), "names itself as its base"),
    "itself elsewhere": (
        HEAD.replace("null-engine", "/system/acme@_global_"),
        "names itself as its base",
    ),
    "itself beside": (
        HEAD.replace("null-engine,", "null-engine, acme,"),
        "can't be composed|itself",
    ),
    "variable": (HEAD + "  fields: {hw_notes: '${oc.env:HOME}'}\n", "interpolation type oc.env"),
    "variable that isn't": (HEAD + "  fields: {hw_notes: '${oc.env:NO_SUCH}'}\n", "oc.env"),
    "variable as base": (
        HEAD.replace("null-engine", "'${oc.env:HOME}'"),
        "oc.env|can't be composed",
    ),
    "decode": (HEAD + "  fields: {hw_notes: '${oc.decode:\"[1]\"}'}\n", "type oc.decode"),
    "create": (HEAD + "  fields: '${oc.create:{a: b}}'\n", "type oc.create"),
    "hydra": (HEAD + "  fields: {a: '${hydra:runtime.cwd}'}\n", "interpolation type hydra"),
    "now": (HEAD + "  fields: {a: '${now:%s}'}\n", "interpolation type now"),
    "cycle": (
        HEAD + "  fields: {a: '${system.fields.b}', b: '${system.fields.a}'}\n",
        "composed|itself",
    ),
    "relative to nothing": (HEAD + "  fields: {hw_notes: '${.}'}\n", r"can't be composed: \w"),
    "name of two lines": (HEAD.replace("acme", '"a\\nb"'), r"says name: a\\nb; a system's name"),
    "deep interpolation": (
        HEAD + "  fields: {a: '" + "${text:" * 300 + "x" + "}" * 300 + "'}\n",
        "nested too deeply|composed",
    ),
}


def site(home: Path, text: str | bytes, name: str = "acme.yaml") -> Path:
    path = home / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_never_end_or_reach_outside_is_refused(tmp_path: Path, name: str) -> None:
    text, words = REFUSED[name]
    begun = time.monotonic()
    with pytest.raises(UserError, match=words) as caught:
        make(ROOT, OVERRIDES, site(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < AT_ONCE_S


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_another_kind_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"--site .*acme.yaml can't be read: .*line 6"):
        make(ROOT, OVERRIDES, site(tmp_path, HEAD + f"  fields: {{hw_notes: {kind}}}\n"))


@pytest.mark.parametrize("date", ["2026-01-01", "2026-02-30", "2026-13-45 25:61:61"])
def test_a_date_is_a_text(tmp_path: Path, date: str) -> None:
    found = make(ROOT, OVERRIDES, site(tmp_path, HEAD + f"  fields: {{hw_notes: {date}}}\n"))
    (job,) = [job for job in found.jobs if job.step == "describe"]
    assert json.loads(job.config)["fields"]["hw_notes"] == date


DAMAGES: dict[str, bytes] = {
    **{kind: f"name: {kind}\n".encode() for kind in KINDS},
    "twice": b"name: a\nname: b\n",
    "half": b"name: [\n",
    "tag": b"name: !no such\n",
    "no text": b"name: \xff\xfe\n",
    "NUL": b"name: \x00\n",
    "list": b"[a, b]\n",
    "scalar": b"5\n",
    "nothing": b"",
}


MIXED = "experiment=mangoboost-v5.1"


@pytest.mark.parametrize(
    ("file", "overrides"),
    [
        ("scenario/Offline.yaml", ["scenario=Offline"]),
        ("experiment/other.yaml", ["experiment=amd-v5.1", "system=dell-mi300x"]),
        ("system/other.yaml", ["experiment=amd-v5.1", "system=other", "scenario=Offline"]),
        ("hardware/mi325x.yaml", [MIXED, "scenario=Offline"]),
    ],
)
def test_a_damaged_file_of_conf_is_named(project: Path, file: str, overrides: list[str]) -> None:
    for name in DAMAGES if overrides[0] != MIXED else ("!!bool maybe", "twice", "no text", "list"):
        data = DAMAGES[name]
        (project / "conf" / file).write_bytes(data)
        with pytest.raises(UserError) as caught:
            make(project, overrides)
        assert "\n" not in str(caught.value), name
        assert Path(file).stem in str(caught.value), (name, str(caught.value))


def test_files_that_build_on_each_other_are_named(project: Path) -> None:
    hardware = project / "conf/hardware"
    for name, base in (("one", "two"), ("two", "one")):
        (hardware / f"{name}.yaml").write_text(f"defaults: [{base}, _self_]\nname: {name}\n")
        (project / f"conf/system/{name}.yaml").write_text(
            f"# @package _global_\ndefaults: [{base}, _self_]\nsystem: {{name: {name}}}\n"
        )
    with pytest.raises(UserError, match=r"builds on itself \(one on two on one\)"):
        hardware_file(project / "conf", "one")
    assert bases_of(project / "conf", "one") == ["two"]
    with pytest.raises(UserError):
        make(project, ["experiment=amd-v5.1", "system=one"])


def test_only_what_conf_has_is_offered(tmp_path: Path) -> None:
    path = site(tmp_path, HEAD + "  fields: {hw_notes: '${oc.env:HOME}'}\n")
    with pytest.raises(UserError, match="there is only accelerators, at, dataset_files, engine"):
        make(ROOT, OVERRIDES, path)


def test_aliases_that_people_write_are_good(tmp_path: Path) -> None:
    text = HEAD + "  fields: {hw_notes: &n 'eight of them', sw_notes: *n}\n"
    assert make(ROOT, OVERRIDES, site(tmp_path, text)).jobs


def test_our_own_interpolations_are_good_after_others_were_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        make(ROOT, OVERRIDES, site(tmp_path, REFUSED["variable"][0]))
    text = HEAD + "  fields: {hw_notes: '${system.submitter}'}\n"
    (job, *_) = [
        job for job in make(ROOT, OVERRIDES, site(tmp_path, text)).jobs if job.step == "describe"
    ]
    assert json.loads(job.config)["fields"]["hw_notes"] == "Acme"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HEAD.encode("utf-16"), "is not UTF-8"),
        (HEAD.encode("utf-32"), "is not UTF-8"),
        (HEAD.encode() + b"  id: \xff\xfe\n", "byte 0xff is not UTF-8"),
        (HEAD.encode() + b"# " + b"x" * (5 << 20), "more than 4 MiB"),
        (HEAD.encode() + b"\x00\x01", "can't be read"),
        (b"", "lacks its first line"),
        (FIRST, "names no base"),
        (FIRST + b"[1, 2]", "names no base"),
        (FIRST + b"5\n", "names no base"),
    ],
    ids=["UTF-16", "UTF-32", "no text", "large", "NUL", "empty", "nothing", "list", "scalar"],
)
def test_what_is_no_text_of_a_site_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(ROOT, OVERRIDES, site(tmp_path, data))


PLACES: dict[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "directory": lambda path: path.mkdir(),
    "dangling": lambda path: path.symlink_to("/nowhere"),
    "loop": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_named(tmp_path: Path, place: str) -> None:
    PLACES[place](tmp_path / "acme.yaml")
    with pytest.raises(UserError, match=r"--site .*acme.yaml"):
        make(ROOT, OVERRIDES, tmp_path / "acme.yaml")


def test_a_link_to_a_site_is_good(tmp_path: Path) -> None:
    site(tmp_path, HEAD, "real.yaml")
    (tmp_path / "acme.yaml").symlink_to("real.yaml")
    assert make(ROOT, OVERRIDES, tmp_path / "acme.yaml").jobs


@pytest.mark.parametrize(
    "override",
    [
        "precision=range(0,1000000000)",
        "precision=shuffle(range(0,1000000000))",
        "precision=range(0,10,0)",
        "precision=range(0,1e18,1)",
        "scenario=range(1000000000,0,-1)",
        "system.fields=" + "{a:" * 2000 + "1" + "}" * 2000,
        "system.fields=" + "[" * 5000 + "]" * 5000,
        "a" + ".b" * 5000 + "=1",
        "precision=${oc.env:HOME}",
        "system.target_qps.Offline=${oc.env:HOME}",
        "+system.fields.a=${oc.env:HOME}",
    ],
    ids=lambda text: text[:40],
)
def test_an_override_that_would_never_end_is_refused(override: str) -> None:
    begun = time.monotonic()
    with pytest.raises(UserError) as caught:
        make(ROOT, [*OVERRIDES, override])
    assert time.monotonic() - begun < AT_ONCE_S
    assert len(str(caught.value)) < 25_000 and "\n" not in str(caught.value)


NODES = st.recursive(
    st.sampled_from(["x", "*a", "*b", "&a x", "&b [x, x]"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda found: f"[{', '.join(found)}]")
        | st.lists(inner, max_size=3).map(
            lambda found: "{" + ", ".join(f"k{n}: {value}" for n, value in enumerate(found)) + "}"
        )
    ),
    max_leaves=30,
)


@settings(max_examples=200)
@given(NODES, st.integers(0, 70))
def test_whatever_is_written_ends_in_text_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, node: str, depth: int
) -> None:
    path = tmp_path_factory.mktemp("site") / "acme.yaml"
    text = f"{PACKAGE}\na: " + "[" * depth + node + "]" * depth + "\n"
    path.write_text(text, encoding="utf-8")
    try:
        assert site_text(path) == text
    except UserError as error:
        assert "acme.yaml" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        *("matrix=null", "matrix=3", "~matrix.precision", "matrix.scenario=[]", "experiment=null"),
        *("~experiment", "experiment=../system/null-engine", "experiment_name='${x}'"),
        *("scenario=interval(0,1)", "row=interval(0,1)", "+length@x=short", "steps=null"),
        *("steps.quantize=x", "~steps.dataset_files", "~steps.describe", "fetch=null"),
    ],
)
def test_a_choice_of_no_cells_and_a_part_that_is_gone_get_a_sentence(text: str) -> None:
    with pytest.raises(UserError):
        make(ROOT, [text])
