"""`python -m bench.v0_environment DIR`: an environment of vLLM 0.9.1 and its V0 for a CPU, 6 GB.

`scale=dress-v0` makes its own; this one is for measurements beside it.
"""

import argparse
import os
import subprocess
from pathlib import Path

from steps import ROOT
from steps.base import venv
from steps.machine import v0_repairs

LOCK = ROOT / "envs/vllm-0.9.1.lock"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory.resolve()

    def heard(line: str) -> None:
        print(line, end="", flush=True)

    venv.make(directory, [LOCK], ROOT, directory.with_suffix(".log"), heard, lambda python: None)
    v0_repairs.repair(directory)
    print(subprocess.run([directory / "bin/python", "-c", PROOF], check=True, env=clean()))


PROOF = "import torch, vllm, vllm._C; print(vllm.__version__, torch.ops._C_utils)"


def clean() -> dict[str, str]:
    return {**os.environ, "VLLM_TARGET_DEVICE": "cpu", "VLLM_LOGGING_LEVEL": "ERROR"}


if __name__ == "__main__":
    main()
