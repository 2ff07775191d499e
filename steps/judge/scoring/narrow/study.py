"""What the gates of the embedded pictures tell apart: `python -m steps.judge.scoring.narrow.study`.

Draws the first captions with the shipped weights in several ways, scores them with the scorers of
the flow, and writes the table of docs/explanation/rehearsal-pictures.md. `--reference` prints the
scores that the benchmark's bounds are made of.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import yaml
from numpy.typing import NDArray

from steps import ROOT
from steps.base.errors import UserError
from steps.judge.scoring.images import Measured
from steps.judge.scoring.narrow.drawn import CAPABILITY, Drawn, Variant, drawn
from steps.prepare.rehearsal import pages

PAGE = ROOT / "docs/explanation/rehearsal-pictures.md"
BENCHMARK = ROOT / "conf/benchmark/rehearsal-sdxl.yaml"
START, END = "<!-- study -->", "<!-- end of study -->"
METRICS = ("CLIP_SCORE", "FID_SCORE")

DRAWS, SEED = 400, 5
"""Resamples of the pictures for the intervals."""

AVX2_ONLY = {
    CAPABILITY: "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""ATen's variable says nothing to the libraries that convolve and multiply for it."""

REFERENCE = Variant("fp32, as configured")
VARIANTS = (
    REFERENCE,
    *(
        Variant(f"{CAPABILITY}={one}", environment={CAPABILITY: one}, alike=True)
        for one in ("default", "avx2", "avx512")
    ),
    Variant("ATen, oneDNN and MKL with AVX2", environment=AVX2_ONLY, alike=True),
    Variant("2 threads", threads=2, alike=True),
    Variant("captions in another order", reordered=True, alike=True),
    *(Variant(f"batches of {size}", batch=size, alike=True) for size in (1, 4, 16)),
    Variant("fp16", dtype="float16"),
    Variant("fp16, captions in another order", dtype="float16", reordered=True, beside="fp16"),
    Variant("bf16", dtype="bfloat16"),
    Variant("bf16, captions in another order", dtype="bfloat16", reordered=True, beside="bf16"),
    Variant("10 steps", steps=10),
    Variant("2 steps", steps=2),
    Variant("guidance 5", guidance=5.0),
    Variant("guidance 1", guidance=1.0),
    Variant("captions of the next sample", shifted=True),
)

Bounds = Mapping[str, tuple[float, float]]


def bounds(samples: int) -> Bounds:
    """The least and the most of each score that the benchmark's gate allows so many samples."""
    with BENCHMARK.open(encoding="utf-8") as stream:
        references: dict[str, Any] = yaml.safe_load(stream)["reference"]
    for reference in references.values():
        if reference["samples"] == samples:
            found = reference["bounds"]
            return {name: (found["minimum"][name], found["maximum"][name]) for name in METRICS}
    raise UserError(f"{BENCHMARK} has no bounds for {samples} samples; choose a length that has")


def values(found: Measured) -> tuple[float, float]:
    """CLIP and FID."""
    scores = found.scores()
    return scores.clip, scores.fid


def row(variant: Variant, found: Drawn, usual: Drawn, beside: Drawn, allowed: Bounds) -> str:
    """One line of the table. `usual`: the reference. `beside`: what its pictures have to be."""
    measured = found.measured
    own, theirs = _resampled(measured), _resampled(usual.measured)
    cells = [variant.name]
    for at, (score, other) in enumerate(zip(values(measured), values(usual.measured), strict=True)):
        low, high = _interval(own[:, at])
        least, most = _interval(100 * (own[:, at] / theirs[:, at] - 1))
        cells += [f"{score:.4f} [{low:.3f}, {high:.3f}]"]
        cells += [f"{100 * (score / other - 1):+.4f} % [{least:+.3f}, {most:+.3f}]"]
    cells += [_verdict(measured, allowed), _differing(found, beside)]
    return f"| {' | '.join(cells)} |"


def _resampled(found: Measured) -> NDArray[numpy.float64]:
    """(draws, 2): both scores of pictures drawn with repetition, the same ones in every call."""
    chance = numpy.random.default_rng(SEED)
    count = len(found.clip)
    draws = [chance.integers(count, size=count) for _ in range(DRAWS)]
    parts = [
        Measured(found.clip[one], found.features[one], found.mean, found.covariance)
        for one in draws
    ]
    return numpy.array([values(part) for part in parts])


def _interval(drawn_values: NDArray[numpy.float64]) -> tuple[float, float]:
    low, high = (float(numpy.quantile(drawn_values, share)) for share in (0.025, 0.975))
    return low, high


def _verdict(found: Measured, allowed: Bounds) -> str:
    missed = [
        name.removesuffix("_SCORE")
        for name, value in zip(METRICS, values(found), strict=True)
        if not allowed[name][0] <= value <= allowed[name][1]
    ]
    return f"{' and '.join(missed)} missed" if missed else "hold"


def _differing(found: Drawn, beside: Drawn) -> str:
    apart = numpy.abs(found.pictures.astype(int) - beside.pictures.astype(int)).max(axis=1)
    count = int((apart > 0).sum())
    return f"{count}, by at most {apart.max()}" if count else "none"


def spread(found: Mapping[str, Drawn], variants: Sequence[Variant], allowed: Bounds) -> str:
    """How far apart the scores of what should draw alike are, beside the width of the gates."""
    usual = values(found[REFERENCE.name].measured)
    alike = [one.name for one in variants if one.alike or one == REFERENCE]
    scores = numpy.array([values(found[name].measured) for name in alike])
    apart = 100 * (scores.max(axis=0) - scores.min(axis=0)) / usual
    width = [
        100 * (most - least) / score
        for (least, most), score in zip((allowed[name] for name in METRICS), usual, strict=True)
    ]
    said = [
        f"{name} lies within {one:.5f} %, and its gate is {whole:.1f} % wide"
        f"{f', {whole / one:,.0f} times as much' if one else ''}"
        for name, one, whole in zip(("CLIP", "FID"), apart, width, strict=True)
    ]
    return (
        "Instruction sets, threads, order and batch size "
        f"({len(alike) - 1} rows): {'; '.join(said)}."
    )


def table(samples: int, variants: Sequence[Variant] = VARIANTS) -> str:
    """The page's table of the first `samples` captions. The reference has to be the first."""
    allowed = bounds(samples)
    columns = ("drawn", "CLIP", "from the reference", "FID", "from the reference")
    lines = [
        f"| {' | '.join((*columns, 'gates', 'other pictures'))} |",
        f"|{'---|' * (len(columns) + 2)}",
    ]
    found: dict[str, Drawn] = {}
    for variant in variants:
        found[variant.name] = drawn(variant, samples)
        usual = found[REFERENCE.name]
        beside = found[variant.beside] if variant.beside else usual
        lines.append(row(variant, found[variant.name], usual, beside, allowed))
        print(lines[-1], flush=True)  # each takes a minute
    said = (
        f"First {samples:,} evaluated captions. In brackets: 95 % intervals, of {DRAWS} resamples "
        "of the pictures, paired where two rows are compared. Other pictures: how many have other "
        "bytes than the reference's (in another order: than the same type's), and by how much of "
        "255."
    )
    return "\n\n".join((said, "\n".join(lines), spread(found, variants, allowed)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m steps.judge.scoring.narrow.study")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--reference", action="store_true", help="print the scores and end")
    given = parser.parse_args()
    try:
        if given.reference:
            print(drawn(REFERENCE, given.samples).measured.scores())
        else:
            pages.insert(PAGE, table(given.samples), START, END)
    except (UserError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"study: {error}")


if __name__ == "__main__":
    main()
