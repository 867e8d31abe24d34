"""The images that an audit test looks at, and how it draws from them.

N images, S side of prepared pixels, K classes, R resamples, J columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.evaluation.bootstrap import interval, resample_weights

Rows = NDArray[np.int64]
Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]
CHUNK = 256
"""Images whose masks are held in memory at once."""


@dataclass(frozen=True)
class Images:
    """The images of a run with what is known of them.

    Attributes:
        pixels: (N, S, S) uint8, all images of the prepared set.
        targets: (N,) class positions.
        groups: (N,) patient or group names.
        labels: K class names.
        fit_rows: images that a linear model may learn from (train).
        test_rows: images on which everything is measured.
        has_mask: (N,) whether the image's lungs are outlined.
        read_masks: from rows to their (n, S, S) lung masks. A function, since the masks of a
            large set do not fit in memory.
    """

    pixels: NDArray[np.uint8]
    targets: NDArray[np.int64]
    groups: NDArray[np.str_]
    labels: tuple[str, ...]
    fit_rows: Rows
    test_rows: Rows
    has_mask: Masks
    read_masks: Callable[[Rows], Masks]

    @property
    def side_px(self) -> int:
        """S."""
        return int(self.pixels.shape[-1])

    def masked(self, rows: Rows) -> Rows:
        """Return those of the rows that have a mask."""
        return rows[self.has_mask[rows]]

    def with_lungs(self, rows: Rows) -> Rows:
        """Return those of the rows whose mask holds any lung; a mask may be there and black."""
        rows = self.masked(rows)
        found = [
            self.read_masks(rows[start : start + CHUNK]).any(axis=(1, 2))
            for start in range(0, len(rows), CHUNK)
        ]
        return rows[np.concatenate(found)] if found else rows

    def counts(self, rows: Rows) -> dict[str, int]:
        """Count the images of each class."""
        found = np.bincount(self.targets[rows], minlength=len(self.labels))
        return {label: int(found[k]) for k, label in enumerate(self.labels)}


def draw_per_class(
    rows: Rows, targets: NDArray[np.int64], most: int, rng: np.random.Generator
) -> Rows:
    """Draw at most so many images of each class, in the rows' order.

    Args:
        rows: to draw from.
        targets: (N,) class positions of all images.
        most: images of a class.
        rng: source of the draw.
    """
    drawn = [rng.permutation(rows[targets[rows] == k])[:most] for k in np.unique(targets[rows])]
    return np.sort(np.concatenate(drawn)) if drawn else rows


def draw_alike(
    rows: Rows, targets: NDArray[np.int64], count: int, rng: np.random.Generator
) -> Rows:
    """Draw images so that the classes keep their shares, and each class at least one image.

    Args:
        rows: to draw from.
        targets: (N,) class positions of all images.
        count: images wanted, to the rounding of the shares; all where there are no more.
        rng: source of the draw.
    """
    share = min(1.0, count / max(len(rows), 1))
    drawn = []
    for k in np.unique(targets[rows]):
        own = rows[targets[rows] == k]
        drawn.append(rng.permutation(own)[: max(1, round(share * len(own)))])
    return np.sort(np.concatenate(drawn)) if drawn else rows


def mean_intervals(
    values: ArrayLike, groups: ArrayLike, *, rng: np.random.Generator, resamples: int
) -> list[dict[str, float]]:
    """Average columns over images, with intervals from resampled groups.

    All columns see the same resamples.

    Args:
        values: (N, J) or (N,); NaN where an image has no value, which then does not count.
        groups: (N,) patient or group names.
        rng: source of the resamples.
        resamples: R.

    Returns:
        Per column ``value``, ``low``, ``high``; NaN where no image has a value.
    """
    table = np.asarray(values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    known = ~np.isnan(table)
    filled = np.where(known, table, 0.0)
    names = np.asarray(groups)
    weights = [np.ones((1, len(table)))]
    if len(table) and resamples:
        weights.append(resample_weights(names, resamples, rng))
    draws = np.concatenate(weights)
    over, under = draws @ filled, draws @ known.astype(np.float64)
    means = np.full(over.shape, np.nan)
    np.divide(over, under, out=means, where=under > 0)
    return [interval(means[:, j]) for j in range(table.shape[1])]
