"""Datasets that MLCommons publishes tokenized: found, checked, and written as ours.

Nothing is opened before its digest is checked, and what is opened can run nothing
(steps/prepare/frames.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.artifacts import DatasetFile, ReadyDataset
from steps.config.prompts import DatasetFilesResult, DatasetResult, PromptsResult
from steps.config.results import result_of
from steps.prepare import frames
from steps.prepare.names import found

if TYPE_CHECKING:
    import pandas

PROTOCOL = 4
"""The protocol of pickles that are written: the images of engines have Python 3.10 or later."""

TOKEN_LIMIT = 1 << 31
PARTS = ("evaluation", "calibration")


@dataclass(frozen=True)
class Recipe:
    """The form of one dataset.

    `columns`: those that MLCommons' evaluation file has. `lengths` maps columns of token ids to the
    column with their number, "" without one. `kind`: a column and its values. `drawn`: the seed by
    which MLCommons drew the calibration samples from the evaluation samples.
    """

    columns: tuple[str, ...]
    lengths: Mapping[str, str]
    kind: tuple[str, frozenset[str]] | None = None
    drawn: int | None = None


RECIPES: Mapping[str, Recipe] = {
    "open-orca": Recipe(
        columns=(
            *("id", "origin", "system_prompt", "question", "input", "output"),
            *("tok_input", "tok_output", "tok_input_length", "tok_output_length"),
        ),
        lengths={"tok_input": "tok_input_length", "tok_output": "tok_output_length"},
        drawn=12345,
    ),
    "mixtral-15k": Recipe(
        columns=(
            *("dataset", "id", "question", "input", "ref_output", "gt_output", "tok_input"),
            *("tok_ref_output", "stop_sequence", "tok_stop_sequence", "tok_input_len"),
            "tok_ref_output_len",
        ),
        lengths={
            "tok_input": "tok_input_len",
            "tok_ref_output": "tok_ref_output_len",
            "tok_stop_sequence": "",
        },
        kind=("dataset", frozenset({"OpenOrca", "GSM8K", "MBXP"})),
    ),
    "llama3.1-405b": Recipe(
        columns=("input", "tok_input", "tok_input_len", "gt_output", "metric"),
        lengths={"tok_input": "tok_input_len"},
        kind=("metric", frozenset({"rouge", "niah_em", "qa_em"})),
    ),
    "cnn-dailymail": Recipe(
        columns=("instruction", "input", "tok_input", "output"), lengths={"tok_input": ""}
    ),
}
"""Columns as the reference implementations of v5.1 read and describe them."""

CALIBRATION = ("input", "tok_input")
"""What calibrating reads; the calibration files' other columns are theirs."""


def write(config: ReadyDataset, fetched: Path | None, home: Path) -> DatasetResult:
    """Writes evaluation.pkl and calibration.pkl into `home`; the result has each file's digests,
    and says whether both are MLCommons' own. `fetched`: the manifest of the fetched files; None:
    the configuration's `path` has them.

    UserError for a file that is missing, isn't the one whose digest is given, is damaged, or has
    other columns, values or rows than its recipe.
    """
    files = _files(config, fetched)
    read: dict[str, Any] = {}
    digests: dict[str, dict[str, str]] = {}
    for part, wanted in (("evaluation", config.evaluation), ("calibration", config.calibration)):
        read[part], digests[part] = _checked(config, part, wanted, files[part], home)
    evaluation, calibration = read["evaluation"], read["calibration"]
    official = _official(config, evaluation, calibration)
    counts = {"evaluation": config.evaluation_count, "calibration": config.calibration_count}
    if config.evaluation_count > len(evaluation):
        raise UserError(
            f"{config.evaluation_count} evaluation samples are wanted, {files['evaluation']} has "
            f"{len(evaluation)}; lower the number or give the whole file"
        )
    kept: dict[str, PromptsResult] = {}
    for part, frame in read.items():
        table = _plain(frame.head(counts[part]))
        table.to_pickle(home / f"{part}.pkl", protocol=PROTOCOL)
        lengths = [len(row) for row in table["tok_input"]]
        kept[part] = PromptsResult(
            file=files[part].name,
            md5=digests[part]["md5"],
            sha256=digests[part]["sha256"],
            samples=len(table),
            input_tokens_mean=round(sum(lengths) / len(lengths), 2),
            input_tokens_max=max(lengths),
        )
    return DatasetResult(**kept, official=official)


# ---- where the files are -----------------------------------------------------------------------


