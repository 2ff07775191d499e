"""Ready-made datasets, from a mirror in MLCommons' format or a directory: small ones of ours."""

import gzip
import hashlib
import json
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.plan.registry import STEPS
from steps.plan.specs.dataset import READY
from steps.prepare import calibration, frames, ready, samples
from steps.run.engines import engine
from tests import running
from tests.conftest import ROOT, planned
from tests.file_server import Files, serving

ROWS = 64
SEED = 12345
"""By which MLCommons drew OpenOrca's calibration samples."""

STOP = [13, 13940, 28832, 13]
"""What ends an MBXP answer."""

Frame = pandas.DataFrame


def open_orca(count: int = ROWS) -> Frame:
    return Frame(
        {
            "id": f"flan.{n}",
            "origin": "flan",
            "system_prompt": "You are an assistant.",
            "question": f"How many are {n} and {n}?",
            "input": f"[INST] How many are {n} and {n}? [/INST]",
            "output": f"{2 * n}",
            "tok_input": [1, 518, 25580, 29962, *range(n % 7 + 1), n, 29871],
            "tok_output": [n, 2],
            "tok_input_length": n % 7 + 7,
            "tok_output_length": 2,
        }
        for n in range(count)
    )


def mixtral(count: int = ROWS) -> Frame:
    kinds = ("OpenOrca", "GSM8K", "MBXP")
    return Frame(
        {
            "dataset": kinds[n % 3],
            "id": f"python_{n}",
            "question": "?",
            "input": f"<s>[INST] {n} [/INST]",
            "ref_output": "x",
            "gt_output": "y",
            "tok_input": [1, 733, 16289, 28793, n],
            "tok_ref_output": [5],
            "stop_sequence": "\n```\n" if n % 3 == 2 else "</s>",
            "tok_stop_sequence": STOP if n % 3 == 2 else [2],
            "tok_input_len": 5,
            "tok_ref_output_len": 1,
        }
        for n in range(count)
    )


def llama405(count: int = ROWS) -> Frame:
    return Frame(
        {
            "input": f"text {n}",
            "tok_input": [128000, 10, n],
            "tok_input_len": 3,
            "gt_output": "answer",
            "metric": ("rouge", "niah_em", "qa_em")[n % 3],
        }
        for n in range(count)
    )


def news(count: int = ROWS) -> Frame:
    return Frame(
        {
            "instruction": {"llama": "Summarize. {input}"},
            "input": f"Article {n}",
            "tok_input": [128000, 20, n],
            "output": "Summary.",
        }
        for n in range(count)
    )


MAKE: dict[str, Callable[..., Frame]] = {
    "open-orca": open_orca,
    "mixtral-15k": mixtral,
    "llama3.1-405b": llama405,
    "cnn-dailymail": news,
}


def content(frame: Frame, recipe: str) -> bytes:
    if recipe == "cnn-dailymail":
        return json.dumps(frame.to_dict(orient="records")).encode()
    return pickle.dumps(frame, protocol=4)


def name_of(recipe: str, part: str) -> str:
    return f"{recipe}_{part}.{'json' if recipe == 'cnn-dailymail' else 'pkl'}"


def settings_of(recipe: str, url: str, **changes: Any) -> dict[str, Any]:
    """A dataset's configuration as the plan has it, but small and from the mirror."""
    fetch = {
        "offline": False,
        "connections": 2,
        "stall_limit_s": 5.0,
        "attempts": 2,
        "retry_wait_s": 0.01,
        "endpoint": "https://hub.example.com",
        "token": None,
        "include": [],
        "exclude": [],
    }
    part = {"names": [], "md5": None, "sha256": None, "rows": None}
    chosen = {
        "name": "small",
        "recipe": recipe,
        "evaluation_count": ROWS,
        "calibration_count": 8,
        "path": None,
        "fetch": fetch,
        **{
            name: {**part, "uri": f"{url}/metadata/small.uri", "names": [name_of(recipe, name)]}
            for name in ("evaluation", "calibration")
        },
    }
    for key, value in changes.items():
        chosen[key] = {**chosen[key], **value} if isinstance(value, dict) else value
    return chosen


def served(server: Files, files: dict[str, bytes]) -> None:
    """The files as MLCommons' storage lists them."""
    server.bodies["/metadata/small.uri"] = f"{server.url}/held".encode()
    lines = []
    for name, data in files.items():
        server.bodies[f"/held/{name}"] = data
        lines.append(f"{hashlib.md5(data).hexdigest()}  ./{name}\n")
    server.bodies["/metadata/small.md5"] = "".join(lines).encode()


@pytest.fixture
def server() -> Iterator[Files]:
    with serving(Files()) as files:
        yield files


def pair(recipe: str) -> dict[str, bytes]:
    evaluation, calibrating = MAKE[recipe](), MAKE[recipe](ROWS + 8).tail(8)
    return {
        name_of(recipe, "evaluation"): content(evaluation, recipe),
        name_of(recipe, "calibration"): content(calibrating, recipe),
    }


