"""Which shards of an unfinished checkpoint are finished, so that a killed step can continue."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.record import sha256_file

NAME = "journal.jsonl"


@dataclass(frozen=True)
class Finished:
    """A finished shard: its digest and its size in bytes."""

    sha256: str
    size: int


class Journal:
    """One line per finished shard, after a line that identifies what is being made.

    A shard counts only while its content still has the digest it was finished with. Lines are
    written after the shard is in place, so a kill between the two costs one shard.
    """

    def __init__(self, directory: Path, recipe: str) -> None:
        """Continue the journal of `directory` if it is of this recipe, else begin a new one."""
        self._path = directory / NAME
        self._lock = threading.Lock()
        self.finished: dict[str, Finished] = {}
        lines = self._read()
        if lines and lines[0] == {"recipe": recipe}:
            for line in lines[1:]:
                kept = Finished(line["sha256"], line["size"])
                if self._holds(directory / line["file"], kept):
                    self.finished[line["file"]] = kept
        # Rewritten, not appended to: a line torn by a kill would swallow the next one.
        head = [json.dumps({"recipe": recipe})]
        rest = [self._line(file, kept) for file, kept in self.finished.items()]
        temporary = self._path.with_suffix(".unfinished")
        temporary.write_text("\n".join([*head, *rest]) + "\n", encoding="utf-8")
        temporary.replace(self._path)

    def add(self, file: str, finished: Finished) -> None:
        """Callable from several threads."""
        with self._lock:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(self._line(file, finished) + "\n")
            self.finished[file] = finished

    def delete(self) -> None:
        self._path.unlink()

    @staticmethod
    def _line(file: str, finished: Finished) -> str:
        return json.dumps({"file": file, "sha256": finished.sha256, "size": finished.size})

    @staticmethod
    def _holds(path: Path, finished: Finished) -> bool:
        try:
            return path.stat().st_size == finished.size and sha256_file(path) == finished.sha256
        except (OSError, UserError):
            return False

    def _read(self) -> list[dict[str, Any]]:
        """Complete lines only; a torn line and everything after it are ignored."""
        lines: list[dict[str, Any]] = []
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return lines
        for line in text.splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines
