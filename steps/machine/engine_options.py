"""Lists what the vLLM of an environment or an image takes (steps/config/options.py).

`python -m steps.machine.engine_options BUILD TITLE SOURCE PACKAGE [VARIABLE...]` writes
`conf/options/BUILD.json` from a vLLM's directory. TITLE: its name in messages. SOURCE: where the
directory came from. VARIABLE: read by code that isn't in it.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, model_validator
from typing_extensions import Self

from steps import ROOT
from steps.base.errors import UserError
from steps.base.record import canonical_json, write_atomically
from steps.base.strict import Strict
from steps.config import options
from steps.machine import vllm_source
from steps.machine.printed import last

LIMIT_S = 300.0


class _Takes(Strict):
    arguments: dict[str, Any]
    nested: dict[str, Any]
    environment: list[str]

    @model_validator(mode="after")
    def options(self) -> Self:
        """As steps/config/options.py will read them, but kept as they were printed."""
        named = {"name": "", "source": ""}
        options.Options.model_validate_json(canonical_json({**named, **self.model_dump()}))
        return self


class _Said(Strict):
    version: str
    takes: _Takes


PRINTED = TypeAdapter[_Said | None](_Said | None)


def script() -> str:
    """What a Python is given with `-c` to print what its vLLM takes, or null."""
    return Path(vllm_source.__file__).read_text(encoding="utf-8")


def text(printed: str, source: str) -> "str | None":
    """A file's text from what `script` printed; None: that Python has no vLLM, or one that keeps
    its arguments elsewhere. Raises UserError for anything else."""
    found = last(printed, PRINTED, source, "what its vLLM takes")
    if found is None or not found.takes.arguments:
        return None
    return options.dumped(f"vLLM {found.version}", source, found.takes.model_dump())


def of_environment(python: Path) -> "str | None":
    """The same for an environment of this machine. Raises UserError if its Python can't say."""
    try:
        asked = subprocess.run(
            [str(python), "-I", "-c", script()],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{python} didn't say in {LIMIT_S:g} s what its vLLM takes; see what else runs on this "
            "machine, and re-run"
        ) from error
    if asked.returncode:
        print(asked.stderr)
        last = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{python} can't say what its vLLM takes: {last:.200}; see the log")
    return text(asked.stdout, python.parent.parent.name)


def main(given: list[str]) -> int:
    build, title, source, package, *more = given
    found = vllm_source.read(Path(package))
    found["environment"] = sorted({*found["environment"], *more})
    path = ROOT / "conf" / options.FOLDER / f"{build}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, options.dumped(title, source, found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
