"""Intervals of shares that never lose their width. N films."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from cxr.evaluation.bootstrap import CONFIDENCE, interval, resample_weights

TOO_FEW = 20
"""Films below which nothing is said about a share: at 19 of 20 the interval already reaches
from 0.76 to 0.99."""


def share_interval(hits: ArrayLike, groups: ArrayLike) -> dict[str, float]:
    """Return the share of hits with a Wilson interval that counts patients, not films.

    Films of one patient are not independent, so the interval is that of as many observations
    as there are groups, which is on the safe side. Unlike a bootstrap's it has a width also
    where every film is right.

    Args:
        hits: (N,) true where the film counts.
        groups: (N,) patient or group names.

    Returns:
        ``value``, ``low``, ``high``; all NaN without films.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    right, count = np.asarray(hits, np.float64), len(np.unique(np.asarray(groups)))
    if not len(right):
        return {"value": np.nan, "low": np.nan, "high": np.nan}
    share, z = float(right.mean()), float(norm.ppf(0.5 + CONFIDENCE / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return {"value": share, "low": max(0.0, float(middle - half)),
            "high": min(1.0, float(middle + half))}  # fmt: skip


def difference_interval(
    values: ArrayLike,
    chosen: NDArray[np.bool_],
    groups: ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int,
) -> dict[str, float]:
    """Return the mean of the chosen films minus that of the others, by resampled groups.

    Args:
        values: (N,) such as whether a film is right.
        chosen: (N,) which films.
        groups: (N,) patient or group names.
        rng: source of the resamples.
        resamples: of groups.

    Returns:
        ``value``, ``low``, ``high``; NaN where one side has no film.
    """
    right, inside = np.asarray(values, np.float64), chosen.astype(np.float64)
    weights = np.concatenate([np.ones((1, len(right))), resample_weights(groups, resamples, rng)])
    means = []
    for part in (inside, 1 - inside):
        total = weights @ part
        mean = np.full(len(weights), np.nan)
        np.divide(weights @ (right * part), total, out=mean, where=total > 0)
        means.append(mean)
    return interval(means[0] - means[1])
