"""What each step of compression cost: quick checks with intervals, sizes, importance of layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bokeh.models import Span

from steps.base.record import Manifest
from steps.config import verdicts
from steps.config.results import result_of
from steps.config.verdicts import QuickVerdict
from steps.config.weights import WeightsResult
from steps.report.blocks import Block, Cell, Chart, Column, Section, Table, number, share
from steps.report.figures import LIMIT_COLOUR, plain_figure, plain_legend, scatter


@dataclass(frozen=True)
class Check:
    """A quick check; `key` is its path in the plan: system, benchmark, compression, ..., step."""

    key: str
    result: QuickVerdict

    @property
    def weights(self) -> str:
        """Compression and precision, as far as they were decided when it was made."""
        return " ".join(self.key.split("/")[2:-1])


def compression_section(inputs: Mapping[str, Path]) -> Section | None:
    """None if no weights were changed."""
    checks = [
        Check(role.removeprefix("quick_check/"), verdicts.read(path, QuickVerdict))
        for role, path in inputs.items()
        if role.startswith("quick_check/")
    ]
    if not checks:
        return None
    pruned = {
        role.removeprefix("prune/"): result_of(Manifest.read(path), WeightsResult)
        for role, path in inputs.items()
        if role.startswith("prune/")
    }
    blocks: list[Block] = [_table(checks), _sizes(checks)]
    blocks += [_importance(name, made) for name, made in pruned.items() if made.importance]
    lead = (
        "ROUGE-L on the first evaluation prompts after each step that changed the weights, in "
        "percent of the source weights' own, with a paired bootstrap 95 % interval. It decides "
        "whether runs start; it is no accuracy run."
    )
    return Section("compression", "Compression", lead, blocks)


def _table(checks: list[Check]) -> Table:
    columns = [
        Column("weights", choices=True),
        Column("after", choices=True),
        Column("of the source", numeric=True),
        Column("95 % from", numeric=True),
        Column("to", numeric=True),
        Column("wanted", numeric=True),
        Column("ROUGE-L", numeric=True),
        Column("prompts", numeric=True),
        Column("MB", numeric=True),
    ]
    rows = [
        [
            Cell(check.weights or "–"),
            Cell(check.result.after),
            *(share(getattr(check.result, name) / 100, 2) for name in ("ratio", "low", "high")),
            share(check.result.minimum / 100, 2) if check.result.minimum else Cell("any"),
            number(check.result.score, 2),
            number(check.result.samples, 0),
            number(1000 * check.result.gigabytes, 2),
        ]
        for check in checks
    ]
    return Table("compression-table", "One row a step that changed weights", columns, rows)


def _sizes(checks: list[Check]) -> Chart:
    plot = plain_figure("weights, MB", "of the source's ROUGE-L, %", height=380)
    steps = list(dict.fromkeys(str(check.result.after) for check in checks))
    for index, step in enumerate(steps):
        ones = [check for check in checks if check.result.after == step]
        scatter(
            plot,
            index,
            f"after {step}",
            x=[1000 * check.result.gigabytes for check in ones],
            y=[check.result.ratio for check in ones],
            words=[_words(check) for check in ones],
        )
        plot.segment(
            x0=[1000 * check.result.gigabytes for check in ones],
            x1=[1000 * check.result.gigabytes for check in ones],
            y0=[check.result.low for check in ones],
            y1=[check.result.high for check in ones],
        )
    plot.add_layout(
        Span(location=99.0, dimension="width", line_color=LIMIT_COLOUR, line_dash="dashed")
    )
    plain_legend(plot)
    return Chart(
        "Accuracy and size of the weights",
        "Left and up is better; lines are 95 % intervals. Dashed: 99 % of the source.",
        "; ".join(_words(check) for check in checks),
        plot,
    )


def _words(check: Check) -> str:
    found = check.result
    return (
        f"{check.weights} after {found.after}: {found.ratio:.2f} % [{found.low:.2f}, "
        f"{found.high:.2f}], {1000 * found.gigabytes:.2f} MB"
    )


def _importance(name: str, made: WeightsResult) -> Chart:
    """Both measures by layer, each as a share of its largest."""
    found, dropped = made.importance, made.dropped_layers
    assert found is not None and dropped is not None
    distances = found.angular_distance
    measures: dict[str, Sequence[float]] = {
        "FFN output": found.ffn_output,
        "angular distance": [row[layer + 1] for layer, row in enumerate(distances[:-1])],
    }
    first, last = dropped
    plot = plain_figure("layer", "share of the largest", height=320)
    for index, (measure, values) in enumerate(measures.items()):
        shares = [value / max(values) for value in values]
        words = [f"layer {layer}: {value:.4g}" for layer, value in enumerate(values)]
        scatter(plot, index, measure, x=list(range(len(values))), y=shares, words=words)
    for edge in (first - 0.5, last + 0.5):
        plot.add_layout(
            Span(location=edge, dimension="height", line_color=LIMIT_COLOUR, line_dash="dashed")
        )
    plain_legend(plot)
    return Chart(
        f"Importance of layers: {name}",
        f"On {found.samples} calibration prompts. Between the dashed lines: what was dropped.",
        f"layers {first} to {last} were dropped",
        plot,
    )