def _files(config: ReadyDataset, fetched: Path | None) -> dict[str, Path]:
    """Both files, of the job that fetched them or of a directory of this machine."""
    if fetched is not None:
        manifest = Manifest.read(fetched)
        known = result_of(manifest, DatasetFilesResult)
        return {part: manifest.file(getattr(known, part).file) for part in PARTS}
    home = Path(config.path or "").expanduser()
    if not home.is_dir():
        raise UserError(f"{home} isn't a directory; correct benchmark.dataset.path")
    there: dict[str, Path] = {}
    for path in sorted(home.rglob("*")):
        if path.is_file():
            there.setdefault(path.name, path)
    named = {"evaluation": config.evaluation.names, "calibration": config.calibration.names}
    return {
        part: there[found(part, names, there, str(home), config.recipe)]
        for part, names in named.items()
    }


# ---- what is in them ---------------------------------------------------------------------------


def _checked(
    config: ReadyDataset, part: str, wanted: DatasetFile, path: Path, scratch: Path
) -> tuple["pandas.DataFrame", dict[str, str]]:
    plain = scratch / f"unzipped-{path.name.removesuffix('.gz')}"
    digests = frames.unzipped(path, plain)
    for kind, known in (("md5", wanted.md5), ("sha256", wanted.sha256)):
        if known is not None and digests[kind] != known:
            raise UserError(
                f"{path.name} isn't the {part} file of {config.recipe}: its {kind} is "
                f"{digests[kind]}, not {known}; fetch it from MLCommons"
            )
    recipe = RECIPES[config.recipe]
    columns = recipe.columns if part == "evaluation" else CALIBRATION
    frame = frames.table(plain, columns, path.name)
    plain.unlink()
    if len(frame) != (wanted.rows or len(frame)) or not len(frame):
        raise UserError(
            f"{path.name} has {len(frame)} samples, the {part} file of {config.recipe} has "
            f"{wanted.rows or 'some'}; fetch it again"
        )
    return _with_tokens(frame, recipe, path.name), digests


def _with_tokens(frame: "pandas.DataFrame", recipe: Recipe, name: str) -> "pandas.DataFrame":
    """The same with lists of whole numbers as tokens. UserError naming the first odd sample."""
    frame = frame.reset_index(drop=True)
    for column, counted in recipe.lengths.items():
        if column not in frame.columns:
            continue
        rows = enumerate(frame[column])
        lists = [_tokens(row, f"{name}, sample {number}, {column}") for number, row in rows]
        if counted and counted in frame.columns:
            for number, (row, length) in enumerate(zip(lists, frame[counted], strict=True)):
                if len(row) != length:
                    raise UserError(
                        f"{name}, sample {number}: {column} has {len(row)} tokens, {counted} says "
                        f"{length}; fetch it again"
                    )
        frame[column] = _objects(lists)
    if recipe.kind and recipe.kind[0] in frame.columns:
        column, known = recipe.kind
        if odd := sorted({str(value) for value in frame[column]} - known):
            raise UserError(
                f"{name}: {column} is {odd[0]:.40}, which isn't one of {', '.join(sorted(known))}"
            )
    return frame


def _tokens(row: Any, where: str) -> list[int]:
    try:
        found = [int(token) for token in row]
        whole = all(token == given for token, given in zip(found, row, strict=True))
        if whole and found and min(found) >= 0 and max(found) < TOKEN_LIMIT:
            return found
    except (TypeError, ValueError):
        pass
    raise UserError(f"{where} isn't a list of token ids; fetch it again")


def _official(
    config: ReadyDataset, evaluation: "pandas.DataFrame", calibration: "pandas.DataFrame"
) -> bool:
    """Both files have the digests that are given; or the evaluation file has, and the calibration
    samples are those that MLCommons' script draws from it, whose digest nobody published."""
    if not config.evaluation.pinned:
        return False
    seed = RECIPES[config.recipe].drawn
    return config.calibration.pinned or (seed is not None and _drawn(evaluation, calibration, seed))


def _drawn(evaluation: "pandas.DataFrame", calibration: "pandas.DataFrame", seed: int) -> bool:
    def prompts(frame: "pandas.DataFrame") -> list[tuple[int, ...]]:
        return sorted(map(tuple, frame["tok_input"]))

    if len(calibration) > len(evaluation):
        return False
    drawn = evaluation.sample(n=len(calibration), random_state=seed)
    return prompts(drawn) == prompts(calibration)


def _plain(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """Texts and names of columns as Python's own: those of pandas 3 are unknown to pandas 2, which
    images of engines may have."""
    import pandas

    columns = {
        name: column if column.dtype.kind in "iufb" else _objects(list(column))
        for name, column in frame.reset_index(drop=True).items()
    }
    plain = pandas.DataFrame(columns)
    plain.columns = pandas.Index(list(columns), dtype=object)
    return plain


def _objects(values: list[Any]) -> "pandas.Series[Any]":
    import pandas

    return pandas.Series(values, dtype=object)
