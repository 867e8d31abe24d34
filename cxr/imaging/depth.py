"""Stored values of up to 16 bits to 8: counted, mapped as one table, looked up.

DICOM (``cxr.imaging.dicom``) and deep PNG and TIFF (``cxr.imaging.raster``) share it. A stored
value has at most 16 bits, so every step works on the table of all values and the image is looked
up once. V = 2 ** bits stored, H W pixels.
"""

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

ROBUST = (0.001, 0.999)
"""Shares of the pixels below black and below white where no window is given: defects of a
detector and of the image's edge are fewer (50 pixels of 224 x 224), burnt-in letters more."""
LEAST_SHOWN = 0.02
"""A window that clips more than all but this share of the image is taken for a mistake."""

_STRIP_PIXELS = 4_000_000


def robust_range(
    values: Table, counts: NDArray[np.int64], shares: tuple[float, float] = ROBUST
) -> tuple[float, float]:
    """Return the values below which two shares of the pixels lie, 0.1 % and 99.9 % by default.

    ``values`` (V,) are those of the stored codes, ``counts`` (V,) the pixels of each.
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    if not reached[-1]:
        return float(values.min()), float(values.max())
    low, high = (order[np.searchsorted(reached, share * reached[-1])] for share in shares)
    return float(values[low]), float(values[high])


def between(values: Table, low: float, high: float) -> Table:
    """Map ``low`` to 0 and ``high`` to 1; an image of one value is black."""
    if high <= low:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def shows_enough(shown: Table, counts: NDArray[np.int64]) -> bool:
    """Tell whether a mapping leaves at least 2 % of the pixels unclipped."""
    total = counts.sum()
    return bool(total == 0 or counts[(shown > 0) & (shown < 1)].sum() >= LEAST_SHOWN * total)


def to_bytes(shown: Table, *, inverted: bool) -> NDArray[np.uint8]:
    """Round 0 to 1 to 0 to 255, black and white exchanged where asked."""
    eight = np.floor(shown * 255 + 0.5).astype(np.uint8)
    return np.invert(eight) if inverted else eight


def count_codes(codes: NDArray[np.uint8] | NDArray[np.uint16], bits: int) -> NDArray[np.int64]:
    """Count the pixels of each stored code, (V,) int64."""
    flat = codes.reshape(-1)
    counts = np.zeros(1 << bits, np.int64)
    # In strips: NumPy widens what it counts and what it looks up to 8 bytes a pixel.
    for first in range(0, flat.size, _STRIP_PIXELS):
        counts += np.bincount(flat[first : first + _STRIP_PIXELS], minlength=counts.size)
    return counts


def apply_table(
    table: NDArray[np.uint8], codes: NDArray[np.uint8] | NDArray[np.uint16]
) -> NDArray[np.uint8]:
    """Look every pixel up; return uint8 of the shape of ``codes``."""
    flat = codes.reshape(-1)
    image = np.empty(flat.size, np.uint8)
    for first in range(0, flat.size, _STRIP_PIXELS):
        image[first : first + _STRIP_PIXELS] = table[flat[first : first + _STRIP_PIXELS]]
    return image.reshape(codes.shape)
