"""`conf/doctor.yaml`, typed: the values that a machine is compared with."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from steps import ROOT
from steps.base.errors import UserError, explain
from steps.base.record import canonical_json
from steps.base.strict import Name, Positive, PositiveNumber, Scenario, Strict

FILE = ROOT / "conf/doctor.yaml"


class HostSetting(Strict):
    """A kernel's file and its expected value; `path` below /, with a star for every CPU."""

    name: str
    path: str
    wanted: str
    fix: str


class Clock(Strict):
    """The shader clock's upper bound and the SoC policy that a run was submitted with."""

    hardware: Name
    benchmarks: tuple[Name, ...]
    scenario: Scenario
    max_clock_mhz: Positive
    soc_pstate: int


class Settings(Strict):
    """The whole file. `gated`: prefixes of repository names."""

    host: tuple[HostSetting, ...]
    clocks: tuple[Clock, ...]
    gated: tuple[str, ...]
    ray_ports: tuple[Positive, ...]
    memory_floor_gb: PositiveNumber
    run_gb: PositiveNumber

    def clock(self, hardware: str, benchmark: str, scenario: str) -> Clock | None:
        """None: no bound, performance level auto."""
        for clock in self.clocks:
            point = (clock.hardware, clock.scenario)
            if point == (hardware, scenario) and benchmark in clock.benchmarks:
                return clock
        return None


def load(path: Path = FILE) -> Settings:
    """Read and check the data file; raises UserError naming the key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Settings.model_validate_json(canonical_json(content))
    except ValidationError as error:
        raise UserError(f"{path.name}: {explain(error)}; fix it in conf/") from error
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read ({error}); restore it") from error
