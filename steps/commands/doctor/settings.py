"""`conf/doctor.yaml`, typed: the values that a machine is compared with."""

from pathlib import Path

from steps import ROOT
from steps.base.strict import Positive, PositiveNumber, Strict
from steps.base.yaml_text import typed

FILE = ROOT / "conf/doctor.yaml"


class HostSetting(Strict):
    """A kernel's file and its expected value; `path` below /, with a star for every CPU."""

    name: str
    path: str
    wanted: str
    fix: str


class Clock(Strict):
    """The shader clock's upper bound and the SoC policy that a run was submitted with."""

    max_clock_mhz: Positive
    soc_pstate: int


class Settings(Strict):
    """The whole file. `gated`: prefixes of repository names."""

    host: tuple[HostSetting, ...]
    gated: tuple[str, ...]
    ray_ports: tuple[Positive, ...]
    memory_floor_gb: PositiveNumber
    run_gb: PositiveNumber


def load(path: Path = FILE) -> Settings:
    """Read and check the data file; raises UserError naming the key."""
    return typed(path, Settings)
