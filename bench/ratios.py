"""Results of benches: kept as results/bench/NAME.json, drawn as NAME.html beside it. `python -m
bench.ratios` draws all of them; benches run in environments that can't draw.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from steps import ROOT
from steps.base.record import write_atomically
from steps.base.strict import Strict

HOME = ROOT / "results/bench"


class Ratio(Strict):
    """Values by kind, one per round of the bench; `target`: the goal of the first kind."""

    title: str
    target: float
    kinds: dict[str, tuple[float, ...]]


def keep(
    name: str, title: str, target: float, kinds: Mapping[str, Sequence[float]], home: Path = HOME
) -> None:
    """Replaces the earlier result of the same bench."""
    found = Ratio(title=title, target=target, kinds={k: tuple(v) for k, v in kinds.items()})
    write_atomically(home / f"{name}.json", found.model_dump_json(indent=1) + "\n")


def draw(path: Path) -> Path:
    """The plot of one kept ratio: one marker per round, the target as a line; opens from disk."""
    from bokeh.embed import file_html
    from bokeh.models import Span
    from bokeh.resources import INLINE

    from steps.report.figures import LIMIT_COLOUR, plain_figure, scatter

    found = Ratio.model_validate_json(path.read_text(encoding="utf-8"))
    plot = plain_figure("", found.title, x_range=list(found.kinds), height=420)
    plot.y_range.start = min(0.0, *(min(values) for values in found.kinds.values()))
    for index, (kind, values) in enumerate(found.kinds.items()):
        scatter(
            plot,
            index,
            kind,
            x=[index + 0.5] * len(values),  # the middle of its category
            y=values,
            words=[f"{kind}, round {n}: {value:.3f}" for n, value in enumerate(values, 1)],
        )
    plot.legend.visible = False  # the axis has the same words
    plot.add_layout(
        Span(location=found.target, dimension="width", line_color=LIMIT_COLOUR, line_dash="dashed")
    )
    target = path.with_suffix(".html")
    write_atomically(target, file_html(plot, INLINE, found.title))
    return target


def main() -> None:
    for path in sorted(HOME.glob("*.json")):
        print(f"{draw(path)}")


if __name__ == "__main__":
    main()
