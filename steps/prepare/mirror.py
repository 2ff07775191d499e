"""Writes what the loopback mirror of a dress rehearsal serves: small weights and prompts, in the
forms of a hub and of MLCommons' storage.
"""

import gzip
import hashlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from steps.base.console import Console
from steps.base.record import Workspace, digest_of, sha256_file, write_atomically
from steps.base.step import main
from steps.config.mirror import (
    ADDRESS,
    SERVED,
    MirrorConfig,
    MirroredDataset,
    MirroredModel,
    MirrorResult,
)
from steps.prepare import embedded
from steps.prepare.checkpoint.layout import open_checkpoint
from steps.prepare.checkpoint.stream import rewrite
from steps.prepare.ready import PROTOCOL
from steps.prepare.rehearsal import dataset as notes
from steps.prepare.rehearsal.mixed import dataset as mixed
from steps.prepare.upcycle import upcycling

if TYPE_CHECKING:
    import pandas

Frame = Callable[[int], "pandas.DataFrame"]


def step(
    config: MirrorConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """The paths below SERVED are those of the addresses."""
    home = workspace.directory / SERVED
    with tempfile.TemporaryDirectory(dir=workspace.directory) as folder:
        weights = _weights(config.model, Path(folder))
        if config.model.served == "hub":
            _hub(config.model, weights, home)
        else:
            files = {path.relative_to(weights).as_posix(): path for path in _files(weights)}
            _storage(config.model.place, files, home)
        if config.dataset is not None:
            _prompts(config.dataset, Path(folder), home)
    made = MirrorResult(name=config.name, files=len(_files(home)))
    workspace.result = made.dumped()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# ---- weights ------------------------------------------------------------------------------------


def _weights(model: MirroredModel, folder: Path) -> Path:
    dense = folder / "weights"
    embedded.copy(model.embedded, dense)
    if model.upcycle is None:
        return dense
    mixture = folder / "mixture"
    checkpoint = open_checkpoint(dense)
    rewrite(checkpoint, mixture, upcycling(checkpoint, model.upcycle))
    return mixture


def _hub(model: MirroredModel, weights: Path, home: Path) -> None:
    """A repository whose only commit is the head of main."""
    entries = []
    for path in _files(weights):
        name = path.relative_to(weights).as_posix()
        entries.append(_entry(path, name))
        _move(path, home / f"{model.place}/resolve/{model.revision}/{name}")
    write_atomically(home / f"api/models/{model.place}/tree/{model.revision}", json.dumps(entries))
    said = json.dumps({"id": model.place, "sha": model.revision})
    write_atomically(home / f"api/models/{model.place}/revision/main", said)


def _entry(path: Path, name: str) -> dict[str, Any]:
    """As a hub lists a file: git's sha1 of it, and sha256 of weights."""
    size = path.stat().st_size
    state = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        entry = {"type": "file", "path": name, "size": size, "oid": digest_of(stream, state)}
    if path.suffix == ".safetensors":
        entry["lfs"] = {"oid": sha256_file(path), "size": size}
    return entry


# ---- MLCommons' storage -------------------------------------------------------------------------


def _storage(uri: str, files: Mapping[str, Path], home: Path) -> None:
    """Adds files to what a .uri file leads to, and their md5 to the list beside it."""
    place = urlsplit(uri).path.lstrip("/").removesuffix(".uri")
    held = f"held/{Path(place).name}"
    write_atomically(home / f"{place}.uri", f"{ADDRESS}/{held}\n")
    listed = home / f"{place}.md5"
    lines = listed.read_text(encoding="utf-8") if listed.is_file() else ""
    for name, path in files.items():
        with path.open("rb") as stream:
            lines += f"{digest_of(stream, hashlib.md5(usedforsecurity=False))}  ./{name}\n"
        _move(path, home / held / name)
    write_atomically(listed, lines)


def _prompts(dataset: MirroredDataset, folder: Path, home: Path) -> None:
    for part, file in (("evaluation", dataset.evaluation), ("calibration", dataset.calibration)):
        frame = FRAMES[dataset.recipe][part](file.rows)
        path = folder / part
        packed = gzip.compress(pickle.dumps(frame, protocol=PROTOCOL), 1, mtime=0)
        path.write_bytes(packed)
        _storage(file.uri, {f"{file.name}.gz": path}, home)


def _long(frame: "pandas.DataFrame", *extra: str) -> "pandas.DataFrame":
    """Notes in the columns of Llama 3.1 405B's file, and `extra` ones: questions for one fact are
    scored by exact match, all others by ROUGE."""
    named = frame["origin"].str.endswith(" named")
    metrics = named.map({True: "qa_em", False: "rouge"})
    columns = {
        "input": frame["input"],
        "tok_input": frame["tok_input"],
        "tok_input_len": frame["tok_input_length"],
        "gt_output": frame["output"],
        "metric": metrics,
        **{name: frame[name] for name in extra},
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return notes.table(rows, tuple(columns))


FRAMES: Mapping[str, Mapping[str, Frame]] = {
    "open-orca": {"evaluation": notes.evaluation, "calibration": notes.calibration},
    "mixtral-15k": {"evaluation": mixed.evaluation, "calibration": mixed.calibration},
    "llama3.1-405b": {
        "evaluation": lambda count: _long(notes.evaluation(count)),
        # No column of MLCommons' file has true answers, which scales of small weights need.
        "calibration": lambda count: _long(notes.calibration(count), "tok_output"),
    },
}
"""The first prompts of each part, in the columns of a recipe of steps/prepare/ready.py."""


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)


if __name__ == "__main__":
    main("mirror", MirrorConfig, step)
