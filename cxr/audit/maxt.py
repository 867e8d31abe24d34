"""Is any of many comparisons more than chance? Permutation of attributes between patients.

N images of one class whose attribute is known, P patients, R permutations, J comparisons.
``groups`` are (N,) patient or group names.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import rankdata

from cxr.audit.context import Floats, Masks, Names, Rows

BLOCK_VALUES = 1 << 20
"""Labels of images held at once."""


def permuted_gaps(
    right: Masks,
    values: Names,
    groups: Names,
    compared: Sequence[str],
    *,
    rng: np.random.Generator,
    permutations: int,
) -> Floats:
    """Return by how many standard errors each group lies below the rest, seen and permuted.

    ``right`` says which images are classified rightly, values (N,) are of the attribute, all known;
    J of them are compared with the rest.

    Returns:
        (R + 1, J), the observed first; 0 where every image is right or none is.
    """
    order = np.argsort(groups, kind="stable")
    hits, values = right[order].astype(np.float64), values[order]
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    likeness = _likeness(hits, starts, sizes)
    blocks = [
        np.stack(
            [_below(values[places] == value, hits, starts, likeness) for value in compared], axis=1
        )
        for places in permuted_places(sizes, rng=rng, permutations=permutations)
    ]
    return np.concatenate(blocks)


def permuted_places(sizes: Rows, *, rng: np.random.Generator, permutations: int) -> Iterator[Rows]:
    """Yield, in blocks, which image's value each image has when patients exchange theirs.

    A patient's values move together to another patient. Where that one has more images they
    begin again, where fewer the last are left out, from a place drawn at random; an attribute
    that every patient has only one of (sex) is permuted exactly. ``sizes`` are the images of each
    patient, (P,), which lie side by side, N in all.

    Yields:
        (rows, N), R + 1 rows in all; in the first each image keeps its own.
    """
    starts, total = np.cumsum(sizes) - sizes, int(sizes.sum())
    patient = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(total) - starts[patient]
    rows = max(1, BLOCK_VALUES // total)
    for start in range(0, permutations + 1, rows):
        count = min(rows, permutations + 1 - start)
        donors = rng.permuted(np.tile(np.arange(len(sizes)), (count, 1)), axis=1)
        shift = rng.integers(sizes.max() * 100, size=donors.shape)
        if start == 0:
            donors[0], shift[0] = np.arange(len(sizes)), 0
        donor = donors[:, patient]
        yield starts[donor] + (place + shift[:, patient]) % sizes[donor]


def permuted_aurocs(
    positive: Masks, scores: Floats, groups: Names, *, rng: np.random.Generator, permutations: int
) -> Floats:
    """Return by how many standard errors an AUROC lies above 0.5, seen and permuted.

    Patients exchange which of their images are positive, (N,); higher scores, (N,), speak for it.

    Returns:
        (R + 1, 1), the observed first; 0 where one side has no image. The error is that of N
        images by chance: Mann, Whitney 1947, Ann. Math. Stat. 18:50-60.
    """
    order = np.argsort(groups, kind="stable")
    ranks, sizes = rankdata(scores[order]), np.unique(groups, return_counts=True)[1]
    above = []
    for places in permuted_places(sizes, rng=rng, permutations=permutations):
        inside = positive[order][places]
        count = inside.sum(axis=1)
        pairs = np.maximum(count * (len(scores) - count), 1)
        gap = (inside @ ranks - count * (count + 1) / 2) / pairs - 0.5
        gap[(count == 0) | (count == len(scores))] = 0
        above.append(gap / np.sqrt((len(scores) + 1) / (12 * pairs)))
    return np.concatenate(above)[:, None]


def _likeness(right: Floats, starts: Rows, sizes: Rows) -> float:
    """Return the correlation within patients, 0 to 1, by the mean product of their pairs."""
    rest = right - right.mean()
    pairs = (sizes * (sizes - 1)).sum()
    products = (np.add.reduceat(rest, starts) ** 2).sum() - (rest**2).sum()
    spread = (rest**2).mean()
    return float(np.clip(products / (pairs * spread), 0, 1)) if pairs and spread else 0.0


def _below(inside: Masks, right: Floats, starts: Rows, likeness: float) -> Floats:
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

    Of statistics (R + 1, J), the observed first, large ones speak against chance.

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
