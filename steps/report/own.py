"""Own results as the comparisons read them."""

from steps.mlperf.published.result import Result, RunFacts, judged
from steps.report.summary import CellResult, Latency, Summary


def results(summary: Summary) -> tuple[Result, ...]:
    """One for each cell. What the system description doesn't tell is None or empty, and so are the
    accelerators that a CPU stands in for, so that nothing is compared with them."""
    return tuple(_result(cell, summary) for cell in summary.cells)


def clock(summary: Summary, cell: CellResult) -> str:
    """What the system description says of the accelerators' clock."""
    return summary.systems.get(cell.system, {}).get("accelerator_frequency", "")


def _result(cell: CellResult, summary: Summary) -> Result:
    fields = summary.systems.get(cell.system, {})
    value, problems = judged(cell.value, cell.unit)
    real = not summary.replaced
    return Result(
        source="own",
        round=summary.round,
        id=summary.experiment,
        submitter=summary.submitter,
        availability=fields.get("status", ""),
        division=cell.division,
        suite=fields.get("system_type", ""),
        system=fields.get("system_name", cell.system),
        platform=cell.system,
        benchmark=cell.official,
        model=cell.model,
        scenario=cell.scenario,
        nodes=_count(fields.get("number_of_nodes")),
        accelerators_per_node=_count(fields.get("accelerators_per_node")) if real else None,
        accelerator=fields.get("accelerator_model_name", "") if real else "",
        processor=fields.get("host_processor_model_name", ""),
        processors_per_node=_count(fields.get("host_processors_per_node")),
        software="; ".join(filter(None, (fields.get("framework", ""), cell.engine))),
        operating_system=fields.get("operating_system", ""),
        compression=cell.compression,
        precision=cell.weight_data_types,
        accuracy=cell.scores,
        value=value,
        unit=cell.unit,
        location=cell.evidence["performance log"],
        run=RunFacts(
            loadgen_version=cell.loadgen,
            target_qps=cell.target_qps,
            min_duration_s=cell.min_duration_s,
            duration_s=cell.duration_s,
            samples_per_second=cell.samples_per_second,
            ttft_p99_ms=_p99(cell.ttft),
            ttft_limit_ms=cell.ttft.limit_ms if cell.ttft else None,
            tpot_p99_ms=_p99(cell.tpot),
            tpot_limit_ms=cell.tpot.limit_ms if cell.tpot else None,
        ),
        problems=problems,
    )


def _p99(latency: Latency | None) -> float | None:
    return latency.p99_ms if latency else None


def _count(text: str | None) -> int | None:
    """System descriptions hold numbers as text, and "N/A"."""
    return int(text) if text and text.isdigit() and int(text) > 0 else None
