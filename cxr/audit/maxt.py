"""Is any of many groups lower than the rest? Permutation of attributes between patients.

N images of one class whose attribute is known, P patients, R permutations, J comparisons.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BLOCK_VALUES = 1 << 20
"""Labels of images held at once."""


def permuted_gaps(
    right: NDArray[np.bool_],
    values: NDArray[np.str_],
    groups: NDArray[np.str_],
    compared: Sequence[str],
    *,
    rng: np.random.Generator,
    permutations: int,
) -> Floats:
    """Return by how many standard errors each group lies below the rest, seen and permuted.

    A patient's values move together to another patient. Where that one has more images they
    begin again, where fewer the last are left out, from a place drawn at random; an attribute
    that every patient has only one of (sex) is permuted exactly.

    Args:
        right: (N,) whether the image is classified rightly.
        values: (N,) of the attribute, all known.
        groups: (N,) patient or group names.
        compared: J values to compare with the rest.
        rng: of the permutations.
        permutations: R.

    Returns:
        (R + 1, J), the observed first; 0 where every image is right or none is.
    """
    order = np.argsort(groups, kind="stable")
    hits, values = right[order].astype(np.float64), values[order]
    _, starts, patient, sizes = np.unique(
        groups[order], return_index=True, return_inverse=True, return_counts=True
    )
    place = np.arange(len(hits)) - starts[patient]
    likeness = _likeness(hits, starts, sizes)
    blocks = []
    rows = max(1, BLOCK_VALUES // len(hits))
    for start in range(0, permutations + 1, rows):
        count = min(rows, permutations + 1 - start)
        donors = rng.permuted(np.tile(np.arange(len(sizes)), (count, 1)), axis=1)
        shift = rng.integers(sizes.max() * 100, size=donors.shape)
        if start == 0:
            donors[0], shift[0] = np.arange(len(sizes)), 0
        donor = donors[:, patient]
        labels = values[starts[donor] + (place + shift[:, patient]) % sizes[donor]]
        blocks.append(
            np.stack(
                [_below(labels == value, hits, starts, likeness) for value in compared], axis=1
            )
        )
    return np.concatenate(blocks)


def _likeness(right: Floats, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> float:
    """Return the correlation within patients, 0 to 1, by the mean product of their pairs."""
    rest = right - right.mean()
    pairs = (sizes * (sizes - 1)).sum()
    products = (np.add.reduceat(rest, starts) ** 2).sum() - (rest**2).sum()
    spread = (rest**2).mean()
    return float(np.clip(products / (pairs * spread), 0, 1)) if pairs and spread else 0.0


def _below(
    inside: NDArray[np.bool_], right: Floats, starts: NDArray[np.int64], likeness: float
) -> Floats:
    """Return (R,) standard errors by which the images inside (R, N) lie below the others.

    The error is that without any gap, so that it does not vanish where all of a small group
    are wrong; with coefficients c of the images in the gap its square is s (1 - s) times
    (1 - likeness) sum c^2 + likeness (sum of squares of the patients' sums of c).
    """
    total, share = len(right), right.mean()
    count = inside.sum(axis=1)
    other = total - count
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (inside @ right) / count - (~inside @ right) / other
        of_patient = np.add.reduceat(inside.astype(np.float64), starts, axis=1)
        sizes = np.diff(np.append(starts, total))
        sums = of_patient / count[:, None] - (sizes - of_patient) / other[:, None]
        square = (1 - likeness) * (1 / count + 1 / other) + likeness * (sums**2).sum(axis=1)
        below = -gap / np.sqrt(share * (1 - share) * square)
    return np.asarray(np.where(np.isfinite(below), below, 0.0))


def adjusted_p(statistics: Floats) -> Floats:
    """Return each comparison's p-value, adjusted so that 5 % of families hold one below 0.05.

    Args:
        statistics: (R + 1, J), the observed first; large ones speak against chance.

    Returns:
        (J,), 1 / (R + 1) to 1.

    Source: Westfall and Young 1993, Resampling-Based Multiple Testing, algorithm 4.1 (step-down
    maxT); the observed counts among the permuted, Phipson and Smyth 2010.
    """
    order = np.argsort(-statistics[0])
    # The largest of a comparison and of all that were observed to be smaller.
    most = np.maximum.accumulate(statistics[:, order[::-1]], axis=1)[:, ::-1]
    p = np.maximum.accumulate((most >= most[0] - 1e-9).mean(axis=0))
    return np.asarray(p[np.argsort(order)], np.float64)
