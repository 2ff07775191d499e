"""The last sections of the page of own results: how it was made, and where it leaves the rules."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import get_args

from steps.config.axes import AXES
from steps.config.resolved import Resolved
from steps.plan.registry import STEPS
from steps.plan.spec import Stage
from steps.report import timeline
from steps.report.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Flow,
    Section,
    Table,
    Text,
    Tone,
    number,
    too_long,
)
from steps.report.points import Points
from steps.report.summary import Summary, Trace

FEW_SYSTEMS = 3
"""Their descriptions fit a comment in a pull request."""

DIGITS = 16
"""Digits of a digest on the page; summary.json has all."""

COMMIT = re.compile(rf"\b([0-9a-f]{{{DIGITS}}})[0-9a-f]{{24}}\b")


def made_section(summary: Summary, points: Points) -> Section:
    """Flow, timeline, systems, and every result's digests."""
    labels = {cell.key: points.label(cell) for cell in summary.cells}
    chart = timeline.timeline(summary.provenance, labels)
    blocks: list[Block] = [Flow(_flow(summary))]
    blocks += [chart] if chart else []
    many = len(summary.systems) > FEW_SYSTEMS
    blocks += [_system(*system, page_only=many) for system in summary.systems.items()]
    blocks.append(_provenance(summary.provenance))
    engines = sorted({f"{cell.engine}, LoadGen {cell.loadgen}" for cell in summary.cells})
    notes = [f"{trace.key}: {note}" for trace in summary.provenance for note in trace.notes]
    blocks.append(Text([*engines, *notes]))
    blocks += [_resolved(summary, labels)] if any(c.resolved for c in summary.cells) else []
    return Section("made", "How it was made", "", blocks)


def _resolved(summary: Summary, labels: Mapping[str, str]) -> Details:
    """What every engine made of its settings, and where that isn't what was asked."""
    columns = (
        Column("result"),
        Column("attention"),
        Column("quantization"),
        Column("graphs"),
        Column("KV cache", wide=True),
        Column("layers by kernel", wide=True),
        Column("variables", wide=True),
    )
    rows, items = [], []
    for cell in summary.cells:
        if (found := cell.resolved) is None:
            continue
        items += [f"{labels[cell.key]}: {one}" for one in found.differences]
        blocks = f"{found.kv_cache_blocks} × {found.block_size} tokens"
        rows.append(
            [
                Cell(labels[cell.key]),
                Cell(found.attention),
                Cell(found.quantization or "none"),
                Cell(found.graphs),
                Cell("" if found.kv_cache_blocks is None else blocks),
                Cell(", ".join(f"{count} {kernel}" for kernel, count in found.kernels.items())),
                Cell(f"{_states(found)}; {cell.dropped_variables} of the shell's dropped"),
            ]
        )
    table = Table("resolved-table", "One row a result", columns, rows, page_only=too_long(rows))
    words = (
        "As the engine said after its start; all of its configuration is in resolved.json beside "
        "LoadGen's logs. "
        + ("What isn't as it was asked for:" if items else "Nothing differs from what was asked.")
    )
    tone: Tone = "bad" if items else ""
    return Details("resolved", "What engines made of their settings", words, items, [table], tone)


def _states(found: Resolved) -> str:
    """How many variables are in each state; those that nothing read by their names."""
    by_state: dict[str, list[str]] = {}
    for name, state in found.variables.items():
        by_state.setdefault(state, []).append(name)
    said = [
        f"{len(names)} {state}" + (f" ({', '.join(names)})" if state == "unread" else "")
        for state, names in sorted(by_state.items())
    ]
    return ", ".join(said) or "none set"


def departures_section(summary: Summary, points: Points) -> Section:
    """What keeps the results from being submitted, and which of them."""
    labels = {cell.key: points.label(cell) for cell in summary.cells}
    items = []
    for what, keys in summary.departures.items():
        every = len(keys) == len(summary.states or labels)
        items.append(
            f"{what}: {'every result' if every else ', '.join(labels.get(k, k) for k in keys)}"
        )
    lead = "Where a result leaves the rules of its round, with its value and the rule's."
    return Section("departures", "Departures from the rules", lead, [Text(items or ["None."])])


