"""Whether a chest image is a positive (air dark) or a negative. H W pixels.

MONOCHROME1 is at times written over pixels that are a positive already; inverting those as
the header asks gives a negative, which no model of positives may be shown.
"""

import numpy as np
from numpy.typing import NDArray

SURE = 0.5
"""Correlation above which an image is certainly a positive. Of 6,184 real positives (the set
``cxr4``) 98.2 % reach it, and none reaches -0.5, so no true negative would be mistaken."""

# Left half of the average of 6,184 chest images at 6 x 6, each source weighing the same, each
# image without its mean and at unit length, in hundredths: dark air at the sides and in the
# lungs, bright spine and diaphragm. The right half mirrors it.
_HALF = ((-28, -16, 0), (-10, -8, -1), (-9, -13, 7), (-10, -7, 19), (-12, 9, 28), (-9, 27, 35))


def polarity(image: NDArray[np.uint8]) -> float:
    """Correlate an image with the average chest image.

    Args:
        image: (H, W) uint8, at least 6 x 6.

    Returns:
        -1 to 1: positives lie near 0.7, their negatives at the same figure below 0; 0 for an
        image of one value.
    """
    side = len(_HALF)
    half = np.asarray(_HALF, np.float64)
    average = np.hstack([half, half[:, ::-1]])
    rows = np.array_split(np.arange(image.shape[0]), side)
    columns = np.array_split(np.arange(image.shape[1]), side)
    blocks = np.array(
        [[image[r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean() for c in columns] for r in rows]
    )
    blocks -= blocks.mean()
    average -= average.mean()
    length = float(np.linalg.norm(blocks) * np.linalg.norm(average))
    return float((blocks * average).sum()) / length if length > 1e-9 else 0.0
