"""The thin command around every step: `python -m MODULE --config JSON ...`."""

import argparse
import contextlib
import faulthandler
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from steps import ROOT
from steps.base.confidential.logs import scrub
from steps.base.console import Console
from steps.base.deaths import kept
from steps.base.errors import UserError, explain
from steps.base.processes import ENDS, die_with_parent
from steps.base.record import Workspace, digest_files, publish

Config = TypeVar("Config", bound=BaseModel)
Step = Callable[[Config, Mapping[str, Path], Workspace, Console], None]


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    for further in ENDS:  # a second one would break off what the first one lets us remove
        signal.signal(further, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    # SystemExit lets the temporary directory be removed; the default action would not.
    raise SystemExit(128 + number)


def main(
    name: str,
    config_class: type[Config],
    step: Step[Config],
    published: Callable[[Path], None] = lambda directory: None,
) -> NoReturn:
    """Parse, validate, run, publish, exit: 0 done, 1 for the user to fix, 2 a defect.

    `published` is called with the step's directory once it is in place.

    Arguments: --config JSON; --input ROLE=PATH... (manifests or files); --output
    MANIFEST (its directory is published as a whole); --log FILE; --code PATH... (sources whose
    digest goes into the record).
    """
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--config", required=True)
    parser.add_argument("--input", nargs="*", default=[], metavar="ROLE=PATH")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--code", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    for number in ENDS:
        signal.signal(number, _terminate)
    die_with_parent(signal.SIGTERM)
    faulthandler.enable()
    console = Console(arguments.log)
    begun = time.monotonic()
    status = 0
    raw: dict[str, Any] = {}
    try:
        raw = json.loads(arguments.config)
        config = config_class.model_validate_json(arguments.config)
        inputs = {role: Path(path) for role, path in (i.split("=", 1) for i in arguments.input)}
        code = digest_files([p.resolve() for p in arguments.code], ROOT)
        with publish(
            arguments.output.parent, step=name, config=raw, inputs=inputs, code=code
        ) as workspace:
            step(config, inputs, workspace, console)
        published(arguments.output.parent)
        console.say(f"{name}: {arguments.output.parent} ({time.monotonic() - begun:.0f} s)")
    except UserError as error:
        console.say(f"error: {name}: {error}")
        status = 1
    except ValidationError as error:
        console.say(f"error: {name}: {explain(error)}")
        status = 1
    except SystemExit as error:  # of _terminate
        console.say(f"error: {name}: ended by a signal; {kept(arguments.output.parent)}")
        status = error.code if isinstance(error.code, int) else 2
    except KeyboardInterrupt:
        console.say(f"error: {name}: interrupted; {kept(arguments.output.parent)}")
        status = 130
    except OSError as error:
        traceback.print_exc()
        where = error.filename or arguments.output.parent
        console.say(f"error: {name}: {where}: {error.strerror or error}; fix it and re-run")
        status = 1
    except Exception as error:
        traceback.print_exc()
        console.say(
            f"error: {name}: unexpected {type(error).__name__}: {error}; details in {console.log}"
        )
        status = 2
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        scrub(arguments.log, raw)
    # Engines leave threads and child processes whose shutdown may hang; the outputs are in place.
    os._exit(status)
