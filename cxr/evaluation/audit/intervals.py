"""How much is asked before a share is judged, and how far two shares lie apart. N films."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.evaluation.bootstrap import interval, resample_weights
from cxr.evaluation.intervals import share_interval as share_interval

TOO_FEW = 20
"""Films below which nothing is said about a share: at 19 of 20 the interval already reaches
from 0.76 to 0.99."""


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
