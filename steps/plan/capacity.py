"""How many accelerators hold a model's weights; `./reproduce capacity` prints the table.

Arithmetic of AMD's footnote MI350-012: parameters × bytes per parameter × 1.1 ÷ memory, rounded
up. It counts weights; the key-value cache of long contexts comes on top.
"""

import argparse
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from steps import ROOT
from steps.base.arguments import Parser, json_argument
from steps.base.errors import UserError
from steps.base.strict import Name, PositiveNumber, Strict
from steps.base.yaml_text import typed
from steps.config.accelerators import Accelerator
from steps.config.groups import hardware_file

FILE = ROOT / "conf/capacity.yaml"

Precision = Literal["FP16", "FP8", "FP4"]
Entry = TypeVar("Entry")
PRECISIONS: tuple[Precision, ...] = ("FP16", "FP8", "FP4")


class Machine(Strict):
    """What `conf/hardware` says of one: its accelerator, and the precisions it computes in.

    Weights in another format take as little memory, but are converted before use.
    """

    accelerator: Accelerator
    precisions: tuple[Name, ...]


class Model(Strict):
    """`billions` of parameters, all experts counted; `source` says who says so."""

    name: str
    billions: PositiveNumber
    source: str


class Capacity(Strict):
    """`conf/capacity.yaml` and the hardware it counts.

    `formats` maps the names of `conf/precision` to the footnote's; `table` names the columns.
    """

    overhead: Annotated[float, Field(ge=1)]
    bytes_per_parameter: dict[Precision, PositiveNumber]
    formats: dict[Name, Precision]
    table: tuple[Name, ...]
    models: dict[Name, Model]
    hardware: dict[Name, Machine]

    def memory_gb(self, billions: float, precision: Precision) -> Fraction:
        """Memory that the weights and the overhead take, in 10^9 bytes; exact."""
        factors = (billions, self.bytes_per_parameter[precision], self.overhead)
        return math.prod((_exact(factor) for factor in factors), start=Fraction(1))

    def minimum(self, billions: float, precision: Precision, memory_gb: float) -> int:
        """The least number of accelerators of `memory_gb` in which the model fits."""
        return math.ceil(self.memory_gb(billions, precision) / _exact(memory_gb))

    def largest(self, precision: Precision, memory_gb: float) -> float:
        """Billions of parameters that one accelerator of `memory_gb` holds."""
        return float(_exact(memory_gb) / self.memory_gb(1, precision))

    def computes(self, name: str) -> frozenset[Precision]:
        """The footnote's formats that hardware `name` computes in."""
        known = self.hardware[name].precisions
        return frozenset(self.formats[one] for one in known if one in self.formats)

    def require(
        self, model: str, weights: str, memory_gb: float, count: int, kept: float = 1.0
    ) -> None:
        """Raises UserError unless `count` accelerators together hold one copy of the model.

        `model`: a key of `models`; `weights`: a name of `conf/precision`; `memory_gb`: of one
        accelerator; `count`: the accelerators of one engine (its tensor parallel size); `kept`:
        the share of the parameters that pruning leaves.
        """
        precision = _known("precision", self.formats, weights)
        billions = _known("model", self.models, model).billions * kept
        needed = self.minimum(billions, precision, memory_gb)
        if count < needed:
            size = float(self.memory_gb(billions, precision))
            raise UserError(
                f"{model} in {weights} takes {size:.1f} GB with overhead, more than {count} × "
                f"{memory_gb:g} GB: give each engine at least {needed} accelerators "
                "(tensor_parallel_size), or choose a smaller precision"
            )


def _exact(number: float) -> Fraction:
    """The decimal number that was written, not its binary neighbour: 1.1 is 11/10."""
    return Fraction(str(number))


def _known(what: str, table: Mapping[str, Entry], name: str) -> Entry:
    if name not in table:
        raise UserError(
            f"conf/capacity.yaml has no {what} {name!r}; there are {', '.join(sorted(table))}"
        )
    return table[name]


def load(path: Path = FILE) -> Capacity:
    """Read and check the data file; raises UserError naming the key."""
    return typed(path, Capacity, hardware=_machines(path.parent))


