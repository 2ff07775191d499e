"""Whether a directory of weights is complete: no shard missing, cut off or a git-lfs pointer."""

from pathlib import Path

from steps.base.errors import UserError
from steps.base.untrusted import json_of
from steps.prepare.checkpoint.layout import read_shard

POINTER = b"version https://git-lfs.github.com/spec/"
"""The head of a pointer file, whose content `git lfs pull` would fetch (its specification)."""

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "*.irpa")


def check_whole(directory: Path) -> None:
    """Reads headers and indices, in folders below too; raises UserError naming the first file that
    is missing, cut off or a pointer, and for a directory without weights."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    for path in files:
        refuse_pointer(path)
    for path in files:
        if path.name.endswith(".index.json"):
            _check_index(path)
    for path in files:
        if path.suffix == ".safetensors":
            read_shard(path)
    if not any(path.match(pattern) for path in files for pattern in WEIGHTS):
        raise UserError(
            f"{directory} holds no weights ({', '.join(WEIGHTS)}); fetch the model again, or give "
            "the directory that has them"
        )


def refuse_pointer(path: Path) -> None:
    """Raises UserError for a file that git left as a pointer to its content."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(POINTER))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); restore it") from error
    if begin == POINTER:
        raise UserError(
            f"{path} is a pointer of Git LFS, not the file itself; run git lfs pull where it was "
            "cloned"
        )


def _check_index(path: Path) -> None:
    """Raises UserError unless every file that an index lists is beside it."""
    try:
        names = json_of(path.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, LookupError, TypeError, AttributeError):
        return  # Of something else.
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); restore it") from error
    for name in sorted({str(name) for name in names}):
        if not (path.parent / name).is_file():
            raise UserError(
                f"{path.parent / name} is missing, and {path.name} lists it; fetch the model again"
            )
