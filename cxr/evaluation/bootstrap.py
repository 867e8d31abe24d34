"""Percentile intervals by drawing patients, not images, with replacement.

N samples, R resamples. ``groups`` are (N,) patient or group names.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from cxr.evaluation.intervals import CONFIDENCE
from cxr.evaluation.metrics import Floats

Key = TypeVar("Key")
RESAMPLES = 2000
BLOCK_VALUES = 1 << 18
"""Weights handled at once, 2 MB: small enough for a core's cache, which measured fastest."""


def resample_weights(groups: ArrayLike, resamples: int, rng: np.random.Generator) -> Floats:
    """Draw as many groups as there are, with replacement, and count each image's draws.

    Returns:
        (R, N) whole numbers as float64; images of one group have equal counts.

    Source: the cluster bootstrap, Davison and Hinkley 1997, section 3.8.
    """
    names, positions = np.unique(np.asarray(groups), return_inverse=True)
    share = np.full(len(names), 1 / len(names))
    return rng.multinomial(len(names), share, size=resamples)[:, positions].astype(np.float64)


def weight_blocks(groups: ArrayLike, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield (rows, N) weights: the row of ones, then R resamples, a cacheful at a time."""
    n_samples = len(np.asarray(groups))
    yield np.ones((1, n_samples))
    rows = max(1, BLOCK_VALUES // max(n_samples, 1))
    for start in range(0, resamples, rows):
        yield resample_weights(groups, min(rows, resamples - start), rng)


def resample(
    groups: ArrayLike,
    statistics: Mapping[Key, Callable[[Floats], Any]],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[Key, list[Any]]:
    """Compute statistics on the test set and on resamples of its patients, all on the same draws.

    Each statistic gives values of (rows, N) weights.

    Returns:
        Per statistic what it gave for each block of ``weight_blocks``, R + 1 rows together; row 0
        is the point value.
    """
    parts: dict[Key, list[Any]] = {name: [] for name in statistics}
    for weights in weight_blocks(groups, resamples, rng):
        for name, statistic in statistics.items():
            parts[name].append(statistic(weights))
    return parts


def interval(draws: ArrayLike) -> dict[str, float]:
    """Turn (R + 1,) draws of a metric, the point value first, into value and percentile interval.

    Returns:
        ``value``, ``low``, ``high``; the 2.5 % and 97.5 % points of the resamples in which
        the metric is defined. All NaN where the value is. Where every image is right (or
        every one wrong) so is every resample, and the interval has no width: read it then
        as "none seen in this many", not as certainty.
    """
    values = np.asarray(draws, np.float64)
    defined = values[1:][~np.isnan(values[1:])]
    low, high = np.nan, np.nan
    if len(defined) and not np.isnan(values[0]):
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}
