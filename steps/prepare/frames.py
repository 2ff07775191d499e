"""Tables that MLCommons publishes as pickles, read so that a foreign pickle can run nothing.

A pickle may name any function and have it called. Here it may name what a table of pandas is made
of, and nothing else, whatever its digest says.
"""

import gzip
import hashlib
import json
import pickle
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.base.errors import UserError
from steps.prepare.samples import UNPICKLING

if TYPE_CHECKING:
    import pandas

LARGEST = 32 << 30
"""The most bytes that a file may have unzipped: over fifty times the largest known one."""

CHUNK = 1 << 20

_NUMPY = ("numpy.core", "numpy._core")

PARTS = frozenset(
    {
        *((f"{home}.multiarray", name) for home in _NUMPY for name in ("_reconstruct", "scalar")),
        *((f"{home}.numeric", "_frombuffer") for home in _NUMPY),
        *(("numpy", name) for name in ("ndarray", "dtype")),
        *(("builtins", name) for name in ("slice", "bytearray")),
        ("_codecs", "encode"),
        *(("pandas", name) for name in ("DataFrame", "Index", "RangeIndex", "StringDtype")),
        ("pandas.core.frame", "DataFrame"),
        ("pandas.core.internals.managers", "BlockManager"),
        ("pandas._libs.internals", "_unpickle_block"),
        ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
        ("pandas.core.arrays.string_", "StringDtype"),
        ("pandas.core.arrays.string_", "StringArray"),
        ("pandas.arrays", "StringArray"),
        ("pandas.core.indexes.base", "_new_Index"),
        ("pandas.core.indexes.base", "Index"),
        ("pandas.core.indexes.range", "RangeIndex"),
    }
)
"""What a table of numbers, texts and lists is pickled as by pandas 1.3 to 3: modules and names."""

MOVED = {
    ("__builtin__", "slice"): ("builtins", "slice"),  # Python 2's name, in protocol 2
    ("pandas.core.internals.blocks", "new_block"): ("pandas._libs.internals", "_unpickle_block"),
    ("pandas.core.indexes.numeric", "Int64Index"): ("pandas.core.indexes.base", "Index"),
}
"""What earlier versions of pandas named otherwise, as in its own pickle_compat.py."""


def unzipped(source: Path, destination: Path) -> dict[str, str]:
    """Writes the content of `source`, which is gzipped if its name ends in .gz, to `destination`;
    returns its md5 and sha256. UserError for a gzip that is truncated, damaged or a bomb.
    """
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    opened = gzip.open if source.suffix == ".gz" else open
    size = 0
    try:
        with opened(source, "rb") as stream, destination.open("wb") as out:
            while data := stream.read(CHUNK):
                size += len(data)
                if size > LARGEST:
                    raise UserError(
                        f"{source} unzips to more than {LARGEST >> 30} GiB; fetch it again"
                    )
                out.write(data)
                md5.update(data)
                sha256.update(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{source} is a gzip that is cut off or damaged ({error}); fetch it again"
        ) from error
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def table(path: Path, columns: tuple[str, ...], name: str) -> "pandas.DataFrame":
    """A pickled table, or JSON with a list of objects, by the file's name. UserError, which calls
    the file `name`, if it isn't one, or lacks any of the columns."""
    import pandas

    try:
        if path.suffix == ".json":
            found: Any = pandas.DataFrame(json.loads(path.read_text(encoding="utf-8")))
        else:
            with path.open("rb") as stream:
                found = _Tables(stream).load()
    except (RecursionError, *UNPICKLING) as error:
        raise UserError(f"{name} isn't a table of samples ({error}); fetch it again") from error
    if not isinstance(found, pandas.DataFrame):
        raise UserError(f"{name} holds {type(found).__name__}, not a table; fetch it again")
    if missing := [column for column in columns if column not in found.columns]:
        raise UserError(
            f"{name} has no column {missing[0]}, only {', '.join(map(str, found.columns))}; "
            "is it the file of this benchmark?"
        )
    return found


class _Tables(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        wanted = MOVED.get((module, name), (module, name))
        if wanted not in PARTS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no table is made of")
        return super().find_class(*wanted)
