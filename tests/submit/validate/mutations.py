"""Random single damages to a tree, each with the way back."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Undo = Callable[[], None]

GARBAGE = (b"\x00", b"\xff\xfe", b"\r", b"\n", b'"', b"{", b"NaN", b"9" * 400, b"[" * 3000, b"-1")
VALUES: tuple[Any, ...] = (None, True, False, 0, -1, 1, 10**30, 1e308, "", "VALID", [], {}, "ÿ\t")


def damage(root: Path, random: Random) -> tuple[str, Undo]:
    """Damage one thing below `root`; what was done, and how to undo it."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    kind = random.choice(
        (_bytes, _bytes, _lines, _lines, _record, _record, _record, _field, _score, _entry, _place)
    )
    return kind(root, files, random)


def _restoring(path: Path) -> Undo:
    before = path.read_bytes()

    def undo() -> None:
        path.write_bytes(before)

    return undo


def _named(root: Path, path: Path, what: str) -> str:
    return f"{path.relative_to(root)}: {what}"


def _bytes(root: Path, files: list[Path], random: Random) -> tuple[str, Undo]:
    """Cut, overwrite or insert at a random place."""
    path = random.choice(files)
    undo = _restoring(path)
    data = path.read_bytes()
    at = random.randrange(len(data) + 1)
    piece = random.choice(GARBAGE)
    kind = random.choice(("cut", "overwrite", "insert", "drop a byte", "empty"))
    if kind == "cut":
        data = data[:at]
    elif kind == "overwrite":
        data = data[:at] + piece + data[at + len(piece) :]
    elif kind == "insert":
        data = data[:at] + piece + data[at:]
    elif kind == "drop a byte":
        data = data[:at] + data[at + 1 :]
    else:
        data = b""
    path.write_bytes(data)
    return _named(root, path, f"{kind} {piece[:8]!r} at {at}"), undo


def _lines(root: Path, files: list[Path], random: Random) -> tuple[str, Undo]:
    """Drop, double or exchange lines."""
    path = random.choice([path for path in files if path.suffix in (".txt", ".conf", ".json")])
    undo = _restoring(path)
    lines = path.read_bytes().splitlines(keepends=True) or [b"\n"]
    at = random.randrange(len(lines))
    kind = random.choice(("drop", "double", "exchange", "keep one"))
    if kind == "drop":
        del lines[at]
    elif kind == "double":
        lines.insert(at, lines[at])
    elif kind == "exchange":
        other = random.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines = [lines[at]]
    path.write_bytes(b"".join(lines))
    return _named(root, path, f"{kind} line {at + 1}"), undo


def _record(root: Path, files: list[Path], random: Random) -> tuple[str, Undo]:
    """Change or remove one part of one record of a detail log."""
    path = random.choice([path for path in files if path.name == "mlperf_log_detail.txt"])
    undo = _restoring(path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    at = random.randrange(len(lines))
    entry = json.loads(lines[at].removeprefix(":::MLLOG "))
    name = random.choice(("value", "value", "value", "value", "key", "metadata", "is_error"))
    holder = entry["metadata"] if name == "is_error" else entry
    old = holder[name]
    if random.random() < 0.15:
        del holder[name]
        what = f"{entry.get('key')} without {name}"
    else:
        holder[name] = _other(old, random)
        what = f"{entry.get('key')}: {name} {old!r:.40} -> {holder[name]!r:.40}"
    lines[at] = f":::MLLOG {json.dumps(entry)}\n"
    path.write_text("".join(lines), encoding="utf-8")
    return _named(root, path, what), undo


def _other(old: Any, random: Random) -> Any:
    if isinstance(old, int | float) and not isinstance(old, bool) and random.random() < 0.7:
        return random.choice((old - 1, old + 1, old // 2, old * 2, -old, float(old), str(old)))
    if isinstance(old, bool) and random.random() < 0.7:
        return not old
    return random.choice(VALUES)


def _field(root: Path, files: list[Path], random: Random) -> tuple[str, Undo]:
    """Change or remove one field of a description."""
    path = random.choice(
        [path for path in files if path.suffix == ".json" and "log" not in path.name]
    )
    undo = _restoring(path)
    fields = json.loads(path.read_text(encoding="utf-8"))
    name = random.choice(sorted(fields))
    if random.random() < 0.3:
        del fields[name]
        what = f"without {name}"
    else:
        fields[name] = random.choice((*VALUES, "edge", "open", "network"))
        what = f"{name} = {fields[name]!r}"
    path.write_text(json.dumps(fields), encoding="utf-8")
    return _named(root, path, what), undo


def _score(root: Path, files: list[Path], random: Random) -> tuple[str, Undo]:
    """Another digit in a small text: scores, verifications, user.conf."""
    path = random.choice([path for path in files if path.suffix in (".txt", ".conf", ".md")])
    undo = _restoring(path)
    data = bytearray(path.read_bytes()[:4000])
    places = [at for at, byte in enumerate(data) if chr(byte).isalnum()] or [0]
    at = random.choice(places)
    data[at : at + 1] = random.choice((b"0", b"9", b".", b"", b"x", b"'"))
    path.write_bytes(bytes(data) + path.read_bytes()[4000:])
    return _named(root, path, f"character {at}"), undo


def _entry(root: Path, files: list[Path], random: Random) -> tuple[str, Undo]:
    """Put something where nothing or something else was."""
    folder = random.choice(sorted({path.parent for path in files}))
    name = random.choice(
        (".hidden", "a b", "a\nb", "notes.txt", "x.json", "__pycache__", "results.json", "power")
    )
    path = folder / name
    kind = random.choice(("file", "directory", "link", "loop", "pipe", "not utf-8"))
    if kind == "not utf-8":
        path = folder / os.fsdecode(b"a\xffb")
    if kind in ("file", "not utf-8"):
        path.write_bytes(random.choice((b"", b"a\n", b"\xff")))
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(folder)
    else:
        os.mkfifo(path)

    def undo() -> None:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    return _named(root, folder, f"{kind} {name!r} added"), undo


def _place(root: Path, files: list[Path], random: Random) -> tuple[str, Undo]:
    """Take a file or directory away, or replace it by something of another kind."""
    parents = {parent for path in files for parent in path.parents if root in parent.parents}
    path = random.choice([*files, *sorted(parents)])
    aside = root.with_name(f"{root.name}.aside")
    os.rename(path, aside)
    kind = random.choice(("removed", "removed", "renamed", "directory", "file", "pipe", "link"))
    replacement = path.with_name(f"{path.name}x") if kind == "renamed" else path
    if kind == "renamed":
        copy = shutil.copytree if aside.is_dir() else shutil.copyfile
        copy(aside, replacement)
    elif kind == "directory":
        path.mkdir()
    elif kind == "file":
        path.write_bytes(b"x")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(aside)

    def undo() -> None:
        if replacement.is_dir() and not replacement.is_symlink():
            shutil.rmtree(replacement)
        else:
            replacement.unlink(missing_ok=True)
        os.rename(aside, path)

    return _named(root, path, kind), undo
