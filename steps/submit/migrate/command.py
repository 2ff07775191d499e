"""`./reproduce migrate DIR --round v6.0 --output NEW`: a submission in another round's layout."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from steps.base.arguments import Parser, UsageError
from steps.base.errors import UserError, shown
from steps.mlperf.rounds import DIVISIONS, Layout, load, names
from steps.submit.migrate.moves import moves
from steps.submit.validate.tree import Tree, layout_of


def declare(parser: Parser) -> None:
    """The tree, the round and the new tree."""
    parser.description = (
        "Write a submission tree in the layout of another round: that of v5.1 has code/, "
        "measurements/ and compliance/, that of v6.0 has src/ and everything else beside the "
        "results. Only places change: logs keep their seeds, so validate says which round's they "
        "are."
    )
    parser.add_argument("directory", type=Path, help="the directory that holds closed/ or open/")
    parser.add_argument("--round", choices=names(), help="whose layout the new tree has")
    parser.add_argument("--to", help=argparse.SUPPRESS)
    parser.add_argument("--output", required=True, type=Path, metavar="NEW", help="must not exist")


def command(chosen: argparse.Namespace) -> int:
    """Writes NEW as a whole or not at all; the tree it reads stays as it is."""
    if chosen.to is not None:
        raise UsageError(f"--to is called --round now: --round {_round_of(chosen.to)}")
    if chosen.round is None:
        raise UsageError(f"--round is missing: name one of {', '.join(names())}")
    left_out = migrate(chosen.directory, chosen.output, load(chosen.round).layout)
    for path in left_out:
        print(f"left out, it belongs to no result: {shown(path)}")
    print(f"{chosen.output} has the layout of {chosen.round}")
    return 0


def _round_of(layout: str) -> str:
    """The first round of a layout, or the last round for any other word."""
    return next((name for name in names() if name.startswith(layout)), names()[-1])


def migrate(root: Path, output: Path, layout: Layout) -> list[str]:
    """The files left out. Raises UserError if `output` exists or the tree can't be migrated."""
    if not root.is_dir():
        raise UserError(f"{root} isn't a directory; name the one that holds closed/ or open/")
    if os.path.lexists(output):
        raise UserError(f"{output} exists; name a directory that doesn't")
    inside, resolved = os.path.realpath(output), os.path.realpath(root)
    if os.path.commonpath([inside, resolved]) == resolved:
        raise UserError(f"{output} lies in the tree that is migrated; name another place")
    tree = Tree(root)
    if not any(tree.is_directory(division) for division in DIVISIONS):
        raise UserError(f"{root} isn't a submission; name the directory with closed/ or open/")
    old = layout_of(tree, layout)
    if old == layout:
        raise UserError(f"{root} has the layout of {layout.name} already")
    plan = moves(tree, old, layout)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UserError(f"{output.parent} can't be written ({error.strerror})") from error
    try:
        _require_room(scratch, sum((root / one).lstat().st_size for one in plan.files.values()))
        for new, source in plan.files.items():
            target = scratch / new
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / source, target, follow_symlinks=False)
        scratch.chmod(0o755)
        os.rename(scratch, output)
    except OSError as error:
        raise UserError(
            f"{output} can't be written ({error.strerror}: {error.filename})"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return plan.left_out


def _require_room(directory: Path, needed: int) -> None:
    if needed > (free := shutil.disk_usage(directory).free):
        raise UserError(
            f"{directory.parent} has {free / 1e9:.1f} GB free and the copy needs "
            f"{needed / 1e9:.1f} GB; make room or name another place"
        )