def step(home: Path, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Fetches the files where no directory has them, then makes the dataset of them."""
    inputs = {}
    if settings["path"] is None:
        parts = {
            part: {key: settings[part][key] for key in ("uri", "names")}
            for part in ("evaluation", "calibration")
        }
        fetching = {key: settings[key] for key in ("name", "recipe", "fetch")} | parts
        done = run("dataset_files", fetching, {}, home / "files")
        if done.returncode:
            return done
        inputs["files"] = home / "files/out/manifest.json"
    return run("dataset", settings, inputs, home)


def run(
    name: str, settings: dict[str, Any], inputs: dict[str, Path], home: Path
) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    return subprocess.run(
        running.command(name, settings, inputs, home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("recipe", READY)
def test_a_dataset_is_fetched_checked_and_written(
    server: Files, tmp_path: Path, recipe: str
) -> None:
    files = pair(recipe)
    packed = {f"some/folder/{name}.gz": gzip.compress(data) for name, data in files.items()}
    served(server, {**packed, "raw/another.parquet": b"not wanted"})
    data = files[name_of(recipe, "evaluation")]
    settings = settings_of(
        recipe, server.url, evaluation={"md5": hashlib.md5(data).hexdigest(), "rows": ROWS}
    )
    assert STEPS["dataset"].limitation(settings) is None
    done = step(tmp_path, settings)
    assert done.returncode == 0, done.stderr
    made = Manifest.read(tmp_path / "out/manifest.json")
    assert set(made.files) == {"evaluation.pkl", "calibration.pkl"}
    assert made.result["evaluation"]["samples"] == ROWS
    assert made.result["evaluation"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert made.result["calibration"]["samples"] == 8
    assert made.result["official"] is False
    assert not server.asked("/held/raw/another.parquet")
    frame = pandas.read_pickle(made.file("evaluation.pkl"))
    assert list(frame.columns) == list(ready.RECIPES[recipe].columns)
    assert frame.columns.dtype == object and not list(frame.select_dtypes("string"))
    assert [list(row) for row in frame["tok_input"]] == list(MAKE[recipe]()["tok_input"])
    if recipe == "mixtral-15k":
        assert list(frame["tok_stop_sequence"])[:3] == [[2], [2], STOP]
        # What a run gives its engines with the requests.
        given = samples.load(tmp_path / "out/manifest.json", stops=True)
        asked = engine.asked(range(3), range(3), given.evaluation, given.stops)
        assert [stop for _, _, stop in asked] == [[2], [2], STOP]
    loaded = samples.load(tmp_path / "out/manifest.json")
    assert len(loaded.evaluation) == ROWS
    assert len(calibration.load(tmp_path / "out/manifest.json", 8)) == 8


def test_the_plan_names_the_published_files() -> None:
    news = planned("benchmark=llama3.1-8b", "length=rule", "scenario=Offline").jobs
    jobs = [job for job in (*planned("experiment=amd-v5.1").jobs, *news) if job.step == "dataset"]
    found = {json.loads(job.config)["recipe"]: job for job in jobs}
    assert set(found) == {*READY, "coco-2014"}
    for recipe in READY:
        config = json.loads(found[recipe].config)
        assert found[recipe].limitation is None and "model" not in found[recipe].inputs
        assert config["evaluation"]["uri"].endswith(".uri")


def test_a_directory_is_taken_without_a_network(tmp_path: Path) -> None:
    held = tmp_path / "held/below"
    held.mkdir(parents=True)
    for name, data in pair("open-orca").items():
        (held / name).write_bytes(data)
    settings = settings_of(
        "open-orca", "http://127.0.0.1:1", path=str(tmp_path / "held"), fetch={"offline": True}
    )
    assert STEPS["dataset"].limitation(settings) is None
    done = step(tmp_path, {**settings, "evaluation_count": 10})
    assert done.returncode == 0, done.stderr
    assert Manifest.read(tmp_path / "out/manifest.json").result["evaluation"]["samples"] == 10


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch opened-it",)


def changed(**columns: Any) -> Callable[[Frame], Frame]:
    return lambda frame: frame.assign(**columns)


def without(column: str) -> Callable[[Frame], Frame]:
    return lambda frame: frame.drop(columns=column)


@pytest.mark.parametrize(
    ("recipe", "change", "words"),
    [
        ("open-orca", without("tok_output"), "has no column tok_output, only id, origin"),
        ("open-orca", lambda frame: frame.head(9), "has 9 samples, the evaluation file of"),
        ("open-orca", changed(tok_input=[[1, 2]] * ROWS), "has 2 tokens, tok_input_length says 7"),
        ("open-orca", changed(tok_input=[[1.5]] * ROWS), "sample 0, tok_input isn't a list of to"),
        ("open-orca", changed(tok_input=[[-1]] * ROWS), "isn't a list of token ids"),
        ("open-orca", changed(tok_input="text"), "isn't a list of token ids"),
        ("mixtral-15k", without("tok_stop_sequence"), "has no column tok_stop_sequence"),
        (
            "mixtral-15k",
            changed(tok_stop_sequence=[[]] * ROWS),
            "sample 0, tok_stop_sequence isn't a list of token ids",
        ),
        ("mixtral-15k", changed(dataset="Essays"), "dataset is Essays, which isn't one of GSM8K"),
        ("llama3.1-405b", changed(metric="bleu"), "metric is bleu, which isn't one of niah_em"),
    ],
)
def test_a_file_of_another_form_is_refused(
    server: Files, tmp_path: Path, recipe: str, change: Callable[[Frame], Frame], words: str
) -> None:
    name = name_of(recipe, "evaluation")
    served(server, {**pair(recipe), name: content(change(MAKE[recipe]()), recipe)})
    settings = settings_of(recipe, server.url, evaluation={"rows": ROWS})
    refused(step(tmp_path, settings), tmp_path, words)


def refused(done: subprocess.CompletedProcess[str], home: Path, words: str) -> None:
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert len([line for line in done.stderr.splitlines() if "error:" in line]) == 1
    assert "Traceback" not in done.stderr
    assert not (home / "out/evaluation.pkl").exists() and not (ROOT / "opened-it").exists()


EVALUATION = name_of("open-orca", "evaluation")


def test_a_pickle_whose_digest_is_another_is_never_opened(server: Files, tmp_path: Path) -> None:
    served(server, {**pair("open-orca"), EVALUATION: pickle.dumps(Evil())})
    settings = settings_of("open-orca", server.url, evaluation={"md5": "0" * 32})
    refused(step(tmp_path, settings), tmp_path, f"{EVALUATION} isn't the evaluation file of open-")


def test_a_pickle_that_a_mirror_vouches_for_still_runs_nothing(
    server: Files, tmp_path: Path
) -> None:
    served(server, {**pair("open-orca"), EVALUATION: pickle.dumps(Evil())})
    words = "names posix.system, which no table is made of"
    refused(step(tmp_path, settings_of("open-orca", server.url)), tmp_path, words)


def test_what_differs_from_the_mirrors_list_is_refused(server: Files, tmp_path: Path) -> None:
    served(server, pair("open-orca"))
    server.script[f"/held/{EVALUATION}"] = ["wrong"]
    words = "isn't the expected file: its md5 digest is"
    refused(step(tmp_path, settings_of("open-orca", server.url)), tmp_path, words)


def test_a_truncated_gzip_is_refused(server: Files, tmp_path: Path) -> None:
    files = pair("open-orca")
    cut = gzip.compress(files.pop(EVALUATION))[:-20]
    served(server, {**files, f"{EVALUATION}.gz": cut})
    words = "is a gzip that is cut off or damaged"
    refused(step(tmp_path, settings_of("open-orca", server.url)), tmp_path, words)


def test_a_file_that_the_source_lacks_is_named(server: Files, tmp_path: Path) -> None:
    files = pair("open-orca")
    del files[EVALUATION]
    served(server, files)
    words = f"has no {EVALUATION} (nor {EVALUATION}.gz), which is the evaluation file of open-orca"
    refused(step(tmp_path, settings_of("open-orca", server.url)), tmp_path, words)


def test_offline_needs_a_directory(tmp_path: Path) -> None:
    settings = settings_of("open-orca", "http://127.0.0.1:1", fetch={"offline": True})
    assert "set benchmark.dataset.path" in str(STEPS["dataset_files"].brings(settings))
    refused(step(tmp_path, settings), tmp_path, "give its directory as benchmark.dataset.path")


@pytest.mark.parametrize("case", ["drawn", "pinned", "another"])
def test_calibration_samples_from_the_evaluation_set_are_mlcommons_own_or_refused(
    server: Files, tmp_path: Path, case: str
) -> None:
    frame = open_orca()
    chosen = frame.head(8) if case != "drawn" else frame.sample(n=8, random_state=SEED)
    files = {
        EVALUATION: content(frame, "open-orca"),
        name_of("open-orca", "calibration"): content(chosen, "open-orca"),
    }
    served(server, files)
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    settings = settings_of("open-orca", server.url, evaluation={"md5": md5[EVALUATION]})
    if case == "pinned":
        settings["calibration"]["md5"] = md5[name_of("open-orca", "calibration")]
    done = step(tmp_path, settings)
    assert done.returncode == 0, done.stderr
    manifest = tmp_path / "out/manifest.json"
    assert Manifest.read(manifest).result["official"] is (case != "another")
    if case == "another":
        with pytest.raises(UserError, match="is an evaluation prompt too; make disjoint sets, or"):
            calibration.load(manifest, 8)
        return
    # AMD's script takes what there is of a set that is smaller than the number it is given.
    assert len(calibration.load(manifest, 1024)) == 8


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_tables_are_read_whatever_protocol_they_were_pickled_by(
    tmp_path: Path, protocol: int
) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(mixtral(3), protocol=protocol))
    assert frames.table(tmp_path / "a.pkl", ("dataset",), "a.pkl").equals(mixtral(3))


@pytest.mark.parametrize("data", [b"", b"text", b"\x80\x04.", pickle.dumps([1]), b"\x80\x04K\x01."])
def test_bytes_that_are_no_table_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.pkl "):
        frames.table(tmp_path / "a.pkl", (), "a.pkl")
