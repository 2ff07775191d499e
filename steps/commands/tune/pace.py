"""The pace of decoding by the number of requests that run, from each one's first and last token.

An answer's tokens are the sum, over levels of concurrency that it lived through, of time and speed.
Least squares over all answers give the speed at each level, which a mean over answers would blur:
each lives through many.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steps.commands.tune.concurrency import Concurrency
from steps.commands.tune.measure import Samples

LEVEL = 1.03
"""Levels of concurrency with a linear pace between them: each this many times the one before."""

RARE = 0.002
"""Levels with a smaller share of the time are ignored."""

ROUGH = 0.01
"""How far one level's speed may be off the line between its neighbours', as a share of it."""

SOLVED = 4
"""Iterations until speeds, their scatter and the slowness of engines agree."""

SLOWEST = 0.05
"""The least speed of a level, as a part of the usual one."""


@dataclass(frozen=True)
class Pace:
    """`table` holds the s per token with 0, 1, 2, ... running on one engine; each start costs the
    others `stall` tokens. `factors`: how many times as long each answer took as that says.
    `slowness` of each engine.
    """

    table: np.ndarray
    stall: float
    factors: np.ndarray
    slowness: np.ndarray


def fit_pace(
    probes: Sequence[Samples],
    views: Sequence[Concurrency],
    answered: Sequence[np.ndarray],
    replica: np.ndarray,
) -> Pace:
    """Fit the answers that `answered` selects, in each engine's share of each probe.

    `replica`: the engine of each answer.
    """
    levels = _levels(views)
    parts = list(zip(probes, views, answered, strict=True))
    tokens = np.concatenate([samples.tokens[which] - 1.0 for samples, _, which in parts])
    lived = np.concatenate([_lived(*part, levels) for part in parts])
    stalls = np.concatenate([_stalls(samples, which) for samples, _, which in parts])
    together = max(float(np.mean([view.running.mean() for view in views])), 1.0)
    replicas = np.arange(replica.max() + 1)
    slowness = np.ones(len(replicas))
    for _ in range(SOLVED if len(replicas) > 1 else 1):
        mine = lived / slowness[replica][:, None]
        speeds, stall = _solved(mine, stalls, tokens, together)
        amounts = (mine * speeds).sum(axis=0)
        levelled = _never_falling(1 / speeds, np.maximum(amounts, 1e-9))
        expected = mine @ (1 / levelled) - stall * stalls
        if len(replicas) > 1:
            ratios = [expected[replica == n].sum() / tokens[replica == n].sum() for n in replicas]
            slowness = slowness * ratios / np.mean(slowness * ratios)
    return Pace(_table(levels, levelled), stall, np.maximum(expected, 0.0) / tokens, slowness)


def _levels(views: Sequence[Concurrency]) -> np.ndarray:
    """Numbers running that lasted long enough."""
    running = np.concatenate([view.running[:-1] for view in views])
    spans = np.concatenate([np.diff(view.times) for view in views])
    spans[running < 1] = 0
    order = np.argsort(running)
    share = np.cumsum(spans[order]) / spans.sum()
    low, high = running[order][np.searchsorted(share, [RARE, 1 - RARE])]
    count = max(1, int(np.ceil(np.log(high / low) / np.log(LEVEL))))
    result: np.ndarray = np.unique(np.rint(np.geomspace(low, high, count + 1)))
    return result


def _lived(
    samples: Samples, view: Concurrency, which: np.ndarray, levels: np.ndarray
) -> np.ndarray:
    """Seconds of each answer at each level; between two it is at both, by its distance to each."""
    at = np.clip(view.running, levels[0], levels[-1])
    upper = np.minimum(np.searchsorted(levels, at), len(levels) - 1)
    lower = np.maximum(upper - 1, 0)
    share = (at - levels[lower]) / np.maximum(levels[upper] - levels[lower], 1)
    rows = np.arange(len(at))
    shares = np.zeros((len(at), len(levels)))
    shares[rows, lower] = 1 - share
    shares[rows, upper] += share
    area = np.zeros_like(shares)
    np.cumsum(shares[:-1] * np.diff(view.times)[:, None], axis=0, out=area[1:])

    def until(moments: np.ndarray) -> np.ndarray:
        last = np.searchsorted(view.times, moments, side="right") - 1
        sums: np.ndarray = area[last] + shares[last] * (moments - view.times[last])[:, None]
        return sums

    result: np.ndarray = until(samples.completed[which]) - until(samples.first[which])
    return result


def _stalls(samples: Samples, which: np.ndarray) -> np.ndarray:
    """How many others started while each answer was given."""
    starts = np.sort(samples.first[~np.isnan(samples.first)])
    before = np.searchsorted(starts, samples.first[which], side="right")
    result: np.ndarray = np.searchsorted(starts, samples.completed[which]) - before
    return result


def _solved(
    lived: np.ndarray, stalls: np.ndarray, tokens: np.ndarray, together: float
) -> tuple[np.ndarray, float]:
    """Tokens per s at each level, and tokens that a start costs, which are never negative.

    The scatter of an answer's tokens grows as their root. `together`: so many run at a time.
    """
    usual = float(tokens.sum() / lived.sum())
    root, count = np.sqrt(tokens), lived.shape[1]
    columns = np.column_stack([lived, -stalls]) / root[:, None]
    gram, said = columns.T @ columns, columns.T @ root
    bends = np.diff(np.eye(count), 2, axis=0) / (ROUGH * usual)
    smooth = np.zeros_like(gram)
    smooth[:count, :count] = bends.T @ bends
    scatter, kept = 1.0, count + 1
    for _ in range(SOLVED):
        matrix = (gram + scatter**2 * smooth)[:kept, :kept]
        found = np.linalg.lstsq(matrix, said[:kept], rcond=None)[0]
        if kept > count and found[-1] < 0:
            kept = count
            continue
        # Answers that are given at a time scatter alike, and count as one.
        scatter = float((root - columns[:, :kept] @ found).std()) * math.sqrt(together)
    stall = float(found[-1]) if kept > count else 0.0
    speeds: np.ndarray = np.maximum(found[:count], SLOWEST * usual)
    return speeds, stall


def _table(levels: np.ndarray, pace: np.ndarray) -> np.ndarray:
    """By every number running: straight between levels, and beyond them as the nearest rise."""
    reach = np.arange(int(4 * levels[-1]) + 64)
    table: np.ndarray = np.array(np.interp(reach, levels, pace))
    if len(levels) > 1:
        upper = slice(len(levels) // 2, None) if len(levels) >= 4 else slice(None)
        slope = max(0.0, float(np.polyfit(levels[upper], pace[upper], 1)[0]))
        lower = max(0.0, float(np.polyfit(levels, pace, 1)[0]))
        table += slope * np.maximum(reach - levels[-1], 0)
        table -= np.minimum(lower * np.maximum(levels[0] - reach, 0), 0.8 * pace[0])
    return table


def _never_falling(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest series that never falls: neighbours that do are averaged."""
    blocks: list[tuple[float, float, int]] = []
    for mean, weight in zip(means, weights, strict=True):
        blocks.append((float(mean), float(weight), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, wa, na), (b, wb, nb) = blocks[-2:]
            blocks[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    result: np.ndarray = np.concatenate([np.full(count, mean) for mean, _, count in blocks])
    return result
