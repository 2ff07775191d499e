"""How sure a ratio of two means is, when both were measured on the same prompts."""

from typing import Any

RESAMPLES = 2_000


def ratio_interval(values: Any, reference: Any) -> tuple[float, float, float]:
    """Ratio of the means of two arrays in percent, with a paired bootstrap 95 % interval.

    (ratio, low, high); row n of both is prompt n. The draws are the same in every call. The
    interval isn't finite if a draw has no reference above 0.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    rows = generator.integers(0, len(values), size=(RESAMPLES, len(values)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = values[rows].mean(1) / reference[rows].mean(1)
        low, high = (float(np.percentile(ratios, share)) for share in (2.5, 97.5))
    ratio = values.mean() / reference.mean()
    return 100 * float(ratio), 100 * low, 100 * high
