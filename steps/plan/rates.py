"""What costs are estimated by, where nothing was measured: `conf/estimates.yaml`."""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from steps import ROOT
from steps.base.strict import Positive, PositiveNumber, Strict
from steps.base.yaml_text import typed

FILE = ROOT / "conf/estimates.yaml"
PLACE = "conf/estimates.yaml"


class Rates(Strict):
    """Megabytes per second, gigabytes, 10^12 operations per second and shares of them; `algorithms`
    are factors on a plain calibration's time, `scored_per_s` answers by their kind."""

    download_mb_s: PositiveNumber
    disk_mb_s: PositiveNumber
    dataset_gb: PositiveNumber
    image_gb: PositiveNumber
    tflops: PositiveNumber
    used: Annotated[float, Field(gt=0, le=1)]
    algorithms: dict[str, PositiveNumber]
    default_calibration: Positive
    tokenized_per_s: PositiveNumber
    scored_per_s: dict[str, PositiveNumber]
    bytes_per_weight: dict[str, PositiveNumber]

    def download_s(self, gigabytes: float) -> float:
        return 1000 * gigabytes / self.download_mb_s

    def disk_s(self, gigabytes: float) -> float:
        return 1000 * gigabytes / self.disk_mb_s

    def computing_s(self, operations: float, accelerators: int) -> float:
        return operations / (self.tflops * 1e12 * self.used * accelerators)


@cache
def load(path: Path = FILE) -> Rates:
    """Raises UserError naming the key that is wrong."""
    return typed(path, Rates)
