"""The environment of vLLM 0.9.1: which one is repaired, and what of it stands in no lock."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steps.base import venv
from steps.machine import v0_repairs
from tests.conftest import ROOT


def test_one_environment_is_repaired() -> None:
    repaired = [
        lock.stem for lock in sorted((ROOT / "envs").glob("*.lock")) if v0_repairs.needed([lock])
    ]
    assert repaired == ["vllm-0.9.1"]


def test_what_a_repair_adds_is_no_package_of_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v0_repairs, "_offered", lambda: v0_repairs.NEEDED)
    packages = tmp_path / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    v0_repairs.repair(tmp_path)
    v0_repairs.repair(tmp_path)

    def listed() -> list[str]:
        told = subprocess.run(
            [sys.executable, "-S", "-c", venv._LIST],
            env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return [name for name, _ in json.loads(told.stdout)]

    assert "vllm" not in listed()
    (written,) = packages.glob("vllm-*/INSTALLER")
    written.write_text("uv\n", encoding="utf-8")
    assert "vllm" in listed()
