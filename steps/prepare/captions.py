"""Captions of pictures: MLCommons' own, or those of the embedded world of shapes, tokenized for the
two text encoders of Stable Diffusion XL with the tokenizers that come with the weights.
"""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import RobertaProcessing

from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.artifacts import CaptionDataset, GeneratedDataset
from steps.config.prompts import CaptionsPart, CaptionsResult, Digests
from steps.prepare import frames, pipeline
from steps.prepare.rehearsal import dataset
from steps.prepare.rehearsal.shapes import world
from steps.prepare.samples import LATENTS

if TYPE_CHECKING:
    import pandas

SOURCE = "captions_source.tsv"
COLUMNS = ("id", "image_id", "caption")
WARM_UP = "Lorem ipsum dolor sit amet, consectetur adipiscing elit"
"""The caption of the reference's warm-up (text_to_image/main.py, v5.1.1)."""

PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What CLIP's tokenizer splits a text into before it merges letters (OpenAI's simple_tokenizer)."""

PROTOCOL = 4


def write(
    config: CaptionDataset | GeneratedDataset, model: Path, directory: Path
) -> CaptionsResult:
    """Writes evaluation.pkl, calibration.pkl, captions_source.tsv, latents.pt and the statistics.

    `model`: the manifest of the weights. `tok_input` of a row has the ids for one encoder and then
    those for the other, both padded. UserError for a missing or another file, a caption that an
    encoder doesn't take whole, or tokenizers that can't be read.
    """
    weights = Manifest.read(model).directory
    words = [Words.read(pipeline.home(weights) / name) for name in pipeline.TOKENIZERS]
    files: dict[str, Digests] = {}
    if isinstance(config, CaptionDataset):
        files = _copied_whole(config, directory)
        evaluation = _read_source(directory / SOURCE)
        calibration = [WARM_UP] * config.calibration_count
    else:
        evaluation = [scene.caption for scene in world.evaluation()]
        calibration = [scene.caption for scene in world.calibration()[: config.calibration_count]]
        _copied(weights / LATENTS, directory / LATENTS)
    if len(evaluation) < config.evaluation_count:
        raise UserError(
            f"{config.evaluation_count} captions are wanted, {config.recipe} has "
            f"{len(evaluation)}; lower the number"
        )
    evaluation = evaluation[: config.evaluation_count]
    write_source(evaluation, directory / SOURCE)
    parts = {}
    for name, captions in (("evaluation", evaluation), ("calibration", calibration)):
        table = _table(captions, words, whole=name == "evaluation")
        table.to_pickle(directory / f"{name}.pkl", protocol=PROTOCOL)
        longest = max(int(value) for value in table["tok_length"])
        parts[name] = CaptionsPart(samples=len(table), longest_tokens=longest)
    made = CaptionsResult(evaluation=parts["evaluation"], calibration=parts["calibration"])
    return made.model_copy(update={"files": files}) if files else made


class Words:
    """CLIP's tokenizer by its files: lower case, merges of letters, both ends marked, padded."""

    def __init__(self, tokenizer: Tokenizer, length: int, padding: int) -> None:
        self._tokenizer, self.length, self._padding = tokenizer, length, padding

    @classmethod
    def read(cls, directory: Path) -> "Words":
        """Raises UserError for a directory that doesn't hold one."""
        try:
            config = _json(directory / "tokenizer_config.json")
            vocabulary: dict[str, int] = _json(directory / "vocab.json")
            lines = (directory / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [(one, two) for one, two in (line.split() for line in lines[1:] if line)]
            special = {
                name: _text(config[name]) for name in ("bos_token", "eos_token", "pad_token")
            }
            tokenizer = clip(vocabulary, merges, special["bos_token"], special["eos_token"])
            # Also "!", which the second encoder pads with: transformers looks for it first.
            tokenizer.add_special_tokens(sorted(set(special.values())))
            return cls(tokenizer, int(config["model_max_length"]), vocabulary[special["pad_token"]])
        except Exception as error:  # the library raises many kinds
            raise UserError(
                f"{directory} doesn't hold CLIP's tokenizer ({type(error).__name__}: "
                f"{error!s:.100}); give the whole checkpoint"
            ) from error

    def ids(self, caption: str) -> tuple[list[int], int]:
        """Padded or cut to the encoder's length, and how many the whole caption takes."""
        found = self._tokenizer.encode(caption).ids
        cut = found if len(found) <= self.length else [*found[: self.length - 1], found[-1]]
        return cut + [self._padding] * (self.length - len(cut)), len(found)


def clip(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], begin: str, end: str
) -> Tokenizer:
    """As transformers makes it of the same files."""
    model = BPE(dict(vocabulary), list(merges), end_of_word_suffix="</w>", unk_token=end)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    ends = (end, vocabulary[end]), (begin, vocabulary[begin])
    tokenizer.post_processor = RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    return tokenizer


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _text(token: Any) -> str:
    """A special token, which some files describe and others only name."""
    return str(token["content"] if isinstance(token, Mapping) else token)


def _table(captions: Sequence[str], words: Sequence[Words], *, whole: bool) -> "pandas.DataFrame":
    """`whole`: no caption may be cut; pictures of the warm-up are thrown away."""
    rows = []
    for number, caption in enumerate(captions):
        found = [one.ids(caption) for one in words]
        for one, (_, length) in zip(words, found, strict=True):
            if whole and length > one.length:
                raise UserError(
                    f"the caption of sample {number} takes {length} tokens, and the encoders take "
                    f"{one.length}: its picture would be of a part of it; shorten it"
                )
        ids = [token for padded, _ in found for token in padded]
        longest = max(length for _, length in found)
        rows.append({"id": number, "caption": caption, "tok_input": ids, "tok_length": longest})
    return dataset.table(rows, ("id", "caption", "tok_input", "tok_length"))


def _copied_whole(config: CaptionDataset, directory: Path) -> dict[str, Digests]:
    """Copies MLCommons' files, each checked; digests by their names."""
    home = Path(config.path or "").expanduser()
    if config.path is None or not home.is_dir():
        raise UserError(f"{home} isn't a directory; correct benchmark.dataset.path")
    there: dict[str, Path] = {}
    for path in sorted(home.rglob("*")):
        if path.is_file():
            there.setdefault(path.name, path)
    found: dict[str, Digests] = {}
    for name, md5 in config.files.items():
        if name not in there:
            raise UserError(f"{home} has no {name}; correct benchmark.dataset.path")
        digests = Digests(**frames.unzipped(there[name], directory / name))
        if md5 is not None and digests.md5 != md5:
            raise UserError(
                f"{there[name]} isn't MLCommons' {name}: its md5 is {digests.md5}, not {md5}; "
                "fetch it again"
            )
        found[name] = digests
    return found


def _read_source(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            found = [str(row["caption"]) for row in csv.DictReader(stream, delimiter="\t")]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path.name} has no column of captions ({error})") from error
    if not all(found):
        raise UserError(f"{path.name} has rows without a caption; fetch it again")
    return found


def write_source(captions: Sequence[str], path: Path) -> None:
    """In the columns of MLCommons' that scoring reads. A file that is there already stays, if it
    has no others."""
    if path.exists() and len(_read_source(path)) == len(captions):
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((number, number, caption) for number, caption in enumerate(captions))


def _copied(source: Path, target: Path) -> None:
    if not source.is_file():
        raise UserError(f"{source} is missing; restore it with git checkout")
    shutil.copyfile(source, target)
