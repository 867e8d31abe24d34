"""Whether an image is in colour, which no X-ray is. H W pixels."""

import math

import numpy as np
from numpy.typing import NDArray

COLOUR_LIMIT = 5.0
"""Gray levels of 255. A gray image stored in colour, tinted throughout or with coloured marks lies
below 2, ten photographs at 8 and beyond."""


def colourfulness(rgb: NDArray[np.uint8]) -> float:
    """Measure what of an image's colours its gray does not explain.

    Each channel is fitted by a line through the gray, so that an image that is tinted
    throughout, as an old scan may be, counts as gray. The fit is repeated on the best 70 % of
    the pixels, and the worst fifth does not count, so that coloured marks do not make an image a
    photograph. Of (H, W, 3) uint8, not yet made gray, some four thousand pixels are looked at.

    Returns:
        What four fifths of the pixels lie below, in gray levels of 255. See ``COLOUR_LIMIT``.
    """
    step = max(1, math.isqrt(rgb.shape[0] * rgb.shape[1] // 4_000))
    sample = rgb[::step, ::step].reshape(-1, 3).astype(np.float64)
    if np.ptp(sample, axis=1).max() <= 2:
        # Gray saved as colour, the common case.
        return 0.0
    gray = sample.mean(axis=1)
    kept = np.ones(len(gray), bool)
    off = np.zeros(len(gray))
    for _ in range(4):
        some, colours = gray[kept] - gray[kept].mean(), sample[kept].mean(axis=0)
        slopes = some @ sample[kept] / max(float(some @ some), 1e-9)
        line = colours + np.outer(gray - gray[kept].mean(), slopes)
        off = np.sqrt(((sample - line) ** 2).mean(axis=1))
        kept = off <= np.quantile(off, 0.7)
    return float(np.quantile(off, 0.8))
