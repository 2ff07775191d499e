"""`make locks`: looks up the digests of every locked package again; versions stay. To change a
version, edit it in its lock and run this. uv asks the index; if that gives no digest (a local
file), the lock's digests stay.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from steps import ROOT
from steps.base import installer, venv
from steps.base.errors import UserError
from steps.base.locks import Entry, entries
from steps.base.record import write_atomically


def main(names: Sequence[str]) -> int:
    """Refresh these locks, or all; exit status 1 with a sentence if one can't be refreshed."""
    locks = [ROOT / f"envs/{name}.lock" for name in names] or sorted(ROOT.glob("envs/*.lock"))
    try:
        tool = venv.logged_tool(ROOT)
        for lock in locks:
            found = entries(lock)
            fresh = _digests(tool, [entry for entry in found if entry.name])
            text = "".join(written(entry, fresh, lock) for entry in found)
            changed = text != lock.read_text(encoding="utf-8")
            write_atomically(lock, text)
            print(f"{lock.relative_to(ROOT)}: {'changed' if changed else 'unchanged'}")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _digests(tool: Path, wanted: Sequence[Entry]) -> Mapping[str, Sequence[str]]:
    """The digests of every file of a package. uv lists those of one index, and the main one has the
    most files; a version with a local label (+cpu) can only come from another.
    """
    given = installer.sources(tool / "bin/python", ROOT)
    main = {name: value for name, value in given.items() if name != "extra-index-url"}
    labelled = [entry for entry in wanted if "+" in entry.version]
    others = [entry for entry in wanted if "+" not in entry.version]
    return {**_asked(tool, others, main), **_asked(tool, labelled, given)}


def _asked(
    tool: Path, wanted: Sequence[Entry], given: Mapping[str, str]
) -> Mapping[str, Sequence[str]]:
    if not wanted:
        return {}
    with tempfile.TemporaryDirectory() as home:
        pins, made = Path(home) / "pins.txt", Path(home) / "made.lock"
        lines = [f"{entry.name}=={entry.version}" for entry in wanted]
        pins.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [
            *(str(tool / "bin/uv"), "pip", "compile", "--no-deps", "--generate-hashes"),
            *("--no-header", "--no-annotate", "--quiet", "--no-cache", "--python"),
            *(str(tool / "bin/python"), str(pins), "--output-file", str(made)),
            *installer.flags(given),
        ]
        if wrong := installer.run(command, installer.for_uv(given), lambda line: None):
            raise UserError(f"digests can't be looked up: {wrong:.400}")
        return {entry.name: entry.digests for entry in entries(made)}


def written(entry: Entry, fresh: Mapping[str, Sequence[str]], lock: Path) -> str:
    """The entry with new digests."""
    if not entry.name:
        return entry.text
    digests = fresh[entry.name] or entry.digests
    if not digests:
        raise UserError(
            f"{lock}: no index gives a digest of {entry.name}=={entry.version}; add the sha256 of "
            "its file by hand, as --hash=sha256:..."
        )
    pin = entry.text.partition("--hash")[0].rstrip(" \t\n\\")
    lines = [pin, *(f"    --hash=sha256:{digest}" for digest in sorted(digests))]
    return " \\\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
