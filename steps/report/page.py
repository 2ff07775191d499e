"""index.html: one file that opens from disk, without a network."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from steps.record import Manifest
from steps.registry import STEPS
from steps.report import charts
from steps.report.summary import CellResult, Summary

STAGES = ("artifacts", "runs", "verdicts", "submission", "report")


def render(summary: Summary, inputs: Mapping[str, Path]) -> str:
    """The page. Everything but Bokeh's own script and divisions is escaped by the template."""
    shown = _charts(summary, inputs)
    code, divisions = charts.embed(shown)
    environment = Environment(
        loader=PackageLoader("steps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, percent=_percent)
    return environment.get_template("index.html.j2").render(
        summary=summary,
        charts=[
            (chart, Markup(division)) for chart, division in zip(shown, divisions, strict=True)
        ],
        bokeh=Markup(charts.script()),
        bokeh_code=Markup(code),
        flow=_flow(summary),
    )


def _charts(summary: Summary, inputs: Mapping[str, Path]) -> list[charts.Chart]:
    served = [cell for cell in summary.cells if cell.ttft and cell.tpot]
    latencies = {cell.key: _samples(cell, inputs) for cell in served}
    found = [charts.gates(summary.cells)]
    for name, title in (("ttft", "Time to first token"), ("tpot", "Time per output token")):
        runs = [
            (
                f"{cell.system} {cell.precision} {cell.scenario}",
                getattr(latencies[cell.key], f"{name}_ms"),
                getattr(cell, name).limit_ms,
            )
            for cell in served
        ]
        if runs:
            found.append(charts.distribution(title, name.upper(), runs))
    if any(trace.seconds >= charts.SHOWN_S for trace in summary.provenance):
        found.append(charts.timeline(summary.provenance))
    return found


def _samples(cell: CellResult, inputs: Mapping[str, Path]) -> charts.Latencies:
    run = Manifest.read(inputs[f"{cell.key}/performance_run"])
    return charts.read_latencies(run.file("samples.csv"))


def _flow(summary: Summary) -> list[tuple[str, list[tuple[str, int]]]]:
    """Stages in data order, with their steps and how many results each gave."""
    counts: dict[str, int] = {}
    for trace in summary.provenance:
        counts[trace.step] = counts.get(trace.step, 0) + 1
    return [
        (
            stage,
            [
                (step, counts.get(step, 0))
                for step, spec in STEPS.items()
                if spec.stage == stage and (step in counts or stage == "report")
            ],
        )
        for stage in STAGES
    ]


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"