def _machines(conf: Path) -> dict[str, Any]:
    """Every hardware that has an accelerator."""
    names = sorted(path.stem for path in (conf / "hardware").glob("*.yaml"))
    read = {name: hardware_file(conf, name) for name in names}
    return {
        name: {key: one.get(key) for key in Machine.model_fields}
        for name, one in read.items()
        if one.get("accelerator")
    }


def table(capacity: Capacity, models: Mapping[str, Model]) -> str:
    """Minimum accelerators per model, accelerator and precision, then what one of each holds."""
    from tabulate import tabulate  # the page reads this module too, and its environment has none

    accelerators = {name: capacity.hardware[name].accelerator for name in capacity.table}
    columns = [(name, one, p) for name, one in accelerators.items() for p in PRECISIONS]
    by_size = sorted(models.values(), key=lambda model: model.billions)
    rows = []
    for model in by_size:
        counts = [capacity.minimum(model.billions, p, one.memory_gb) for _, one, p in columns]
        rows.append([model.name, f"{model.billions:g}", *counts])
    headers = ["", "10^9\nparameters"]
    headers += [
        f"{one.model.split()[-1]}\n{p}{'' if p in capacity.computes(name) else '*'}"
        for name, one, p in columns
    ]
    lines = [
        "Minimum accelerators (parameters × bytes per parameter × "
        f"{capacity.overhead:g} ÷ memory, rounded up)",
        tabulate(rows, headers=headers, tablefmt="simple"),
        "* takes the memory of this format, but the accelerator doesn't compute in it",
    ]
    for one in accelerators.values():
        sizes = {p: capacity.largest(p, one.memory_gb) for p in PRECISIONS}
        holds = ", ".join(f"{size:.1f} at {p}" for p, size in sizes.items())
        lines.append(f"\nOne {one.model} ({one.memory_gb:g} GB) holds 10^9 parameters: {holds}")
        for p in PRECISIONS:
            fits = [m.name for m in by_size if m.billions <= sizes[p]]
            lines.append(f"  {p:<5}{', '.join(fits) or 'none of these'}")
    return "\n".join(lines)


class Holding(Strict):
    """The least number of accelerators with room for a model at one precision.

    `memory_gb`: of one accelerator, in 10^9 bytes; `computes`: whether it computes in `precision`.
    """

    model: str
    billions: PositiveNumber
    accelerator: str
    memory_gb: PositiveNumber
    precision: Precision
    accelerators: int
    computes: bool


class Holdings(Strict):
    """What `--json` prints."""

    overhead: float
    holdings: tuple[Holding, ...]


def holdings(capacity: Capacity, models: Mapping[str, Model]) -> Holdings:
    """What `table` shows, one entry per model, accelerator and precision."""
    found = (
        Holding(
            model=model.name,
            billions=model.billions,
            accelerator=one.model,
            memory_gb=one.memory_gb,
            precision=precision,
            accelerators=capacity.minimum(model.billions, precision, one.memory_gb),
            computes=precision in capacity.computes(name),
        )
        for model in sorted(models.values(), key=lambda model: model.billions)
        for name, one in ((name, capacity.hardware[name].accelerator) for name in capacity.table)
        for precision in PRECISIONS
    )
    return Holdings(overhead=capacity.overhead, holdings=tuple(found))


def declare(parser: Parser) -> None:
    """Models."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL|BILLIONS",
        help="names of models, or numbers of parameters in billions; default: all models",
    )
    json_argument(parser, "the numbers of accelerators")


def command(given: argparse.Namespace) -> int:
    """Prints the table; raises UserError for what is neither a model nor a size."""
    capacity = load()
    chosen = {text: _chosen(capacity, text) for text in given.models} or capacity.models
    if given.json:
        print(holdings(capacity, chosen).model_dump_json(indent=1))
    else:
        print(table(capacity, chosen))
    return 0


def _chosen(capacity: Capacity, text: str) -> Model:
    if text in capacity.models:
        return capacity.models[text]
    try:
        billions = float(text)
    except ValueError:
        billions = 0.0
    if not 0 < billions < math.inf:
        raise UserError(
            f"capacity: {text!r} is neither a model of conf/capacity.yaml nor a number of "
            f"parameters in billions; there are {', '.join(sorted(capacity.models))}"
        )
    return Model(name=f"{billions:g}B", billions=billions, source="command line")
