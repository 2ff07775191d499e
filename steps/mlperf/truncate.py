"""Accuracy logs as a submission has them: both ends, and the hash of the whole."""

from pathlib import Path

from steps.base.record import sha256_file

KEPT_CHARACTERS = 4096
"""MAX_ACCURACY_LOG_SIZE's halves in tools/submission/truncate_accuracy_log.py, v5.1.1."""

GAP = b"\n\n...\n\n"


def truncated(path: Path) -> tuple[bytes, str]:
    """The log as it is packaged and the sha256 of the whole file.

    A log shorter than one end stays whole. LoadGen writes ASCII, so bytes are characters.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size < KEPT_CHARACTERS:
            return stream.read(), sha256_file(path)
        head = stream.read(KEPT_CHARACTERS)
        stream.seek(size - KEPT_CHARACTERS)
        return head + GAP + stream.read(), sha256_file(path)
