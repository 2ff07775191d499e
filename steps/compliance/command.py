"""`./reproduce compliance TEST01|TEST04`: verify a test's run and package what it must leave."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from steps.compliance import verify
from steps.compliance.answers import FORMATS
from steps.errors import UserError
from steps.rounds import load, names


def command(arguments: list[str]) -> int:
    """Writes OUTPUT/TESTnn as a whole, or nothing if the test fails (exit status 1)."""
    parser = argparse.ArgumentParser(
        prog="./reproduce compliance",
        description="Verify TEST01 or TEST04 of one scenario on LoadGen's logs, with the meaning "
        "of the official scripts, and write the directory that a submission carries.",
    )
    parser.add_argument("test", choices=("TEST01", "TEST04"))
    parser.add_argument("--round", default="v5.1", choices=names(), help="default: %(default)s")
    parser.add_argument(
        "--performance", type=Path, required=True, metavar="DIR", help="the performance run's logs"
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the test's logs")
    parser.add_argument(
        "--accuracy", type=Path, metavar="DIR", help="TEST01: the accuracy run's untruncated logs"
    )
    parser.add_argument("--dtype", choices=sorted(FORMATS), default="byte")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    chosen = parser.parse_args(arguments)
    if (chosen.test == "TEST01") != (chosen.accuracy is not None):
        raise UserError("--accuracy belongs to TEST01 and to no other test; add or remove it")
    rule = load(chosen.round).compliance[chosen.test]
    texts = {verify.SPEED: verify.speed(chosen.test, rule, chosen.performance, chosen.run)}
    if chosen.accuracy is not None:
        texts[verify.ACCURACY] = verify.answers(chosen.accuracy, chosen.run, chosen.dtype)
    target = chosen.output / chosen.test
    _publish(target, chosen.run, texts)
    print(f"{chosen.test} holds: {target}")
    return 0


def _publish(target: Path, run: Path, texts: dict[str, str]) -> None:
    if os.path.lexists(target):
        raise UserError(f"{target} exists; name another --output or delete it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(f"{target.parent} can't be written ({error.strerror})") from error
    try:
        verify.package(scratch, run, texts)
        scratch.chmod(0o755)
        os.rename(scratch, target)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; nothing was written") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
