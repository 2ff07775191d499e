"""The section of own accuracy: scores, gates, compliance tests, and the cost of precision."""

from steps.report import accuracy_charts
from steps.report.blocks import Cell, Column, Section, Table, number, share, too_long
from steps.report.points import Points
from steps.report.summary import CellResult

WORDS = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "exact_match": "exact match, %",
    "gsm8k": "GSM8K, %",
    "mbxp": "MBXP, %",
    "tokens_per_sample": "tokens per sample",
    "CLIP_SCORE": "CLIP",
    "FID_SCORE": "FID",
    "gen_len": "characters",
    "gen_num": "answers",
    "gen_tok_len": "tokens",
}

COUNTS = ("gen_len", "gen_num", "gen_tok_len")
"""What the round's scripts count beside what they score."""


def accuracy_section(points: Points) -> Section:
    """The table of verdicts, then metrics against gates and throughput."""
    cells = points.cells
    metrics = list(dict.fromkeys(name for cell in cells for name in cell.scores))
    gates = list(dict.fromkeys(gate.name for cell in cells for gate in cell.gates))
    tests = list(dict.fromkeys(test for cell in cells for test in cell.compliance))
    columns = [
        *points.columns(),
        *(Column(WORDS.get(name, name), numeric=True) for name in metrics),
        *(Column(f"gate {name}: lowest, of its bound", numeric=True) for name in gates),
        *(Column(test) for test in tests),
    ]
    rows = [
        [
            *points.row(cell),
            *(_score(cell, name) for name in metrics),
            *(_gate(cell, name) for name in gates),
            *(_test(cell, test) for test in tests),
        ]
        for cell in cells
    ]
    measured = {points.label(cell): _ratios(cell) for cell in cells if _ratios(cell)}
    charts = (accuracy_charts.gates(measured), accuracy_charts.trade_offs(_trade_offs(points)))
    return Section(
        "accuracy",
        "Accuracy and compliance",
        f"{points.shared} Scores link to what the round's evaluation wrote, gates and tests to "
        "their verdicts.".strip(),
        [
            Table("accuracy-table", "One row a result", columns, rows, too_long(rows)),
            *(chart for chart in charts if chart),
        ],
    )


def _score(cell: CellResult, name: str) -> Cell:
    digits = 0 if name in COUNTS else 4
    return number(cell.scores.get(name), digits, href=cell.evidence["accuracy"])


def _ratios(cell: CellResult) -> dict[str, float]:
    return {WORDS.get(name, name): ratio for name, ratio in cell.reference_ratios.items()}


def _trade_offs(points: Points) -> list[accuracy_charts.Point]:
    """Results of benchmarks that were run in more than one way: there is no trade between
    benchmarks.
    """
    ways: dict[str, set[tuple[str, str]]] = {}
    for cell in points.cells:
        ways.setdefault(cell.benchmark, set()).add((cell.compression, cell.precision))
    return [
        accuracy_charts.Point(
            points.label(cell, without="scenario"),
            cell.value,
            cell.unit,
            min(_ratios(cell).values()),
        )
        for cell in points.cells
        if cell.scenario == "Offline" and cell.value > 0 and _ratios(cell)
        if len(ways[cell.benchmark]) > 1
    ]


def _gate(cell: CellResult, name: str) -> Cell:
    gate = next((gate for gate in cell.gates if gate.name == name), None)
    if gate is None:
        return Cell("–")
    return share(
        gate.lowest_ratio,
        2,
        href=cell.evidence["gates"],
        tone="good" if gate.passed else "bad",
        note=("✓" if gate.passed else "✗") + (" required" if gate.required else ""),
    )


def _test(cell: CellResult, test: str) -> Cell:
    passed = cell.compliance.get(test)
    if passed is None:
        return Cell("–")
    return Cell(
        "✓ passed" if passed else "✗ failed",
        href=cell.evidence[test],
        tone="good" if passed else "bad",
    )