def rehearsal_section(summary: Summary) -> Section:
    """What stands in for what in a dress rehearsal."""
    count = len(summary.states)
    columns = (
        *(Column("what", wide=True), Column("replaced by", wide=True), Column("why", wide=True)),
        *(Column("settings", wide=True), Column("results", numeric=True)),
    )
    rows = [
        [
            *(Cell(one.what), Cell(one.by), Cell(one.why), Cell(", ".join(one.settings))),
            Cell(f"{len(one.cells)} of {count}", len(one.cells)),
        ]
        for one in summary.replaced
    ]
    lead = (
        "Cells, names, scenarios, tests, what is done to the weights, scorers and tree are the "
        "submission's. The second table lists what stands in for what a CPU can't do. Speeds and "
        "scores say nothing of the system."
    )
    replaced = Table("replaced", "One row for each thing that is replaced.", columns, rows)
    return Section("rehearsal", "A dress rehearsal", lead, [_rehearsed(summary), replaced])


def _rehearsed(summary: Summary) -> Table:
    """Machine-hours of each cell's runs beside what its rehearsal took."""
    took: dict[str, float] = {}
    for trace in summary.provenance:
        if STEPS[trace.step].stage == "runs":
            key = "/".join(trace.key.split("/")[: len(AXES)])
            took[key] = took.get(key, 0.0) + trace.seconds
    rows = [
        [
            *(Cell(cell.key), Cell(cell.state)),
            number(_over(summary.expected_s.get(cell.key), 3600)),
            number(_over(took.get(cell.key), 60)),
        ]
        for cell in summary.states
    ]
    columns = (
        *(Column("cell", wide=True), Column("state")),
        *(Column("machine-hours, estimated", numeric=True), Column("minutes here", numeric=True)),
    )
    caption = "The three kinds of runs of each cell: on its system, and rehearsed."
    return Table("rehearsed", caption, columns, rows, page_only=too_long(rows))


def _over(seconds: float | None, unit: int) -> float | None:
    return None if seconds is None else seconds / unit


def confidential_section(summary: Summary) -> Section:
    """What the submission's documents leave out, and where."""
    columns = (Column("document", wide=True), Column("kind"), Column("places", numeric=True))
    rows = [
        [Cell(found.file), Cell(found.kind), number(found.count, 0)] for found in summary.redactions
    ]
    lead = (
        "Tokens, host names, users, network addresses and paths of the site, found when the "
        "submission was assembled; REDACTED_… stands in their place. Everything else of the tree "
        "was searched and holds none."
    )
    if not rows:
        return Section("confidential", "Taken out of the submission", lead, [Text(["Nothing."])])
    caption = "One row a document and kind"
    table = Table("redactions", caption, columns, rows, page_only=too_long(rows))
    return Section("confidential", "Taken out of the submission", lead, [table])


def _system(name: str, fields: dict[str, str], *, page_only: bool) -> Details:
    columns = (Column("field"), Column("value", wide=True))
    rows = [[Cell(field), Cell(value)] for field, value in fields.items()]
    description = Table(f"system-{name}", "System description", columns, rows, page_only)
    return Details(f"about-{name}", f"System {name}", "", tables=[description])


def _provenance(traces: tuple[Trace, ...]) -> Details:
    columns = (
        Column("step", choices=True),
        Column("of"),
        Column("manifest"),
        Column("code"),
        Column("made by", choices=True),
        Column("started (UTC)"),
        Column("seconds", numeric=True),
    )
    rows = [
        [
            Cell(trace.step),
            Cell(f"{trace.key} {trace.image}" if trace.image else trace.key),
            Cell(trace.manifest_sha256[:DIGITS], href=trace.manifest),
            Cell(trace.code_sha256[:DIGITS]),
            Cell(COMMIT.sub(r"\1", trace.version) or "a version that isn't recorded"),
            Cell(trace.started[:19].replace("T", " ")),
            number(trace.seconds, 0),
        ]
        for trace in traces
    ]
    table = Table("provenance-table", "One row a result of a step", columns, rows, page_only=True)
    words = (
        "Digests are sha256 of manifests and of the code that made them. They and commits are "
        f"shortened to {DIGITS} digits here and whole in summary.json. `./reproduce verify` checks "
        "all digests; "
        "`provenance/provenance.json` is the statement that leaves with the submission."
    )
    return Details("provenance", "Provenance of every result", words, tables=[table])


def _flow(summary: Summary) -> list[tuple[str, list[str]]]:
    """Stages in data order, with their steps and how many results each gave."""
    counts = Counter(trace.step for trace in summary.provenance)
    stages = [
        (
            stage,
            [
                f"{step.replace('_', ' ')} × {counts[step]}".removesuffix(" × 1")
                for step, spec in STEPS.items()
                if spec.stage == stage and step in counts
            ],
        )
        for stage in get_args(Stage)
    ]
    made = [stage for stage in stages if stage[1]]
    return [("conf", ["composed once"]), ("plan", ["frozen"]), *made, ("report", ["this page"])]
